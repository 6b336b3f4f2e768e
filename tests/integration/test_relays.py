"""Relays that fail, in every way and at every step, beside one that does not; and when a mail is given up."""
import itertools
import os
import random
import socket
import threading
import time
from collections import Counter

import pytest
from outbox import due_now, mail_row, message_id, queue, wait_reply, wait_state
from stack.certificates import make_tls
from stack.relay import DROP, HANG, Relay
from stack import wait_for
from test_mail import authority, password_file, tls_settings, worker  # noqa: F401
from test_worker import kill_all, only

TROUBLE = ("smtp_misconfigured", "smtp_relay_unusable", "smtp_relay_refuses")
STEPS = ["CONNECT", "EHLO", "STARTTLS", "AUTH", "MAIL", "RCPT", "DATA", "DOT"]
WAYS = {"hangs": HANG, "drops": DROP, "4xx": "451 4.3.0 later", "5.7.x": "554 5.7.1 no"}


def reasons(process, relay):
    """What the log says of a relay's trouble."""
    return [event["reason"] for name in TROUBLE for event in process.events(name) if event["relay"] == relay.name]


# --- Two relays ---

@pytest.mark.parametrize("step, way", itertools.product(STEPS, WAYS))
def test_the_other_relay_gets_the_mail(database, authority, step, way):  # noqa: F811
    """Whatever the first relay does at whatever step, the second one gets the mail within seconds, and the log says what the
    first one did. It is no duplicate, unless the first one took the text and said nothing."""
    settings, options = {}, {}
    if step == "STARTTLS":
        settings, options = tls_settings(authority), {"tls": make_tls(authority, "DNS:localhost")}
    if step == "AUTH":
        settings = {"SMTP_USER": "mailer", "SMTP_PASSWORD_FILE": password_file(database, "secret")}
        options = {"login": ("mailer", "secret")}
    quoted = " <jane@example.com>" if step in ("RCPT", "DATA", "DOT") and way == "5.7.x" else ""
    with Relay(only(step, WAYS[way] + quoted), **options) as bad, Relay(**options) as good:
        with worker(database, bad, good, **settings) as process:
            [row_id] = queue(database, "jane@example.com", lifetime=20)
            good.wait("jane@example.com", timeout=10)
            row = wait_state(database, row_id, "sent")
            assert len(reasons(process, bad)) == 1 and not reasons(process, good), process.tail()
            assert "jane@" not in process.output()
    assert len(bad.seen) == (step == "DOT") and len(good.seen) == 1
    assert row["last_reply"] == "250 2.0.0 taken"
    assert row["attempts"] == (2 if (step, way) == ("DOT", "hangs") else 1)


@pytest.mark.parametrize("way", ["refuses", "hangs"])
def test_the_other_relay_gets_the_mail_without_a_connection(database, way):
    """Also if the first one cannot even be connected to."""
    with socket.socket() as listener, Relay() as good:
        listener.bind(("127.0.0.1", 0))
        fillers = []
        if way == "hangs":
            listener.listen(0)
            for _ in range(4):
                fillers.append(socket.socket())
                fillers[-1].setblocking(False)
                fillers[-1].connect_ex(listener.getsockname())
        dead = Relay(port=listener.getsockname()[1])
        with worker(database, dead, good, SMTP_RELAYS=f"127.0.0.1:{dead.port}, {good.name}") as process:
            queue(database, "jane@example.com", lifetime=20)
            good.wait("jane@example.com", timeout=5)
            assert [e["relay"] for e in process.events("smtp_relay_unusable")] == [f"127.0.0.1:{dead.port}"]
        for filler in fillers:
            filler.close()


@pytest.mark.parametrize("step, way", itertools.product(["MAIL", "RCPT", "DATA", "DOT"], ["drops", "4xx", "5.7.x"]))
def test_a_batch_of_which_the_relay_takes_some(database, step, way):
    """A relay that fails for every third mail of a session: the other one gets those, and each arrives once."""
    count = [0]

    def script(connection, verb, value):
        count[0] += verb == step
        return WAYS[way] if verb == step and count[0] % 3 == 0 else None

    with Relay(script) as flaky, Relay() as good:
        ids = queue(database, "jane@example.com", count=12)
        with worker(database, flaky, good):
            for row_id in ids:
                assert wait_state(database, row_id, "sent")["attempts"] == 1
    taken = Counter(m.message["Message-ID"] for m in flaky.mails + good.mails)
    assert taken == Counter(message_id(row_id) for row_id in ids)
    assert len(flaky.mails) >= 2 and (good.mails or step == "MAIL")


def test_a_hung_relay_is_asked_ever_more_rarely(database):
    """One mail finds out whether it is back, after 1, 2, 4 ... seconds; nobody else waits for it."""
    with Relay(only("CONNECT", HANG)) as hung, Relay() as good, worker(database, hung, good):
        delays = []
        end = time.monotonic() + 8
        while time.monotonic() < end:
            before = time.time()
            address = f"user{len(delays)}@example.com"
            queue(database, address, lifetime=20)
            delays.append(good.wait(address).when - before)
        assert len(hung.connections) <= 4 and sum(delay > 0.5 for delay in delays) == len(hung.connections), delays
        hung.script = None
        wait_for(lambda: queue(database, "back@example.com") and hung.to("back@example.com"), 10, interval=0.2)


def test_a_probe_delays_one_mail(database):
    """When many wait and the first relay is to be tried again, the others go to the second one before."""
    with Relay(only("CONNECT", HANG)) as hung, Relay() as good, worker(database, hung, good) as process:
        queue(database, "first@example.com", lifetime=20)
        good.wait("first@example.com")
        time.sleep(1.1)  # the relay's pause
        before = time.time()
        queue(database, "jane@example.com", lifetime=20, count=10)
        good.wait("jane@example.com", 10)
        wait_for(lambda: len(reasons(process, hung)) == 2)
        delays = [mail.when - before for mail in good.to("jane@example.com")]
        assert sum(delay > 0.5 for delay in delays) == 1, delays


def test_after_an_outage_all_goes_at_once(database):
    """What waited because no relay could be used has lost no attempt, and goes as soon as one can."""
    relay = Relay()
    with worker(database, relay) as process:
        ids = queue(database, "jane@example.com", count=30)
        wait_for(lambda: len(reasons(process, relay)) >= 3)
        with relay:
            start = time.monotonic()
            relay.wait("jane@example.com", 30)
            assert time.monotonic() - start < 5
            assert {wait_state(database, row_id, "sent")["attempts"] for row_id in ids} == {1}


@pytest.mark.parametrize("step", ["CONNECT", "MAIL", "RCPT"])
def test_a_421_costs_no_attempt(database, step):
    """It is about the connection, at whatever step it comes (RFC 5321 3.8)."""
    with Relay(only(step, "421 4.3.2 not now", 2)) as relay, worker(database, relay):
        [row_id] = queue(database, "jane@example.com")
        assert wait_reply(database, row_id)["last_reply"] == "421 4.3.2 not now"
        assert wait_state(database, row_id, "sent")["attempts"] == 1


class Chaos:
    """Relays that fail at random: 4xx and drops at any step, replies to a text that are lost or never come."""

    def __init__(self, seed):
        self.dice = random.Random(seed)
        self.lock = threading.Lock()
        self.hangs = 2
        self.lost = set()  # Message-IDs of texts that were not answered

    def script(self, connection, verb, value):
        with self.lock:
            fate = self.dice.random()
            if verb == "DOT" and fate < 0.02:
                self.lost.add(value.message["Message-ID"])
                self.hangs -= 1
                return HANG if self.hangs >= 0 else DROP
        if fate < 0.03:
            return DROP if verb != "DOT" else "451 4.3.0 later"
        return "451 4.3.0 later" if fate < 0.06 and verb not in ("QUIT", "CONNECT") else None


@pytest.mark.parametrize("seed", range(8 if os.environ.get("OTP_SOAK") else 1))
def test_chaos_P2(database, seed):
    """P2: 1,500 mails, two relays that fail at random, the workers killed twice: each mail has its end in time, and comes
    twice only if a relay's reply to its text was lost, or the worker before it had settled."""
    chaos = Chaos(seed)
    with Relay(chaos.script) as one, Relay(chaos.script) as two:
        ids = queue(database, "jane@example.com", count=1500, lifetime=60)
        settings = {"SMTP_RELAYS": f"{one.name}, {two.name}", "SMTP_TLS": "off", "WORKER_SESSIONS": 4}
        for round_number in range(3):
            process = database.start_worker(7, **settings)
            if round_number == 2:
                break
            wait_for(lambda: len(one.mails) + len(two.mails) >= (round_number + 1) * 400, 30, interval=0.001)
            kill_all(process)
            database.workers.pop("worker-7")
            chaos.lost |= {message_id(row_id) for row_id, in database.query("select id from otp.mail where lease is not null")}
        wait_for(lambda: database.query("select count(*) from otp.mail where state = 'queued'") == [(0,)], 90, "an empty queue", 0.1)
        assert database.stop_worker(7) == 0
        states = dict(database.query("select id::text, state::text from otp.mail where id = any (%s)", ids))
    copies = Counter(mail.message["Message-ID"] for mail in one.mails + two.mails)
    sent = {message_id(row_id) for row_id in ids if states[str(row_id)] == "sent"}
    assert Counter(states.values())["sent"] >= 1400 and set(states.values()) <= {"sent", "failed", "expired"}, Counter(states.values())
    assert sent <= set(copies)
    assert not {name for name, count in copies.items() if count > 1 and name not in chaos.lost}
    assert max(copies.values()) <= 3


# --- Slow relays ---

@pytest.mark.parametrize("step", ["CONNECT", "DOT"])
def test_a_slow_relay_is_waited_for(database, step):
    """Without another relay there is nothing better to do; and a relay that has the text is not left while there is time."""
    def script(connection, verb, value):
        if verb == step:
            connection.relay.stopped.wait(12)
        return None

    with Relay(script) as relay, worker(database, relay):
        [row_id] = queue(database, "jane@example.com", lifetime=60)
        relay.wait("jane@example.com", timeout=15)
        assert wait_state(database, row_id, "sent")["attempts"] == 1
    assert len(relay.connections) == 1


# --- Refusals ---

def test_the_first_refusal_is_kept(database):
    """Of several relays' refusals in a round; a relay's word before ours."""
    with Relay(only("RCPT", DROP)) as first, Relay(only("RCPT", "450 4.2.0 second")) as second, \
            Relay(only("RCPT", "450 4.2.0 third")) as third, worker(database, first, second, third):
        [row_id] = queue(database, "jane@example.com")
        row = wait_reply(database, row_id)
        assert (row["last_reply"], row["attempts"]) == ("450 4.2.0 second", 1)


@pytest.mark.parametrize("relays, tries", [(1, 2), (2, 1)])
@pytest.mark.parametrize("reply", ["554 5.6.0 content", "554 no", "550 5.7.26 DMARC"])
def test_a_text_that_is_refused_is_repeated_once(database, reply, relays, tries):
    """By another relay, if there is one; then it has failed with the reply."""
    with Relay(only("DOT", reply)) as one, Relay(only("DOT", reply)) as two:
        with worker(database, *[one, two][:relays]):
            [row_id] = queue(database, "jane@example.com")
            row = wait_state(database, row_id, "failed")
            assert (row["last_reply"], row["attempts"], row["sealed"]) == (reply, tries, None)
    assert len(one.seen) + len(two.seen) == 2


@pytest.mark.parametrize("way", ["hangs", "drops"])
def test_an_uncertain_mail_is_repeated_once(database, way):
    """A relay that never answers to the text gets it twice at most, with the same Message-ID."""
    with Relay(only("DOT", WAYS[way])) as relay, worker(database, relay):
        [row_id] = queue(database, "jane@example.com", lifetime=20)
        row = wait_state(database, row_id, "failed")
        assert "perhaps it was taken" in row["last_reply"] and row["attempts"] == 2
    assert [m.message["Message-ID"] for m in relay.seen] == [message_id(row_id)] * 2


UNCLEAR = ["550 relay not permitted", "550 Administrative prohibition", "550 I cannot deliver mail for <jane@example.com>",
           "550 Invalid recipient", "550 5.1.0 address rejected", "550 5.4.1 Access denied"]


@pytest.mark.parametrize("reply", UNCLEAR)
def test_an_unclear_refusal_is_tried_elsewhere(database, reply):
    """A 550 that does not say whom it means is no final word while there is another relay."""
    with Relay(only("RCPT", reply)) as unclear, Relay() as good, worker(database, unclear, good):
        [row_id] = queue(database, "jane@example.com")
        assert wait_state(database, row_id, "sent")["attempts"] == 1


def test_an_unclear_refusal_is_final_after_a_few_tries(database):
    """The recipient may be none: after three refusals that is believed."""
    with Relay(only("RCPT", "550 Invalid recipient")) as relay, worker(database, relay):
        [row_id] = queue(database, "jane@example.com")
        for attempt in (1, 2):
            row = wait_for(lambda: (row := mail_row(database, row_id))["attempts"] == attempt and row["lease"] is None and row)
            assert (row["state"], row["last_reply"]) == ("queued", "550 Invalid recipient")
            due_now(database, row_id)
        assert wait_state(database, row_id, "failed")["attempts"] == 3
    assert relay.rcpts == ["jane@example.com"] * 3


def test_a_relay_that_refuses_everybody_means_us(database):
    """Then nobody's mail fails for it: one alarm, and all is delivered when it is mended."""
    with Relay(only("RCPT", "550 relay not permitted")) as relay, worker(database, relay) as process:
        ids = [queue(database, f"user{number}@example.com")[0] for number in range(8)]
        for _ in range(4):
            wait_for(lambda: all(mail_row(database, row_id)["lease"] is None and mail_row(database, row_id)["last_reply"] for row_id in ids))
            seen = len(relay.rcpts)
            for row_id in ids:
                due_now(database, row_id)
            wait_for(lambda: len(relay.rcpts) >= seen + len(ids))
        assert [(e["level"], e["relay"]) for e in process.events("smtp_refuses_everybody")] == [("error", relay.name)]
        relay.script = None
        for row_id in ids:
            due_now(database, row_id)
            wait_state(database, row_id, "sent")


@pytest.mark.parametrize("reply", ["550 5.7.1 relaying denied", "550 5.1.8 sender", "550 5.4.5 quota", "550 5.3.2 no"])
def test_a_refusal_that_means_us_is_an_error(database, reply):
    """Nobody is bounced for it; the mail's line in the log is an error, and so is the relay's."""
    with Relay(only("RCPT", reply)) as relay, worker(database, relay) as process:
        [row_id] = queue(database, "jane@example.com")
        assert wait_reply(database, row_id)["state"] == "queued"
        assert wait_for(lambda: process.events("mail"))[0]["level"] == "error"
        assert process.events("smtp_misconfigured")[0]["reason"] == reply
