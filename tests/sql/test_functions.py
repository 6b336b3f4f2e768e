"""The functions of schema otp, called as the programs call them."""
import collections
import os
import random
import secrets
import threading
import time
import uuid

import psycopg
import pytest

from stack import address_of, code_mac, make_token, token_id, wait_for

# Of the default application, without ticket, purpose and context.
GENERATE = ("select ord, retry_after from otp.generate(%s::uuid[], %s::text[], %s::text[], %s::text[], %s::text[], %s::text[], %s::bytea[],"
            " %s::bytea[], 1::smallint, %s::bytea[], 1::smallint, %s::text[], null, 6::smallint, %s, %s, %s, %s, %s) order by ord")
VALIDATE = ("select ord, verdict, number, email from otp.validate(%s::uuid[], %s::text[], %s::text[], %s::bytea[], %s::integer[], %s::bytea[],"
            " 1::smallint, null, null) order by ord")
RESEND = ("select verdict from otp.resend(%s::uuid[], %s::uuid[], %s::text[], %s::bytea[], 1::smallint, %s::bytea[], 1::smallint, %s::text[],"
          " null, %s, 0, 1000, 1000, 60)")


def nulls(count):
    return [None] * count


def guess(tokens, macs):
    """The parameters of VALIDATE."""
    return [token_id(t) for t in tokens], *[nulls(len(tokens))] * 3, [6] * len(tokens), macs


class Caller:
    """One connection per role."""

    def __init__(self, stack):
        self.stack = stack
        self.generating = stack.postgres.connect("otp_generate")
        self.validating = stack.postgres.connect("otp_validate")
        self.working = stack.postgres.connect("otp_worker")

    def close(self):
        for connection in (self.generating, self.validating, self.working):
            connection.close()

    def generate(self, emails, mailboxes=None, lifetime=600, attempts=5, resend=0, hour=0, day=0, code="123456"):
        """-> tokens, retry_after per request"""
        tokens = [make_token() for _ in emails]
        rows = self.generating.execute(GENERATE, (
            [token_id(t) for t in tokens], list(emails), nulls(len(emails)), mailboxes or nulls(len(emails)),
            nulls(len(emails)), nulls(len(emails)), nulls(len(emails)),
            [code_mac(self.stack.pepper(), t, code) for t in tokens], [secrets.token_bytes(64) for _ in tokens],
            [None] * len(emails), lifetime, attempts, resend, hour, day)).fetchall()
        assert [row[0] for row in rows] == list(range(1, len(emails) + 1))
        return tokens, [row[1] for row in rows]

    def validate(self, *guesses):
        """(token, code) pairs; a code of None is a guess that cannot be right -> verdict, attempts_left, email each"""
        rows = self.validating.execute(VALIDATE, guess(
            [t for t, _ in guesses], [c and code_mac(self.stack.pepper(), t, c) for t, c in guesses])).fetchall()
        return [row[1:] for row in rows]

    def claim(self, count=10):
        return self.working.execute("select * from otp.claim_mail(%s)", (count,)).fetchall()

    def settle(self, jobs, outcome, reply="250 OK", retry=None, age_ms=0, doubts=0):
        return [row[1] for row in self.working.execute(
            "select * from otp.settle_mail(%s::uuid[], %s::uuid[], %s::text[], %s::text[], %s::int[], %s::int[], %s::int[]) order by ord",
            ([j[0] for j in jobs], [j[1] for j in jobs], [outcome] * len(jobs), [reply] * len(jobs),
             [retry] * len(jobs), [age_ms] * len(jobs), [doubts] * len(jobs))).fetchall()]

    def sweep(self, retention=0, count=1000):
        """Deletes until the end; -> the sizes of the steps"""
        steps, after = [], None
        while True:
            deleted, after = self.working.execute("select * from otp.sweep(%s, %s, %s)",
                                                  (after, retention, count)).fetchone()
            if after is None:
                return steps
            steps.append(deleted)


@pytest.fixture
def call(database):
    caller = Caller(database)
    yield caller
    caller.close()


# --- generate ---

def test_p1_generate_stores_challenge_and_mail_together(call, database):
    (token,), retry = call.generate(["Jane@Example.com"])
    assert retry == [0]
    assert database.query("select email, attempts, max_attempts, used_at, extract(epoch from expires_at - created_at)::int"
                          " from otp.challenge where id = %s", token_id(token)) == [("Jane@Example.com", 0, 5, None, 600)]
    assert database.query("select state::text, length(sealed), attempts from otp.mail where id = %s", token_id(token)) == [("queued", 64, 0)]


def test_p1_generate_is_all_or_nothing(call, database):
    """P1: when the mail cannot be stored, the challenge is not either, nor is the budget touched."""
    database.query("alter table otp.mail add constraint broken check (locale is distinct from 'xx')")
    try:
        token = make_token()
        with pytest.raises(psycopg.errors.CheckViolation):
            call.generating.execute(GENERATE, ([token_id(token)], ["a@example.com"], [None], [None], [None], [None], [None], [b"x" * 32],
                                               [b"y" * 64], ["xx"], 600, 5, 60, 5, 10))
        assert database.query("select (select count(*) from otp.challenge), (select count(*) from otp.mail),"
                              " (select count(*) from otp.address_quota)") == [(0, 0, 0)]
    finally:
        database.query("alter table otp.mail drop constraint broken")


def test_generate_keeps_order_when_some_are_limited(call):
    one, two, three = address_of(), address_of(), address_of()
    assert call.generate([two], resend=60)[1] == [0]
    retry = call.generate([three, two, one], resend=60)[1]
    assert retry[0] == 0 and retry[2] == 0 and 55 <= retry[1] <= 60


def test_generate_the_same_id_twice_fails_as_a_whole(call, database):
    """A request that is retried after a lost answer may meet its own row: it must not be stored twice or half."""
    (token,), _ = call.generate([address_of()])
    with pytest.raises(psycopg.errors.UniqueViolation):
        call.generating.execute(GENERATE, ([token_id(token)], ["other@example.com"], [None], [None], [None], [None], [None], [b"x" * 32],
                                           [b"y" * 64], [None], 600, 5, 60, 0, 0))
    assert database.query("select count(*) from otp.address_quota where mailbox = 'other@example.com'") == [(0,)]


def test_resend_gap_by_the_databases_clock(call, database):
    address = address_of()
    assert call.generate([address], resend=60)[1] == [0]
    assert 59 <= call.generate([address], resend=60)[1][0] <= 60
    database.query("update otp.address_quota set sent = array[clock_timestamp() - interval '58.5 s'] where mailbox = %s", address)
    assert call.generate([address], resend=60)[1][0] in (1, 2)
    database.query("update otp.address_quota set sent = array[clock_timestamp() - interval '60 s'] where mailbox = %s", address)
    assert call.generate([address], resend=60)[1] == [0]


@pytest.mark.parametrize("limits, span", [({"hour": 5}, "1 hour"), ({"day": 10}, "1 day"), ({"hour": 5, "day": 3}, "1 day")])
def test_hour_and_day_limits(call, database, limits, span):
    address = address_of()
    allowed = min(limits.values())
    for _ in range(allowed):
        assert call.generate([address], **limits)[1] == [0]
    refused = call.generate([address], **limits)[1][0]
    assert refused > 3500
    database.query("update otp.address_quota set sent = array(select t - %s::interval + interval '100 s' from unnest(sent) t)"
                   " where mailbox = %s", span, address)
    assert 90 <= call.generate([address], **limits)[1][0] <= 100
    database.query("update otp.address_quota set sent = array(select t - interval '101 s' from unnest(sent) t) where mailbox = %s", address)
    assert call.generate([address], **limits)[1] == [0]


def test_a_refused_request_costs_no_budget(call):
    address = address_of()
    assert call.generate([address], resend=3600, hour=2)[1] == [0]
    for _ in range(5):
        assert call.generate([address], resend=3600, hour=2)[1][0] > 0
    assert call.generate([address], hour=2)[1] == [0]


def test_a9_quota_counts_the_canonical_address(call):
    """A9: the budget is the mailbox's, whatever the spelling as given."""
    mailbox = address_of("jane")
    assert call.generate(["Jane+a@Example.com"], [mailbox], hour=1)[1] == [0]
    assert call.generate(["jane+b@example.com"], [mailbox], hour=1)[1][0] > 0
    assert call.generate([mailbox], [None], hour=1)[1][0] > 0


def test_quota_holds_under_parallel_calls(call, database):
    """Two processes and one address: exactly the budget is admitted."""
    address, results = address_of(), []

    def run():
        with database.postgres.connect("otp_generate") as connection:
            other = Caller.__new__(Caller)
            other.stack, other.generating = database, connection
            for _ in range(20):
                results.append(other.generate([address], hour=5)[1][0])
    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 80 and results.count(0) == 5
    assert database.query("select count(*) from otp.challenge where email = %s", address) == [(5,)]


# --- validate ---

def test_verdicts(call, database):
    """Every verdict, in one batch, in the order asked."""
    good, wrong = call.generate([address_of(), "wrong@example.com"])[0]
    expired, used = database.plant(lifetime=-1), database.plant(used=True)
    exhausted, unknown = database.plant(attempts=5), make_token()
    answers = call.validate((unknown, "123456"), (good, "123456"), (exhausted, "123456"), (wrong, "000000"), (used, "123456"),
                            (expired, "123456"))
    assert [a[0] for a in answers] == ["unknown_token", "valid", "exhausted", "wrong_password", "used", "expired"]
    assert [a[1] for a in answers] == [None, None, None, 4, None, None]
    assert [a[2] is not None for a in answers] == [False, True, False, False, False, False]


def test_a3_a_code_is_accepted_once(call):
    """A3 at the database: the second correct guess is told that the code is used."""
    (token,), _ = call.generate([address_of()])
    assert call.validate((token, "123456"))[0][0] == "valid"
    assert call.validate((token, "123456"))[0] == ("used", None, None)
    assert call.validate((token, "999999"))[0] == ("used", None, None)


def test_a4_five_guesses(call, database):
    """A4 at the database: attempts_left counts 4 to 0, then nothing is evaluated any more, not even the right code."""
    (token,), _ = call.generate([address_of()])
    assert [call.validate((token, "000000"))[0] for _ in range(5)] == [("wrong_password", n, None) for n in (4, 3, 2, 1, 0)]
    assert call.validate((token, "123456"))[0] == ("exhausted", None, None)
    assert database.challenge(token)["attempts"] == 5 and database.challenge(token)["used_at"] is None


def test_a8_a_guess_that_is_no_code_counts(call, database):
    """A8: a null MAC is evaluated as wrong, never as a match, and uses up an attempt."""
    (token,), _ = call.generate([address_of()])
    assert call.validate((token, None))[0] == ("wrong_password", 4, None)


def test_a7_a_code_of_another_token(call):
    """A7: the MAC of code and token A does not open B, though the code is the same."""
    (a, b), _ = call.generate([address_of("a"), address_of("b")])
    rows = call.validating.execute(VALIDATE, guess([b], [code_mac(call.stack.pepper(), a, "123456")])).fetchall()
    assert rows[0][1] == "wrong_password"


def test_a3_a4_parallel_calls_from_many_connections(call, database):
    """A3, A4 at the database: 8 connections race; one success or exactly five evaluations."""
    def race(token, code, count):
        results = []

        def run():
            with database.postgres.connect("otp_validate") as connection:
                for _ in range(count):
                    results.append(connection.execute(VALIDATE, guess([token], [code_mac(database.pepper(), token, code)]))
                                   .fetchone()[1])
        threads = [threading.Thread(target=run) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return results
    for _ in range(3):
        right, wrong = call.generate([address_of(), address_of()])[0]
        results = race(right, "123456", 10)
        assert results.count("valid") == 1 and results.count("used") == 79
        results = race(wrong, "000000", 10)
        assert results.count("wrong_password") == 5 and results.count("exhausted") == 75


def test_two_batches_in_opposite_order_do_not_deadlock(call, database):
    """Rows are locked in a fixed order, whatever the order of the arrays."""
    tokens = [database.plant(max_attempts=1000) for _ in range(40)]
    errors = []

    def run(order):
        try:
            with database.postgres.connect("otp_validate") as connection:
                for _ in range(60):
                    rows = connection.execute(VALIDATE, guess(order, [b"x" * 32] * len(order))).fetchall()
                    assert {row[1] for row in rows} == {"wrong_password"}
        except Exception as problem:
            errors.append(problem)
    threads = [threading.Thread(target=run, args=(o,)) for o in (tokens, tokens[::-1], sorted(tokens), tokens[::-1])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert database.query("select min(attempts), max(attempts) from otp.challenge") == [(240, 240)]


def test_b5_the_previous_pepper_still_opens(call, database):
    """B5: key 2 is current, a challenge of key 1 is checked with the previous MAC."""
    token = database.plant()
    sql = ("select verdict from otp.validate(array[%s]::uuid[], array[null], array[null], array[null]::bytea[], array[6],"
           " array[%s]::bytea[], 2::smallint, array[%s]::bytea[], 1::smallint)")
    mac = code_mac(database.pepper(), token, "123456")
    assert call.validating.execute(sql, (token_id(token), mac, b"z" * 32)).fetchone() == ("wrong_password",)
    assert call.validating.execute(sql, (token_id(token), b"z" * 32, mac)).fetchone() == ("valid",)


@pytest.mark.parametrize("previous", [None, 1])
def test_b5_a_code_of_another_key_costs_no_guess(call, database, previous):
    """B5: a code that was made under a key which the caller does not have is not judged: no guess is counted, right or wrong,
    alone or in a batch, and the key is named. What is over is over all the same."""
    strange, known, used, spent, late = (database.plant(key=1) for _ in range(5))
    database.query("update otp.challenge set mac_key = 3 where id = any(%s)", [token_id(t) for t in (strange, used, spent, late)])
    database.query("update otp.challenge set mac_key = 2 where id = %s", token_id(known))
    database.query("update otp.challenge set used_at = now(), attempts = 1 where id = %s", token_id(used))
    database.query("update otp.challenge set attempts = 5 where id = %s", token_id(spent))
    database.query("update otp.challenge set expires_at = now() where id = %s", token_id(late))
    tokens = [strange, known, used, spent, late]
    macs = [code_mac(database.pepper(), t, "123456") for t in tokens]
    for _ in range(6):
        rows = call.validating.execute("select verdict, email is null, number from otp.validate(%s, %s::text[], %s::text[], %s::bytea[],"
                                       " %s, %s::bytea[], 2::smallint, %s::bytea[], %s::smallint) order by ord", (
                                           *guess(tokens, [*macs[:1], None, *macs[2:]]), macs if previous else None, previous)).fetchall()
        assert [rows[0], *rows[2:]] == [("unknown_key", True, 3), ("used", True, None), ("exhausted", True, None), ("expired", True, None)]
    assert rows[1][0] == "exhausted"  # the others of a batch are judged
    assert database.challenge(strange)["attempts"] == 0


def test_a4_a_token_twice_in_a_batch_is_an_error(call, database):
    """A4: nothing of such a batch is evaluated, rather than one guess of the two dropped without a word."""
    token = database.plant()
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="twice"):
        call.validate((token, "000000"), (token, "123456"))
    assert database.challenge(token)["attempts"] == 0


def test_a12_validate_never_returns_the_mac(database):
    """A12: no function that a responder may call returns a bytea."""
    rows = database.query("select count(*) from pg_proc where proname in ('generate', 'validate')"
                          " and pronamespace = 'otp'::regnamespace and pg_get_function_result(oid) ~ 'bytea|record'")
    assert rows == [(0,)]


# --- the outbox ---

def test_p2_a_lease_is_held_and_ends(call, database):
    """P2: no second worker gets a job inside a live lease; after it the same job, the same sealed code."""
    (token,), _ = call.generate([address_of()])
    first = call.claim()
    assert [job[0] for job in first] == [token_id(token)] and first[0][8] == 1
    assert call.claim() == []
    database.query("update otp.mail set next_attempt_at = clock_timestamp()")
    second = call.claim()
    assert second[0][0] == first[0][0] and second[0][4] == first[0][4] and second[0][1] != first[0][1] and second[0][8] == 2
    assert call.settle(first, "sent") == [False]
    assert call.settle(second, "sent") == [True]
    assert call.settle(second, "sent") == [False]


@pytest.mark.parametrize("outcome, state, erased", [("sent", "sent", True), ("failed", "failed", True), ("retry", "queued", False),
                                                    ("release", "queued", False)])
def test_b1_settled_mails_lose_their_code(call, database, outcome, state, erased):
    """B1: sealed is erased once the mail is sent or given up."""
    call.generate([address_of()])
    jobs = call.claim()
    assert call.settle(jobs, outcome, "250 2.0.0 taken", 7) == [True]
    assert database.query("select state::text, sealed is null, last_reply, lease from otp.mail") == [(state, erased, "250 2.0.0 taken", None)]
    if outcome == "retry":
        assert 6 <= database.query("select extract(epoch from next_attempt_at - clock_timestamp())::float from otp.mail")[0][0] <= 7


def test_sent_at_is_when_the_relay_took_it(call, database):
    """Not when it was settled, which may be much later."""
    call.generate([address_of()])
    call.settle(call.claim(), "sent", age_ms=30500)
    assert 30 <= database.query("select extract(epoch from clock_timestamp() - sent_at)::float from otp.mail")[0][0] < 32


def test_doubts_are_kept(call):
    """What a worker noted of a mail, the next one gets with it."""
    call.generate([address_of()])
    job = call.claim()
    assert job[0][10] == 0
    call.settle(job, "retry", retry=0, doubts=2)
    assert call.claim()[0][10] == 2


@pytest.mark.parametrize("retry", [0, 60, 3600])
def test_what_is_given_up_leaves_the_queue_in_time(call, database, retry):
    """A retry that would come after give_up_at falls due then, and no worker need claim: the sweep expires it."""
    call.generate([address_of()])
    call.settle(call.claim(), "retry", "450 later", 0)
    jobs = call.claim()
    database.query("update otp.mail set give_up_at = clock_timestamp() + interval '0.1 s'")
    call.settle(jobs, "retry", "450 later", retry)
    wait_for(lambda: call.working.execute("select otp.expire_mail(10)").fetchone() == (1,), 2)
    assert database.query("select state::text, sealed is null, last_reply from otp.mail") == [("expired", True, "450 later")]


def test_only_what_is_late_expires(call, database):
    """Neither what is in time nor what is under a lease."""
    call.generate([address_of()])
    assert call.working.execute("select otp.expire_mail(10)").fetchone() == (0,)
    call.claim()
    database.query("update otp.mail set give_up_at = clock_timestamp()")
    assert call.working.execute("select otp.expire_mail(10)").fetchone() == (0,)


def test_settle_refuses_other_outcomes(call):
    call.generate([address_of()])
    with pytest.raises(psycopg.Error):
        call.settle(call.claim(), "lost")


def test_no_mail_with_too_little_life_left(call, database):
    """A mail that cannot arrive in time expires, and its code is erased."""
    call.generate([address_of()], lifetime=600)
    database.query("update otp.mail set give_up_at = clock_timestamp()")
    assert call.claim() == []
    assert database.query("select state::text, sealed is null from otp.mail") == [("expired", True)]


def test_late_mails_do_not_crowd_out_what_can_be_sent(call, database):
    """However many come too late in front of it, a mail that can be sent is claimed at once, and they leave the queue."""
    late, _ = call.generate([address_of() for _ in range(1100)])
    database.query("update otp.mail set next_attempt_at = next_attempt_at - interval '1 minute', give_up_at = clock_timestamp()")
    (good,), _ = call.generate([address_of()])
    assert [job[0] for job in call.claim()] == [token_id(good)]
    assert database.query("select count(*) from otp.mail where state = 'expired' and sealed is null") == [(1000,)]
    assert call.claim() == []
    assert database.query("select count(*) from otp.mail where state = 'expired' and sealed is null") == [(len(late),)]


@pytest.mark.parametrize("lifetime, margin", [(600, 60), (60, 15), (240, 60), (100, 25)])
def test_give_up_margin(call, database, lifetime, margin):
    call.generate([address_of()], lifetime=lifetime)
    assert database.query("select extract(epoch from c.expires_at - m.give_up_at)::int from otp.mail m join otp.challenge c using (id)") == [(margin,)]


def test_a_retry_comes_in_time(call, database):
    """A long backoff is cut so that one try is left 2 min before expiry."""
    call.generate([address_of()], lifetime=600)
    call.settle(call.claim(), "retry", "450 later", 3600)
    assert database.query("select round(extract(epoch from c.expires_at - m.next_attempt_at))::int"
                          " from otp.mail m join otp.challenge c using (id)") == [(120,)]


def test_claims_do_not_overlap_or_wait(call, database):
    """Workers side by side share the queue: every job once, and none waits for the other's transaction."""
    call.generate([address_of() for _ in range(40)])
    with database.postgres.connect("otp_worker") as other:
        with other.transaction():
            first = other.execute("select id from otp.claim_mail(15)").fetchall()
            second = call.claim(100)
        assert len(first) == 15 and len(second) == 25
        assert not {row[0] for row in first} & {row[0] for row in second}


@pytest.mark.parametrize("lifetime, lease", [(600, 60), (60, 15), (100, 25), (240, 60), (86400, 60)])
def test_the_row_bounds_the_lease(call, database, lifetime, lease):
    """A lease is a quarter of the lifetime, a minute at most, whoever claims; and what is claimed at the last moment has one
    that ends with the code."""
    call.generate([address_of()], lifetime=lifetime)
    job = call.claim()[0]
    assert job[9] == lease * 1000
    over = "select extract(epoch from m.next_attempt_at - clock_timestamp())::float, m.next_attempt_at <= c.expires_at from otp.mail m join otp.challenge c using (id)"
    seconds, in_time = database.query(over)[0]
    assert lease - 2 < seconds <= lease and in_time
    database.query("update otp.challenge c set expires_at = expires_at - (give_up_at - clock_timestamp() - interval '1 s') from otp.mail m where m.id = c.id")
    database.query("update otp.mail set next_attempt_at = clock_timestamp(), give_up_at = clock_timestamp() + interval '1 s'")
    assert call.claim()[0][9] <= lease * 1000
    assert database.query(over)[0][1]


# --- the sweep ---

def old(database, count, age, lifetime=None):
    """count challenges asked for age seconds ago that expired lifetime seconds from now, with their mails."""
    tokens = [database.plant(age=age, lifetime=-age + 600 if lifetime is None else lifetime) for _ in range(count)]
    database.query("insert into otp.mail (id, mail_key, state, next_attempt_at, give_up_at)"
                   " select id, 1, 'sent', created_at, created_at from otp.challenge on conflict do nothing")
    return tokens


def test_sweep_deletes_after_the_retention_only(call, database):
    """Expired and retained long enough goes, with its mail; expired but retained, and live, stay."""
    gone = old(database, 5, 90000)
    kept = old(database, 3, 80000) + old(database, 2, 10)
    assert sum(call.sweep(retention=86400)) == 5
    assert all(database.challenge(t) is None for t in gone) and all(database.challenge(t) for t in kept)
    assert database.query("select count(*) from otp.mail") == [(5,)]


def test_sweep_needs_no_lifetime(call, database):
    """Rows go when their own expiry and the retention are over, whatever the lifetimes of those before them."""
    kept = [database.plant(age=86400, lifetime=3600) for _ in range(40)]
    gone = [database.plant(age=7300, lifetime=-3601) for _ in range(10)]
    assert sum(call.sweep(retention=3600, count=7)) == 10
    assert all(database.challenge(t) is None for t in gone) and all(database.challenge(t) for t in kept)


def test_sweep_looks_past_many_rows_that_stay(call, database):
    """More rows that stay than a step looks at do not hold up what is behind them."""
    database.query("insert into otp.challenge (id, email, code_mac, mac_key, max_attempts, created_at, expires_at)"
                   " select overlay(otp.id_at(clock_timestamp() - interval '2 hours')::text placing lpad(to_hex(g), 8, '0') from 29)::uuid,"
                   " 'x@example.com', 'x', 1, 5, now(), now() + interval '1 hour' from generate_series(1, 25000) g")
    token = database.plant(age=3000, lifetime=-10)
    assert call.sweep(retention=0, count=5) == [0, 0, 1]
    assert database.challenge(token) is None


def test_sweep_is_not_fooled_by_an_id_from_the_past(call, database):
    """A responder's slow clock makes old ids; expires_at, by the database's clock, decides."""
    token = database.plant(age=200000, lifetime=300)
    database.query("update otp.challenge set created_at = clock_timestamp()")
    assert sum(call.sweep(retention=0)) == 0
    assert database.challenge(token)


def test_sweep_works_in_bounded_steps(call, database):
    old(database, 250, 90000)
    steps = call.sweep(retention=3600, count=100)
    assert steps == [100, 100, 50]


def test_sweep_goes_on_past_rows_that_stay(call, database):
    """Rows that must stay do not hold up those behind them."""
    for index in range(30):
        database.plant(age=90000, lifetime=-80000 if index % 3 == 0 else 1000)
    assert sum(call.sweep(retention=3600, count=7)) == 10
    assert database.query("select count(*) from otp.challenge") == [(20,)]


def test_sweep_uses_the_primary_keys_alone(call, database):
    """The plan: index scans on the two primary keys, never a table scan, and no other index on challenge exists."""
    old(database, 20, 90000)
    assert database.query("select indexrelid::regclass::text from pg_index where indrelid = 'otp.challenge'::regclass") == [("otp.challenge_pkey",)]
    notices = []
    with database.postgres.connect() as connection:
        connection.add_notice_handler(lambda notice: notices.append(notice.message_primary))
        for setting in ("session_preload_libraries", ):
            connection.execute(f"set {setting} = 'auto_explain'")
        connection.execute("load 'auto_explain'")
        for setting, value in (("log_min_duration", "0"), ("log_nested_statements", "on"), ("log_analyze", "on")):
            connection.execute(f"set auto_explain.{setting} = '{value}'")
        connection.execute("set client_min_messages = log")
        assert connection.execute("select deleted from otp.sweep(null, 3600, 10)").fetchone() == (10,)
    plan = "\n".join(n for n in notices if "from otp.challenge" in n)
    assert "Delete on challenge" in plan and "Index Scan using challenge_pkey" in plan, plan
    assert "mail_pkey" in plan
    assert "Seq Scan" not in plan and "Bitmap" not in plan and "mail_due" not in plan, plan
    assert "id >" in plan.replace("(", "") and "id <" in plan


def test_sweep_of_quotas(call, database):
    """Addresses that were sent nothing for a day go; the others stay; the walk over the blocks wraps around."""
    for index in range(300):
        database.query("insert into otp.address_quota values (%s, array[clock_timestamp() - make_interval(hours => %s)])",
                       f"user{index}@example.com", 25 if index % 2 else 23)
    block, deleted, rounds = 0, 0, 0
    while True:
        step, block = call.working.execute("select * from otp.sweep_quota(%s, 1)", (block,)).fetchone()
        deleted, rounds = deleted + step, rounds + 1
        if block == 0:
            break
    assert deleted == 150 and rounds > 1
    assert database.query("select count(*) from otp.address_quota") == [(150,)]


def test_sweep_while_validates_run(call, database):
    """One definite answer: a challenge that is being swept answers expired or unknown_token, never an error."""
    tokens = old(database, 400, 90000)
    verdicts = []

    def run():
        with database.postgres.connect("otp_validate") as connection:
            for start in range(0, len(tokens), 20):
                chunk = tokens[start:start + 20]
                verdicts.extend(row[1] for row in connection.execute(VALIDATE, guess(chunk, [b"x" * 32] * 20)))
    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    assert sum(call.sweep(retention=3600, count=10)) == 400
    for thread in threads:
        thread.join()
    assert len(verdicts) == 1200 and set(verdicts) <= {"expired", "unknown_token"}


def test_a_sweep_waits_for_nobody(call, database):
    """Challenges, mails and limits that somebody has locked stay for the next time; the others go at once."""
    tokens = old(database, 6, 90000)
    for index in range(4):
        database.query("insert into otp.address_quota values (%s, array[clock_timestamp() - interval '25 hours'])", f"user{index}@example.com")
    call.working.execute("set lock_timeout = '100ms'")
    with database.postgres.connect() as holder:
        holder.execute("begin")
        holder.execute("select from otp.challenge where id = %s for update", (token_id(tokens[1]),))
        holder.execute("select from otp.mail where id = %s for update", (token_id(tokens[3]),))
        holder.execute("select from otp.address_quota where mailbox = 'user2@example.com' for update")
        assert sum(call.sweep(retention=3600)) == 4
        assert call.working.execute("select deleted from otp.sweep_quota(0, 100)").fetchone() == (3,)
        assert database.query("select count(*) from otp.challenge c full join otp.mail m using (id) where c.id is null or m.id is null") == [(0,)]
        holder.execute("rollback")
    assert sum(call.sweep(retention=3600)) == 2
    assert call.working.execute("select deleted from otp.sweep_quota(0, 100)").fetchone() == (1,)


REQUESTS = ("otp_generate", "otp_validate")
SECONDS = 60 if os.environ.get("OTP_SOAK") else 8


def test_everything_at_once_without_a_deadlock(call, database):
    """All functions that take locks, side by side on few rows, with the programs' own limits of time: none of them ever waits for
    another one in a circle (40P01), or for so long that a request is given up (55P03, 57014)."""
    done, problems, calls = threading.Event(), [], collections.Counter()
    addresses = [f"user{n}@example.com" for n in range(100)]
    tokens = collections.deque(maxlen=400)
    owners = {}

    def worker(name, role, act):
        dice = random.Random(name)
        with database.postgres.connect(role) as connection:
            if role in REQUESTS:  # the others have their roles' own limits
                connection.execute("set statement_timeout = '1500ms'")
                connection.execute("set lock_timeout = '500ms'")
            mine = Caller.__new__(Caller)
            mine.stack, mine.generating, mine.validating, mine.working, mine.admin = database, *[connection] * 4
            while not done.is_set() and not problems:
                try:
                    act(mine, dice)
                    calls[act.__name__] += 1
                except psycopg.Error as problem:
                    problems.append((act.__name__, problem.sqlstate, str(problem)))

    def generate(mine, dice):
        some = dice.sample(addresses, 12)
        made, retry = mine.generate(some, resend=0, hour=1000, day=1000, lifetime=dice.choice([1, 600]))
        owners.update(zip(made, some))
        tokens.extend(made)

    def resend(mine, dice):
        some = list({owners[t]: t for t in dice.sample(list(tokens), min(len(tokens), 15))}.values())  # a mailbox may be there once
        verdicts.update(row[0] for row in mine.generating.execute(RESEND, (
            [token_id(t) for t in some], [token_id(make_token()) for _ in some], nulls(len(some)), [b"x" * 32] * len(some),
            [b"y" * 64] * len(some), nulls(len(some)), dice.choice([1, 600]))))

    def revoke_tokens(mine, dice):
        some = dice.sample(list(tokens), min(len(tokens), 3))
        mine.validating.execute("select * from otp.revoke_tokens(%s::uuid[], %s::text[])", ([token_id(t) for t in some], nulls(len(some))))
        time.sleep(0.02)

    def revoke(mine, dice):
        mine.admin.execute("select * from otp.revoke(%s)", (dice.choice(addresses),))
        time.sleep(0.1)

    def validate(mine, dice):
        some = dice.sample(list(tokens), min(len(tokens), 15))
        mine.validate(*[(t, "123456" if dice.random() < 0.1 else "000000") for t in some])

    def deliver(mine, dice):
        jobs = mine.claim(20)
        dice.shuffle(jobs)
        mine.settle(jobs, dice.choice(["sent", "retry", "release"]), retry=0)

    def sweep(mine, dice):
        mine.sweep(retention=0, count=50)

    def sweep_quota(mine, dice):
        mine.working.execute("select * from otp.sweep_quota(0, 1000)")

    def forget(mine, dice):
        mine.admin.execute("select * from otp.forget(%s)", (dice.choice(addresses),))

    def unlock(mine, dice):
        mine.admin.execute("select otp.unlock(%s)", (dice.choice(addresses),))

    def end_live(mine, dice):
        mine.admin.execute("select * from otp.end_live()")
        time.sleep(0.2)

    def age(mine, dice):
        """Makes quota rows old, in an order of its own, so that there is something to sweep: as if a day went by."""
        for mailbox in dice.sample(addresses, 3):
            mine.admin.execute("update otp.address_quota set sent = array[clock_timestamp() - interval '2 days'] where mailbox = %s", (mailbox,))
    verdicts = collections.Counter()
    cast = [(generate, "otp_generate", 2), (resend, "otp_generate", 2), (validate, "otp_validate", 3), (revoke_tokens, "otp_validate", 1),
            (deliver, "otp_worker", 2), (sweep, "otp_worker", 2), (sweep_quota, "otp_worker", 2), (forget, "otp_admin", 2),
            (unlock, "otp_admin", 1), (revoke, "otp_admin", 1), (end_live, "otp_admin", 1), (age, "postgres", 1)]
    threads = [threading.Thread(target=worker, args=(f"{act.__name__}{n}", role, act)) for act, role, count in cast for n in range(count)]
    for thread in threads:
        thread.start()
    time.sleep(SECONDS)
    done.set()
    for thread in threads:
        thread.join()
    assert not problems, problems
    assert min(calls[act.__name__] for act, _, _ in cast) > 5, calls
    assert min(verdicts[word] for word in ("stored", "unknown_token", "revoked")) > 5, verdicts
    assert database.query("select count(*) from otp.mail m where not exists (select from otp.challenge c where c.id = coalesce(m.challenge, m.id))") == [(0,)]


# --- arguments ---

ID, TEXT, BYTES = "array[gen_random_uuid()]", "array[null]::text[]", "array['x'::bytea]"
CALLS = {
    "generate": ("otp_generate", (ID, "array['a@b.example']", TEXT, TEXT, TEXT, TEXT, "array[null]::bytea[]", BYTES, "1::smallint", BYTES,
                                  "1::smallint", TEXT, "null", "6::smallint", "600", "5", "60", "5", "10")),
    "resend_terms": ("otp_generate", (ID, TEXT, "3600")),
    "resend": ("otp_generate", (ID, ID, TEXT, BYTES, "1::smallint", BYTES, "1::smallint", TEXT, "null", "600", "60", "5", "10", "3600")),
    "validate": ("otp_validate", (ID, TEXT, TEXT, "array[null]::bytea[]", "array[6]", BYTES, "2::smallint", BYTES, "1::smallint")),
    "revoke_tokens": ("otp_validate", (ID, TEXT)),
    "delivery_status": ("otp_validate", (ID, TEXT)),
    "claim_mail": ("otp_worker", ("10",)),
    "settle_mail": ("otp_worker", (ID, ID, "array['retry']", "array['x']", "array[7]", "array[0]", "array[0]")),
    "expire_mail": ("otp_worker", ("10",)),
    "outbox_depth": ("otp_generate", ("10",)),
    "sweep": ("otp_worker", ("null", "0", "10")),
    "sweep_quota": ("otp_worker", ("0", "10")),
    "forget": ("otp_admin", ("'a@b.example'",)),
    "unlock": ("otp_admin", ("'a@b.example'",)),
    "revoke": ("otp_admin", ("'a@b.example'",)),
    "tokens_of": ("otp_admin", ("'a@b.example'",)),
}
UUIDS, TWO, TWO_BYTES, NUMBERS = "array[gen_random_uuid(), gen_random_uuid()]", "array['x', 'y']", "array['x', 'y']::bytea[]", "array[6, 7]"
SAME = "array['018f0000-0000-7000-8000-000000000001', '018f0000-0000-7000-8000-000000000001']::uuid[]"


def places(name, what, values):
    """The function, once with each value in each of those places."""
    return [(name, {place: value}) for place in what for value in values]


WRONG = [
    *places("generate", range(12), ["null"]), *places("generate", [0, 1, 2, 3, 4, 5, 6, 7, 9, 11], ["'{}'"]),
    *places("generate", [1, 2, 3, 4, 5, 11], [TWO]), *places("generate", [6, 7, 9], [TWO_BYTES]),
    *places("generate", [0], [UUIDS, "array[null]::uuid[]"]), ("generate", {1: "array[null]::text[]"}), ("generate", {7: "array[null]::bytea[]"}),
    *places("generate", [8, 10, 13], ["0::smallint", "-1::smallint"]), *places("generate", [14, 15], ["null", "0", "-1"]),
    *places("generate", [13, 16, 17, 18], ["null"]), *places("generate", [16, 17, 18], ["-1"]), ("generate", {15: "40000"}),
    *places("resend_terms", [0, 1], ["null", "'{}'"]), *places("resend_terms", [0], [UUIDS, "array[null]::uuid[]"]), ("resend_terms", {1: TWO}),
    *places("resend_terms", [2], ["null", "-1"]),
    *places("resend", range(8), ["null"]), *places("resend", [0, 1, 2, 3, 5, 7], ["'{}'"]), *places("resend", [2, 7], [TWO]),
    *places("resend", [3, 5], [TWO_BYTES]), *places("resend", [0, 1], [UUIDS, "array[null]::uuid[]"]), ("resend", {3: "array[null]::bytea[]"}),
    *places("resend", [4, 6], ["0::smallint", "-1::smallint"]), *places("resend", [9], ["null", "0", "-1"]),
    *places("resend", [10, 11, 12, 13], ["null", "-1"]),
    *places("validate", range(9), ["null"]), *places("validate", [0, 1, 2, 3, 4, 5, 7], ["'{}'"]), *places("validate", [1, 2], [TWO]),
    *places("validate", [3, 5, 7], [TWO_BYTES]), ("validate", {4: NUMBERS}), *places("validate", [0], [UUIDS, "array[null]::uuid[]"]),
    *places("validate", [6, 8], ["0::smallint"]), ("validate", {6: "-1::smallint"}),
    *[(name, {place: value}) for name in ("revoke_tokens", "delivery_status") for place in (0, 1) for value in ("null", "'{}'")],
    *[(name, wrong) for name in ("revoke_tokens", "delivery_status") for wrong in ({0: UUIDS}, {0: "array[null]::uuid[]"}, {1: TWO})],
    *places("claim_mail", [0], ["null", "0", "-1"]),
    *places("settle_mail", [0, 1], ["null", "'{}'", UUIDS, "array[null]::uuid[]"]),
    *places("settle_mail", [2], ["null", "'{}'", "array['lost']", "array[null]::text[]", TWO]), *places("settle_mail", [3], ["null", "'{}'", TWO]),
    *places("settle_mail", [4, 5, 6], ["null", "'{}'", "array[-1]", "array[null]::int[]", "array[1, 2]"]),
    ("settle_mail", {0: SAME, 1: UUIDS, 2: "array['sent', 'sent']", 3: TWO, 4: "array[0, 0]", 5: "array[0, 0]", 6: "array[0, 0]"}),
    *places("expire_mail", [0], ["null", "0", "-1"]), *places("outbox_depth", [0], ["null", "0", "-1"]),
    *places("sweep", [1], ["null", "-1"]), *places("sweep", [2], ["null", "0", "-1"]),
    *places("sweep_quota", [0], ["null", "-1"]), *places("sweep_quota", [1], ["null", "0", "-1"]),
    *[(name, {0: value}) for name in ("forget", "unlock", "revoke", "tokens_of") for value in ("null", "''", "'no address'", "'@'")],
]


@pytest.mark.parametrize("name", CALLS)
def test_the_calls_without_a_wrong_argument_are_taken(call, database, name):
    role, arguments = CALLS[name]
    with database.postgres.connect(role) as connection:
        connection.execute(f"select * from otp.{name}({', '.join(arguments)})")


@pytest.mark.parametrize("name, wrong", WRONG, ids=lambda value: str(value))
def test_a_wrong_argument_is_an_error(call, database, name, wrong):
    """Null, negative, of another length, nothing: refused as a whole, and nothing has changed."""
    live = database.plant(email="kept@example.com", lifetime=600)
    database.plant(email="old@example.com", age=90000, lifetime=-80000)
    role, arguments = CALLS[name]
    arguments = [wrong.get(place, argument) for place, argument in enumerate(arguments)]
    with database.postgres.connect(role) as connection, pytest.raises((psycopg.DataError, psycopg.IntegrityError)):
        connection.execute(f"select * from otp.{name}({', '.join(arguments)})")
    assert database.query("select count(*) from otp.challenge where attempts = 0") == [(2,)]
    assert database.challenge(live)


def test_id_at_of_odd_moments(database):
    """No id is made up for a moment that has none."""
    assert database.query("select otp.id_at(null), otp.id_at('-infinity'), otp.id_at('1969-12-31')") == [(None, uuid.UUID(int=0), uuid.UUID(int=0))]
    for moment in ("infinity", "10900-01-01"):
        with pytest.raises(psycopg.Error):
            database.query("select otp.id_at(%s::timestamptz)", moment)


# --- support ---

def test_forget_erases_every_trace(call, database):
    call.generate(["Jane+x@example.com"], ["jane@example.com"], hour=5)
    call.generate(["jane@example.com"], hour=5)
    call.generate(["other@example.com"], hour=5)
    with database.postgres.connect("otp_admin") as connection:
        assert connection.execute("select challenges, quotas from otp.forget('JANE@example.com')").fetchone() == (2, 1)
    assert database.query("select email from otp.challenge") == [("other@example.com",)]
    assert database.query("select count(*) from otp.mail") == [(1,)]
    assert b"jane" not in database.postgres.dump().lower()


@pytest.fixture
def turkish(database):
    """A database whose language has two letters i."""
    if database.postgres.connect().info.server_version < 150000:
        pytest.skip("needs a database of an ICU language")
    database.query("create database otp_tr locale_provider icu icu_locale 'tr-TR' template template0")
    database.postgres.migrate("otp_tr")
    yield database.postgres
    database.query("drop database otp_tr")


def test_letters_are_those_of_addresses_not_of_the_databases_language(turkish):
    """In Turkish the lower case of I is a letter without a dot; an address has none."""
    with turkish.connect(dbname="otp_tr") as connection:
        assert connection.execute("select lower('I') <> 'i'").fetchone() == (True,)
        connection.execute("insert into otp.challenge (id, email, mailbox, code_mac, mac_key, max_attempts, created_at, expires_at)"
                           " values (gen_random_uuid(), 'Iris+x@Insel.example', 'iris@insel.example', 'x', 1, 5, now(), now())")
        connection.execute("insert into otp.address_quota values ('iris@insel.example', array[now()]), ('i@b.example', array[now()])")
    with turkish.connect("otp_admin", "otp_tr") as connection:
        assert connection.execute("select otp.unlock('I@B.EXAMPLE')").fetchone() == (True,)
        assert connection.execute("select challenges, quotas from otp.forget('IRIS@INSEL.EXAMPLE')").fetchone() == (1, 1)


def test_support_holds_no_row_for_long(database):
    """A transaction that is left open at a prompt is ended before long, and with it its locks."""
    with database.postgres.connect("otp_admin") as connection:
        assert connection.execute("show idle_in_transaction_session_timeout").fetchone() == ("10s",)


def test_unlock_lifts_the_limits_but_not_the_attempts(call, database):
    """A15 for support: unlock gives a new mail, not new guesses."""
    (token,), _ = call.generate(["jane@example.com"], hour=1)
    for _ in range(5):
        call.validate((token, "000000"))
    assert call.generate(["jane@example.com"], hour=1)[1][0] > 0
    with database.postgres.connect("otp_admin") as connection:
        assert connection.execute("select otp.unlock('jane@example.com')").fetchone() == (True,)
        assert connection.execute("select otp.unlock('jane@example.com')").fetchone() == (False,)
    assert call.generate(["jane@example.com"], hour=1)[1] == [0]
    assert call.validate((token, "123456"))[0][0] == "exhausted"


def test_views_tell_what_happened(call, database):
    database.plant(email="used@example.com", used=True)
    database.plant(email="expired@example.com", lifetime=-5)
    database.plant(email="exhausted@example.com", attempts=5)
    call.generate(["failed@example.com"])
    call.settle(call.claim(), "failed", "550 5.1.1 no such user")
    call.generate(["live@example.com"])
    rows = database.query("select email, state, mail::text, last_reply from otp.challenges order by email")
    assert rows == [("exhausted@example.com", "exhausted", None, None), ("expired@example.com", "expired", None, None),
                    ("failed@example.com", "live", "failed", "550 5.1.1 no such user"), ("live@example.com", "live", "queued", None),
                    ("used@example.com", "used", None, None)]
    assert database.query("select email, queue from otp.outbox") == [("live@example.com", "due")]


def test_updates_of_attempts_stay_hot(call, database):
    """No index column changes when an attempt is counted (fillfactor leaves room on the page)."""
    tokens = [database.plant(max_attempts=50) for _ in range(30)]
    database.query("select pg_stat_reset_single_table_counters('otp.challenge'::regclass)")
    for _ in range(3):
        call.validate(*[(t, "000000") for t in tokens])
    call.validating.close()

    def counted():
        updates, hot = database.query("select n_tup_upd, n_tup_hot_upd from pg_stat_user_tables where relid = 'otp.challenge'::regclass")[0]
        return (updates, hot) if updates >= 90 else None
    updates, hot = wait_for(counted, 15, "the statistics")
    assert hot >= updates * 0.5


def test_ids_are_time_ordered(call, database):
    first = call.generate([address_of()])[0][0]
    second = call.generate([address_of()])[0][0]
    assert uuid.UUID(str(token_id(first))).bytes[:6] <= uuid.UUID(str(token_id(second))).bytes[:6]


def test_plans_do_not_depend_on_what_the_table_was(database, call):
    """A connection that made its plans on empty tables is as fast when they have grown: each row is found by its key."""
    database.query("alter table otp.challenge set (autovacuum_enabled = off)")
    database.query("alter table otp.mail set (autovacuum_enabled = off)")
    try:
        database.query("vacuum analyze otp.challenge")
        database.query("vacuum analyze otp.mail")
        tokens, _ = call.generate(["first@example.com"])
        call.validate((tokens[0], None))
        jobs = call.claim(1)
        call.settle(jobs, "sent")
        call.sweep(retention=3600)
        database.query("insert into otp.challenge (id, email, code_mac, mac_key, max_attempts, created_at, expires_at)"
                       " select gen_random_uuid(), 'x@example.com', 'x', 1, 5, now(), now() + interval '10 min' from generate_series(1, 40000)")
        database.query("insert into otp.mail (id, mail_key, next_attempt_at, give_up_at) select id, 1, now(), now() + interval '9 min'"
                       " from otp.challenge where email = 'x@example.com'")
        tokens, _ = call.generate([f"u{n}@example.com" for n in range(100)])

        def seconds(act):
            start = time.monotonic()
            act()
            return time.monotonic() - start
        assert seconds(lambda: call.validate(*[(token, None) for token in tokens])) < 0.2
        taken = []
        assert seconds(lambda: taken.extend(call.claim(100))) < 0.2 and len(taken) == 100
        assert seconds(lambda: call.settle(taken, "sent")) < 0.2
    finally:
        database.query("alter table otp.challenge reset (autovacuum_enabled)")
        database.query("alter table otp.mail reset (autovacuum_enabled)")
