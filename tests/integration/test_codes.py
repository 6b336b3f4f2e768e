"""A1, A2, A7, A8, A9, A10, A11, A15: codes, tokens and addresses through the whole stack."""
import base64
import json
import re
import threading

import pytest

from stack import BUILD, address_of, code_mac, make_token, sodium, token_id, token_raw, wait_for
from swarm import Swarm

JSON = ["Content-Type: application/json"]


# --- A1, A2 ---

def opened_codes(stack):
    """The codes in the outbox, opened with the worker's key as seal.h says: public key 32, box of the padded code, the
    id as nonce."""
    library = sodium()
    private = (stack.keys / "worker" / "mail-1.key").read_bytes()
    codes = []
    import ctypes
    for row_id, sealed in stack.query("select id, sealed from otp.mail where sealed is not null"):
        plain = ctypes.create_string_buffer(len(sealed))
        nonce = row_id.bytes + bytes(8)
        if library.crypto_box_open_easy(plain, sealed[32:], ctypes.c_ulonglong(len(sealed) - 32), nonce, sealed[:32], private) == 0:
            codes.append(plain.raw[:len(sealed) - 48].rstrip(b"\0").decode())
    return codes


def test_a1_codes_of_the_stack(stack):
    """A1: six digits as text, zero-padded, every digit in every place about equally often (chi-square over what the
    running responder made; the generator itself is tested over 10^6 codes in tests/unit)."""
    stack.stop_worker()
    with Swarm(stack, 200) as swarm:
        for _ in range(10):
            assert all(a.status == 200 for a in swarm.generate_all([address_of() for _ in range(200)]))
    codes = opened_codes(stack)
    assert len(codes) == 2000
    assert all(re.fullmatch("[0-9]{6}", code) for code in codes)
    assert len(set(codes)) > 1980
    for place in range(6):
        counts = [sum(code[place] == str(digit) for code in codes) for digit in range(10)]
        chi = sum((count - 200) ** 2 / 200 for count in counts)
        assert chi < 40, (place, counts)  # 9 degrees of freedom: p < 10^-5
    assert any(code[0] == "0" for code in codes)


@pytest.mark.parametrize("length", [4, 12])
def test_a1_other_lengths(stack, length):
    """A1: PASSWORD_LENGTH digits, and they validate."""
    stack.stop_responder("generate", 0)
    stack.start_responder("generate", PASSWORD_LENGTH=length)
    address = address_of()
    token = stack.generate(address).token
    code = stack.smtp.wait(address).code
    assert len(code) == length
    assert stack.validate(token, code).status == 200


def test_a2_tokens(stack):
    """A2: 32 bytes: the time, then 26 random ones; all different; nothing but the hash is stored."""
    with Swarm(stack, 200) as swarm:
        tokens = [a.token for _ in range(5) for a in swarm.generate_all([address_of() for _ in range(200)])]
    raws = [token_raw(t) for t in tokens]
    assert {len(raw) for raw in raws} == {32}
    assert len({raw[6:] for raw in raws}) == 1000
    for index in range(6, 32):  # every random byte takes many values
        assert len({raw[index] for raw in raws}) > 200
    bits = sum(bin(byte).count("1") for raw in raws for byte in raw[6:])
    assert abs(bits - 104000) < 6 * 161  # six standard deviations of 208,000 fair bits
    assert stack.query("select count(*) from otp.challenge where id = any(%s)", [token_id(t) for t in tokens]) == [(1000,)]
    dump = stack.postgres.dump()
    for token, raw in zip(tokens, raws, strict=True):
        assert token.encode() not in dump
        assert raw[16:].hex().encode() not in dump and raw[6:].hex().encode() not in dump
    clock = stack.query("select extract(epoch from clock_timestamp()) * 1000")[0][0]
    assert all(abs(int.from_bytes(raw[:6], "big") - float(clock)) < 60000 for raw in raws)


def test_a2_a_token_has_one_spelling(stack):
    """A2: neither padding, nor another alphabet, nor the unused bits of the last character give a second token."""
    token = stack.plant("123456")
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    place = alphabet.index(token[-1])
    twins = [token[:-1] + alphabet[place ^ bit] for bit in (1, 2, 3)]
    for other in (*twins, token + "=", token + " ", " " + token, token + "\n", token[:-1], token + "A",
                  token.replace("-", "+").replace("_", "/") + "="):
        assert stack.validate(other, "123456").error == "unknown_token", other
    assert stack.validate(token, "123456").status == 200


def test_a2_no_spelling_outside_ascii(stack):
    """A2: libsodium 1.0.18 reads bytes above 0x7F as the digit "_": a character of two such bytes must not stand for two."""
    raw = bytearray(token_raw(make_token()))
    raw[9:12] = b"\xff\xff\xff"  # written "____"
    token = base64.urlsafe_b64encode(bytes(raw)).rstrip(b"=").decode()
    assert "__" in token
    stack.query("insert into otp.challenge (id, email, code_mac, mac_key, max_attempts, created_at, expires_at) values"
                " (%s, 'a@example.com', %s, 1, 5, clock_timestamp(), clock_timestamp() + interval '600 s')", token_id(token),
                code_mac(stack.pepper(), token, "123456"))
    assert stack.validate(token.replace("__", "\u00e9", 1), "123456").error == "unknown_token"
    assert stack.challenge(token)["attempts"] == 0
    assert stack.validate(token, "123456").status == 200


# --- A7, A8 ---

def test_a7_a_code_works_with_its_own_token_only(stack):
    """A7: two requests of one address: code A with token B fails, and both still work with their own."""
    address = address_of()
    tokens = [stack.generate(address).token for _ in range(2)]
    stack.smtp.wait(address, 2)
    codes = [mail.code for mail in stack.smtp.to(address)]
    if stack.validate(tokens[0], codes[0]).status != 200:  # mails may come in either order
        codes.reverse()
    assert codes[0] != codes[1]
    assert stack.validate(tokens[1], codes[0]).error == "wrong_password"
    assert stack.validate(tokens[1], codes[1]).status == 200


NEVER_A_MATCH = [
    '""', "null", "123456", "[\"123456\"]", "{\"a\":\"123456\"}", "true", "123456.0", "1.23456e5", '"0123456"', '"12345"', '"1234567"',
    '"123456\\u0000"', '"\\u0000123456"', '"12\\u00003456"', '"\\u2460\\u2461\\u2462\\u2463\\u2464\\u2465"',
    '"123456a"', '"0x1E240"', '"+123456"', '"123456.0"', '"123456;"', '"\' or 1=1 --"', '"%"', '"______"', '"123456\\n654321"', '"000000"',
    '"1234561234561"', '"' + "1" * 1500 + '"', '"-"', '" "', '"------"', '"\\ud83d\\ude00"', '"12345\\u00b2"', '"123456","password":"123456"',
]


@pytest.mark.parametrize("written", NEVER_A_MATCH)
def test_a8_never_a_match(stack, written):
    """A8: absent, empty, null, array, number, duplicate key, NUL, circled digits: never 200, and the challenge stays."""
    token = stack.plant("123456")
    answer = stack.request("POST", "/validate-password", f'{{"token": "{token}", "password": {written}}}', {"Content-Type": "application/json"})
    assert answer.status in (400, 401) and answer.error in ("bad_request", "not_a_code", "wrong_password"), answer
    assert stack.challenge(token)["used_at"] is None
    assert stack.challenge(token)["attempts"] == (answer.error == "wrong_password")
    assert stack.validate(token, "123456").status == 200


@pytest.mark.parametrize("body", ['{"token": "%s", "token": "%s", "password": "123456"}', '{"password": "123456"}', '[{"token": "%s", "password": "123456"}]',
                                  '{"token": ["%s"], "password": "123456"}', '{"token": "%s\\u0000", "password": "123456"}',
                                  '{"token": "%s", "password": "123456"', '{"token": "%s", "password": "123456"} {}', '"%s"'])
def test_a8_never_a_match_whole_bodies(stack, body):
    """A8: duplicate and missing members, wrong containers, truncated text."""
    token = stack.plant("123456")
    text = body.replace("%s", token)
    answer = stack.request("POST", "/validate-password", text, {"Content-Type": "application/json"})
    assert answer.status in (400, 401), answer
    assert stack.challenge(token)["used_at"] is None


def test_a8_a_code_is_a_string_on_every_way(stack):
    """A8, A1: a code with leading zeros is not the number without them."""
    token = stack.plant("000042")
    for wrong in ("42", "042", "00042", "0000042"):
        assert stack.validate(token, wrong).error == "not_a_code"
    assert stack.validate(token, "000042").status == 200


# --- A9, A10 ---

SPELLINGS = [
    ["jane.a9@example.com", "JANE.A9@example.com", "jane.a9@EXAMPLE.COM", "jane.a9+shop@example.com", "Jane.A9+x+y@Example.Com", " jane.a9@example.com "],
    ["otto@b\u00fccher.example", "otto@xn--bcher-kva.example", "Otto@B\u00dcCHER.example", "otto+1@XN--BCHER-KVA.example"],
]


@pytest.mark.parametrize("spellings", SPELLINGS)
def test_a9_one_budget_for_all_spellings(stack, spellings):
    """A9: case, +tag, U-label, A-label: one mailbox, one budget."""
    stack.stop_responder("generate", 0)
    stack.start_responder("generate", SENDS_PER_HOUR=1)
    assert stack.generate(spellings[0]).status == 200
    for spelling in spellings:
        assert stack.generate(spelling).error == "rate_limited", spelling
    assert stack.query("select count(*) from otp.address_quota") == [(1,)]


TAILS = ["\\u0000.a17.example", "\\u0000", "\\u0000@other.example", "\\u0000+a.example", "\\u0001.a17.example", "\\u007f.a17.example",
         "\\n.a17.example", "\\u0020.a17.example"]


@pytest.mark.parametrize("mailbox", ["victim@example.xn--p1ai", "victim@xn--bcher-kva.example", "victim@b\u00fccher.example", "victim@example.com"])
def test_a9_no_tail_makes_another_mailbox(stack, mailbox):
    """A9, A10: what ends a text for one part of the program ends it for all: no tail behind NUL or another control byte gives
    the mailbox a budget of its own, in whatever label it stands."""
    local, domain = mailbox.split("@")
    first, rest = domain.split(".", 1)
    for tail in TAILS:
        for address in (mailbox + tail, f"{local}{tail}@{domain}", f"{local}@{first}{tail}.{rest}"):
            answer = stack.request("POST", "/generate-password", f'{{"email": "{address}"}}', {"Content-Type": "application/json"})
            assert (answer.status, answer.error) == ((400, "bad_request") if "u0000" in tail else (422, "invalid_email")), address
    assert stack.query("select (select count(*) from otp.challenge), (select count(*) from otp.address_quota)") == [(0, 0)]
    marker = address_of("marker")
    stack.generate(marker)
    stack.smtp.wait(marker)
    assert stack.smtp.rcpts == [marker]


def test_a9_what_is_mailed_is_what_is_counted(stack):
    """A9, A10: the recipient that otp-generate counted is stored, and is what the relay is told."""
    stack.stop_responder("generate", 0)
    stack.start_responder("generate", SENDS_PER_HOUR=1)
    token = stack.generate(" Otto+1@B\u00dcCHER.example ").token
    row = stack.challenge(token)
    assert (row["email"], row["recipient"], row["mailbox"]) == \
        ("Otto+1@B\u00dcCHER.example", "Otto+1@xn--bcher-kva.example", "otto@xn--bcher-kva.example")
    wait_for(lambda: stack.smtp.rcpts == [row["recipient"]])
    assert stack.query("select mailbox from otp.address_quota") == [(row["mailbox"],)]


def test_a9_a_decomposed_domain_is_no_way_around(stack):
    """A9: the same letters in another Unicode form: the same budget, or refused."""
    stack.stop_responder("generate", 0)
    stack.start_responder("generate", SENDS_PER_HOUR=1)
    assert stack.generate("eva@b\u00fccher.example").status == 200
    assert stack.generate("eva@bu\u0308cher.example").error in ("rate_limited", "invalid_email")


def test_a9_budget_under_parallel_spellings(stack):
    """A9: 60 requests at once over all spellings: exactly the budget passes."""
    stack.stop_responder("generate", 0)
    stack.start_responder("generate", SENDS_PER_HOUR=5)
    names = ["max@example.com", "MAX@example.com", "max+1@example.com", "Max+2@Example.com", "maX@EXAMPLE.com"]
    with Swarm(stack, 60) as swarm:
        answers = swarm.generate_all([names[n % 5] for n in range(60)])
    statuses = [a.status for a in answers]
    assert statuses.count(200) == 5 and statuses.count(429) == 55
    assert stack.query("select count(*) from otp.challenge") == [(5,)]


def test_a9_other_mailboxes_are_not_one(stack):
    """A9: different people are not limited together."""
    stack.stop_responder("generate", 0)
    stack.start_responder("generate", SENDS_PER_HOUR=1)
    for address in ("a.b@example.com", "ab@example.com", "a-b@example.com", "a.b@sub.example.com", "a.b@example.org"):
        assert stack.generate(address).status == 200, address


@pytest.mark.parametrize("given, mailbox", [
    ("user@example.com", "user@example.com"), ("User.Name+tag@Example.COM", "User.Name+tag@example.com"),
    ("otto@b\u00fccher.example", "otto@xn--bcher-kva.example"), ("x@\u0440\u0430\u0443\u0440\u0430\u04cf.example", None),
    ("o'neil@example.com", "o'neil@example.com"), ("!#$%&'*+/=?^_`{|}~-@example.com", "!#$%&'*+/=?^_`{|}~-@example.com"),
    ("a@xn--bcher-kva.example", "a@xn--bcher-kva.example"), (" padded@example.com ", "padded@example.com")])
def test_a10_the_mail_goes_to_exactly_that_address(stack, given, mailbox):
    """A10: one RCPT, the domain in its A-label form, the local part as given; To shows it alone."""
    answer = stack.generate(given)
    assert answer.status == 200, answer
    mail = wait_for(lambda: stack.smtp.mails and stack.smtp.mails[0], 15, "the mail")
    assert len(mail.recipients) == 1 and len(stack.smtp.rcpts) == 1
    if mailbox:
        assert mail.recipients == [mailbox]
    else:  # a homoglyph stays another domain: what arrives is its A-label, never the ASCII look-alike
        assert re.fullmatch(r"x@xn--[a-z0-9-]+\.example", mail.recipients[0])
    assert mail.message.get_all("To") and len(mail.message.get_all("To")) == 1
    assert mail.message["To"].addresses[0].addr_spec == mail.recipients[0] or mailbox is None
    assert not mail.message.get_all("Cc") and not mail.message.get_all("Bcc")


HOSTILE = ["a@example.com\r\nRCPT TO:<b@example.com>", "a@example.com\nBcc: b@example.com", "a@example.com\rb@example.com", "a@example.com, b@example.com",
           "a@example.com;b@example.com", "a@example.com b@example.com", '"a@example.com b"@example.org', '"a\\"b"@example.com', "a@example.com>",
           "<a@example.com>", "a@example.com\u0000b@example.com", "a%b@example.com@example.org", "a@ex\u200bample.com\r\n", "a@example.com\u2028b",
           "a@example.com(comment)", "(c)a@example.com", "a@[IPv6:::1]", "a@example.com.", "a@.example.com", "a@exam ple.com", "a@example.com\t,b@x.org",
           "\ufeffa@example.com", "a\u00a0@example.com", "@relay.example:a@example.com", "a@a_b.example", "a@example.c\u0000om", "postmaster", "a@example.123\r"]


def test_a10_hostile_addresses_never_make_a_second_recipient(stack):
    """A10: quoted locals, CR and LF, lists, comments, literals: refused, or one mail to one recipient."""
    accepted = []
    for address in HOSTILE:
        answer = stack.generate(address)
        assert answer.status in ((400,) if "\0" in address else (200, 422)), (address, answer)
        if answer.status == 200:
            accepted.append(address)
    assert len(accepted) <= 3, accepted
    marker = address_of("marker")
    stack.generate(marker)
    stack.smtp.wait(marker)
    wait_for(lambda: len(stack.smtp.mails) == len(accepted) + 1, 15, "the mails")
    assert len(stack.smtp.rcpts) == len(accepted) + 1
    for mail in stack.smtp.mails:
        assert len(mail.recipients) == 1 and not mail.recipients[0].startswith("b@")
        assert all(ord(c) > 32 and c not in '<>(),;:\\"[]' for c in mail.recipients[0])


# --- A11 ---

def faceless(mail, address):
    """A mail without what differs from one to the next by right: code, id, reference, date, boundary, address."""
    text = mail.raw.decode().replace("=\r\n", "")  # lines as they were before they were folded
    boundary = mail.message.get_boundary()
    for value in (mail.code, boundary, address):
        text = text.replace(value, "*")
    text = re.sub(r"(?im)^(Message-ID|Date|X-Entity-Ref-ID): .*(\r\n[ \t].*)*", r"\1: *", text)
    text = re.sub(r"Reference [A-Z]{3}", "*", text)
    return re.sub(r"\d{1,2} [A-Z][a-z]+ \d{4}|\d{4}-\d\d-\d\d|\d\d:\d\d(:\d\d)?", "*", text)


HEADERS = {"Host": "evil.example", "Origin": "https://evil.example", "Referer": "https://evil.example/", "X-Forwarded-For": "203.0.113.9",
           "X-Forwarded-Host": "evil.example", "Forwarded": "for=evil.example", "User-Agent": "evil-agent", "Accept-Language": "xx-evil",
           "X-Real-IP": "203.0.113.9", "From": "evil@evil.example", "Cookie": "evil=1", "Authorization": "Basic ZXZpbA==", "X-Original-URL": "/evil",
           "Proxy": "http://evil.example", "X-Request-Id": "evil"}


def test_a11_no_request_header_reaches_the_mail(stack):
    """A11: the same mail with and without hostile headers, but for code, id and date."""
    plain, hostile = "plain@example.com", "other@example.com"
    assert stack.generate(plain).status == 200
    answer = stack.request("POST", "/generate-password?evil=evil", {"email": hostile}, HEADERS)
    assert answer.status == 200, answer
    one, two = stack.smtp.wait(plain), stack.smtp.wait(hostile)
    assert b"evil" not in two.raw.lower() and b"203.0.113" not in two.raw
    assert faceless(one, plain) == faceless(two, hostile)


def test_a11_no_header_reaches_a_responder(stack):
    """A11: nginx passes no other HTTP_* parameter: a stand-in for the responder sees exactly the agreed ones."""
    import os
    import socket
    from stack import FCGI_PARAMS, FCGI_STDIN, FCGI_STDOUT, FCGI_END, fcgi_record
    stack.stop_responder("generate", 0)
    path = stack.socket_path("generate-0")
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    os.chmod(path, 0o777)
    listener.listen(5)
    seen = {}

    def serve():
        connection, _ = listener.accept()
        stream = connection.makefile("rb")
        params = b""
        while True:
            head = stream.read(8)
            content = stream.read(int.from_bytes(head[4:6], "big"))
            stream.read(head[6])
            if head[1] == FCGI_PARAMS:
                params += content
            if head[1] == FCGI_STDIN and not content:
                break
        while params:
            lengths = []
            for _ in range(2):
                wide = params[0] & 0x80
                lengths.append(int.from_bytes(params[:4], "big") & 0x7fffffff if wide else params[0])
                params = params[4 if wide else 1:]
            seen[params[:lengths[0]].decode()] = params[lengths[0]:sum(lengths)].decode()
            params = params[sum(lengths):]
        reply = b"Status: 200 OK\r\nContent-Type: application/json\r\n\r\n{}"
        connection.sendall(fcgi_record(FCGI_STDOUT, reply) + fcgi_record(FCGI_STDOUT) + fcgi_record(FCGI_END, bytes(8)))
        connection.close()
    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    assert stack.request("POST", "/generate-password", {"email": "a@example.com"}, HEADERS).status == 200
    thread.join(10)
    listener.close()
    path.unlink()
    assert set(seen) == {"REQUEST_METHOD", "DOCUMENT_URI", "QUERY_STRING", "CONTENT_TYPE", "CONTENT_LENGTH", "REQUEST_ID",
                         "HTTP_ACCEPT_LANGUAGE", "HTTP_AUTHORIZATION", "HTTP_CONTENT_ENCODING", "HTTP_ORIGIN"}
    assert seen.pop("HTTP_ACCEPT_LANGUAGE") == "xx-evil"  # only ever looked up among the languages that are there
    for name in ("HTTP_AUTHORIZATION", "HTTP_ORIGIN", "REQUEST_ID"):  # compared with what the applications' file names; a name for logs
        seen.pop(name)
    assert "evil" not in json.dumps(seen)


# --- A15 ---

def test_a15_a_new_request_does_not_touch_an_old_token(stack):
    """A15: five wrong guesses, then a new code for the same address: the old token stays exhausted, the new one has five."""
    address = address_of()
    old = stack.generate(address).token
    old_code = stack.smtp.wait(address).code
    wrong = "%06d" % ((int(old_code) + 1) % 1000000)
    for _ in range(3):
        stack.validate(old, wrong)
    new = stack.generate(address).token
    new_code = stack.smtp.wait(address, 2).code
    assert stack.challenge(old)["attempts"] == 3 and stack.challenge(new)["attempts"] == 0
    assert [stack.validate(old, wrong).json["attempts_left"] for _ in range(2)] == [1, 0]
    for _ in range(3):
        assert stack.generate(address).status == 200
    assert stack.validate(old, old_code).error == "exhausted"
    assert stack.validate(new, new_code).status == 200


def test_a15_somebody_elses_request_does_not_end_a_live_token(stack):
    """A15: whoever asks for codes for my address cannot make mine useless."""
    address = address_of()
    mine = stack.generate(address).token
    code = stack.smtp.wait(address).code
    theirs = [stack.generate(address).token for _ in range(5)]
    for token in theirs:
        for _ in range(5):
            stack.validate(token, "%06d" % ((int(code) + 1) % 1000000))
    for _ in range(20):
        assert stack.validate(make_token(), code).error == "unknown_token"
    assert stack.validate(mine, code).status == 200


def test_programs_are_there():
    """The four programs were built."""
    for name in ("otp-generate", "otp-validate", "otp-worker", "otp-keygen"):
        assert (BUILD / name).is_file()
