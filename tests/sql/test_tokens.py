"""What a token's holder and support can ask of schema otp besides a first code and a guess: another code under the same token,
its end, its mail's whereabouts; applications, purposes, tickets and test addresses."""
import collections
import ctypes
import itertools
import random
import secrets
import select
import subprocess
import threading
import time
import uuid

import psycopg
import pytest

from stack import ROOT, address_of, code_mac, make_token, token_id, wait_for
from stack.codes import code_context
from test_functions import Caller

GENERATE = ("select retry_after from otp.generate(%s::uuid[], %s::text[], %s::text[], %s::text[], %s::text[], %s::text[], %s::bytea[],"
            " %s::bytea[], 1::smallint, %s::bytea[], 1::smallint, %s::text[], %s::text, %s::smallint, %s, %s, %s, %s, %s)")
TERMS = "select verdict, email, mailbox, locale, purpose, context, digits, is_test from otp.resend_terms(%s::uuid[], %s::text[], %s)"
RESEND = ("select verdict, retry_after from otp.resend(%s::uuid[], %s::uuid[], %s::text[], %s::bytea[], %s::smallint, %s::bytea[],"
          " 1::smallint, %s::text[], %s::text, %s, %s, %s, %s, %s) order by ord")
VALIDATE = ("select verdict, number, email, mailbox, purpose, is_test from otp.validate(%s::uuid[], %s::text[], %s::text[], %s::bytea[],"
            " %s::integer[], %s::bytea[], %s::smallint, %s::bytea[], %s::smallint) order by ord")
REVOKE = "select verdict from otp.revoke_tokens(%s::uuid[], %s::text[]) order by ord"
STATUS = ("select verdict, sent_at is not null, attempts, reason, is_test from otp.delivery_status(%s::uuid[], %s::text[]) order by ord")
CODES = ("111111", "222222", "333333", "444444", "555555")
RETENTION = 3600
APPLICATIONS = (None, "shop", "bank")


class Holder(Caller):
    """Makes tokens, and asks for them singly what the programs ask in batches."""

    def __init__(self, stack):
        super().__init__(stack)
        self.told = {}  # per token: what its code is bound to

    def ask(self, email=None, mailbox=None, application=None, purpose=None, context=None, ticket=None, is_test=False, code=CODES[0],
            digits=6, lifetime=600, attempts=5, resend=0, hour=0, day=0, locale=None, recipient=None):
        """-> a token and 0, or the seconds to wait"""
        token = make_token()
        self.told[token] = {"application": application, "purpose": purpose, "context": context}
        mac = code_mac(self.stack.pepper(), token, code, **self.told[token])
        return token, self.generating.execute(GENERATE, (
            [token_id(token)], [email or address_of()], [recipient], [mailbox], [ticket], [purpose], [code_context(token, context)], [mac],
            [None if is_test else secrets.token_bytes(64)], [locale], application, digits, lifetime, attempts, resend, hour, day)).fetchone()[0]

    def make(self, *codes, **values):
        """-> a token with these codes, oldest first"""
        token, wait = self.ask(code=codes[0] if codes else CODES[0], **values)
        assert wait == 0
        for code in codes[1:]:
            assert self.resend(token, code)[0] == "stored"
        return token

    def resend(self, token, code=CODES[1], ticket=None, key=1, is_test=False, lifetime=600, resend=0, hour=0, day=0, **told):
        """-> verdict, seconds to wait; the mail's id is in self.mail_id"""
        bound = self.told.get(token, {}) | told
        first = uuid.UUID(bytes=int(time.time() * 1000).to_bytes(6, "big") + secrets.token_bytes(10))
        self.mail_id = first
        return self.generating.execute(RESEND, (
            [token_id(token)], [first], [ticket], [code_mac(self.stack.pepper(), token, code, **bound)], key,
            [None if is_test else secrets.token_bytes(64)], ["de"], bound.get("application"), lifetime, resend, hour, day, RETENTION)).fetchone()

    def terms(self, token, application=None):
        return self.generating.execute(TERMS, ([token_id(token)], [application], RETENTION)).fetchone()

    def answer(self, token, code, digits=6, key=1, previous=None, connection=None, **told):
        """A guess -> all that validate tells"""
        bound = self.told.get(token, {"application": None, "purpose": None, "context": None}) | told
        mac = code_mac(self.stack.pepper(), token, code, **bound)
        return (connection or self.validating).execute(VALIDATE, (
            [token_id(token)], [bound["application"]], [bound["purpose"]], [code_context(token, bound["context"])], [digits], [mac], key,
            previous and [mac], previous)).fetchone()

    def guess(self, token, code, **told):
        """-> verdict, number"""
        return self.answer(token, code, **told)[:2]

    def revoke(self, token, application=None):
        return self.validating.execute(REVOKE, ([token_id(token)], [application])).fetchone()[0]

    def status(self, token, application=None):
        return self.validating.execute(STATUS, ([token_id(token)], [application])).fetchone()

    def all_rows(self):
        """Everything that is stored, to see that it did not change."""
        return [self.stack.query(f"select * from otp.{table} order by 1") for table in ("challenge", "mail", "address_quota")]


@pytest.fixture
def call(database):
    caller = Holder(database)
    yield caller
    caller.close()


@pytest.fixture
def support(database):
    with database.postgres.connect("otp_admin") as connection:
        yield lambda sql, *values: connection.execute(sql, values).fetchall()


def mails(database):
    """The states of all mails, in the order in which they were asked for."""
    return [row[0] for row in database.query("select state::text from otp.mail order by id")]


# --- another code under the same token ---

def test_a17_a_resend_keeps_the_token(call, database):
    """A17: id, moment, address and guesses stay; the code, its end and its mail are new."""
    token = call.make(email="Jane@Example.com", mailbox="jane@example.com", purpose="sign-in", context="order 7", lifetime=100, locale="fr")
    assert call.terms(token) == ("ready", "Jane@Example.com", "jane@example.com", "fr", "sign-in", code_context(token, "order 7"), 6, False)
    call.guess(token, "000000")
    before = database.challenge(token)
    assert call.resend(token, lifetime=600) == ("stored", None)
    after = database.challenge(token)
    changed = {name for name, value in after.items() if value != before[name]}
    assert changed == {"code_mac", "earlier", "resent", "expires_at"} and after["resent"] == [call.mail_id]
    assert 599 < database.query("select extract(epoch from expires_at - clock_timestamp())::float from otp.challenge")[0][0] <= 600
    assert call.answer(token, CODES[1]) == ("valid", None, "Jane@Example.com", "jane@example.com", "sign-in", False)


@pytest.mark.parametrize("sent", range(1, 6))
def test_a17_the_last_three_codes_count(call, sent):
    """A17: with the fourth the first is over."""
    for place in range(sent):
        token = call.make(*CODES[:sent])
        expected = "valid" if place >= sent - 3 else "wrong_password"
        assert call.guess(token, CODES[place])[0] == expected, place


@pytest.mark.parametrize("ended", [(), (1,), (2,), (1, 2)])
def test_a17_a_code_dies_at_its_own_moment(call, database, ended):
    """A17: each code is judged by its own end, whatever those of the others; earlier[1] is the second, earlier[2] the first."""
    for place in range(3):
        token = call.make(*CODES[:3])
        for index in ended:
            database.query(f"update otp.challenge set earlier[{index}].expires_at = clock_timestamp() where id = %s", token_id(token))
        expected = "wrong_password" if 2 - place in ended else "valid"
        assert call.guess(token, CODES[place])[0] == expected, (ended, place)


def test_a17_a_resend_lengthens_the_life_of_no_code_before_it(call, database):
    """A17: the moments that are stored are those of each code's own mail, and they hold as time goes by."""
    token = call.make(CODES[0], lifetime=1, attempts=30000)
    first = database.challenge(token)["expires_at"]
    call.resend(token, CODES[1], lifetime=300)
    second = database.challenge(token)["expires_at"]
    call.resend(token, CODES[2], lifetime=600)
    assert database.query("select (e).expires_at from otp.challenge, unnest(earlier) e") == [(second,), (first,)]
    wait_for(lambda: database.query("select clock_timestamp() > %s", first)[0][0], 5)
    assert call.guess(token, CODES[0])[0] == "wrong_password"
    assert call.guess(token, CODES[1])[0] == "valid"


def test_a17_when_the_token_ends_all_its_codes_do(call, database):
    """A17: the newest code's end is the token's."""
    token = call.make(*CODES[:3])
    database.query("update otp.challenge set expires_at = clock_timestamp()")
    for code in CODES[:3]:
        assert call.guess(token, code) == ("expired", None)


def test_a_shorter_lifetime_does_not_end_a_token_sooner(call, database):
    """The settings changed meanwhile: the code before lives as long as its mail says, and a token ends after all its codes."""
    token = call.make(lifetime=600)
    end = database.challenge(token)["expires_at"]
    call.resend(token, lifetime=60)
    assert database.challenge(token)["expires_at"] == end
    assert call.guess(token, CODES[0])[0] == "valid"


def test_a17_a_resend_gives_no_guess_back(call, database):
    """A17: one counter over all codes."""
    token = call.make(CODES[0])
    assert [call.guess(token, "000000")[1] for _ in range(2)] == [4, 3]
    assert call.resend(token, CODES[1])[0] == "stored"
    assert [call.guess(token, "000000")[1] for _ in range(2)] == [2, 1]
    assert call.resend(token, CODES[2])[0] == "stored"
    assert call.guess(token, "000000") == ("wrong_password", 0)
    assert [call.guess(token, code) for code in CODES[:3]] == [("exhausted", None)] * 3
    assert call.resend(token, CODES[3]) == ("exhausted", None)
    assert database.challenge(token)["attempts"] == 5


def test_a3_one_of_three_codes_opens_once(call):
    """A3: when a code was accepted, the token's others are over as well."""
    token = call.make(*CODES[:3])
    assert call.guess(token, CODES[1])[0] == "valid"
    assert [call.guess(token, code)[0] for code in CODES[:3]] == ["used"] * 3


ENDS = {
    "used": "used_at = clock_timestamp()",
    "revoked": "revoked_at = clock_timestamp()",
    "exhausted": "attempts = max_attempts",
    "expired": f"expires_at = clock_timestamp() - interval '{RETENTION} s'",
    "unknown_token": "application = 'shop'",
}


@pytest.mark.parametrize("word", [*ENDS, "deleted"])
def test_a17_a_token_that_is_over_gets_no_other_code(call, database, word):
    """A17: each end is told by its word, before and at the resend, and nothing is stored, queued or counted."""
    token = call.make(hour=5)
    database.query(f"update otp.challenge set {ENDS[word]}" if word in ENDS else "delete from otp.challenge")
    told = word if word in ENDS else "unknown_token"
    before = call.all_rows()
    assert call.terms(token)[0] == told
    assert call.resend(token, hour=5) == (told, None)
    assert call.all_rows() == before


def test_the_first_of_several_ends_is_told(call, database):
    """Who may not know of a token learns nothing; then what was done to it, then what time did; guess, terms and resend agree."""
    token = call.make()
    order = ["expired", "exhausted", "revoked", "used", "unknown_token"]
    for word in order:
        database.query(f"update otp.challenge set {ENDS[word]}")
        assert [call.guess(token, CODES[0])[0], call.terms(token)[0], call.resend(token)[0]] == [word] * 3


def test_a17_an_expired_token_gets_another_code_within_the_retention(call, database):
    """A17: the new code lives, the old one stays dead."""
    for code, verdict in ((CODES[0], "wrong_password"), (CODES[1], "valid")):
        token = call.make(CODES[0])
        database.query("update otp.challenge set expires_at = clock_timestamp() - make_interval(secs => %s) where id = %s", RETENTION - 5, token_id(token))
        assert call.guess(token, CODES[0])[0] == "expired"
        assert call.terms(token)[0] == "ready" and call.resend(token, CODES[1])[0] == "stored"
        assert call.guess(token, code)[0] == verdict


def test_many_resends_in_a_batch(call, database):
    """Each line of a batch has its own verdict, in the order asked."""
    good, used, limited, strange = call.make(email="a@b.example", hour=9), call.make(), call.make(email="c@d.example", hour=1), make_token()
    call.guess(used, CODES[0])
    tokens = [limited, strange, good, used]
    rows = call.generating.execute(RESEND, (
        [token_id(t) for t in tokens], [uuid.uuid4() for _ in tokens], [None] * 4, [b"x" * 32] * 4, 1, [b"y" * 64] * 4, [None] * 4, None,
        600, 0, 1, 0, RETENTION)).fetchall()
    assert [row[0] for row in rows] == ["rate_limited", "unknown_token", "rate_limited", "used"]
    database.query("delete from otp.address_quota where mailbox = 'a@b.example'")
    rows = call.generating.execute(RESEND, (
        [token_id(t) for t in tokens], [uuid.uuid4() for _ in tokens], [None] * 4, [b"x" * 32] * 4, 1, [b"y" * 64] * 4, [None] * 4, None,
        600, 0, 1, 0, RETENTION)).fetchall()
    assert [row[0] for row in rows] == ["rate_limited", "unknown_token", "stored", "used"] and 3590 <= rows[0][1] <= 3600
    assert database.query("select count(*) from otp.mail") == [(4,)]


# --- limits ---

@pytest.mark.parametrize("limits, seconds", [({"resend": 60}, 60), ({"hour": 2}, 3600), ({"day": 2}, 86400)])
def test_a17_limits_count_a_resend(call, limits, seconds):
    """A17: a resend is refused as a first request is, with the time to wait, and counts for both; what is refused changes nothing."""
    email = address_of()
    token = call.make(email=email, **limits)
    if "resend" not in limits:
        assert call.resend(token, CODES[1], **limits) == ("stored", None)
    before = call.all_rows()
    verdict, wait = call.resend(token, CODES[2], **limits)
    assert verdict == "rate_limited" and seconds - 5 <= wait <= seconds
    assert seconds - 5 <= call.ask(email=email, **limits)[1] <= seconds
    assert call.all_rows() == before


def test_a17_a_limit_of_the_mailbox_holds_over_its_tokens(call, database):
    """A17: not of the token: the other spelling's token is refused as well, and gets its code when the hour is over."""
    one = call.make(email="Jane+1@example.com", mailbox="jane@example.com", hour=2)
    two = call.make(email="jane@example.com", hour=2)
    assert [call.resend(token, hour=2)[0] for token in (one, two)] == ["rate_limited"] * 2
    database.query("update otp.address_quota set sent = array(select t - interval '1 hour' from unnest(sent) t)")
    assert [call.resend(token, hour=2)[0] for token in (one, two)] == ["stored"] * 2


def test_a19_a_ticket_counts_apart(call, database):
    """A19: with the mailbox spent by strangers, a ticket's holder has the same limits in a row of his own; his mails do not count
    for the mailbox, nor for another ticket."""
    email = address_of()
    call.make(email=email, hour=1)
    assert call.ask(email=email, hour=1)[1] > 0
    token = call.make(email=email, ticket="tick1", hour=2)
    assert call.resend(token, ticket="tick1", hour=2)[0] == "stored"
    assert call.resend(token, ticket="tick1", hour=2)[0] == "rate_limited" and call.ask(email=email, ticket="tick1", hour=2)[1] > 3590
    assert call.ask(email=email, ticket="tick2", hour=2)[1] == 0
    assert database.query("select mailbox, cardinality(sent) from otp.address_quota order by mailbox") == [
        (email, 1), (f"{email} :tick1", 2), (f"{email} :tick2", 1)]
    assert call.resend(token, hour=1)[0] == "rate_limited"  # without it the shared row holds


# --- applications ---

def test_a21_quotas_are_an_applications_own(call, database):
    """A21: what one application sends to a mailbox, with or without a ticket, is not counted by another."""
    email = address_of()
    for application, ticket in itertools.product(APPLICATIONS, (None, "tick")):
        token, wait = call.ask(email=email, application=application, ticket=ticket, hour=2)
        assert wait == 0
        assert call.resend(token, ticket=ticket, hour=2)[0] == "stored"
        assert call.ask(email=email, application=application, ticket=ticket, hour=2)[1] > 0
        assert call.resend(token, ticket=ticket, hour=2)[0] == "rate_limited"
    assert database.query("select count(*), min(cardinality(sent)), max(cardinality(sent)) from otp.address_quota") == [(6, 2, 2)]


@pytest.mark.parametrize("owner, other", itertools.permutations(APPLICATIONS, 2))
def test_a21_a_token_is_unknown_to_another_application(call, owner, other):
    """A21: whatever is asked, whatever became of it, and nothing happens to it."""
    for end in (None, "used", "revoked"):
        token = call.make(application=owner, email=address_of(), hour=9)
        if end == "used":
            call.guess(token, CODES[0])
        elif end == "revoked":
            call.revoke(token, owner)
        before = call.all_rows()
        assert call.answer(token, CODES[0], application=other) == ("unknown_token", *[None] * 5)
        # Even if its code were bound to nothing: the row's application decides.
        mac = code_mac(call.stack.pepper(), token, CODES[0], owner)
        assert call.validating.execute(VALIDATE, ([token_id(token)], [other], [None], [None], [6], [mac], 1, None, None)).fetchone()[0] == "unknown_token"
        assert call.resend(token, application=other, hour=9) == ("unknown_token", None)
        assert call.terms(token, other)[0] == "unknown_token"
        assert call.revoke(token, other) == "unknown_token"
        assert call.status(token, other)[0] == "unknown_token"
        assert call.all_rows() == before
        assert call.revoke(token, owner) == "revoked" and call.status(token, owner)[0] != "unknown_token"


# --- purposes, and what is no code ---

BOUND = [(None, None), ("sign-in", None), ("change-email", None), (None, "7 EUR"), ("sign-in", "7 EUR"), ("sign-in", "8 EUR")]


@pytest.mark.parametrize("made, named", itertools.product(BOUND, BOUND))
def test_a18_a_code_is_good_for_what_it_was_made_for(call, database, made, named):
    """A18: another purpose or context, or one too many or too few, is told and is no guess, whether the code is right or not; SQL
    says so of itself: the MAC that is given is the right one."""
    token = call.make(purpose=made[0], context=made[1])
    mac = code_mac(database.pepper(), token, CODES[0], None, *made)

    def answer(mac):
        return call.validating.execute(VALIDATE, ([token_id(token)], [None], [named[0]], [code_context(token, named[1])], [6], [mac], 1,
                                                  None, None)).fetchone()[0]
    if made == named:
        assert answer(mac) == "valid"
        return
    assert [answer(mac), answer(None)] == ["wrong_purpose"] * 2
    challenge = database.challenge(token)
    assert challenge["attempts"] == 0 and challenge["used_at"] is None
    assert call.guess(token, CODES[0])[0] == "valid"


@pytest.mark.parametrize("digits, made", [(0, 6), (5, 6), (7, 6), (6, 8), (1, 6), (None, 6)])
def test_a26_what_cannot_be_a_code_is_no_guess(call, database, digits, made):
    """A26: no digits, too few, too many for this token's codes; even with the right MAC."""
    token = call.make(*CODES[:2], digits=made)
    for _ in range(6):
        assert call.guess(token, CODES[0], digits=digits) == ("not_a_code", None)
    assert database.challenge(token)["attempts"] == 0
    assert call.guess(token, "0" * made, digits=made) == ("wrong_password", 4)
    assert call.guess(token, CODES[0], digits=made)[0] == "valid"


def test_the_order_of_verdicts(call, database):
    """What ended a token comes first, then the purpose, then what was typed, then keys: one after the other is put right."""
    token = call.make(*CODES[:2], purpose="sign-in")
    database.query("update otp.challenge set expires_at = clock_timestamp()")
    wrong = {"purpose": "other", "digits": 5, "key": 2}
    assert call.guess(token, CODES[0], **wrong)[0] == "expired"
    database.query("update otp.challenge set expires_at = clock_timestamp() + interval '1 min'")
    assert call.guess(token, CODES[0], **wrong)[0] == "wrong_purpose"
    del wrong["purpose"]
    assert call.guess(token, CODES[0], **wrong)[0] == "not_a_code"
    del wrong["digits"]
    assert call.guess(token, CODES[0], **wrong) == ("unknown_key", 1)
    del wrong["key"]
    assert call.guess(token, "000000", **wrong) == ("wrong_password", 4)


def test_b5_a_live_code_before_the_newest_needs_its_key_too(call, database):
    """B5: a token is judged by all its live codes or by none, and the key that lacks is named; a dead code's key is not asked for."""
    token = call.make(CODES[0])
    assert call.resend(token, CODES[1], key=2)[0] == "stored"
    assert call.resend(token, CODES[2], key=3)[0] == "stored"
    for key, previous, lacks in ((3, 2, 1), (3, 1, 2), (1, 2, 3), (3, None, (1, 2)), (9, 8, 3)):
        verdict, number = call.guess(token, CODES[0], key=key, previous=previous)
        assert verdict == "unknown_key" and (number in lacks if isinstance(lacks, tuple) else number == lacks), (key, previous, number)
    assert database.challenge(token)["attempts"] == 0
    database.query("update otp.challenge set earlier[2].expires_at = clock_timestamp()")
    assert call.guess(token, CODES[0], key=3, previous=2) == ("wrong_password", 4)
    assert call.guess(token, CODES[1], key=3, previous=2)[0] == "valid"


def test_b5_each_code_is_compared_under_its_own_key(call):
    """B5: the code of key 1 does not open as one of key 2."""
    token = call.make(CODES[0])
    call.resend(token, CODES[1], key=2)

    def answer(current, previous):
        macs = [code and code_mac(call.stack.pepper(), token, code) for code in (current, previous)]
        return call.validating.execute(VALIDATE, ([token_id(token)], [None], [None], [None], [6], [macs[0]], 2, [macs[1]], 1)).fetchone()[:2]
    assert answer(CODES[0], None) == ("wrong_password", 4)
    assert answer(None, CODES[1]) == ("wrong_password", 3)
    assert answer(None, CODES[0])[0] == "valid"


def test_a_token_renewed_while_it_is_judged_is_no_error(call, database):
    """A guess found it expired and then waited for its neighbour's lock, while it got another code: the guess was too late all the
    same, and nobody else's answer is lost."""
    first, second = sorted((call.make(email="a@b.example"), call.make(email="c@d.example")), key=token_id)
    database.query("update otp.challenge set expires_at = clock_timestamp() where id = %s", token_id(first))
    answers = []

    def guess():
        with database.postgres.connect("otp_validate") as connection:
            macs = [code_mac(database.pepper(), token, CODES[0]) for token in (first, second)]
            answers.extend(connection.execute(VALIDATE, ([token_id(first), token_id(second)], [None] * 2, [None] * 2, [None] * 2, [6, 6], macs,
                                                         1, None, None)).fetchall())
    with database.postgres.connect() as holder:
        holder.execute("begin")
        holder.execute("select from otp.challenge where id = %s for update", (token_id(second),))
        thread = threading.Thread(target=guess)
        thread.start()
        wait_for(lambda: database.query("select count(*) from pg_stat_activity where wait_event_type = 'Lock' and usename = 'otp_validate'") == [(1,)], 5)
        assert call.resend(first, CODES[1])[0] == "stored"
        holder.execute("commit")
        thread.join()
    assert [answer[0] for answer in answers] == ["expired", "valid"]
    assert call.guess(first, CODES[1])[0] == "valid"


# --- mails ---

def test_a_resent_mail_is_one_of_its_own(call, database):
    """It carries what a worker needs: its own id and moment, the challenge's id, application, purpose and end."""
    token = call.make(email="Jane@B\u00fccher.example", recipient="Jane@xn--bcher-kva.example", application="shop", purpose="sign-in", locale="fr")
    database.query("update otp.challenge set created_at = created_at - interval '5 min'")
    first = call.claim()[0]
    challenge = database.challenge(token)
    keys = ("id", "lease", "recipient", "locale", "sealed", "mail_key", "created_ms", "expires_ms", "attempts", "lease_ms", "doubts",
            "challenge", "application", "purpose")
    mail = dict(zip(keys, first))
    assert (mail["id"], mail["challenge"], mail["application"], mail["purpose"]) == (token_id(token), token_id(token), "shop", "sign-in")
    assert (mail["recipient"], mail["locale"]) == ("Jane@xn--bcher-kva.example", "fr")
    assert abs(mail["created_ms"] - challenge["created_at"].timestamp() * 1000) <= 1
    assert abs(mail["expires_ms"] - challenge["expires_at"].timestamp() * 1000) <= 1
    call.settle([first], "sent")
    call.resend(token, lifetime=900)
    challenge, mail = database.challenge(token), dict(zip(keys, call.claim()[0]))
    assert (mail["id"], mail["challenge"], mail["application"], mail["purpose"]) == (call.mail_id, token_id(token), "shop", "sign-in")
    assert (mail["recipient"], mail["locale"], mail["attempts"]) == ("Jane@xn--bcher-kva.example", "de", 1)
    assert mail["created_ms"] == int.from_bytes(call.mail_id.bytes[:6], "big")
    assert abs(mail["expires_ms"] - challenge["expires_at"].timestamp() * 1000) <= 1
    assert database.query("select id, challenge from otp.mail order by id") == [(token_id(token), None), (call.mail_id, token_id(token))]


def test_a_mail_tells_the_end_of_its_own_code(call, database):
    """A mail that was under way when another code was asked for, and is tried again, says when its own code ends, and is leased
    no longer than that one lives."""
    token = call.make(CODES[0], lifetime=60)
    end = database.challenge(token)["expires_at"].timestamp() * 1000
    first = call.claim()
    call.resend(token, CODES[1], lifetime=120)
    middle = database.challenge(token)["expires_at"].timestamp() * 1000
    second = call.claim()
    call.resend(token, CODES[2], lifetime=600)
    newest = database.challenge(token)["expires_at"].timestamp() * 1000
    call.settle(first + second, "retry", retry=0)
    again = {job[0]: job for job in call.claim()}
    assert len(again) == 3
    for job, ends, lease in ((first[0][0], end, 15), (second[0][0], middle, 30), (call.mail_id, newest, 60)):
        assert abs(again[job][7] - ends) <= 1 and again[job][9] == lease * 1000


def test_a_mail_that_waits_is_superseded(call, database):
    """Two codes do not arrive in the wrong order: of what waits only the newest is sent, and the others' codes are erased."""
    token = call.make(*CODES[:3])
    assert database.query("select state::text, sealed is null, lease, last_reply from otp.mail order by id = any (select unnest(resent[1:1]) from otp.challenge)") == [
        ("expired", True, None, "not sent: another code was asked for")] * 2 + [("queued", False, None, None)]
    assert [(job[0], job[11]) for job in call.claim()] == [(call.mail_id, token_id(token))]


def test_a_mail_in_hand_is_not_superseded(call, database):
    """Its worker may have sent it already: it is settled as it went. When the lease is over it is like one that waits."""
    token = call.make()
    job = call.claim()
    call.resend(token, CODES[1])
    assert mails(database).count("queued") == 2
    assert call.settle(job, "sent") == [True]
    call.resend(token, CODES[2])
    assert sorted(mails(database)) == ["expired", "queued", "sent"]
    job = call.claim()
    database.query("update otp.mail set next_attempt_at = clock_timestamp() where state = 'queued'")
    call.resend(token, CODES[3])
    assert sorted(mails(database)) == ["expired", "expired", "queued", "sent"]
    assert call.settle(job, "sent") == [False]


def test_a_resend_waits_for_no_mail(call, database):
    """A mail that a worker has locked at this moment is in hand."""
    token = call.make()
    call.generating.execute("set lock_timeout = '100ms'")
    with database.postgres.connect() as holder:
        holder.execute("begin")
        holder.execute("select from otp.mail for update")
        assert call.resend(token)[0] == "stored"
        holder.execute("rollback")
    assert mails(database) == ["queued", "queued"]


def test_a_resent_mail_is_given_up_by_its_own_code(call, database):
    """The margin is of the new code's life."""
    call.make(*CODES[:2], lifetime=100)
    assert database.query("select extract(epoch from c.expires_at - m.give_up_at)::int from otp.mail m join otp.challenge c on c.id = m.challenge") == [(60,)]


# --- the sweep ---

def test_sweep_takes_a_challenge_with_all_its_mails(call, database):
    """All of them or none: while one of its mails is locked, the challenge and the others stay."""
    tokens = [call.make(*CODES[:n]) for n in (3, 4, 1)]
    database.query("update otp.challenge set expires_at = clock_timestamp() - interval '1 s'")
    kept = call.make(*CODES[:2])
    time.sleep(0.005)  # the sweep looks below the id of this moment
    with database.postgres.connect() as holder:
        holder.execute("begin")
        holder.execute("select from otp.mail where id = %s for update", (database.challenge(tokens[1])["resent"][1],))
        assert sum(call.sweep()) == 2
        assert database.query("select coalesce(challenge, id), count(*) from otp.mail group by 1 order by 2") == [(token_id(kept), 2), (token_id(tokens[1]), 4)]
        holder.execute("rollback")
    assert sum(call.sweep()) == 1
    assert database.query("select coalesce(challenge, id), count(*) from otp.mail group by 1") == [(token_id(kept), 2)]
    assert database.query("select id from otp.challenge") == [(token_id(kept),)]


def test_sweep_keeps_an_old_token_with_a_new_code(call, database):
    """Its expiry decides, not its age."""
    token = call.make()
    database.query("update otp.challenge set expires_at = clock_timestamp() - interval '1 s'")
    call.resend(token)
    time.sleep(0.005)
    assert sum(call.sweep()) == 0
    assert call.guess(token, CODES[1])[0] == "valid"


# --- support ---

SPELLINGS = {
    "jane.doe@gmail.com": ("janedoe@gmail.com", ["janedoe@gmail.com", "J.A.N.E.doe+x@GoogleMail.com", " jane.doe@gmail.com "]),
    "jane_doe@proton.me": ("janedoe@proton.me", ["JaneDoe@proton.me", "jane.doe-+tag@Proton.me"]),
    "Jane+a@example.com": ("jane@example.com", ["jane@EXAMPLE.com", '"jane"@example.com', "Jane+b@example.com"]),
}


def strangers(call):
    """What must stay, whatever happens to the address of SPELLINGS: names that begin or end alike."""
    return [call.make(email=email, hour=9, application="shop") for email in (
        "janedoe@gmail.co", "jane.doe@example.com", "xjanedoe@gmail.com", "janedoe@protonmail.com", "jane@example.com.example", "janed@gmail.com")]


def family(call, email, mailbox):
    """Tokens of one mailbox, with every application, with a ticket or not, each resent once."""
    tokens = [call.make(CODES[0], email=email, mailbox=mailbox, application=application, ticket=ticket, hour=9)
              for application, ticket in itertools.product(APPLICATIONS, (None, "tick"))]
    for token in tokens:
        assert call.resend(token, hour=99)[0] == "stored"
    return tokens


@pytest.mark.parametrize("given, asked", [(given, asked) for given, (_, spellings) in SPELLINGS.items() for asked in [given, *spellings]])
def test_support_finds_an_address_in_any_spelling(call, database, support, given, asked):
    """tokens_of, unlock, revoke and forget: with every application, and nobody else's."""
    mailbox = SPELLINGS[given][0]
    others = strangers(call)
    database.query("update otp.mail set state = 'sent'")
    tokens = {token_id(token) for token in family(call, given, mailbox)}
    assert set(support("select otp.tokens_of(%s)", asked)[0][0]) == tokens
    assert support("select otp.unlock(%s)", asked) == [(True,)] and support("select otp.unlock(%s)", asked) == [(False,)]
    assert set(support("select otp.tokens_of(%s)", asked)[0][0]) == tokens  # the limits are gone, but not the rows
    assert database.query("select count(*) from otp.address_quota") == [(len(others),)]
    assert support("select challenges, mails from otp.revoke(%s)", asked) == [(6, 6)]
    assert support("select challenges, mails from otp.revoke(%s)", asked) == [(0, 0)]
    assert {row[0] for row in database.query("select id from otp.challenge where revoked_at is not null")} == tokens
    for application in APPLICATIONS:
        call.make(email=given, mailbox=mailbox, application=application, hour=9)
    assert support("select challenges, quotas from otp.forget(%s)", asked) == [(9, 3)]
    rows = call.all_rows()
    assert [len(table) for table in rows] == [len(others)] * 3
    assert all(call.guess(token, CODES[0])[0] == "valid" for token in others)


def test_forget_finds_what_no_limit_counts(call, support):
    """Neither limits nor the spelling that they count by are needed."""
    call.make(*CODES[:4], email="jane@example.com")
    assert support("select challenges, quotas from otp.forget('Jane@example.com')") == [(1, 0)]
    assert call.all_rows() == [[], [], []]


def test_revoke_by_address_spares_what_is_over(call, database, support):
    """Used, revoked and expired tokens keep their state; a live one takes no more guesses, and its mail does not leave."""
    tokens = [call.make(email="jane@example.com") for _ in range(4)]
    call.guess(tokens[0], CODES[0])
    call.revoke(tokens[1])
    database.query("update otp.challenge set expires_at = clock_timestamp() where id = %s", token_id(tokens[2]))
    assert support("select challenges, mails from otp.revoke('jane@example.com')") == [(1, 1)]
    assert [call.guess(token, CODES[0])[0] for token in tokens] == ["used", "revoked", "expired", "revoked"]


def test_end_live_ends_the_codes_before_the_newest_for_good(call, support):
    """After a restore, or with a pepper that has leaked: another code for the token does not bring them back."""
    token = call.make(*CODES[:3])
    assert support("select challenges, mails from otp.end_live()") == [(1, 1)]
    assert call.resend(token, CODES[3])[0] == "stored"
    assert [call.guess(token, code)[0] for code in CODES[:4]] == ["wrong_password"] * 3 + ["valid"]


# --- what SQL computes as the programs do ---

class Address(ctypes.Structure):
    _fields_ = (("given", ctypes.c_char * 509), ("recipient", ctypes.c_char * 255), ("mailbox", ctypes.c_char * 255))


@pytest.fixture(scope="module")
def rules(tmp_path_factory):
    """The programs' own functions."""
    library = tmp_path_factory.mktemp("rules") / "rules.so"
    sources = [ROOT / "src" / name for name in ("otp/address.c", "otp/reference.c", "base/unicode.c")]
    subprocess.run(["gcc", "-O1", "-shared", "-fPIC", "-D_GNU_SOURCE", f"-I{ROOT / 'src'}", "-o", library, *sources, "-lidn2", "-lunistring"], check=True)
    return ctypes.CDLL(str(library))


def mailbox_of(rules, text):
    """As address.c has it; None: no address."""
    address, reason, data = Address(), ctypes.c_char_p(), text.encode()
    result = rules.address_parse(ctypes.byref(address), data, ctypes.c_size_t(len(data)), ctypes.byref(reason))
    return address.mailbox.decode() if result == 0 else None


def test_canonical_is_address_c(database, rules):
    """For every address in ASCII, with what is special to providers, tags and quotes."""
    dice = random.Random(8)
    locals_ = ["jane", "J.ane", "jane.doe", "jane_doe-x.y", "j+tag", "J.d+a+b", "+tag", "+a.b+c", "u+", "a.+x", "...", ".", "-", "_.-", "._-+x",
               "j..d", ".j", "j.", "!#$%&'*/=?^`{|}~", "'", "+", "++", ".+.", "a\\b", '"']
    domains = ["example.com", "EXAMPLE.com", "Gmail.com", "gmail.COM", "googlemail.com", "mail.gmail.com", "gmail.com.example", "proton.me",
               "protonmail.com", "ProtonMail.ch", "pm.me", "xn--bcher-kva.de", "gmail.co"]
    texts = [f"{local}@{domain}" for local in [*locals_, *(f'"{local}"' for local in locals_)] for domain in domains]
    texts += [f" {text} " for text in texts[:50]]
    for _ in range(3000):
        local = "".join(dice.choice("aBz9.+-_\"'") for _ in range(dice.randint(1, 6)))
        texts.append(f"{local}@{dice.choice(domains)}")
    expected = {text: mailbox_of(rules, text) for text in texts}
    expected = {text: mailbox for text, mailbox in expected.items() if mailbox is not None}
    assert len(expected) > 2000
    found = dict(database.query("select text, otp.canonical(text) from unnest(%s::text[]) text", list(expected)))
    assert {text: (found[text], mailbox) for text, mailbox in expected.items() if found[text] != mailbox} == {}


def test_reference_is_reference_c(database, rules):
    """Three letters, the same from SQL, from C, and from a few lines of Python."""
    ids = [uuid.uuid4() for _ in range(500)] + [uuid.UUID(int=n) for n in (0, 9, 999, 1000, 2**24 - 1, 2**24, 2**128 - 1)]
    found = dict(database.query("select id, otp.reference(id) from unnest(%s::uuid[]) id", ids))
    for one in ids:
        number, text = int.from_bytes(one.bytes[-3:], "big") % 1000, ctypes.create_string_buffer(4)
        rules.reference_write(one.bytes, text)
        assert found[one] == text.value.decode() == "".join("CDHJMPRTWX"[int(digit)] for digit in f"{number:03}")


# --- revoke ---

def test_a_revoked_token_takes_no_guess_and_sends_no_mail(call, database):
    """Again and again the same answer, and the moment of the first time stays; no later code either."""
    token = call.make(*CODES[:2])
    assert call.revoke(token) == "revoked"
    before = call.all_rows()
    assert call.revoke(token) == "revoked" and call.all_rows() == before
    assert [call.guess(token, code) for code in (*CODES[:2], "000000")] == [("revoked", None)] * 3
    assert call.resend(token) == ("revoked", None)
    assert call.claim() == []
    assert mails(database) == ["expired", "expired"]
    newest = database.query("select sealed, lease, last_reply from otp.mail where id = %s", database.challenge(token)["resent"][0])
    assert newest == [(None, None, "not sent: the token was revoked")]
    assert database.challenge(token)["attempts"] == 0 and call.revoke(make_token()) == "unknown_token"


def test_revoke_in_a_batch(call):
    """Also the same token twice: both are told that it is revoked."""
    one, two = call.make(), call.make(application="shop")
    ids = [token_id(t) for t in (make_token(), two, one, one, two)]
    rows = call.validating.execute(REVOKE, (ids, [None, "shop", None, None, None])).fetchall()
    assert [row[0] for row in rows][:4] == ["unknown_token", "revoked", "revoked", "revoked"]
    rows = call.validating.execute(REVOKE, ([token_id(make_token())], [None])).fetchall()
    assert rows == [("unknown_token",)]


def heard(connection, seconds):
    """What was notified until nothing more comes for some seconds."""
    found = []
    while select.select([connection.fileno()], [], [], seconds)[0]:
        connection.pgconn.consume_input()
        while (notify := connection.pgconn.notifies()) is not None:
            found.append((notify.relname.decode(), notify.extra.decode()))
    return found


@pytest.mark.parametrize("by", ["token", "address"])
def test_revoke_tells_the_worker_that_has_the_mail_in_hand(call, database, support, by):
    """The mail's id, once; of a mail that nobody has, or whose lease is over, nothing is said."""
    token = call.make(CODES[0], email="jane@example.com")
    call.claim()
    call.resend(token, CODES[1])
    late = call.make(email="jane@example.com")
    jobs = {job[0]: job for job in call.claim()}
    assert set(jobs) == {call.mail_id, token_id(late)}
    database.query("update otp.mail set next_attempt_at = clock_timestamp() where id = %s", token_id(late))
    waiting = call.make(email="jane@example.com")
    with database.postgres.connect() as listener:
        listener.execute("listen otp_mail")
        if by == "token":
            assert [call.revoke(t) for t in (token, late, waiting, token)] == ["revoked"] * 4
        else:
            assert support("select challenges, mails from otp.revoke('jane@example.com')") == [(3, 4)]
        assert sorted(heard(listener, 0.3)) == sorted(("otp_mail", str(one)) for one in (token_id(token), call.mail_id))
    assert call.settle(list(jobs.values()), "retry", retry=0) == [False, False]
    assert call.claim() == [] and set(mails(database)) == {"expired"}


def test_revoke_leaves_a_mail_that_is_gone(call, database):
    """Sent stays sent."""
    token = call.make()
    call.settle(call.claim(), "sent", "250 taken")
    call.revoke(token)
    assert database.query("select state::text, last_reply from otp.mail") == [("sent", "250 taken")]


# --- test addresses ---

def test_a22_a_test_address_gets_no_mail(call, database, support):
    """A22: neither at first nor again; every view and verdict says test, and its other rules are those of all."""
    token = call.make(email="reviewer@shop.example", application="shop", is_test=True, hour=2)
    call.make(email="other@shop.example", application="shop")
    assert database.query("select count(*) from otp.mail where id = %s", token_id(token)) == [(0,)]
    assert call.terms(token, "shop")[0::7] == ("ready", True)
    assert call.resend(token, CODES[0], is_test=True, hour=2)[0] == "stored"
    assert call.resend(token, CODES[0], is_test=True, hour=2)[0] == "rate_limited"
    assert database.query("select count(*) from otp.mail") == [(1,)]
    assert call.status(token, "shop") == ("sent", False, None, "test address: no mail is sent", True)
    assert support("select email, test, mail::text, state from otp.challenges order by test") == [
        ("other@shop.example", False, "queued", "live"), ("reviewer@shop.example", True, None, "live")]
    assert call.guess(token, "000000") == ("wrong_password", 4)
    assert call.answer(token, CODES[0]) == ("valid", None, "reviewer@shop.example", "reviewer@shop.example", None, True)
    assert support("select domain, asked from otp.domains") == [("shop.example", 1)]
    assert call.revoke(token, "shop") == "revoked"


# --- what became of the mail ---

def test_delivery_status_follows_the_newest_mail(call, database):
    """Each state, with when, how often and why; the states of the mails before it do not show."""
    token = call.make()
    assert call.status(token) == ("queued", False, 0, None, False)
    job = call.claim()
    assert call.status(token) == ("sending", False, 1, None, False)
    database.query("update otp.mail set next_attempt_at = clock_timestamp()")  # the worker is gone
    assert call.status(token)[0] == "deferred"
    call.settle(job, "release", None)
    assert call.status(token)[0] == "queued"
    call.settle(call.claim(), "retry", "450 greylisted", 30)
    assert call.status(token) == ("deferred", False, 1, "450 greylisted", False)
    database.query("update otp.mail set next_attempt_at = clock_timestamp()")
    call.settle(call.claim(), "sent", "250 taken")
    assert call.status(token) == ("sent", True, 2, "250 taken", False)
    call.resend(token, CODES[1])
    assert call.status(token) == ("queued", False, 0, None, False)
    call.settle(call.claim(), "failed", "550 no such user")
    assert call.status(token) == ("failed", False, 1, "550 no such user", False)
    call.resend(token, CODES[2])
    assert call.status(token)[0] == "queued"
    database.query("update otp.mail set give_up_at = clock_timestamp()")
    assert call.status(token) == ("expired", False, 0, None, False)
    call.working.execute("select otp.expire_mail(10)")
    assert call.status(token) == ("expired", False, 0, None, False)
    assert call.status(make_token())[0] == "unknown_token"


# --- views ---

def test_challenges_tell_of_the_newest_mail(call, support):
    """With who asked, what for, and how often again."""
    token = call.make(CODES[0], email="jane@example.com", application="shop", purpose="sign-in")
    call.settle(call.claim(), "failed", "450 first")
    call.resend(token, CODES[1])
    call.resend(token, CODES[2])
    call.settle(call.claim(), "sent", "250 second")
    columns = "reference = otp.reference(id), email, application, purpose, state, test, attempts, mail::text, mail_attempts, last_reply, resends, sent_at is not null"
    assert support(f"select {columns} from otp.challenges") == [
        (True, "jane@example.com", "shop", "sign-in", "live", False, 0, "sent", 1, "250 second", 2, True)]
    call.revoke(token, "shop")
    assert support("select state, revoked_at is not null from otp.challenges") == [("revoked", True)]


def test_the_outbox_tells_of_resent_mails(call, support):
    token = call.make(CODES[0], email="jane@example.com", application="shop", purpose="sign-in")
    call.claim()
    call.resend(token, CODES[1])
    assert sorted(support("select id, reference = otp.reference(%s), email, application, purpose, queue from otp.outbox", token_id(token))) == sorted([
        (token_id(token), True, "jane@example.com", "shop", "sign-in", "leased"), (call.mail_id, True, "jane@example.com", "shop", "sign-in", "due")])


def test_stats_count_tokens_and_time_mails(call, database, support):
    """A resend is no second request; and a mail that was asked for late was not sent late."""
    early, failed, late, spent, used = (call.make() for _ in range(5))
    call.guess(used, CODES[0])
    for _ in range(5):
        call.guess(spent, "000000")
    jobs = {job[0]: job for job in call.claim()}
    call.settle([jobs[token_id(early)], jobs[token_id(used)]], "sent")
    call.settle([jobs[token_id(failed)]], "failed")
    database.query("update otp.mail set give_up_at = clock_timestamp(), next_attempt_at = clock_timestamp() where id = %s", token_id(late))
    call.working.execute("select otp.expire_mail(10)")
    database.query("update otp.challenge set created_at = created_at - interval '100 s'")
    call.resend(early, CODES[1])
    database.query("update otp.mail set sealed = null, state = 'sent', sent_at = clock_timestamp() where id = %s", call.mail_id)
    names = "asked_last_hour, used_last_hour, exhausted_last_hour, sent_last_hour, failed_last_hour, unsent_last_hour, queued"
    assert support(f"select {names} from otp.stats") == [(5, 1, 1, 2, 1, 1, 1)]
    database.query("update otp.challenge c set created_at = sent_at - interval '70 ms' from otp.mail m where m.id = c.id and c.id = %s", token_id(used))
    assert support("select median_send_ms from otp.stats") == [(70,)]


def test_domains_of_the_last_hour(call, database, support):
    """By the domain that the mail goes to, whatever its case; the busiest first."""
    a = [call.make(email=f"u{n}@{domain}") for n, domain in enumerate(["A.example", "a.example", "a.EXAMPLE", "a.example", "a.example"])]
    b = call.make(email="u@b\u00fccher.example", recipient="u@xn--bcher-kva.example")
    old = call.make(email="u@a.example")
    database.query("update otp.challenge set id = otp.id_at(clock_timestamp() - interval '61 min') where id = %s", token_id(old))
    database.query("update otp.mail set state = 'sent' where id = %s", token_id(old))
    jobs = {job[0]: job for job in call.claim()}
    call.settle([jobs[token_id(t)] for t in a[:2]], "sent")
    call.settle([jobs[token_id(a[2])]], "failed")
    call.settle([jobs[token_id(a[3])]], "retry", "450", 60)
    call.settle([jobs[token_id(b)]], "release")
    for token, seconds in ((a[0], 10), (a[1], 30)):
        call.guess(token, CODES[0])
        database.query("update otp.challenge set used_at = created_at + make_interval(secs => %s) where id = %s", seconds, token_id(token))
    assert support("select domain, asked, sent, deferred, failed, used, median_seconds_to_use from otp.domains") == [
        ("a.example", 5, 2, 1, 1, 2, 20), ("xn--bcher-kva.example", 1, 0, 0, 0, 0, None)]


# --- races ---

def side_by_side(*acts):
    """Runs the acts at the same time -> what they returned; what one raised is raised."""
    results, gate = [None] * len(acts), threading.Barrier(len(acts))

    def run(place):
        gate.wait()
        try:
            results[place] = acts[place]()
        except Exception as problem:
            results[place] = problem
    threads = [threading.Thread(target=run, args=(place,)) for place in range(len(acts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for result in results:
        if isinstance(result, Exception):
            raise result
    return results


def test_a17_guesses_over_three_codes_while_others_are_sent(call, database):
    """A17: 8 connections, 1,000 wrong guesses and resends between them: exactly five are evaluated."""
    token = call.make(*CODES[:3])

    def guess():
        with database.postgres.connect("otp_validate") as connection:
            return [call.answer(token, f"9{n:05}", connection=connection)[:2] for n in range(125)]

    def resend():
        other = Holder(database)
        verdicts = [other.resend(token, dice.choice(CODES))[0] for _ in range(20)]
        other.close()
        return verdicts
    dice = random.Random(3)
    *guesses, one, two = side_by_side(*[guess] * 8, resend, resend)
    counted = collections.Counter(itertools.chain(*guesses))
    assert counted == {**{("wrong_password", left): 1 for left in range(5)}, ("exhausted", None): 995}
    assert set(one + two) <= {"stored", "exhausted"}
    assert database.challenge(token)["attempts"] == 5


def test_a3_a17_three_right_codes_at_once(call, database):
    """A3, A17: one of them opens, whichever; a resend at the same time changes nothing in that."""
    def guess(token, code):
        def run():
            with database.postgres.connect("otp_validate") as connection:
                return [call.answer(token, code, connection=connection)[0] for _ in range(3)]
        return run
    for _ in range(10):
        token = call.make(*CODES[:3], attempts=100)  # the first code may be over, and costs guesses then
        *guesses, resent = side_by_side(*[guess(token, code) for code in CODES[:3] * 2], lambda: [call.resend(token, "999999")[0]])
        counted = collections.Counter(itertools.chain(*guesses))
        assert counted["valid"] == 1 and counted["used"] + counted["wrong_password"] == 17 and resent[0] in ("stored", "used"), counted
        assert database.challenge(token)["used_at"] is not None


def test_resends_and_a_limit_at_once(call, database):
    """Ten connections and one token: as many codes as the mailbox may have, each with its mail, and the last two before the newest."""
    token = call.make(hour=4)

    def resend():
        other = Holder(database)
        verdicts = [other.resend(token, hour=4)[0] for _ in range(3)]
        other.close()
        return verdicts
    counted = collections.Counter(itertools.chain(*side_by_side(*[resend] * 10)))
    assert counted == {"stored": 3, "rate_limited": 27}
    challenge = database.challenge(token)
    assert len(challenge["resent"]) == 3
    assert database.query("select cardinality(earlier) from otp.challenge") == [(2,)]
    assert {row[0] for row in database.query("select id from otp.mail")} == {*challenge["resent"], token_id(token)}


@pytest.mark.parametrize("word", [*ENDS, "deleted"])
def test_a_resend_that_waited_for_a_tokens_end_is_too_late(call, database, word):
    """It sees what the other transaction did, not what was there when it came: no code, no mail, no count."""
    token, results = call.make(), []
    with database.postgres.connect() as holder:
        holder.execute("begin")
        holder.execute(f"update otp.challenge set {ENDS[word]}" if word in ENDS else "delete from otp.challenge")
        thread = threading.Thread(target=lambda: results.append(call.resend(token, hour=5)))
        thread.start()
        wait_for(lambda: database.query("select count(*) from pg_stat_activity where wait_event_type = 'Lock' and usename = 'otp_generate'") == [(1,)], 5)
        holder.execute("commit")
        thread.join()
    assert results == [(word if word in ENDS else "unknown_token", None)]
    assert database.query("select (select count(*) from otp.mail), (select count(*) from otp.address_quota)") == [(1, 0)]


def test_after_a_revoke_no_mail_leaves(call, database):
    """Revoke against resend against claim: when the revoke is answered, nothing of the token can be claimed any more."""
    for _ in range(20):
        token = call.make()

        def resend():
            return call.resend(token)[0]
        def claim():
            return call.claim()
        def revoke():
            return call.revoke(token)
        resent, _, revoked = side_by_side(resend, claim, revoke)
        assert revoked == "revoked" and resent in ("stored", "revoked")
        assert call.claim() == [] and "queued" not in mails(database)
        assert call.guess(token, CODES[0])[0] == "revoked"
