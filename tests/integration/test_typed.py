"""What people type, paste and send: codes, addresses, languages and bodies that mean what they seem to (A26)."""
import json
import unicodedata

import pytest
from stack import address_of, http_bytes, wait_for

JSON = {"Content-Type": "application/json"}
# The tables of Unicode 3.2: what they hold, every later version holds alike.
OLD = unicodedata.ucd_3_2_0
CHARACTERS = [chr(c) for c in range(1, 0x20000) if not 0xD800 <= c < 0xE000]


def of_category(*categories):
    return [c for c in CHARACTERS if OLD.category(c) in categories and unicodedata.category(c) in categories]


def in_groups(characters, size):
    return [characters[i:i + size] for i in range(0, len(characters), size)]


# --- Codes ---

MARKS = of_category("Zs", "Zl", "Zp", "Cc", "Cf", "Pd")


@pytest.mark.parametrize("group", in_groups(MARKS, 40), ids=lambda group: f"U+{ord(group[0]):04X}")
def test_a26_marks_cost_nothing(stack, group):
    """A26: each character of the categories Z, Cc, Cf and Pd, in front, within and behind: the right code is right."""
    with_connection = stack.http()
    for mark in group:
        token = stack.plant("123456", max_attempts=1)
        answer = stack.validate(token, f"{mark}12{mark}{mark}3456{mark}", with_connection)
        assert answer.status == 200, (hex(ord(mark)), answer)


def scripts():
    """The ten digits of each script."""
    digits = {}
    for c in of_category("Nd"):
        digits.setdefault(ord(c) - OLD.decimal(c), {})[OLD.decimal(c)] = c
    return [[found[i] for i in range(10)] for found in digits.values() if len(found) == 10]


@pytest.mark.parametrize("digits", scripts(), ids=lambda digits: unicodedata.name(digits[0]).replace(" ", "-"))
def test_a26_digits_of_every_script(stack, digits):
    """A26: decimal digits count as their value, also mixed with others."""
    for code in ("012345", "678900"):
        token = stack.plant(code, max_attempts=1)
        assert stack.validate(token, "".join(digits[int(d)] for d in code)).status == 200
    token = stack.plant("012345", max_attempts=1)
    assert stack.validate(token, f"{digits[0]}12{digits[3]}45").status == 200


def test_a26_a_wrong_code_is_one_guess_however_it_is_written(stack):
    """A26: what can be a code costs exactly one guess."""
    token = stack.plant("123456")
    for left, written in zip((4, 3, 2, 1, 0), ("654321", "６５４３２１", "654\u202e321", "654 - 321", "\ufeff654321"), strict=True):
        answer = stack.validate(token, written)
        assert (answer.error, answer.json["attempts_left"]) == ("wrong_password", left)


# --- Addresses ---

TAKEN = [
    ("\u2066jane@example.com\u2069", "jane@example.com", "jane@example.com"),
    ("\u202ajane@example.com\u202c\u3000", "jane@example.com", "jane@example.com"),
    ("\ufeffjane@example.com\r\n", "jane@example.com", "jane@example.com"),
    ("\uff0djane@example.com\x0c", "jane@example.com", "jane@example.com"),
    ("jane\uff20example\u3002com", "jane@example.com", "jane@example.com"),
    ("jane@bu\u0308cher.example", "jane@xn--bcher-kva.example", "jane@xn--bcher-kva.example"),
    ("jane@xn--i-7iq.ws", "jane@xn--i-7iq.ws", "jane@xn--i-7iq.ws"),
    ('"abc..def"@docomo.ne.jp', '"abc..def"@docomo.ne.jp', "abc..def@docomo.ne.jp"),
    ("abc..def@docomo.ne.jp", '"abc..def"@docomo.ne.jp', "abc..def@docomo.ne.jp"),
    ("abc.@ezweb.ne.jp", '"abc."@ezweb.ne.jp', "abc.@ezweb.ne.jp"),
    ("J.Ane+shop@googlemail.com", "J.Ane+shop@googlemail.com", "jane@gmail.com"),
]


@pytest.mark.parametrize("typed, recipient, mailbox", TAKEN)
def test_a10_addresses_as_people_type_them(stack, typed, recipient, mailbox):
    """A9, A10: taken, mailed to the one recipient that it means, counted as the one mailbox that it is."""
    answer = stack.generate(typed)
    assert answer.status == 200, answer
    row = stack.challenge(answer.token)
    assert (row["recipient"] or row["email"], row["mailbox"] or row["email"]) == (recipient, mailbox)
    mail = wait_for(lambda: stack.smtp.mails and stack.smtp.mails[0])
    assert mail.recipients == [recipient]
    assert f"\r\nTo: {recipient}\r\n".encode() in mail.raw
    assert stack.validate(answer.token, mail.code).status == 200


def test_a9_gmail_dots_are_one_budget(stack):
    """A9: the dots, the tag and the other name of one Gmail mailbox share its limits."""
    stack.stop_responder("generate", 0)
    stack.start_responder("generate", SENDS_PER_HOUR=1)
    assert stack.generate("jane.doe@gmail.com").status == 200
    for spelling in ("janedoe@gmail.com", "J.A.N.E.doe@googlemail.com", "jane.doe+x@GMAIL.com", '"jane..doe"@gmail.com'):
        assert stack.generate(spelling).error == "rate_limited", spelling
    assert stack.generate("janedoe@example.com").status == 200
    assert stack.generate("jane.doe@example.com").status == 200


REFUSED = [("j\u00f6rg@example.com", "SMTPUTF8"), ("ja\u200bne@example.com", "invisible"), ("ja ne@example.com", "space"),
           ("jane@\uff45xample\u00fc.com", "domain"), ("jane@\u212a\u00fc.com", "domain"), ("jane", "no @"), ("jane@localhost", "domain"),
           ("@example.com", "empty"), ("a" * 65 + "@example.com", "64 bytes"), ("ja(ne)@example.com", "not allowed")]


@pytest.mark.parametrize("typed, said", REFUSED)
def test_what_is_wrong_with_an_address_is_said(stack, typed, said):
    """422 with a detail: which part, and why."""
    answer = stack.generate(typed)
    assert (answer.status, answer.error) == (422, "invalid_email")
    assert said in answer.json["detail"], answer


# --- Languages ---

@pytest.mark.parametrize("fields, header, subject", [
    ({}, "pt-PT,pt;q=0.9,en;q=0.8", "Seu código OTP"), ({}, "sv,pt-BR;q=0.5", "Seu código OTP"), ({}, "en-US,pt;q=0.9", "Your OTP code"),
    ({"locale": "en"}, "pt-BR", "Your OTP code"), ({"locale": "pt_BR.UTF-8"}, "", "Seu código OTP"), ({"locale": "pt"}, "en", "Seu código OTP"),
    ({}, "", "Your OTP code"), ({}, "*", "Your OTP code"), ({}, ",;q=,\x7f", "Your OTP code")])
def test_language(stack, fields, header, subject):
    """The member, or else the browser's header, chooses the mail's language."""
    address = address_of()
    assert stack.request("POST", "/generate-password", {"email": address, **fields}, {"Accept-Language": header}).status == 200
    assert stack.smtp.wait(address).message["Subject"] == subject


# --- Bodies ---

@pytest.mark.parametrize("unread", ['"id": 12345678901234567890', '"id": -1e308', '"id": [{"a": {"b": [null, true, "\\ud83d\\ude00"]}}]',
                                    '"": ""', '"email ": "x"', '"Email": "x"', '"\\u00e9": {}'])
def test_members_that_nobody_reads_refuse_nothing(stack, unread):
    """Whatever an unknown member holds, the request is served."""
    body = f'{{{unread}, "email": "{address_of()}"}}'
    assert stack.request("POST", "/generate-password", body, JSON).status == 200


@pytest.mark.parametrize("unread, said", [('"id": 1e999', "number is too large"), ('"a": 1, "a": 2', "twice"), ('"a": "\\ud83d"', "not valid JSON"),
                                          ('"a": "\\u0000"', "U+0000")])
def test_or_the_answer_says_what_and_where(stack, unread, said):
    """What the parser cannot take is named, with its place, and without a word of the body."""
    body = f'{{"email": "canary@example.com",\n  {unread}}}'
    answer = stack.request("POST", "/generate-password", body, JSON)
    assert (answer.status, answer.error) == (400, "bad_request")
    assert said in answer.json["detail"] and "line 2, column" in answer.json["detail"] and "canary" not in answer.json["detail"]


def test_a_byte_order_mark_is_skipped(stack):
    body = b"\xef\xbb\xbf" + json.dumps({"email": address_of()}).encode()
    assert stack.request("POST", "/generate-password", body, JSON).status == 200


@pytest.mark.parametrize("encoding, status", [("gzip", 415), ("br", 415), ("deflate, identity", 415), ("identity", 200), ("Identity", 200), ("", 200)])
def test_compressed_bodies_are_refused(stack, encoding, status):
    """415 for a Content-Encoding that nobody decodes, instead of 400 for what looks like noise."""
    body = json.dumps({"email": address_of()}).encode()
    raw = stack.raw(http_bytes("POST", "/generate-password", body,
                               ["Content-Type: application/json", f"Content-Encoding: {encoding}", "Connection: close"]))
    assert raw.startswith(f"HTTP/1.1 {status} ".encode()), raw
    if status == 415:
        assert b"unsupported_media_type" in raw and b"Content-Encoding" in raw
