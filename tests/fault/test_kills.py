"""P1 to P4 under kill -9 of everything: a history of what clients saw is checked against what is stored and was mailed.
OTP_SOAK=1 makes it 10,000 kills."""
import os
import random
import signal
import threading
import time

from stack import address_of, is_running, token_id, wait_for

KILLS = int(os.environ.get("OTP_KILLS", "10000" if os.environ.get("OTP_SOAK") else "24"))


class Client(threading.Thread):
    """Asks for codes, reads its mail, guesses wrong and right, several times over; notes every answer."""

    def __init__(self, stack, seed):
        super().__init__(daemon=True)
        self.stack, self.dice = stack, random.Random(seed)
        self.done = threading.Event()
        self.history = []  # per token: address, token, answers to guesses
        self.strange = []
        self.connection = stack.http(10)

    def ask(self, call, *arguments):
        try:
            answer = call(*arguments, connection=self.connection)
        except Exception:  # nginx lives on; a connection may still end early
            self.connection.close()
            self.connection = self.stack.http(10)
            return None
        if answer.status not in (200, 401, 503):
            self.strange.append(answer)
        return answer

    def run(self):
        while not self.done.is_set():
            address = address_of("kill")
            answer = self.ask(self.stack.generate, address)
            if answer is None or answer.status != 200:
                continue
            entry = {"address": address, "token": answer.token, "answers": []}
            self.history.append(entry)
            end = time.monotonic() + 0.5
            while not self.stack.smtp.to(address) and time.monotonic() < end and not self.done.is_set():
                time.sleep(0.005)
            mails = self.stack.smtp.to(address)
            code = mails[0].code if mails else None
            for _ in range(self.dice.randrange(1, 9)):
                guess = code if code and self.dice.random() < 0.4 else "%06d" % self.dice.randrange(10**6)
                answer = self.ask(self.stack.validate, entry["token"], guess)
                if answer is not None:
                    entry["answers"].append((guess == code, 200 if answer.status == 200 else answer.error))


def kill(stack, victim):
    """kill -9 of one part, then what a supervisor does: it is started again."""
    if victim == "postgres":
        stack.postgres.kill()
        stack.close_admin()
        stack.postgres.start()
    elif victim == "worker":
        process = stack.workers.pop("worker-0")
        children = [int(pid) for pid in open(f"/proc/{process.pid}/task/{process.pid}/children").read().split()]
        process.kill()
        for pid in children:  # they end with their parent
            wait_for(lambda pid=pid: not is_running(pid), 10, "the worker's sessions to end")
        stack.start_worker(0, wait=False)
    elif victim == "session":
        process = stack.workers["worker-0"]
        for pid in open(f"/proc/{process.pid}/task/{process.pid}/children").read().split():
            os.kill(int(pid), signal.SIGKILL)
    else:
        kind, number = victim.split("-")
        stack.responders.pop(victim).kill()
        stack.start_responder(kind, int(number), wait=False)


def test_p1_p2_p3_p4_kill_9_of_everything(stack):
    """P1: every returned token has challenge and mail job. P2: no mail is lost, and one that is sent twice has the same
    code, recipient and Message-ID; none after expiry. P3: at most one success per token. P4: every answer seen is on
    disk: attempts >= answers that counted one, never above five."""
    dice = random.Random(9)
    clients = [Client(stack, seed) for seed in range(4)]
    for client in clients:
        client.start()
    try:
        for turn in range(KILLS):
            before = sum(len(c.history) for c in clients)
            wait_for(lambda b=before: sum(len(c.history) for c in clients) > b + 2, 60, "traffic to go on")
            kill(stack, dice.choice(["validate-0", "validate-1", "generate-0", "worker", "session", "postgres"]) if turn > 5 else
                 ["validate-0", "generate-0", "worker", "session", "postgres", "validate-1"][turn])
    finally:
        for client in clients:
            client.done.set()
        for client in clients:
            client.join(30)
    assert not [c.strange for c in clients if c.strange]
    history = [entry for client in clients for entry in client.history]
    rows = {row[0]: row[1:] for row in stack.query(
        "select c.id, c.email, c.attempts, c.used_at is not null, c.expires_at, m.state::text from otp.challenge c join otp.mail m using (id)")}
    successes = 0
    for entry in history:
        row = rows.get(token_id(entry["token"]))
        assert row is not None, f"a returned token has no challenge with a mail job: {entry}"
        email, attempts, used, _, _ = row
        told = [outcome for _, outcome in entry["answers"]]
        assert email == entry["address"]
        assert told.count(200) <= 1 and not any(outcome == 200 and not right for right, outcome in entry["answers"])
        assert told.count(200) + told.count("wrong_password") <= attempts <= 5
        assert used or 200 not in told
        assert set(told) <= {200, "wrong_password", "used", "exhausted", "unavailable"}
        successes += told.count(200)
    assert successes > 0 and len(history) > KILLS
    expiry = {row[0]: row[3] for row in rows.values()}
    by_id = {}
    with stack.smtp.lock:
        mails = list(stack.smtp.mails)
    for mail in mails:
        assert len(mail.recipients) == 1
        assert mail.when < expiry[mail.recipients[0]].timestamp()
        by_id.setdefault(mail.message["Message-ID"], set()).add((mail.recipients[0], mail.code))
    assert all(len(same) == 1 for same in by_id.values())
    assert len({next(iter(same))[0] for same in by_id.values()}) == len(by_id), "one address, two Message-IDs"
    # Nothing is lost: what no relay has taken yet is queued, under a lease of a dead worker or due.
    sent = {mail.recipients[0] for mail in mails}
    for email, _, _, _, state in rows.values():
        assert state in ("queued", "sent") and (state == "queued" or email in sent), (email, state)
