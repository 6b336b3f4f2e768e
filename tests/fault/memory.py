"""Clients that remember what they were told while the database is in trouble."""
import threading
import time

from stack import address_of, token_id


class Client(threading.Thread):
    """Asks for codes and guesses wrong until stopped; notes what was answered, when, and how long it took."""

    def __init__(self, stack):
        super().__init__(daemon=True)
        self.stack = stack
        self.done = threading.Event()
        self.tokens = {}  # -> wrong guesses that were answered as such
        self.answers = []  # (moment, status) of every request for a code
        self.slowest = 0.0
        self.strange = []

    def timed(self, call, *arguments):
        begin = time.monotonic()
        answer = call(*arguments)
        self.slowest = max(self.slowest, time.monotonic() - begin)
        if answer.status not in (200, 401, 503):
            self.strange.append(answer)
        return answer

    def run(self):
        connection = self.stack.http()
        while not self.done.is_set():
            answer = self.timed(self.stack.generate, address_of("outage"), connection)
            self.answers.append((time.monotonic(), answer.status))
            if answer.status == 200:
                self.tokens[answer.token] = 0
                guess = self.timed(self.stack.validate, answer.token, "000000", connection)
                self.tokens[answer.token] += guess.error == "wrong_password"


class Clients(list):
    """Several of them, at work within a with statement."""

    def __init__(self, stack, count=4):
        super().__init__(Client(stack) for _ in range(count))

    def __enter__(self):
        for client in self:
            client.start()
        return self

    def __exit__(self, *_):
        for client in self:
            client.done.set()
        for client in self:
            client.join(30)

    def tokens(self):
        return sum(len(client.tokens) for client in self)

    def count(self, status, after=0.0):
        return sum(got == status and moment > after for client in self for moment, got in list(client.answers))

    def first(self, status, after):
        """When the first answer of that status came, after a moment; None: none came."""
        found = [moment for client in self for moment, got in list(client.answers) if got == status and moment > after]
        return min(found, default=None)

    def check(self, connection):
        """What was answered is stored: every token with its mail, every guess that was counted; and nothing is half done."""
        assert not [client.strange for client in self if client.strange]
        told = {token_id(token): count for client in self for token, count in client.tokens.items()}
        rows = dict(connection.execute("select c.id, c.attempts from otp.challenge c join otp.mail m using (id)").fetchall())
        lost = [token for token in told if token not in rows]
        assert not lost, f"{len(lost)} of {len(told)} tokens are lost"
        assert all(rows[token] >= count for token, count in told.items())
        half = connection.execute("select count(*) from otp.challenge c full join otp.mail m using (id) where c.id is null or m.id is null")
        assert half.fetchall() == [(0,)]
