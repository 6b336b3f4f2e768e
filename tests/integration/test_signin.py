"""Real sign-ins through nginx: resends, purposes and contexts, revocation, delivery status, references."""
import itertools
import re
import threading

import pytest

from stack import address_of, make_token, metric, refused, token_id, wait_for
from stack.relay import Relay

REFERENCE = re.compile(r"[CDHJMPRTWX]{3}\Z")


def codes_of(stack, address, count):
    """The codes of the mails to an address, in the order in which they came."""
    stack.smtp.wait(address, count)
    return [mail.code for mail in stack.smtp.to(address)]


def ask(stack, resends=0, **fields):
    """-> token, codes: after so many resends, each mail awaited."""
    address = address_of()
    answer = stack.generate(address, **fields)
    assert answer.status == 200, answer
    codes = codes_of(stack, address, 1)
    for count in range(2, resends + 2):
        assert stack.resend(answer.token).status == 200
        codes = codes_of(stack, address, count)
    return answer.token, codes


# --- Resend ---

def test_a17_the_first_mails_code_counts_after_a_resend(stack):
    """A17: the mail was slow, the person pressed resend and types the first mail's code."""
    token, codes = ask(stack, resends=1)
    answer = stack.validate(token, codes[0])
    assert answer.status == 200, answer


def test_a17_a_resend_answers_the_same_token_and_reference(stack):
    address = address_of()
    first = stack.generate(address)
    again = stack.resend(first.token)
    assert again.status == 200 and again.json == first.json
    assert REFERENCE.match(first.json["reference"])
    assert first.json["reference"] == stack.query("select otp.reference(%s)", token_id(first.token))[0][0]


@pytest.mark.parametrize("index", range(4))
def test_a17_the_last_three_codes_count(stack, index):
    token, codes = ask(stack, resends=3)
    assert len(set(codes)) == 4
    answer = stack.validate(token, codes[index])
    assert answer.status == (401 if index == 0 else 200), answer


def test_a17_each_code_lives_for_its_own_time(stack):
    """A17: an earlier code ends at its own moment, not at the newest one's."""
    token, codes = ask(stack, resends=1)
    stack.query("update otp.challenge set earlier = array[(earlier[1].mac, earlier[1].mac_key, clock_timestamp())::otp.code] where id = %s",
                token_id(token))
    refused(stack.validate(token, codes[0]), 401, "wrong_password")
    assert stack.validate(token, codes[1]).status == 200


def test_a15_a17_a_resend_resets_no_guess(stack):
    """A15, A17: one counter over all codes of a token."""
    token, _ = ask(stack)
    for left in (4, 3, 2):
        assert refused(stack.validate(token, "000000"), 401, "wrong_password").json["attempts_left"] == left
    assert stack.resend(token).status == 200
    for left in (1, 0):
        assert refused(stack.validate(token, "000000"), 401, "wrong_password").json["attempts_left"] == left
    refused(stack.validate(token, "000000"), 401, "exhausted")
    refused(stack.resend(token), 401, "exhausted")


def test_a17_what_is_over_is_refused_and_never_replaced(stack):
    used, codes = ask(stack)
    assert stack.validate(used, codes[0]).status == 200
    revoked = stack.generate().token
    assert stack.revoke(revoked).status == 200
    before = stack.query("select count(*) from otp.mail")
    refused(stack.resend(used), 401, "used")
    refused(stack.resend(revoked), 401, "revoked")
    refused(stack.resend(make_token()), 401, "unknown_token")
    refused(stack.resend("x"), 401, "unknown_token")
    refused(stack.resend(7), 400, "bad_request")
    refused(stack.resend(None), 400, "bad_request")
    assert stack.query("select count(*) from otp.mail") == before


def test_a17_an_expired_token_lives_on(stack):
    """Within its retention; after that it is refused."""
    address = address_of()
    token = stack.generate(address).token
    codes_of(stack, address, 1)
    stack.query("update otp.challenge set expires_at = clock_timestamp() - interval '1 hour' where id = %s", token_id(token))
    refused(stack.validate(token, "000000"), 401, "expired")
    assert stack.resend(token).status == 200
    code = codes_of(stack, address, 2)[-1]
    assert stack.validate(token, code).status == 200
    late = stack.generate().token
    stack.query("update otp.challenge set expires_at = clock_timestamp() - interval '25 hours' where id = %s", token_id(late))
    refused(stack.resend(late), 401, "expired")


def test_a17_only_to_the_same_mailbox(stack):
    token = stack.generate("jane.doe@gmail.com").token
    assert refused(stack.resend(token, email="john@gmail.com"), 422, "invalid_email").json["detail"]
    refused(stack.resend(token, email="no address"), 422, "invalid_email")
    assert stack.resend(token, email="JaneDoe+x@googlemail.com").status == 200


def test_a9_a17_limits_count_resends(stack):
    """A9, A17: a resend is a mail like any other."""
    stack.stop_responder("generate", 0)
    stack.start_responder("generate", RESEND_SECONDS=60, SENDS_PER_HOUR=5)
    address = address_of()
    token = stack.generate(address).token
    answer = refused(stack.resend(token), 429, "rate_limited")
    assert 50 < answer.json["retry_after"] <= 60 and answer.headers["retry-after"] == str(answer.json["retry_after"])
    stack.query("update otp.address_quota set sent = array[sent[1] - interval '61 seconds']")
    assert stack.resend(token).status == 200
    refused(stack.generate(address), 429, "rate_limited")


def test_a17_a_thousand_guesses_over_three_codes(stack):
    """A4, A17: exactly five are evaluated, whichever of the codes they are near, while resends go on."""
    token, codes = ask(stack, resends=2)
    wrong = [c for c in (f"{(int(code) + n) % 10**6:06d}" for n in range(1, 400) for code in codes) if c not in codes][:1000]
    answers, done = [], threading.Event()

    def guess(part):
        connection = stack.http()
        answers.extend(stack.validate(token, code, connection).json["error"] for code in part)

    def resend():
        while not done.is_set():
            stack.resend(token)
    threads = [threading.Thread(target=guess, args=(wrong[n::20],)) for n in range(20)]
    resender = threading.Thread(target=resend)
    resender.start()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    done.set()
    resender.join()
    assert len(answers) == 1000
    assert answers.count("wrong_password") == 5 and answers.count("exhausted") == 995
    assert stack.challenge(token)["attempts"] == 5
    refused(stack.validate(token, codes[-1]), 401, "exhausted")


def test_a3_a17_three_right_codes_at_once(stack):
    """A3, A17: all three are right, one succeeds."""
    for _ in range(3):
        token, codes = ask(stack, resends=2)
        answers = []
        threads = [threading.Thread(target=lambda code: answers.append(stack.validate(token, code)), args=(code,)) for code in codes * 10]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(answer.status for answer in answers) == [200] + [401] * 29
        assert {answer.json["error"] for answer in answers if answer.status == 401} == {"used"}


# --- Purpose and context ---

BOUND = [{}, {"purpose": "sign-in"}, {"purpose": "sign-in", "context": "order 7"}, {"context": "order 7"}]


@pytest.mark.parametrize("made, typed", itertools.product(BOUND, BOUND), ids=lambda fields: "+".join(fields) or "none")
def test_a18_a_code_counts_for_what_it_was_made_for(stack, made, typed):
    """A18: purpose and context must be the same; another one is no guess."""
    code = "123456"
    token = stack.plant(code, **made)
    answer = stack.validate(token, code, **typed)
    if made == typed:
        assert answer.status == 200 and answer.json.get("purpose") == made.get("purpose"), answer
    else:
        refused(answer, 401, "wrong_purpose")
        assert stack.challenge(token)["attempts"] == 0
        assert stack.validate(token, code, **made).status == 200


@pytest.mark.parametrize("typed", [{"purpose": "delete", "context": "7"}, {"purpose": "sign-in", "context": "8"}, {"purpose": "sign-in"}])
def test_a18_the_mac_alone_would_do(stack, typed):
    """A18: with SQL's own comparison out of the way a code does not match for anything else."""
    token = stack.plant("123456", purpose="sign-in", context="7")
    text = stack.query("select pg_get_functiondef('otp.validate'::regproc)")[0][0]
    blind = text.replace("c.purpose is not distinct from ask.purpose", "true").replace("c.context is not distinct from ask.context", "true")
    assert blind.count("and true") == 2
    try:
        stack.query(blind)
        refused(stack.validate(token, "123456", **typed), 401, "wrong_password")
    finally:
        stack.query(text)
    assert stack.validate(token, "123456", purpose="sign-in", context="7").status == 200


def test_a18_through_the_mail(stack):
    """The code that was mailed, with purpose and context; a resend is for the same."""
    token, codes = ask(stack, purpose="change-email", context="new@example.com")
    assert stack.resend(token, purpose="change-email").status == 200
    refused(stack.resend(token, purpose="sign-in"), 401, "wrong_purpose")
    refused(stack.resend(token, context="other@example.com"), 401, "wrong_purpose")
    refused(stack.validate(token, codes[0]), 401, "wrong_purpose")
    refused(stack.validate(token, codes[0], purpose="change-email"), 401, "wrong_purpose")
    answer = stack.validate(token, codes[0], purpose="change-email", context="new@example.com")
    assert answer.status == 200 and answer.json["purpose"] == "change-email"


@pytest.mark.parametrize("field", [{"purpose": value} for value in ("", "Sign-in", "sign in", "a" * 33, 7, None, [], "sign-in\u00a0", "ä")] +
                                  [{"context": value} for value in ("", "x" * 257, "ä" * 129, 7, None, {})], ids=str)
def test_a18_what_is_no_purpose_or_context(stack, field):
    """A sentence says which member is wrong; nothing is stored, no guess counted."""
    assert next(iter(field)) in refused(stack.generate(**field), 400, "bad_request").json["detail"]
    token = stack.plant("123456")
    assert next(iter(field)) in refused(stack.validate(token, "123456", **field), 400, "bad_request").json["detail"]
    assert stack.query("select count(*), sum(attempts) from otp.challenge") == [(1, 0)]


def test_a12_no_context_is_stored(stack):
    """Only a hash under the token, which is not stored either."""
    stack.generate(purpose="pay", context="canary-context")
    assert "canary-context" not in stack.postgres.dump().decode(errors="replace")


# --- What cannot be a code ---

@pytest.mark.parametrize("typed", ["abcdef", "12345", "1234567", "12345a", " ", "\u200b", "１２３４５", "123456 7", "1" * 13, "one two", "12.34.56"])
def test_a26_what_cannot_be_a_code_costs_no_guess(stack, typed):
    token = stack.plant("123456")
    for _ in range(6):
        refused(stack.validate(token, typed), 401, "not_a_code")
    assert stack.challenge(token)["attempts"] == 0
    refused(stack.validate(token, "654321"), 401, "wrong_password")
    assert stack.validate(token, "123456").status == 200


def test_a13_a_token_that_is_over_says_so_whatever_is_typed(stack):
    """A13: an unknown token is unknown for any text; one that is over stays over."""
    refused(stack.validate(make_token(), "abc"), 401, "unknown_token")
    refused(stack.validate(stack.plant(used=True), "abc"), 401, "used")
    refused(stack.validate(stack.plant(attempts=5), "abc", purpose="x"), 401, "exhausted")
    refused(stack.validate(stack.plant(age=60, lifetime=-1), "abc"), 401, "expired")


def test_a26_the_length_is_the_tokens(stack):
    """Not the setting's of the moment."""
    assert stack.validate(stack.plant("12345678"), "12345678").status == 200
    refused(stack.validate(stack.plant("12345678"), "123456"), 401, "not_a_code")


# --- The success ---

def test_a_right_code_tells_mailbox_and_ticket(stack):
    address = f"Jane.Doe+{address_of('x').split('@')[0]}@GoogleMail.com"
    token = stack.generate(address).token
    answer = stack.validate(token, stack.smtp.wait(address.replace("GoogleMail", "googlemail")).code)
    assert answer.json["email"] == address
    assert answer.json["mailbox"] == "janedoe@gmail.com"
    assert re.fullmatch(r"[A-Za-z0-9_-]{48}", answer.json["ticket"])
    assert set(answer.json) == {"message", "email", "mailbox", "ticket"}


# --- Tickets ---

@pytest.fixture
def limited(stack):
    """A stack whose limits are on."""
    stack.stop_responder("generate", 0)
    stack.start_responder("generate", RESEND_SECONDS=0, SENDS_PER_HOUR=3, SENDS_PER_DAY=3, BUDGET_PER_HOUR=0)
    return stack


def sign_in(stack, address, **fields):
    """-> the ticket"""
    token = stack.generate(address, **fields).token
    mails = stack.query("select count(*) from otp.challenge where email = %s", address)[0][0]
    return stack.validate(token, codes_of(stack, address, mails)[-1]).json["ticket"]


def test_a19_nobody_can_lock_a_person_out(limited):
    """A19: a stranger spends the mailbox's mails; who has signed in before still gets his, the owner without a ticket is told
    plainly when to come back."""
    address = address_of()
    ticket = sign_in(limited, address)
    while (answer := limited.generate(address)).status == 200:
        pass
    refused(answer, 429, "rate_limited")
    assert 3000 < answer.json["retry_after"] <= 86400
    assert sign_in(limited, address, ticket=ticket)
    # The limits are moved, not lifted.
    statuses = [limited.generate(address, ticket=ticket).status for _ in range(3)]
    assert statuses == [200, 200, 429]
    refused(limited.generate(address), 429, "rate_limited")


def test_a19_a_ticket_holds_for_its_mailbox_only(limited):
    """A19: forged, foreign and truncated ones behave like none."""
    address = address_of()
    ticket, foreign = sign_in(limited, address), sign_in(limited, address_of())
    while limited.generate(address).status == 200:
        pass
    forged = [ticket[:n] + ("A" if ticket[n] != "A" else "B") + ticket[n + 1:] for n in range(48)]
    for bad in [foreign, "", "x", ticket[:-1], ticket + "A", ticket.upper(), "A" * 48, "A" * 5000, *forged]:
        answer = limited.generate(address, ticket=bad) if len(bad) < 1000 else limited.generate(address, ticket=bad[:1000])
        refused(answer, 429, "rate_limited")
    for bad in (None, 7, [], {}):
        refused(limited.generate(address, ticket=bad), 429, "rate_limited")
    assert limited.generate(address, ticket=ticket).status == 200


# --- Revoke ---

def test_a_revoked_token_takes_no_guess_and_no_resend(stack):
    token, codes = ask(stack)
    for _ in range(2):
        answer = stack.revoke(token)
        assert answer.status == 200 and answer.json == {"message": "Token revoked."}
    refused(stack.validate(token, codes[0]), 401, "revoked")
    refused(stack.resend(token), 401, "revoked")
    assert stack.challenge(token)["attempts"] == 0
    refused(stack.revoke(make_token()), 401, "unknown_token")
    refused(stack.revoke("x"), 401, "unknown_token")
    refused(stack.revoke(""), 400, "bad_request")


def test_no_mail_of_a_revoked_token(stack):
    stack.stop_worker()
    address = address_of()
    token = stack.generate(address).token
    assert stack.revoke(token).status == 200
    assert stack.query("select state::text, sealed from otp.mail") == [("expired", None)]
    other = address_of()
    stack.generate(other)
    stack.start_worker()
    stack.smtp.wait(other)
    assert stack.smtp.to(address) == []


def test_no_mail_of_a_revoked_token_that_a_worker_has_in_hand(stack):
    """The worker has claimed both mails, and the relay lets it wait with the first: the second is not sent any more."""
    stack.stop_worker()
    lost = stack.text("worker-0.log").count('"event":"lease_lost"')
    revoked = threading.Event()
    with Relay(lambda _, verb, __: revoked.wait(20) and None if verb == "DATA" else None) as relay:
        first, second = address_of(), address_of()
        stack.generate(first)
        token = stack.generate(second).token
        stack.start_worker(SMTP_RELAYS=f"127.0.0.1:{relay.port}")
        wait_for(lambda: stack.query("select count(*) from otp.mail where lease is not null") == [(2,)], 10)
        assert stack.revoke(token).status == 200
        revoked.set()
        relay.wait(first)
        wait_for(lambda: stack.query("select count(*) from otp.mail where lease is not null") == [(0,)], 10)
        assert relay.to(second) == []
        assert stack.text("worker-0.log").count('"event":"lease_lost"') == lost


# --- Delivery status ---

def test_what_became_of_the_mail(stack):
    stack.stop_worker()
    address = address_of()
    token = stack.generate(address).token
    assert stack.delivery(token).json == {"message": "Delivery status.", "state": "queued", "attempts": 0}
    stack.start_worker()
    stack.smtp.wait(address)
    answer = wait_for(lambda: (a := stack.delivery(token)).json["state"] == "sent" and a, 10)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", answer.json["sent_at"])
    assert answer.json["attempts"] == 1
    refused(stack.delivery(make_token()), 401, "unknown_token")
    refused(stack.delivery(7), 400, "bad_request")


@pytest.mark.parametrize("path", ["/revoke", "/delivery-status"])
def test_post_only(stack, path):
    answer = stack.request("GET", path)
    assert (answer.status, answer.headers["allow"]) == (405, "POST, OPTIONS")
    refused(stack.request("POST", path, "{", {"Content-Type": "application/json"}), 400, "bad_request")
    assert stack.request("OPTIONS", path, None, {"Origin": "https://a.example", "Access-Control-Request-Method": "POST"}).status == 204


def test_answers_are_counted(stack):
    def counted(answer):
        return sum(metric(stack, name, "otpd_answers_total", f'answer="{answer}"') for name in ("validate-0", "validate-1"))
    before = counted("not_a_code"), counted("revoked")
    token = stack.plant()
    stack.validate(token, "abc")
    stack.revoke(token)
    stack.validate(token, "123456")
    assert (counted("not_a_code"), counted("revoked")) == (before[0] + 1, before[1] + 1)
