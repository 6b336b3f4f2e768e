"""P1 to P4 under kill -9 of everything: a history of what clients saw is checked against what is stored and was mailed.
A minute of it by default. OTP_KILLS=N goes on until so many processes were killed, OTP_SOAK=1 makes it 10,000; OTP_SEED=S
chooses whom and when. What was done is printed (pytest -s)."""
import contextlib
import os
import random
import signal
import threading
import time
from collections import Counter

from stack import NotReady, address_of, family, is_running, token_id, wait_for
from stack.harness import NO_LIMITS

SECONDS = 60
KILLS = int(os.environ.get("OTP_KILLS", "10000" if os.environ.get("OTP_SOAK") else "0"))
SEED = int(os.environ.get("OTP_SEED", "9"))
VICTIMS = ("generate-0", "validate-0", "validate-1", "worker", "session", "postgres", "nginx")
RESEND_SECONDS = 60
# What otp-generate is told in the rounds, in turn. Codes of a minute are under leases of a quarter of that, so that mails come
# again; in rounds that last longer they expire as well.
ROUNDS = ({**NO_LIMITS, "EXPIRE_MINUTES": 10}, {"RESEND_SECONDS": RESEND_SECONDS, "EXPIRE_MINUTES": 1})


class Client(threading.Thread):
    """Asks for codes, and again for the same token, reads its mails, guesses wrong and right, several times over, and sometimes
    ends the token; notes every answer."""

    def __init__(self, stack, seed):
        super().__init__(daemon=True)
        self.stack, self.dice = stack, random.Random(seed)
        self.done = threading.Event()
        self.history = []  # per token: address, token, answers to guesses, when a revocation was answered
        self.strange = []
        self.connection = stack.http(10)

    def ask(self, call, *arguments):
        """The answer; None: the connection was lost, or nginx was away."""
        try:
            answer = call(*arguments, connection=self.connection)
        except Exception:  # its kind says nothing: any moment may be the last of the peer
            self.connection.close()
            self.connection = self.stack.http(10)
            self.done.wait(0.005)
            return None
        if answer.status not in (200, 401, 429, 503):
            self.strange.append(answer)
        return answer

    def generate(self, address):
        answer = self.ask(self.stack.generate, address)
        if answer is None or answer.status != 200:
            return None
        self.history.append({"address": address, "token": answer.token, "answers": [], "resends": 0, "revoked": None})
        return self.history[-1]

    def codes_of(self, address):
        """The codes that were mailed; none: no mail comes soon."""
        with contextlib.suppress(NotReady):
            wait_for(lambda: self.done.is_set() or self.stack.smtp.to(address), 0.5)
        return {mail.code for mail in self.stack.smtp.to(address)}

    def resend(self, entry):
        answer = self.ask(self.stack.resend, entry["token"])
        entry["resends"] += answer is not None and answer.status == 200

    def revoke(self, entry):
        answer = self.ask(self.stack.revoke, entry["token"])
        if answer is not None and answer.status == 200:
            entry["revoked"] = entry["revoked"] or time.time()

    def run(self):
        while not self.done.is_set():
            address = address_of("kill")
            entry = self.generate(address)
            if entry is None:
                continue
            codes = self.codes_of(address)
            for _ in range(self.dice.randrange(1, 9)):
                if self.dice.random() < 0.1:
                    self.resend(entry)
                    codes |= self.codes_of(address)
                if self.dice.random() < 0.03:
                    self.revoke(entry)
                guess = self.dice.choice(sorted(codes)) if codes and self.dice.random() < 0.4 else "%06d" % self.dice.randrange(10**6)
                was_revoked = entry["revoked"] is not None
                answer = self.ask(self.stack.validate, entry["token"], guess)
                if answer is not None:
                    entry["answers"].append((guess in codes, 200 if answer.status == 200 else answer.error))
                    if was_revoked and answer.status == 200:
                        self.strange.append(answer)
            if self.dice.random() < 0.2:
                self.generate(address)  # within the limits, or against them


def children(pid):
    return family(pid)[1:]


def targets(stack, victim):
    """The processes that die with a victim at the same moment."""
    if victim == "postgres":
        return stack.postgres.family()
    if victim == "nginx":
        return family(stack.nginx.pid)
    if victim == "worker":
        return [stack.workers["worker-0"].pid]  # its children end by themselves
    if victim == "session":
        return children(stack.workers["worker-0"].pid)
    return [stack.responders[victim].pid]


def restart(stack, victim, settings):
    """What a supervisor does. Nobody waits until the new one is ready: the next blow may hit it while it starts."""
    if victim == "postgres":
        stack.postgres.kill()
        stack.close_admin()
        stack.postgres.start(wait=False, fsync="off")  # the kernel lives on, and with it what it was given
    elif victim == "nginx":
        stack.nginx.kill()
        stack.start_nginx()
    elif victim == "worker":
        stack.workers.pop("worker-0").kill()
        stack.start_worker(wait=False)
    elif victim != "session":
        kind, number = victim.split("-")
        stack.responders.pop(victim).kill()
        stack.start_responder(kind, int(number), wait=False, **(settings if kind == "generate" else {}))


def strike(stack, victims, settings):
    """kill -9 of all victims at once; then each is started again."""
    pids = [pid for victim in victims for pid in targets(stack, victim)]
    orphans = children(stack.workers["worker-0"].pid) if "worker" in victims else []
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not any(is_running(pid) for pid in [*pids, *orphans]), 10, "the killed, and whom they leave, to end")
    for victim in victims:
        restart(stack, victim, settings)


def stored(stack):
    """Per challenge: address, attempts, used, created, expiry, state of its newest mail, resends, revoked."""
    rows = stack.query("select c.id, c.email, c.attempts, c.used_at is not null, c.created_at, c.expires_at, m.state::text, now(),"
                       " coalesce(cardinality(c.resent), 0), c.revoked_at is not null"
                       " from otp.challenge c join otp.mail m on m.id = coalesce(c.resent[1], c.id)")
    return {row[0]: row[1:] for row in rows}


def check_history(history, rows):
    """Success at most once, five guesses at most, each that was answered is on disk; every token returned has its mail."""
    for entry in history:
        row = rows.get(token_id(entry["token"]))
        assert row is not None, f"a returned token has no challenge with a mail job: {entry}"
        email, attempts, used, *_, resends, revoked = row
        assert resends >= entry["resends"] and (revoked or entry["revoked"] is None)
        told = [outcome for _, outcome in entry["answers"]]
        assert email == entry["address"]
        assert told.count(200) <= 1 and not any(outcome == 200 and not right for right, outcome in entry["answers"])
        assert told.count(200) + told.count("wrong_password") <= attempts <= 5
        assert used or 200 not in told
        assert set(told) <= {200, "wrong_password", "used", "exhausted", "expired", "revoked", "unavailable"}, told


def check_mails(mails, rows):
    """One recipient, not after expiry, and one that comes again is the same to the byte. -> how many came again"""
    known = {}
    expiry = {}
    for email, _, _, _, expires, *_ in rows.values():
        expiry[email] = max(expires.timestamp(), expiry.get(email, 0))
    for mail in mails:
        assert len(mail.recipients) == 1
        assert mail.when < expiry[mail.recipients[0]], (mail.when, expiry[mail.recipients[0]])
        first = known.setdefault(mail.message["Message-ID"], mail)
        assert (mail.recipients, mail.raw) == (first.recipients, first.raw), "a mail that comes again is another one"
    return len(mails) - len(known)


def check_queue(mails, rows):
    """Nothing is lost: what no relay has taken is queued (under a lease of a dead worker, or due), or came too late."""
    sent = {mail.recipients[0] for mail in mails}
    for email, _, _, _, expires, state, now, _, revoked in rows.values():
        assert state in ("queued", "sent", "expired"), (email, state)
        assert not revoked or state != "queued", f"revoked, and still to be sent: {email}"
        assert state != "sent" or email in sent, f"noted as sent, and was not: {email}"
        assert state != "expired" or revoked or (expires - now).total_seconds() < 60, f"given up too early: {email}"


def check_withdrawn(mails, history):
    """No mail of a revoked token after the revocation was answered, but one that a worker had in hand when it, or PostgreSQL with
    the word of it, was killed: that lease lasts a minute at most."""
    revoked = {entry["address"]: entry["revoked"] for entry in history if entry["revoked"]}
    for mail in mails:
        assert mail.when < revoked.get(mail.recipients[0], mail.when) + 60, mail.recipients


def check_limits(rows):
    """No two codes for an address within RESEND_SECONDS."""
    times = {}
    for email, _, _, created, *_ in rows.values():
        times.setdefault(email, []).append(created.timestamp())
    for email, found in times.items():
        found.sort()
        assert all(b - a > RESEND_SECONDS - 1 for a, b in zip(found, found[1:], strict=False)), (email, found)


def play_round(stack, dice, settings, is_over):
    """Blows until is_over(kills so far), then the checks. -> what was counted"""
    stack.stop_responder("generate", 0)
    stack.start_responder("generate", 0, **settings)
    clients = [Client(stack, dice.random()) for _ in range(4)]
    counts = Counter()

    def seen():
        return sum(len(client.history) for client in clients)
    for client in clients:
        client.start()
    try:
        while not is_over(counts["kills"]):
            if dice.random() < 0.6:
                wait_for(lambda before=seen(): seen() > before + 2, 60, "traffic to go on")
            else:
                time.sleep(dice.uniform(0, 0.2))
            victims = dice.sample(VICTIMS, dice.randrange(1, 4))
            strike(stack, victims, settings)
            counts.update(victims)
            counts["kills"] += len(victims)
        wait_for(lambda before=seen(): seen() > before + 2, 60, "traffic to go on")
    finally:
        for client in clients:
            client.done.set()
        for client in clients:
            client.join(30)
    assert not [client.strange for client in clients if client.strange]
    history = [entry for client in clients for entry in client.history]
    stack.stop_worker()  # so that no mail of this round comes in the next one
    with stack.smtp.lock:
        mails = list(stack.smtp.mails)
    rows = stored(stack)
    check_history(history, rows)
    again = check_mails(mails, rows)
    check_queue(mails, rows)
    check_withdrawn(mails, history)
    if settings.get("RESEND_SECONDS"):
        check_limits(rows)
    outcomes = Counter(outcome for entry in history for _, outcome in entry["answers"])
    assert outcomes[200] > 0 and history
    counts.update({"tokens": len(history), "mails": len(mails), "mailed again": again, "right": outcomes[200], "wrong": outcomes["wrong_password"],
                   "resends": sum(entry["resends"] for entry in history), "revoked": sum(entry["revoked"] is not None for entry in history),
                   "503 for a guess": outcomes["unavailable"], "expired": sum(row[5] == "expired" for row in rows.values())})
    return counts


def test_p1_p2_p3_p4_kill_9_of_everything(stack):
    """P1: every returned token has challenge and mail job. P2: no mail is lost, and one that is sent twice is the same to the
    byte; none after expiry. P3: at most one success per token. P4: every answer seen is on disk: attempts >= answers that
    counted one, never above five. One to three parts are killed at once, also while they recover."""
    dice = random.Random(SEED)
    begin = time.monotonic()
    total, number = Counter(), 0
    while (total["kills"] < KILLS) if KILLS else (time.monotonic() - begin < SECONDS):
        start = time.monotonic()
        length = 100 if KILLS else SECONDS / len(ROUNDS)
        total += play_round(stack, dice, ROUNDS[number % len(ROUNDS)], lambda kills, start=start, length=length:
                            time.monotonic() - start > length or (KILLS and total["kills"] + kills >= KILLS))
        number += 1
        print(f"seed {SEED}, round {number}, {time.monotonic() - begin:.0f} s: {dict(sorted(total.items()))}", flush=True)
        stack.ensure()
    assert total["kills"] > 20 or KILLS
