"""Applications: keys, walls, budgets, origins, test addresses, and the file that is read anew while requests come."""
import datetime
import hashlib
import itertools
import json
import os
import secrets
import signal
import threading
import time

import pytest

from stack import address_of, metric, refused, wait_for

UNTIL = (datetime.date.today() + datetime.timedelta(days=30)).isoformat()


def new_key():
    return "otp_" + secrets.token_urlsafe(32)


def hash_of(key):
    return hashlib.blake2b(key.encode(), digest_size=32).hexdigest()


class Applications:
    """A file of applications, and a stack whose responders use it."""

    def __init__(self, stack, **members):
        self.stack = stack
        self.path = stack.home / "applications.json"
        self.keys = {name: new_key() for name in ("shop", "bank")}
        self.file = {"default": {}, "shop": {"key_hashes": [hash_of(self.keys["shop"])], "app_name": "Shop"},
                     "bank": {"key_hashes": [hash_of(self.keys["bank"])], "password_length": 8, "expire_minutes": 2}}
        for name, more in members.items():
            self.file.setdefault(name, {}).update(more)
        self.write()
        stack.stop_responder("generate", 0)
        stack.stop_responder("validate", 0)
        stack.stop_responder("validate", 1)
        stack.start_responder("generate", 0, APPLICATIONS=self.path)
        for number in (0, 1):
            stack.start_responder("validate", number, APPLICATIONS=self.path)
        stack.stop_worker()
        stack.start_worker(APPLICATIONS=self.path)

    def write(self, text=None):
        """Whole, under its name at once."""
        fresh = self.path.with_suffix(".new")
        fresh.write_text(json.dumps(self.file) if text is None else text)
        fresh.chmod(0o644)
        os.replace(fresh, self.path)

    def reload(self):
        for process in self.stack.responders.values():
            process.send(signal.SIGHUP)

    def token(self, application, **fields):
        """-> address, token; application None: the default one, without a key"""
        address = address_of()
        answer = self.stack.generate(address, key=self.keys.get(application), **fields)
        assert answer.status == 200, answer
        return address, answer.token

    def code(self, address):
        return self.stack.smtp.wait(address).code


@pytest.fixture
def make(stack):
    return lambda **members: Applications(stack, **members)


# --- Keys ---

def test_a20_a_key_makes_the_caller_its_application(make):
    """A20: the whole flow with a key; the terms are the application's."""
    applications = make()
    stack, key = applications.stack, applications.keys["bank"]
    address = address_of()
    answer = stack.generate(address, key=key)
    assert answer.json["expires_in"] == 120
    code = applications.code(address)
    assert len(code) == 8
    assert stack.validate(answer.token, code, key=key).status == 200
    assert stack.query("select application from otp.challenges where email = %s", address) == [("bank",)]


@pytest.mark.parametrize("path", ["/generate-password", "/validate-password", "/revoke", "/delivery-status"])
def test_a20_a_wrong_key_is_never_a_call_without_one(make, path):
    """A20: unknown, cut, padded, of another case: 401, also where callers without a key are welcome."""
    applications = make()
    good = applications.keys["shop"]
    fields = {"email": address_of(), "token": applications.token(None)[1], "password": "123456"}
    if path == "/generate-password":
        del fields["token"]
    wrong = [new_key(), good[:-1], good + "A", good.upper(), good.replace("otp_", "otp-"), "x", hash_of(good), good[4:]]
    for key in wrong:
        answer = refused(applications.stack.post(path, key=key, **fields), 401, "unknown_key")
        assert answer.headers["www-authenticate"] == "Bearer"
    for header in (f"bearer {good}x", "Bearer ", "Bearer", f"Bearer {good},{good}", f"Bearer {good} {good}"):
        assert applications.stack.post(path, headers={"Authorization": header}, **fields).status in (401,), header
    assert applications.stack.query("select count(*) from otp.challenge") == [(1,)]


def test_a20_the_scheme_is_bearer_in_any_case(make):
    """Other schemes are the business of a proxy in front."""
    applications = make()
    for scheme in ("Bearer", "bearer", "BEARER"):
        answer = applications.stack.post("/generate-password", headers={"Authorization": f"{scheme} {applications.keys['shop']}"}, email=address_of())
        assert answer.status == 200
    assert applications.stack.post("/generate-password", headers={"Authorization": "Basic dTpw"}, email=address_of()).status == 200
    assert applications.stack.query("select application, count(*) from otp.challenge group by 1 order by 1") == [("shop", 3), (None, 1)]


def test_a20_no_key_anywhere(make):
    """A20: not in a log, a view, a dump."""
    applications = make()
    stack, wrong = applications.stack, new_key()
    address, token = applications.token("shop")
    stack.validate(token, "000000", key=applications.keys["shop"])
    stack.generate(address, key=wrong)
    stack.request("POST", "/generate-password", "{", {"Authorization": f"Bearer {applications.keys['shop']}"})
    logs = "".join(path.read_text(errors="replace") for path in stack.log.glob("*.log"))
    for key in (*applications.keys.values(), wrong):
        assert key not in logs and key[4:] not in logs and key not in stack.postgres.dump().decode(errors="replace")


def test_several_keys_for_rotation(make):
    second = new_key()
    applications = make()
    applications.file["shop"]["key_hashes"].append(hash_of(second))
    applications.write()
    applications.reload()
    wait_for(lambda: applications.stack.generate(key=second).status == 200, 5)
    assert '"event":"applications_loaded","applications":3' in applications.stack.text("generate-0.log")
    assert applications.stack.generate(key=applications.keys["shop"]).status == 200


def test_who_may_call_without_a_key(make):
    applications = make(open={"public": True}, closed={"public": False})
    stack = applications.stack
    assert stack.generate(application="open").status == 200
    assert stack.generate(application="default").status == 200
    for name in ("closed", "shop", "nobody"):
        assert "key" in refused(stack.generate(application=name), 401, "unknown_key").json["detail"]
    for name in ("", "Shop", "a" * 33, 7, None):
        refused(stack.generate(application=name), 400, "bad_request")
    refused(stack.generate(application="bank", key=applications.keys["shop"]), 400, "bad_request")
    assert stack.generate(application="shop", key=applications.keys["shop"]).status == 200


def test_a_default_application_with_a_key_only(make):
    applications = make(default={"public": False})
    refused(applications.stack.generate(), 401, "unknown_key")
    refused(applications.stack.validate(applications.stack.plant(), "123456"), 401, "unknown_key")


# --- Walls ---

CALLERS = [None, "shop", "bank"]


@pytest.mark.parametrize("owner, other", [pair for pair in itertools.product(CALLERS, CALLERS) if pair[0] != pair[1]])
def test_a21_a_token_is_unknown_to_others(make, owner, other):
    """A21: guess, resend, revoke and status of another application's token: unknown, and nothing changes."""
    applications = make()
    stack = applications.stack
    address, token = applications.token(owner)
    code = applications.code(address)
    foreign = applications.keys.get(other)
    for answer in (stack.validate(token, code, key=foreign), stack.resend(token, key=foreign), stack.revoke(token, key=foreign),
                   stack.delivery(token, key=foreign)):
        refused(answer, 401, "unknown_token")
    assert stack.challenge(token)["attempts"] == 0
    assert stack.validate(token, code, key=applications.keys.get(owner)).status == 200


def test_a21_limits_and_tickets_are_an_applications_own(make):
    """A21: what one sends takes nothing from another; a ticket of one is none for another."""
    limits = {"resend_seconds": 0, "sends_per_hour": 1, "sends_per_day": 1}
    applications = make(default=limits, shop=limits, bank=limits)
    stack, address, tickets = applications.stack, address_of(), {}
    for count, caller in enumerate(CALLERS, 1):
        key = applications.keys.get(caller)
        token = stack.generate(address, key=key).token
        code = stack.smtp.wait(address, count).code
        tickets[caller] = stack.validate(token, stack.smtp.to(address)[-1].code if count > 1 else code, key=key).json["ticket"]
        refused(stack.generate(address, key=key), 429, "rate_limited")
    for owner, other in itertools.product(CALLERS, CALLERS):
        answer = stack.generate(address, key=applications.keys.get(other), ticket=tickets[owner])
        assert answer.status == (200 if owner == other else 429), (owner, other, answer)
    assert stack.query("select otp.unlock(%s)", address) == [(True,)]
    assert stack.query("select count(*) from otp.address_quota") == [(0,)]


# --- Budget ---

def test_a_budget_holds_for_those_without_a_ticket(make):
    applications = make(default={"budget_per_hour": 3})
    stack = applications.stack
    address, token = applications.token(None)
    ticket = stack.validate(token, applications.code(address)).json["ticket"]
    answers = [stack.generate() for _ in range(4)]
    assert [answer.status for answer in answers] == [200, 200, 429, 429]
    answer = refused(answers[2], 429, "budget_exhausted")
    assert 0 < answer.json["retry_after"] <= 1200 and answer.headers["retry-after"] == str(answer.json["retry_after"])
    assert stack.generate(address, ticket=ticket).status == 200
    assert stack.generate(key=applications.keys["shop"]).status == 200
    log = wait_for(lambda: (text := stack.text("generate-0.log")).count("budget_exhausted") and text, 5)
    assert log.count('"event":"budget_exhausted"') == 1
    assert metric(stack, "generate-0", "otpd_answers_total", 'answer="budget_exhausted"') == 2


def test_a_budget_is_for_mails_not_for_requests(make):
    """What a limit per mailbox or the database refuses takes nothing from it."""
    applications = make(default={"budget_per_hour": 2, "sends_per_hour": 1})
    address = address_of()
    assert applications.stack.generate(address).status == 200
    for _ in range(5):
        refused(applications.stack.generate(address), 429, "rate_limited")
    assert applications.stack.generate().status == 200
    refused(applications.stack.generate(), 429, "budget_exhausted")


def test_mails_to_a_domain_are_bounded(stack):
    stack.stop_responder("generate", 0)
    stack.start_responder("generate", DOMAIN_SENDS_PER_HOUR=2)
    domain = f"{secrets.token_hex(6)}.example"
    assert [stack.generate(f"a{n}@{domain}").status for n in range(3)] == [200, 200, 429]
    assert stack.generate().status == 200


def test_an_outbox_that_is_too_deep_takes_no_more(stack):
    """A flood, or a worker that is gone: 503 instead of mails that nobody will send in time; validate goes on; then all by itself."""
    stack.stop_worker()
    stack.stop_responder("generate", 0)
    stack.start_responder("generate", OUTBOX_MAX=5)
    token = stack.plant()
    answers = []
    wait_for(lambda: answers.append(stack.generate()) or answers[-1].status != 200, 20)
    refused(answers[-1], 503, "unavailable")
    assert answers[-1].headers["retry-after"] == "1"
    waiting = stack.query("select count(*) from otp.mail where state = 'queued'")[0][0]
    assert waiting == len(answers) - 1 > 5
    refused(stack.resend(answers[0].token), 503, "unavailable")
    assert stack.validate(token, "123456").status == 200
    assert metric(stack, "generate-0", "otpd_outbox_full") == 1
    assert stack.text("generate-0.log").count('"event":"outbox_full"') == 1
    stack.start_worker()
    wait_for(lambda: stack.generate().status == 200, 20)
    assert metric(stack, "generate-0", "otpd_outbox_full") == 0


# --- What an application allows ---

def test_domains_purposes_and_origins(make):
    applications = make(default={"domains_allow": ["example.com", "*.example.com"], "domains_deny": ["bad.example.com"],
                                 "purposes": ["sign-in"], "origins": ["https://app.example"]})
    stack = applications.stack
    assert stack.generate(purpose="sign-in").status == 200
    assert stack.generate("a@deep.example.com", purpose="sign-in").status == 200
    for address in ("a@bad.example.com", "a@example.org", "a@example.com.evil.example"):
        refused(stack.generate(address, purpose="sign-in"), 422, "domain_not_allowed")
    for fields in ({}, {"purpose": "delete"}):
        refused(stack.generate(**fields), 400, "bad_request")
    assert stack.post("/generate-password", headers={"Origin": "https://app.example"}, email=address_of(), purpose="sign-in").status == 200
    for path in ("/generate-password", "/validate-password", "/revoke", "/delivery-status"):
        for origin in ("https://evil.example", "http://app.example", "https://app.example.evil", "null", "https://app.example:8443"):
            refused(stack.post(path, headers={"Origin": origin}, email=address_of(), token="x", password="1"), 403, "origin_not_allowed")


# --- Test addresses ---

def test_a22_a_test_address_gets_no_mail(make):
    """A22: its fixed code, all other rules as usual, and everything says test."""
    applications = make(default={"test_addresses": {"reviewer@shop.example": {"code": "123456", "until": UNTIL}}})
    stack = applications.stack
    answer = stack.generate("Reviewer+x@Shop.example")
    assert answer.json["test"] is True
    assert refused(stack.validate(answer.token, "654321"), 401, "wrong_password").json["attempts_left"] == 4
    assert stack.delivery(answer.token).json["test"] is True
    assert stack.resend(answer.token).json["test"] is True
    validated = stack.validate(answer.token, "123456")
    assert validated.status == 200 and validated.json["test"] is True
    refused(stack.validate(answer.token, "123456"), 401, "used")
    assert stack.query("select test, mail from otp.challenges") == [(True, None)]
    assert stack.query("select count(*) from otp.mail") == [(0,)]
    assert '"event":"test_code"' in stack.text("generate-0.log")
    other = stack.generate("someone@shop.example")
    assert "test" not in other.json and "test" not in stack.validate(other.token, stack.smtp.wait("someone@shop.example").code).json


def test_a22_after_its_date_it_is_an_address_like_any_other(make):
    """A22: the file is not looked at for dates when a program starts or reads it anew: no program fails because a day is over."""
    yesterday = (datetime.datetime.now(datetime.timezone.utc).date() - datetime.timedelta(days=1)).isoformat()
    applications = make(default={"test_addresses": {"reviewer@shop.example": {"code": "123456", "until": yesterday}}})
    answer = applications.stack.generate("reviewer@shop.example")
    assert "test" not in answer.json
    code = applications.code("reviewer@shop.example")
    if code != "123456":
        refused(applications.stack.validate(answer.token, "123456"), 401, "wrong_password")
    assert applications.stack.validate(answer.token, code).status == 200


# --- SIGHUP ---

BAD = ["", "{", "nonsense", "[]", '{"shop": 7}', '{"shop": {"expire_minutes": "ten"}}', '{"shop": {"key_hashes": ["x"]}}', '{"Shop": {}}',
       '{"shop": {"expire_minutes": 0}}', '{"shop": {"unheard_of": 1}}']


@pytest.mark.parametrize("text", [*BAD, None], ids=lambda text: repr(text))
def test_a_bad_file_leaves_the_old_one_in_force(make, text):
    """Half-written, wrong, or gone: an error line that names it, and everything goes on."""
    applications = make()
    stack, key = applications.stack, applications.keys["shop"]
    before = stack.text("generate-0.log").count("configuration_refused")
    if text is None:
        applications.path.unlink()
    else:
        applications.write(text)
    applications.reload()
    log = wait_for(lambda: (log := stack.text("generate-0.log")).count("configuration_refused") > before and log, 5)
    assert "applications.json" in log[log.rindex('"event":"configuration_refused"'):]
    assert stack.generate(key=key).status == 200
    applications.write()
    applications.file["late"] = {"key_hashes": [hash_of(late := new_key())]}
    applications.write()
    applications.reload()
    wait_for(lambda: stack.generate(key=late).status == 200, 5)


def test_read_anew_under_load(make):
    """No request fails while good, bad, half-written and vanished files come and go."""
    applications = make()
    stack, done, problems, count = applications.stack, threading.Event(), [], itertools.count()
    whole = json.dumps(applications.file)

    def load(name):
        connection = stack.http()
        while not done.is_set():
            key = applications.keys[name]
            answer = stack.generate(connection=connection, key=key)
            if answer.status != 200:
                problems.append(answer)
                continue
            answer = stack.validate(answer.token, "99999999" if name == "bank" else "999999", connection, key=key)
            if (answer.status, answer.json["error"]) != (401, "wrong_password"):
                problems.append(answer)
            next(count)
    threads = [threading.Thread(target=load, args=(name,)) for name in ("shop", "bank") * 4]
    for thread in threads:
        thread.start()
    for turn in range(40):
        applications.write([whole, whole[:len(whole) // 2], "{}x", whole][turn % 4])
        if turn % 7 == 6:
            applications.path.unlink()
        applications.reload()
        time.sleep(0.05)
    done.set()
    for thread in threads:
        thread.join()
    assert not problems, problems[:3]
    assert next(count) > 50
