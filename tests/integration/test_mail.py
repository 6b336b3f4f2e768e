"""The mail itself: what the relay gets, from whom and for whom, and that nothing is said to a relay that is not ours."""
import base64
import contextlib
import email.utils
import re
import socket
import ssl
import subprocess
import threading
import time
from collections import Counter
from contextlib import contextmanager
from datetime import timedelta
from email.header import decode_header, make_header
from html.parser import HTMLParser

import pytest
from outbox import due_now, mail_row, message_id, queue, random_code, wait_reply, wait_state
from stack.certificates import make_authority, make_tls
from stack.relay import HANG, Relay
from stack import BUILD, ROOT, address_of, wait_for


@contextmanager
def worker(stack, *relays, **settings):
    """otp-worker with these relays; it must stop cleanly."""
    names = ", ".join(relay.name for relay in relays)
    process = stack.start_worker(0, **{"SMTP_RELAYS": names, "SMTP_TLS": "off", **settings})
    try:
        yield process
    finally:
        status = stack.stop_worker(0)
    assert status == 0, process.tail()


class Words(HTMLParser):
    """The words of a page's body as a reader sees them."""

    def __init__(self, page):
        super().__init__()
        self.words = []
        self.in_body = False
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.in_body |= tag == "body"

    def handle_data(self, data):
        if self.in_body:
            self.words += data.split()


# --- The message ---

HARD_NAMES = [
    ("Café \"Söhne\" & <Co> 🔑", 'Zoë "Z" Ünïcode 🔑 <otp@bücher.example>', "Zoë \"Z\" Ünïcode 🔑", "otp@xn--bcher-kva.example"),
    ("R&D", '"Acme, \\"Inc\\"" <otp@example.org>', 'Acme, "Inc"', "otp@example.org"),
    ("長い名前" * 5, ("长" * 60) + " <otp@example.org>", "长" * 60, "otp@example.org"),
    ("a", "otp@example.org", "", "otp@example.org"),
]


@pytest.mark.parametrize("app_name, sender, display, address", HARD_NAMES, ids=["emoji", "quotes", "long", "bare"])
@pytest.mark.parametrize("locale", ["en", "pt-BR"])
def test_message_is_well_formed(database, app_name, sender, display, address, locale):
    """A10: well-formed MIME by Python's parser, CRLF only, one recipient, headers that survive hard names."""
    with Relay() as relay, worker(database, relay, APP_NAME=app_name, EMAIL_FROM=sender):
        [row_id] = queue(database, "Jane.Doe+tag@BÜCHER.example", "012345", locale)
        mail = relay.wait("Jane.Doe+tag@xn--bcher-kva.example")
    created = database.query("select created_at from otp.challenge where id = %s", row_id)[0][0]
    message = mail.message
    assert mail.sender == address
    assert relay.rcpts == ["Jane.Doe+tag@xn--bcher-kva.example"]
    assert b"\n" not in mail.raw.replace(b"\r\n", b"") and b"\r" not in mail.raw.replace(b"\r\n", b"")
    assert max(map(len, mail.raw.split(b"\r\n"))) <= 76
    mail.raw.decode("ascii")
    assert [part.defects for part in message.walk()] == [[], [], []]
    assert not any(value.defects for value in message.values())
    assert message["Subject"] == (f"Your {app_name} code" if locale == "en" else f"Seu código {app_name}")
    # Python's own address parser puts a space between encoded words (RFC 2047 6.2 forbids it); its header decoder does not.
    name, spec = email.utils.parseaddr(email.message_from_bytes(mail.raw)["From"])
    assert (str(make_header(decode_header(name))), spec) == (display, address)
    assert message["To"] == "Jane.Doe+tag@xn--bcher-kva.example"
    assert message["Message-ID"] == message_id(row_id, address.split("@")[1])
    assert message["Auto-Submitted"] == "auto-generated"
    assert message["Date"].datetime == created.replace(microsecond=0)
    assert sorted(name.lower() for name in message.keys()) == sorted(set(name.lower() for name in message.keys()))
    assert "bcc" not in message and "cc" not in message
    assert message.get_content_type() == "multipart/alternative"
    assert [part.get_content_type() for part in message.iter_parts()] == ["text/plain", "text/html"]


LOCALES = sorted(folder.name for folder in (ROOT / "templates").iterdir())


def test_both_parts_say_the_same(database):
    """In each language: the same words in both, the code alone on a line, its lifetime, when it was asked for and for whom;
    nothing to click or load."""
    with Relay() as relay, worker(database, relay, APP_NAME="Café & <Söhne>"):
        ids = [queue(database, f"jane+{locale}@example.com", "987654", locale, lifetime=900)[0] for locale in LOCALES]
        messages = [relay.wait(f"jane+{locale}@example.com").message for locale in LOCALES]
    for locale, row_id, message in zip(LOCALES, ids, messages):
        created = database.query("select created_at at time zone 'UTC' from otp.challenge where id = %s", row_id)[0][0]
        text = message.get_body(("plain",)).get_content()
        page = message.get_body(("html",)).get_content()
        assert text.split() == Words(page).words
        assert "987654" in text.splitlines() and "987654" in page.splitlines()
        assert "Café & <Söhne>" in text and "15" in text and f"jane+{locale}@example.com" in text
        assert re.fullmatch("[CDHJMPRTWX]{3}", text.split()[-1])
        assert f"{created:%H:%M}" in text and f"{created.year}" in text and str(created.day) in re.findall(r"\d+", text)
        assert locale != "en" or f"Requested on {created.day} {created:%B %Y, %H:%M} UTC for" in text
        assert not re.search(r"https?:|www\.|href|src=|url\(|<img|<link|<script|@import|<style", page + text, re.I)
        assert 'name="color-scheme"' in page and f'lang="{locale}"' in page
        assert message["X-Entity-Ref-ID"] == str(row_id)


def test_locale_falls_back(database):
    """pt-BR for pt-br and for pt, else the language, else English."""
    with Relay() as relay, worker(database, relay):
        for number, locale in enumerate([None, "pt-br", "pt-BR-x-y", "pt", "sv-SE", "en-GB", "../en", "\u202e"]):
            queue(database, f"user{number}@example.com", locale=locale)
        subjects = [relay.wait(f"user{number}@example.com").message["Subject"] for number in range(8)]
    english, portuguese = "Your OTP code", "Seu código OTP"
    assert subjects == [english, portuguese, portuguese, portuguese, english, english, english, english]


def test_addresses_that_never_reach_the_wire_A10(database):
    """A10: even if such an address got into the table, libesmtp, which filters nothing, does not see it."""
    bad = ["a@example.com\r\nRCPT TO:<b@example.com>", "a@example.com>\nDATA", "a@example.com,b@example.com", "a b@example.com",
           '"a b"@example.com', "a@b@example.com", "a@[127.0.0.1]", "a@example.com>", "<a@example.com", "ä@example.com",
           "a@exa\rmple.com", "a", "@", "", "a@" + "x" * 300 + ".com"]
    with Relay() as relay, worker(database, relay):
        ids = [queue(database, address)[0] for address in bad]
        rows = [wait_state(database, row_id, "failed") for row_id in ids]
        queue(database, "good@example.com")
        relay.wait("good@example.com")
    assert relay.rcpts == ["good@example.com"]
    assert all(row["sealed"] is None and "cannot be mailed" in row["last_reply"] for row in rows)


def test_homoglyph_goes_to_its_own_domain_A10(database):
    """A10: a Cyrillic look-alike is another mailbox, in A-labels."""
    with Relay() as relay, worker(database, relay):
        queue(database, "a@ex\u0430mple.com")
        queue(database, "a@example.com")
        wait_for(lambda: len(relay.mails) == 2)
    assert sorted(relay.rcpts) == ["a@example.com", "a@xn--exmple-4nf.com"]


def test_no_request_header_in_the_mail_A11(stack):
    """A11: with hostile headers the mail is the same but for code, id and date."""
    def mail_with(headers):
        address = "jane@example.com"
        stack.smtp.reset()
        answer = stack.request("POST", "/generate-password", {"email": address}, headers)
        assert answer.status == 200, answer
        mail = stack.smtp.wait(address)
        raw = mail.raw.replace(mail.code.encode(), b"CODE").replace(b"localhost", b"")
        raw = re.sub(rb"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", b"ID", raw)
        raw = re.sub(rb"(?m)^Date: .*?$|\d+ \w+ 20\d\d, \d\d:\d\d UTC|Reference \w+", b"DATE", raw)
        return re.sub(rb"(?m)^X-Peer: .*?\r\n", b"", raw)

    plain = mail_with({})
    hostile = mail_with({"Origin": "https://evil.example", "Referer": "https://evil.example/x", "User-Agent": "evil.example",
                         "X-Forwarded-Host": "evil.example", "X-Forwarded-For": "6.6.6.6", "Accept-Language": "evil",
                         "X-Request-Id": "evil", "Forwarded": "host=evil.example"})
    assert hostile == plain
    assert b"evil" not in hostile


def test_what_the_relay_is_told(database):
    """The greeting and the envelope's sender can be set; the mail's own sender stays."""
    with Relay() as relay, worker(database, relay, SMTP_HELO="mx.example.net", RETURN_PATH="bounces@example.net"):
        queue(database, "jane@example.com")
        mail = relay.wait("jane@example.com")
    assert relay.connections[0].commands[0] == "EHLO mx.example.net"
    assert mail.sender == "bounces@example.net" and mail.message["From"] == "OTP <otp@example.org>"


# --- TLS ---

@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")
    folder.chmod(0o755)
    make_authority(folder)
    return folder


def tls_settings(authority):
    return {"SMTP_TLS": "required", "SMTP_CA_FILE": authority / "ca.pem"}


WAYS = {"STARTTLS": False, "smtps": True}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
def test_tls_with_a_good_certificate(database, authority, way, version):
    """Delivered under TLS, with SNI; nothing but EHLO and STARTTLS was said before. Many sessions in one process."""
    tls = make_tls(authority, "DNS:localhost")
    tls.minimum_version = tls.maximum_version = getattr(ssl.TLSVersion, version.replace(".", "_"))
    with Relay(tls=tls, implicit=WAYS[way]) as relay:
        with worker(database, relay, MESSAGES_PER_SESSION=1, **tls_settings(authority)):
            queue(database, "jane@example.com", count=20)
            relay.wait("jane@example.com", 20)
    assert len(relay.connections) == 20 and not relay.failures
    for connection in relay.connections:
        assert connection.is_tls and connection.sni == "localhost" and connection.tls_version == version
        assert connection.plain == b"" if WAYS[way] else connection.plain == b"EHLO example.org\r\nSTARTTLS\r\n"
        assert connection.commands[-1] == "QUIT"


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("host, names", [("127.0.0.1", "IP:127.0.0.1"), ("::1", "IP:::1")])
def test_tls_to_an_address(database, authority, host, names, way):
    """The certificate must name the address; no SNI is sent."""
    with Relay(tls=make_tls(authority, names), implicit=WAYS[way], host=host) as relay:
        name = f"{'smtps://' if WAYS[way] else ''}{f'[{host}]' if ':' in host else host}:{relay.port}"
        with worker(database, SMTP_RELAYS=name, **tls_settings(authority)) as process:
            queue(database, "jane@example.com")
            connection = relay.wait("jane@example.com").connection
            assert wait_for(lambda: process.events("mail"))[0]["relay"] == name
    assert connection.is_tls and connection.sni is None


def test_a_large_mail_and_many_over_tls(database, authority):
    """The thread that carries the bytes loses none of them, however many there are and however slowly they are read."""
    large = {"APP_NAME": "é" * 32, "EMAIL_SUBJECT": "{{app_name}}" * 14, "EMAIL_FROM": "é" * 100 + " <otp@example.org>"}

    def script(connection, verb, value):
        time.sleep(0.01 if verb == "DOT" else 0)
        return None

    with Relay(script, tls=make_tls(authority, "DNS:localhost")) as relay:
        ids = queue(database, "jane@example.com", count=100)
        with worker(database, relay, **large, **tls_settings(authority)):
            relay.wait("jane@example.com", 100)
    assert Counter(mail.message["Message-ID"] for mail in relay.mails) == Counter(message_id(row_id) for row_id in ids)


def inject(connection, verb, value):
    """A man in the middle adds answers in the clear behind the one to STARTTLS."""
    if verb == "STARTTLS":
        connection.say("220 go ahead\r\n250 fake\r\n250 fake\r\n250 fake\r\n354 fake\r\n250 fake")
        connection.relay.tls.wrap_socket(connection.socket, server_side=True)
        return HANG
    return None


def inject_later(connection, verb, value):
    """He waits until the handshake may have begun."""
    if verb == "STARTTLS":
        connection.say("220 go ahead")
        time.sleep(0.3)
        connection.say("250 fake\r\n250 fake\r\n250 fake\r\n354 fake\r\n250 fake")
        return HANG
    return None


def weak(authority):
    """A server that knows TLS 1.0 alone."""
    tls = make_tls(authority, "DNS:localhost")
    tls.set_ciphers("ALL:@SECLEVEL=0")
    tls.minimum_version = tls.maximum_version = ssl.TLSVersion.TLSv1
    return tls


SERVERS = {
    "good": lambda authority: make_tls(authority, "DNS:localhost"),
    "none": lambda authority: None,
    "self": lambda authority: make_tls(authority, "DNS:localhost", sign=False),
    "expired": lambda authority: make_tls(authority, "DNS:localhost", days=-1),
    "other": lambda authority: make_tls(authority, "DNS:other.example"),
    "subdomain": lambda authority: make_tls(authority, "DNS:*.localhost"),
    "weak": weak,
}
REFUSED = {
    "another host": ("other", None, "[Hh]ostname mismatch"),
    "a wildcard of another host": ("subdomain", None, "[Hh]ostname mismatch"),
    "unknown authority": ("self", None, "self.signed"),
    "outdated": ("expired", None, "expired"),
    "TLS 1.0 only": ("weak", None, "protocol"),
}
BEFORE_TLS = {
    "no STARTTLS": ("none", None, "does not offer STARTTLS"),
    "STARTTLS refused": ("good", lambda c, verb, v: "454 4.7.0 not now" if verb == "STARTTLS" else None, "454"),
    "injected answers": ("good", inject, "injected"),
    "injected later": ("good", inject_later, "TLS"),
    "no EHLO": ("none", lambda c, verb, v: "502 5.5.1 what?" if verb == "EHLO" else None, "STARTTLS"),
}
ATTACKS = [(case, way) for case in REFUSED for way in WAYS] + [(case, "STARTTLS") for case in BEFORE_TLS]


@pytest.mark.parametrize("case, way", ATTACKS)
def test_nothing_is_sent_without_proven_tls(database, authority, case, way):
    """Never plaintext, never to somebody else: neither mail nor password; the mail stays queued, with the reason, and an alarm
    is raised."""
    server, script, reason = {**REFUSED, **BEFORE_TLS}[case]
    code = random_code()
    settings = {"SMTP_USER": "mailer", "SMTP_PASSWORD_FILE": password_file(database, "sesame"), **tls_settings(authority)}
    with Relay(tls=SERVERS[server](authority), script=script, implicit=WAYS[way], login=("mailer", "sesame")) as relay:
        with worker(database, relay, **settings) as process:
            [row_id] = queue(database, "jane@example.com", code)
            row = wait_reply(database, row_id)
            assert row["state"] == "queued" and row["sealed"] is not None
            assert re.search(reason, row["last_reply"]), row
            wanted = "smtp_relay_unusable" if "454" in reason else "smtp_misconfigured"
            assert [e["relay"] for e in process.events(wanted)][:1] == [relay.name], process.tail()
    assert relay.seen == [] and relay.rcpts == []
    for connection in relay.connections:
        assert not [c for c in connection.commands if c.startswith(("MAIL", "RCPT", "DATA", "AUTH"))]
        assert not [word for word in (b"MAIL", b"AUTH", code.encode(), b"mailer", base64.b64encode(b"\0mailer\0sesame")) if word in connection.plain]


@pytest.mark.parametrize("way", WAYS)
def test_a_relay_that_stops_in_the_handshake(database, authority, way):
    """It is left in time, as at any other step."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

        def serve():
            with contextlib.suppress(OSError):
                while True:
                    client, _ = listener.accept()
                    clients.append(client)
                    if not WAYS[way]:
                        client.sendall(b"220 relay\r\n")
                        client.recv(1000)
                        client.sendall(b"250-relay\r\n250 STARTTLS\r\n")
                        client.recv(1000)
                        client.sendall(b"220 go ahead\r\n")

        clients = []
        threading.Thread(target=serve, daemon=True).start()
        with Relay(tls=make_tls(authority, "DNS:localhost")) as good:
            names = f"{'smtps://' if WAYS[way] else ''}localhost:{port}, {good.name}"
            with worker(database, good, SMTP_RELAYS=names, **tls_settings(authority)) as process:
                queue(database, "jane@example.com", lifetime=20)
                good.wait("jane@example.com", timeout=8)
                assert "no reply in time" in process.events("smtp_relay_unusable")[0]["reason"]
        for client in clients:
            client.close()


# --- Login ---

def password_file(stack, password):
    path = stack.folder / "tmp" / "smtp-password"
    path.unlink(missing_ok=True)
    path.write_text(password + "\n")
    path.chmod(0o400)
    subprocess.run(["chown", "--reference", str(stack.keys / "worker" / "mail-1.key"), str(path)], check=True)
    return path


@pytest.mark.parametrize("secure", [True, False])
def test_login(database, authority, secure):
    """AUTH with the password of a file, under TLS or to loopback."""
    tls = make_tls(authority, "DNS:localhost") if secure else None
    settings = tls_settings(authority) if secure else {}
    with Relay(tls=tls, login=("mailer", "pa ss:wörd")) as relay:
        with worker(database, relay, SMTP_USER="mailer", SMTP_PASSWORD_FILE=password_file(database, "pa ss:wörd"), **settings) as process:
            queue(database, "jane@example.com", count=3)
            relay.wait("jane@example.com", 3)
            assert "wörd" not in process.output()
    assert {mail.connection.login for mail in relay.mails} == {"mailer"}
    assert all(mail.connection.is_tls == secure for mail in relay.mails)


@pytest.mark.parametrize("then", ["530 at MAIL", "250 at MAIL"])
def test_wrong_login_is_our_fault(database, then):
    """A refused login ends the session, though the relay might take the mail all the same: an alarm with its words, which the
    mail gets, too; one login a session, and ever fewer sessions. No attempt is counted, and nobody is bounced."""
    def script(connection, verb, value):
        return "250 ok" if then == "250 at MAIL" and verb == "MAIL" else None

    with Relay(login=("mailer", "right"), script=script) as relay:
        with worker(database, relay, SMTP_USER="mailer", SMTP_PASSWORD_FILE=password_file(database, "wrong")) as process:
            ids = queue(database, "jane@example.com", count=6)
            events = wait_for(lambda: (found := process.events("smtp_misconfigured"))[2] and found, 10)
            assert {(e["level"], e["reason"]) for e in events} == {("error", "535 5.7.8 no such login")}
            assert [c.commands.count("AUTH") for c in relay.connections] == [1] * len(relay.connections) and len(relay.connections) <= 4
            assert not [c for connection in relay.connections for c in connection.commands if c.startswith("MAIL")]
            replies = {(row["state"], row["attempts"], row["last_reply"]) for row in (mail_row(database, row_id) for row_id in ids)}
            assert ("queued", 0, "535 5.7.8 no such login") in replies and {state for state, _, _ in replies} == {"queued"}
            relay.login = ("mailer", "wrong")
            relay.wait("jane@example.com", 6)


LOGINS = {"PLAIN alone": "PLAIN", "LOGIN alone": "LOGIN", "NTLM first": "NTLM PLAIN", "XOAUTH2 first": "XOAUTH2 LOGIN", "many": "SCRAM-SHA-256 CRAM-MD5 PLAIN"}


@pytest.mark.parametrize("offer", LOGINS)
def test_login_takes_what_it_knows(database, offer):
    """The mechanism is one that needs nothing but a password, whatever else is offered before it."""
    def script(connection, verb, value):
        return f"250-relay.test\r\n250-AUTH {LOGINS[offer]}\r\n250 8BITMIME" if verb == "EHLO" else None

    with Relay(script, login=("mailer", "secret")) as relay:
        with worker(database, relay, SMTP_USER="mailer", SMTP_PASSWORD_FILE=password_file(database, "secret")):
            queue(database, "jane@example.com")
            assert relay.wait("jane@example.com").connection.login == "mailer"


def test_login_that_the_worker_does_not_know(database):
    """A relay that offers none of ours is named as such, and is sent nothing."""
    def script(connection, verb, value):
        return "250-relay.test\r\n250 AUTH XOAUTH2 OAUTHBEARER" if verb == "EHLO" else "250 ok" if verb == "MAIL" else None

    with Relay(script, login=("mailer", "secret")) as relay:
        with worker(database, relay, SMTP_USER="mailer", SMTP_PASSWORD_FILE=password_file(database, "secret")) as process:
            [row_id] = queue(database, "jane@example.com")
            assert "offers XOAUTH2 OAUTHBEARER only" in wait_reply(database, row_id)["last_reply"]
            assert "XOAUTH2" in process.events("smtp_misconfigured")[0]["reason"]
    assert not [c for connection in relay.connections for c in connection.commands if c.startswith(("MAIL", "AUTH"))]


# --- Settings ---

BAD_SETTINGS = [
    ({"SMTP_TLS": "off", "SMTP_RELAYS": "mail.example.com:25"}, "SMTP_TLS"),
    ({"SMTP_TLS": "off-trusted", "SMTP_RELAYS": "mail.example.com:25", "SMTP_USER": "u"}, "SMTP_PASSWORD_FILE"),
    ({"SMTP_RELAYS": "localhost"}, "SMTP_RELAYS"),
    ({"SMTP_RELAYS": "[::1:25"}, "SMTP_RELAYS"),
    ({"SMTP_RELAYS": "mail.example.com:465"}, "write smtps://mail.example.com:465"),
    ({"SMTP_RELAYS": "mail.example.com:587, smtps://"}, "SMTP_RELAYS"),
    ({"SMTP_TLS": "required", "SMTP_CA_FILE": "/nonexistent/ca.pem"}, "SMTP_CA_FILE"),
    ({"EMAIL_FROM": "nobody"}, "EMAIL_FROM"),
    ({"EMAIL_FROM": "A\x01 <a@example.org>"}, "EMAIL_FROM"),
    ({"APP_NAME": "a\r\nBcc: b@example.org"}, "APP_NAME"),
    ({"EMAIL_SUBJECT": "Your {{minutes}}"}, "EMAIL_SUBJECT"),
    ({"LOCALE": "sv"}, "there is no folder for the locale sv"),
    ({"TEMPLATE_DIR": "/nonexistent"}, "/nonexistent"),
]


@pytest.mark.parametrize("settings, named", BAD_SETTINGS)
def test_bad_settings_are_refused(database, settings, named):
    """--check names what is wrong and exits with 2; so does a start."""
    for arguments in (["--check"], []):
        status, output = run_worker(database, arguments, **settings)
        assert status == 2 and named in output, output


def run_worker(stack, arguments, **settings):
    env = {k: str(v) for k, v in stack.environment("worker", **settings).items()}
    done = subprocess.run([BUILD / "otp-worker", *arguments], env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          timeout=20, check=False)
    return done.returncode, done.stdout


def test_check_has_no_side_effect(database):
    assert run_worker(database, ["--check"]) == (0, "")


def test_bad_template_is_named_with_its_line(database, tmp_path):
    (tmp_path / "en").mkdir()
    for name in ("mail.txt", "mail.html"):
        (tmp_path / "en" / name).write_bytes((ROOT / "templates" / "en" / name).read_bytes())
    assert run_worker(database, ["--check"], TEMPLATE_DIR=tmp_path) == (0, "")
    (tmp_path / "en" / "mail.txt").write_text("Hello\n{{code}}\n{{link}}\n")
    status, output = run_worker(database, ["--check"], TEMPLATE_DIR=tmp_path)
    assert status == 2 and 'en/mail.txt:3: ' in output and "unknown placeholder" in output


def test_worker_refuses_a_pepper_B3(database, tmp_path):
    """B3: the worker runs with its own key only."""
    for name, source in (("mail-1.key", "worker/mail-1.key"), ("pepper-1", "generate/pepper-1")):
        (tmp_path / name).write_bytes((database.keys / source).read_bytes())
        (tmp_path / name).chmod(0o400)
    status, output = run_worker(database, ["--check"], KEY_DIR=tmp_path)
    assert status == 2 and "pepper-1" in output
    (tmp_path / "pepper-1").unlink()
    assert run_worker(database, ["--check"], KEY_DIR=tmp_path) == (0, "")
    needed = subprocess.run(["readelf", "-d", BUILD / "otp-worker"], check=True, text=True, stdout=subprocess.PIPE).stdout
    assert "libfcgi" not in needed and "libesmtp" in needed


def test_nothing_secret_is_logged_A12(database):
    """A12: not the code, not the whole address; a relay that quotes the mail does not get it into the table either."""
    code = random_code()

    def script(connection, verb, value):
        return f"451 4.3.0 {code} cannot take {value.raw!r}"[:900] if verb == "DOT" else None

    address = address_of("secretive")
    with Relay(script=script) as relay, worker(database, relay, LOG_LEVEL="debug") as process:
        [row_id] = queue(database, address, code)
        row = wait_reply(database, row_id)
        relay.script = lambda c, verb, value: f"250 2.0.0 {code} taken" if verb == "DOT" else None
        due_now(database, row_id)
        row = wait_state(database, row_id, "sent")
        wait_for(lambda: len(process.events("mail")) == 2)
        output = process.output()
    assert row["last_reply"] == "250 2.0.0 ****** taken"
    assert code not in output and address not in output and "s***@example.com" in output
    first, second = process.events("mail")
    assert (first["id"], first["outcome"], first["code"], first["attempt"]) == (str(row_id), "retry", 451, 1)
    assert (second["outcome"], second["code"], second["attempt"], second["relay"]) == ("sent", 250, 2, relay.name)
    assert 0 <= second["delay_ms"] < 60000


def test_date_is_the_moment_of_the_request(database):
    """Also for a mail that was sent later: a repeated mail is the same to the byte (P2)."""
    with Relay(script=lambda c, verb, v: "451 4.7.1 greylisted" if verb == "RCPT" else None) as relay, worker(database, relay):
        [row_id] = queue(database, "jane@example.com")
        wait_reply(database, row_id)
        database.query("update otp.challenge set created_at = created_at - interval '3 minutes' where id = %s", row_id)
        relay.script = None
        due_now(database, row_id)
        mail = relay.wait("jane@example.com")
    date = email.utils.parsedate_to_datetime(mail.message["Date"])
    assert timedelta(minutes=2, seconds=58) < mail_row(database, row_id)["sent_at"] - date < timedelta(minutes=4)
