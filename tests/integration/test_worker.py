"""Delivery under faults: what a relay, the database or a signal can do to the worker, and that no mail is lost (P2)."""
import os
import signal
import socket
import statistics
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
from outbox import due_now, mail_row, message_id, queue, random_code, wait_reply, wait_state
from stack.relay import DROP, HANG, Relay
from stack import wait_for
from test_mail import worker


def children(process):
    """The delivery processes of a worker that was started directly or through setpriv."""
    text = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
    return [int(pid) for pid in text.split()]


def kill_all(process):
    """kill -9 of the worker, parent and delivery processes, as a crash of the machine would."""
    for pid in [process.pid, *children(process)]:
        os.kill(pid, signal.SIGKILL)
    process.wait()


def only(verb, reply, times=None):
    """A script that gives this reply to the verb, times times."""
    count = [0]

    def script(connection, said, value):
        if said != verb or (times is not None and count[0] >= times):
            return None
        count[0] += 1
        return reply
    return script


# --- Three outcomes ---

@pytest.mark.parametrize("chunking", [False, True])
def test_greylisting_then_delivered(database, chunking):
    """A 4xx is tried again later, with the same bytes."""
    with Relay(only("DOT", "451 4.7.1 try later", 1), chunking=chunking) as relay, worker(database, relay):
        [row_id] = queue(database, "jane@example.com")
        row = wait_reply(database, row_id)
        assert (row["state"], row["last_reply"], row["attempts"]) == ("queued", "451 4.7.1 try later", 1)
        seconds = database.query("select extract(epoch from next_attempt_at - clock_timestamp()) from otp.mail where id = %s",
                                 row_id)[0][0]
        assert 0 < seconds <= 3.1
        row = wait_state(database, row_id, "sent")  # by itself
        assert row["attempts"] == 2 and row["sealed"] is None
    assert [m.raw for m in relay.seen] == [relay.seen[0].raw] * 2
    assert len(relay.mails) == 1


@pytest.mark.parametrize("chunking", [False, True])
@pytest.mark.parametrize("pipelining", [False, True])
def test_refused_recipient_is_final(database, chunking, pipelining):
    """A 5xx for the recipient ends as failed with the reply recorded; the others of the batch are delivered once."""
    def script(connection, verb, value):
        return "550 5.1.1 <no> unknown" if verb == "RCPT" and value.startswith("bad") else None

    with Relay(script, chunking=chunking, pipelining=pipelining) as relay:
        bad, good = [], []
        for number in range(12):
            (bad if number % 3 == 0 else good).append(queue(database, f"{'bad' if number % 3 == 0 else 'good'}{number}@example.com")[0])
        with worker(database, relay):
            for row_id in bad:
                row = wait_state(database, row_id, "failed")
                assert row["last_reply"] == "550 5.1.1 <no> unknown" and row["sealed"] is None and row["attempts"] == 1
            for row_id in good:
                assert wait_state(database, row_id, "sent")["attempts"] == 1
    assert Counter(m.recipients[0] for m in relay.seen) == Counter({f"good{n}@example.com": 1 for n in range(12) if n % 3})


@pytest.mark.parametrize("reply", ["530 5.7.0 log in", "535 no", "550 5.7.1 relay access denied", "554 5.7.26 policy", "503 what",
                                   "500 what", "450 4.2.1 busy", "421 4.3.2 closing"])
def test_refusals_that_mean_us_are_retried(database, reply):
    """A reply to RCPT that is not about the recipient keeps the mail queued."""
    with Relay(only("RCPT", reply, 1)) as relay, worker(database, relay):
        [row_id] = queue(database, "jane@example.com")
        row = wait_reply(database, row_id)
        assert row["state"] == "queued" and row["last_reply"].startswith(reply[:3])
        assert row["attempts"] == (0 if reply.startswith("421") else 1)
        due_now(database, row_id)
        wait_state(database, row_id, "sent")


@pytest.mark.parametrize("verb, reply, alarm", [
    ("MAIL", "550 5.1.8 sender rejected", "smtp_misconfigured"), ("MAIL", "553 no", "smtp_misconfigured"),
    ("EHLO", "550 go away", "smtp_misconfigured"), ("CONNECT", "554 5.7.1 blocked", "smtp_misconfigured"),
    ("MAIL", "451 4.3.0 later", "smtp_relay_unusable"), ("CONNECT", "421 busy", "smtp_relay_unusable"),
    ("CONNECT", DROP, "smtp_relay_unusable"), ("EHLO", DROP, "smtp_relay_unusable"),
])
def test_relay_that_refuses_us_is_retried_with_an_alarm(database, verb, reply, alarm):
    """5xx on anything but the recipient is our misconfiguration: logged as an error, the mail is kept and comes later."""
    with Relay(only(verb, reply)) as relay, worker(database, relay) as process:
        [row_id] = queue(database, "jane@example.com")
        row = wait_reply(database, row_id)
        assert row["state"] == "queued" and row["sealed"] is not None
        event = wait_for(lambda: process.events(alarm))[0]
        assert event["relay"] == relay.name and event["level"] == ("error" if alarm == "smtp_misconfigured" else "warning")
        if reply != DROP:
            assert event["reason"].startswith(reply[:3]) and row["last_reply"].startswith(reply[:3])
        relay.script = None
        due_now(database, row_id)
        wait_state(database, row_id, "sent")
    assert len(relay.mails) == 1


@pytest.mark.parametrize("script", [only("DATA", "250 what?", 1), only("DOT", "554 5.6.0 content", 1), only("DATA", DROP, 1),
                                    only("RCPT", DROP, 1), only("MAIL", DROP, 1)])
def test_only_the_final_250_is_delivery(database, script):
    """Anything but 2xx after the final dot is no delivery, also a 250 in the wrong place."""
    with Relay(script) as relay, worker(database, relay):
        [row_id] = queue(database, "jane@example.com")
        assert wait_reply(database, row_id)["state"] == "queued"
        due_now(database, row_id)
        wait_state(database, row_id, "sent")
    assert len(relay.mails) == 1


@pytest.mark.parametrize("chunking", [False, True])
def test_lost_after_the_final_dot_comes_again_P2(database, chunking):
    """P2: nobody knows whether it was taken: the same code with the same Message-ID, the same bytes."""
    code = random_code()
    with Relay(only("DOT", DROP, 1), chunking=chunking) as relay, worker(database, relay):
        [row_id] = queue(database, "jane@example.com", code)
        row = wait_reply(database, row_id)
        assert row["state"] == "queued" and "connection lost" in row["last_reply"]
        wait_state(database, row_id, "sent")
    assert [(m.code, m.message["Message-ID"]) for m in relay.seen] == [(code, message_id(row_id))] * 2
    assert relay.seen[0].raw == relay.seen[1].raw


def test_silence_after_a_chunk_is_no_delivery(database):
    """The 250 for the first BDAT chunk is not the one for the message: libesmtp leaves it in the message's status."""
    with Relay(only("DOT", HANG, 1), chunking=True) as relay:
        with worker(database, relay):
            [row_id] = queue(database, "jane@example.com", lifetime=60)
            row = wait_reply(database, row_id, 25)
            assert row["state"] == "queued" and "connection lost" in row["last_reply"]
            due_now(database, row_id)
            wait_state(database, row_id, "sent")


def test_batch_survives_a_drop_in_its_middle(database):
    """What was not begun goes on at once in a new session; each is delivered once."""
    count = [0]

    def script(connection, verb, value):
        count[0] += verb == "MAIL"
        return "421 4.7.0 enough" if verb == "MAIL" and count[0] % 5 == 0 else None

    with Relay(script) as relay:
        ids = queue(database, "jane@example.com", count=30)
        with worker(database, relay):
            wait_for(lambda: len(relay.mails) == 30)
            for row_id in ids:
                wait_state(database, row_id, "sent")
    assert Counter(m.message["Message-ID"] for m in relay.seen) == Counter(message_id(row_id) for row_id in ids)


# --- Relays ---

@pytest.mark.parametrize("settings, most", [({}, 10), ({"MESSAGES_PER_SESSION": 50}, 50), ({"MESSAGES_PER_SESSION": 1}, 1)])
def test_many_mails_over_one_connection(database, settings, most):
    """So many and no more: Exim leaves what comes after the tenth to its next queue run."""
    with Relay() as relay:
        queue(database, "jane@example.com", count=100)
        with worker(database, relay, **settings):
            relay.wait("jane@example.com", 100)
    assert [len(connection.transactions) for connection in relay.connections] == [most] * (100 // most)


def test_relay_away_then_back(database):
    """While no relay can be reached the mail waits; it comes by itself once one is back."""
    relay = Relay()
    with worker(database, relay) as process:
        [row_id] = queue(database, "jane@example.com")
        row = wait_reply(database, row_id)
        assert row["state"] == "queued" and "refused" in row["last_reply"]
        wait_for(lambda: len(process.events("smtp_relay_unusable")) >= 2)
        with relay:
            relay.wait("jane@example.com", timeout=30)


def test_second_relay_takes_over(database):
    """The next relay when the preferred one cannot be used, for whatever reason; only one of them gets the mail."""
    with Relay(only("MAIL", "550 no")) as refusing, Relay() as good:
        with worker(database, Relay(), refusing, good):
            queue(database, "jane@example.com", count=3)
            good.wait("jane@example.com", 3)
    assert refusing.seen == [] and len(good.seen) == 3


# --- Time ---

@pytest.mark.parametrize("verb", ["CONNECT", "MAIL", "RCPT"])
def test_silent_relay_times_out(database, verb):
    """The attempt is over before the lease is, which is 5 s here."""
    with Relay(only(verb, HANG, 1)) as relay, worker(database, relay):
        start = time.monotonic()
        [row_id] = queue(database, "jane@example.com", lifetime=20)
        row = wait_reply(database, row_id)
        assert 3 < time.monotonic() - start < 5
        assert row["state"] == "queued"
        due_now(database, row_id)
        wait_state(database, row_id, "sent")


def test_silence_after_quit_delays_nothing(database):
    """What was sent is recorded without waiting long for the relay's farewell."""
    with Relay(only("QUIT", HANG)) as relay, worker(database, relay):
        [row_id] = queue(database, "jane@example.com")
        relay.wait("jane@example.com")
        wait_state(database, row_id, "sent", 5)


def test_dripping_relay_is_cut_before_the_lease_ends(database):
    """One byte a second keeps every single read alive; the connection is cut all the same, before somebody else claims."""
    def script(connection, verb, value):
        if verb != "MAIL":
            return None
        for byte in b"250-" + b"x" * 60:
            connection.socket.sendall(bytes([byte]))
            if connection.relay.stopped.wait(1):
                break
        return "\r\n250 ok"

    with Relay(script) as relay, worker(database, relay):
        [row_id] = queue(database, "jane@example.com", lifetime=60)
        start = time.monotonic()
        row = wait_reply(database, row_id, 25)
        assert time.monotonic() - start < 15.5
        assert row["attempts"] == 0 and row["state"] == "queued"
        relay.script = None
        due_now(database, row_id)
        wait_state(database, row_id, "sent")


def test_no_mail_after_the_codes_time(database):
    """The row says how long its mail may be sent: a relay that is slow beyond the code's life gets nothing, whatever the settings
    of the worker and of who made the code."""
    def script(connection, verb, value):
        if verb == "RCPT" and "jane" in value:
            connection.relay.stopped.wait(9)
        return None

    with Relay(script) as relay, worker(database, relay):
        queue(database, "jane@example.com", lifetime=8)
        wait_for(lambda: relay.connections, 10)
        [other] = queue(database, "joe@example.com")
        wait_state(database, other, "sent", 25)  # and the worker has gone on
        wait_for(lambda: database.query("select mail::text from otp.challenges where email = 'jane@example.com'") == [("expired",)], 15)
        assert {m.recipients[0] for m in relay.seen} == {"joe@example.com"}


def test_connect_times_out(database):
    """connect() in libesmtp has no timeout: a full backlog drops the SYN, as a firewall would."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port = listener.getsockname()[1]
        fillers = []
        for _ in range(4):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", port))
            fillers.append(filler)
        with Relay() as good:
            dead = Relay(port=port)
            dead_name = f"127.0.0.1:{port}"
            with worker(database, dead, good, SMTP_RELAYS=f"{dead_name}, {good.name}"):
                start = time.monotonic()
                queue(database, "jane@example.com")
                good.wait("jane@example.com")
                assert 4 < time.monotonic() - start < 9
                start = time.monotonic()
                queue(database, "jane@example.com")
                good.wait("jane@example.com", 2)
                assert time.monotonic() - start < 2  # the dead one is not asked first for a while
        for filler in fillers:
            filler.close()


def test_wake_up_is_prompt(database):
    """From the commit to the relay's 250 in less than 50 ms at the median when idle."""
    delays = []
    with Relay() as relay, worker(database, relay):
        for number in range(21):
            before = time.time()
            queue(database, f"user{number}@example.com")
            delays.append(relay.wait(f"user{number}@example.com").when - before)
    assert statistics.median(delays) < 0.05, delays


def test_request_to_delivery_is_prompt(stack):
    """The same from the POST, through nginx, responder and worker."""
    delays = []
    for number in range(21):
        before = time.time()
        assert stack.generate(f"user{number}@example.com").status == 200
        delays.append(stack.smtp.wait(f"user{number}@example.com").when - before)
    assert statistics.median(delays) < 0.05, delays


def test_mail_that_comes_too_late_expires(database):
    """Nothing is sent with too little life left; the sealed code is erased."""
    with Relay() as relay, worker(database, relay):
        [row_id] = queue(database, "jane@example.com", lifetime=600)
        wait_state(database, row_id, "sent")
        database.query("update otp.mail set state = 'queued', sealed = 'x', next_attempt_at = clock_timestamp(),"
                       " give_up_at = clock_timestamp() where id = %s", row_id)
        row = wait_state(database, row_id, "expired")
    assert row["sealed"] is None and len(relay.seen) == 1


def test_what_comes_too_late_expires_though_no_process_claims(database):
    """The sweep sees to it while every delivery process waits for a relay."""
    with Relay(only("DOT", HANG)) as relay, worker(database, relay, SWEEP_SECONDS=1):
        queue(database, "jane@example.com")
        wait_for(lambda: relay.seen)
        [late] = queue(database, "joe@example.com")
        database.query("update otp.mail set give_up_at = clock_timestamp() where id = %s", late)
        assert wait_state(database, late, "expired", 5)["sealed"] is None
        assert len(relay.seen) == 1


def test_sent_at_is_when_the_relay_took_it(database):
    """Not when the session was over and settled."""
    def script(connection, verb, value):
        if verb == "DOT" and len(relay.seen) == 2:
            wait_for(lambda: time.time() > relay.mails[0].when + 2)
        return None

    with Relay(script) as relay, worker(database, relay):
        ids = queue(database, "jane@example.com", count=2)
        rows = [wait_state(database, row_id, "sent") for row_id in ids]
        sent = sorted(row["sent_at"].timestamp() for row in rows)
        assert abs(sent[0] - relay.mails[0].when) < 0.5 and sent[1] - sent[0] > 1.5


# --- Processes ---

@pytest.mark.parametrize("moment", ["DOT", "QUIT"])
def test_killed_before_it_settled_P2(database, moment):
    """P2: kill -9 while the relay decides, or after its 250: the lease ends, the same code comes again with the same
    Message-ID; nobody sends it while the lease lives."""
    code = random_code()
    killed = threading.Event()
    doomed = []

    def script(connection, verb, value):
        if verb == moment and not killed.is_set():
            kill_all(doomed[0])
            killed.set()
        return None

    with Relay(script) as relay:
        doomed.append(database.start_worker(7, SMTP_RELAYS=relay.name, SMTP_TLS="off"))
        [row_id] = queue(database, "jane@example.com", code, lifetime=60)
        killed.wait(10)
        at = time.monotonic()
        database.workers.pop("worker-7")
        assert mail_row(database, row_id)["state"] == "queued"
        with worker(database, relay):
            row = wait_state(database, row_id, "sent", 25)
            assert time.monotonic() - at > 13  # the lease of 15 s was kept
    assert row["attempts"] == 2
    assert [(m.code, m.message["Message-ID"]) for m in relay.seen] == [(code, message_id(row_id))] * 2
    assert relay.seen[0].raw == relay.seen[1].raw


def test_no_mail_is_sent_twice_by_several_workers(database):
    """One lease, one sender: 3 workers of 2 processes each, 400 mails, each sent exactly once."""
    with Relay() as relay:
        processes = [database.start_worker(n, SMTP_RELAYS=relay.name, SMTP_TLS="off", WORKER_SESSIONS=2, MESSAGES_PER_SESSION=7)
                     for n in range(3)]
        ids = queue(database, "jane@example.com", count=200) + queue(database, "jane@example.com", count=200)
        wait_for(lambda: len(relay.mails) >= 400, 60)
        wait_for(lambda: database.query("select count(*) from otp.mail where state <> 'sent'")[0][0] == 0)
        senders = sum(bool(p.events("mail")) for p in processes)
        for n in range(3):
            assert database.stop_worker(n) == 0
    assert Counter(m.message["Message-ID"] for m in relay.seen) == Counter(message_id(i) for i in ids)
    assert senders > 1


def test_dead_delivery_process_is_replaced(database):
    with Relay() as relay, worker(database, relay, WORKER_SESSIONS=2) as process:
        before = set(children(process))
        assert len(before) == 2
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        wait_for(lambda: len(set(children(process)) - before) == 2)
        queue(database, "jane@example.com")
        relay.wait("jane@example.com")
        assert [e["signal"] for e in process.events("delivery_process_ended")] == [9, 9]


def test_delivery_process_is_renewed_after_some_thousand_mails(database):
    """libesmtp leaks a little on broken transfers: no delivery process lives for ever, and nobody notices."""
    with Relay() as relay, worker(database, relay, MESSAGES_PER_SESSION=100) as process:
        before = children(process)
        ids = queue(database, "jane@example.com", count=5200)
        wait_for(lambda: len(relay.mails) >= 5200, 60, "all mails", 0.2)
        wait_for(lambda: len(children(process)) == 1 and children(process) != before, 20, "another delivery process")
        wait_for(lambda: database.query("select count(*) from otp.mail where id = any (%s) and state = 'sent'", ids) == [(5200,)], 20)
        assert len(relay.mails) == 5200
        assert not process.events("delivery_process_ended")


def test_parent_killed_ends_its_children(database):
    with Relay() as relay:
        process = database.start_worker(7, SMTP_RELAYS=relay.name, SMTP_TLS="off")
        pids = children(process)
        process.kill()
        database.workers.pop("worker-7")
        wait_for(lambda: not any(Path(f"/proc/{pid}/exe").exists() for pid in pids))


def test_sigterm_finishes_the_mail_at_hand(database):
    """It settles what was sent and gives back what was not begun, at once and without counting an attempt."""
    at_hand = threading.Event()
    go_on = threading.Event()

    def script(connection, verb, value):
        if verb == "DOT":
            at_hand.set()
            go_on.wait(10)
        return None

    with Relay(script) as relay:
        ids = queue(database, "jane@example.com", count=20)
        process = database.start_worker(7, SMTP_RELAYS=relay.name, SMTP_TLS="off")
        assert at_hand.wait(10)
        start = time.monotonic()
        os.kill(children(process)[0], signal.SIGTERM)
        go_on.set()
        assert database.stop_worker(7) == 0, process.tail()
        assert time.monotonic() - start < 5
        rows = [mail_row(database, row_id) for row_id in ids]
        sent = sum(row["state"] == "sent" for row in rows)
        assert sent == len(relay.mails) and 1 <= sent <= 2
        assert all(row["attempts"] == 0 and row["lease"] is None for row in rows if row["state"] == "queued")
        assert database.query("select count(*) from otp.mail where state = 'queued' and next_attempt_at > clock_timestamp()") == [(0,)]


def test_sigterm_gives_back_what_was_claimed_ahead(database):
    """While the queue is long a second claim is held; SIGTERM settles the first and releases both."""
    at_hand = threading.Event()
    go_on = threading.Event()

    def script(connection, verb, value):
        if verb == "DOT" and len(relay.seen) >= 5:
            at_hand.set()
            go_on.wait(10)
        return None

    with Relay(script) as relay:
        ids = queue(database, "jane@example.com", count=20)
        process = database.start_worker(7, SMTP_RELAYS=relay.name, SMTP_TLS="off", MESSAGES_PER_SESSION=3)
        assert at_hand.wait(10)
        wait_for(lambda: database.query("select count(distinct lease) from otp.mail where lease is not null") == [(2,)])
        os.kill(children(process)[0], signal.SIGTERM)
        go_on.set()
        assert database.stop_worker(7) == 0, process.tail()
        rows = [mail_row(database, row_id) for row_id in ids]
        assert sum(row["state"] == "sent" for row in rows) == len(relay.mails) < 20
        assert all(row["attempts"] == 0 and row["lease"] is None for row in rows if row["state"] == "queued")
        assert database.query("select count(*) from otp.mail where state = 'queued' and next_attempt_at > clock_timestamp()") == [(0,)]


def test_what_waited_too_long_after_its_claim_is_given_back(database):
    """A claim ahead that a slow session has held up is not sent under what is left of its lease: it is claimed anew."""
    held_up = [threading.Event(), threading.Event()]
    seen = threading.Event()

    def script(connection, verb, value):
        if verb == "DOT" and not held_up[0].is_set():
            held_up[0].set()
            time.sleep(4.5)  # more than a quarter of the lease of 15 s
        elif verb == "DOT" and len(relay.seen) == 6:
            held_up[1].set()
            seen.wait(10)
        return None

    def leases():
        return {lease for lease, in database.query("select distinct lease from otp.mail where lease is not null")}

    with Relay(script) as relay:
        ids = queue(database, "jane@example.com", count=10, lifetime=60)
        with worker(database, relay, MESSAGES_PER_SESSION=1):
            assert held_up[0].wait(10)
            before = wait_for(lambda: len(found := leases()) == 2 and found)
            assert held_up[1].wait(10)
            wait_for(lambda: len(found := leases()) == 1 and not found & before)
            seen.set()
            for row_id in ids:
                assert wait_state(database, row_id, "sent")["attempts"] == 1
    assert Counter(m.message["Message-ID"] for m in relay.seen) == Counter(message_id(row_id) for row_id in ids)


def test_sigterm_cuts_a_relay_that_hangs(database):
    """A worker that waits for its relay ends within 15 s, and the mail is settled for another try."""
    with Relay(only("DOT", HANG)) as relay:
        [row_id] = queue(database, "jane@example.com")
        process = database.start_worker(7, SMTP_RELAYS=relay.name, SMTP_TLS="off")
        wait_for(lambda: relay.seen)
        assert database.stop_worker(7) == 0, process.tail()
        row = mail_row(database, row_id)
        assert row["state"] == "queued" and row["lease"] is None and "connection lost" in row["last_reply"]


def test_sigterm_when_idle_is_quick(database):
    with Relay() as relay:
        database.start_worker(7, SMTP_RELAYS=relay.name, SMTP_TLS="off")
        start = time.monotonic()
        assert database.stop_worker(7) == 0
        assert time.monotonic() - start < 1


# --- The database ---

def test_database_away_while_a_mail_is_sent(database):
    """What was sent is recorded once PostgreSQL is back; it is not sent again."""
    stopped = threading.Event()

    def script(connection, verb, value):
        if verb == "DOT" and not stopped.is_set():
            database.postgres.stop()
            stopped.set()
        return None

    with Relay(script) as relay, worker(database, relay) as process:
        [row_id] = queue(database, "jane@example.com")
        assert stopped.wait(20)
        assert process.is_alive()
        database.close_admin()
        database.postgres.start()
        assert wait_state(database, row_id, "sent")["attempts"] == 1
        queue(database, "later@example.com")
        relay.wait("later@example.com")
    assert len(relay.seen) == 2


def test_starts_before_the_database(database):
    with Relay() as relay:
        database.close_admin()
        database.postgres.stop()
        process = database.start_worker(7, wait=False, SMTP_RELAYS=relay.name, SMTP_TLS="off")
        wait_for(lambda: process.events("started"))
        database.postgres.start()
        queue(database, "jane@example.com")
        relay.wait("jane@example.com")
        assert database.stop_worker(7) == 0


# --- Keys ---

def test_rotated_keys(database, tmp_path):
    """Newest and previous mail key both open codes; a code sealed to an unknown key waits and is named in the log."""
    folder = database.folder / "rotated"
    database.make_keys(folder=folder)
    database.make_keys("--rotate", folder=folder)

    class View:
        """The stack with the rotated keys."""
        keys = folder
        postgres = database.postgres
        pepper = database.pepper

    with Relay() as relay, worker(database, relay, KEY_DIR=folder / "worker") as process:
        queue(View, "one@example.com", "111111", key=1)
        queue(View, "two@example.com", "222222", key=2)
        assert relay.wait("one@example.com").code == "111111"
        assert relay.wait("two@example.com").code == "222222"
        [unknown] = queue(View, "three@example.com", sealed=b"x" * 64)
        database.query("update otp.mail set mail_key = 9 where id = %s", unknown)
        row = wait_reply(database, unknown)
        assert row["state"] == "queued" and ("KEY_DIR" in row["last_reply"] or "cannot be opened" in row["last_reply"])
        assert process.events("mail_not_sendable")
    assert len(relay.seen) == 2


def test_code_sealed_for_another_row_is_not_sent_B1(database):
    """B1: a sealed code moved to another row does not open there."""
    with Relay() as relay, worker(database, relay):
        stolen = bytes(64)
        [row_id] = queue(database, "thief@example.com", sealed=stolen)
        assert "cannot be opened" in wait_reply(database, row_id)["last_reply"]
    assert relay.connections == []


# --- The sweep ---

def test_sweep_on_schedule(database):
    """Old rows go in bounded batches every SWEEP_SECONDS; younger ones stay; validates are not in its way."""
    for age in [7200 + n for n in range(25)]:
        database.plant(age=age, lifetime=600 - age)
    kept = [database.plant(age=1800, lifetime=600 - 1800), database.plant()]
    database.query("insert into otp.address_quota values ('old@example.com', array[clock_timestamp() - interval '2 days']),"
                   " ('new@example.com', array[clock_timestamp()])")
    with Relay() as relay, worker(database, relay, SWEEP_SECONDS=1, SWEEP_BATCH=10, RETENTION_HOURS=1) as process:
        wait_for(lambda: database.query("select count(*) from otp.challenge")[0][0] == len(kept))
        wait_for(lambda: database.query("select mailbox from otp.address_quota") == [("new@example.com",)])
        wait_for(lambda: [e["deleted"] for e in process.events("sweep")] == [25])
        database.plant(age=7300, lifetime=600 - 7300)
        wait_for(lambda: database.query("select count(*) from otp.challenge")[0][0] == len(kept))
    assert all(database.challenge(token) for token in kept)
