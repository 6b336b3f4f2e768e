"""otp-worker --probe: what an operator runs first says how far each relay goes, and what to do."""
import re
import socket

import pytest
from stack.certificates import make_tls
from stack.ports import free_port
from stack.relay import DROP, Relay
from test_mail import authority, password_file, run_worker, tls_settings  # noqa: F401
from test_worker import only


def probe(stack, relays, *words, **settings):
    """-> exit status, lines"""
    status, output = run_worker(stack, ["--probe", *words], SMTP_RELAYS=relays, **{"SMTP_TLS": "off", **settings})
    return status, output.splitlines()


@pytest.mark.parametrize("way", ["plain", "STARTTLS", "smtps"])
def test_a_good_relay(database, authority, way):  # noqa: F811
    """Each step is a line; nobody gets a mail."""
    tls = None if way == "plain" else make_tls(authority, "DNS:localhost")
    settings = {} if way == "plain" else tls_settings(authority)
    with Relay(tls=tls, implicit=way == "smtps", login=("mailer", "secret")) as relay:
        status, lines = probe(database, relay.name, SMTP_USER="mailer", SMTP_PASSWORD_FILE=password_file(database, "secret"), **settings)
    order = {"plain": "name connect greeting EHLO AUTH MAIL", "STARTTLS": "name connect greeting EHLO STARTTLS TLS AUTH MAIL",
             "smtps": "name connect TLS greeting EHLO AUTH MAIL"}[way]
    assert status == 0 and [line.split(": ")[1] for line in lines] == order.split(), lines
    assert all(line.startswith(f"{relay.name}: ") and ": ok" in line for line in lines)
    assert way == "plain" or re.search(r"TLS: ok: TLSv1\.[23], certificate until 20\d\d-\d\d-\d\d$", "\n".join(lines), re.M)
    assert relay.rcpts == [] and relay.connections[0].commands[-1].startswith("MAIL")


def test_a_test_mail(database):
    """With an address each relay sends it a mail as the programs do, with a code that is none."""
    with Relay() as one, Relay() as two:
        status, lines = probe(database, f"{one.name}, {two.name}", "jane@example.com")
        assert status == 0 and [line.split(": ")[1] for line in lines] == "name connect greeting EHLO MAIL RCPT DATA text".split() * 2
        assert [relay.to("jane@example.com")[0].code for relay in (one, two)] == ["000000"] * 2


FAILURES = {
    "CONNECT": ("greeting", "554 5.7.1 blocked", "554 5.7.1 blocked"), "silent": ("greeting", DROP, "connection lost"),
    "EHLO": ("EHLO", "550 go away", "550 go away"), "AUTH": ("AUTH", "535 5.7.8 wrong", "535 5.7.8 wrong"),
    "MAIL": ("MAIL", "550 5.1.8 sender", "550 5.1.8 sender"), "RCPT": ("RCPT", "550 relaying denied", "550 relaying denied"),
    "unknown": ("RCPT", "550 5.1.1 nobody", "550 5.1.1 nobody"), "DATA": ("DATA", "451 4.3.0 full", "451 4.3.0 full"),
    "DOT": ("text", "554 5.6.0 spam", "554 5.6.0"),
}


@pytest.mark.parametrize("case", FAILURES)
def test_what_fails_is_named_with_its_fix(database, case):
    """The steps before it are well; the line has the relay's words, and what to do."""
    step, reply, words = FAILURES[case]
    verb = {"silent": "CONNECT", "unknown": "RCPT"}.get(case, case)
    with Relay(only(verb, reply), login=("mailer", "secret")) as relay:
        status, lines = probe(database, relay.name, "jane@example.com", SMTP_USER="mailer",
                              SMTP_PASSWORD_FILE=password_file(database, "secret"))
    assert status == 1 and all(": ok" in line for line in lines[:-1])
    assert lines[-1].startswith(f"{relay.name}: {step}: FAILED: ") and words in lines[-1] and "To mend it: " in lines[-1]


def test_what_cannot_be_reached(database, authority):  # noqa: F811
    """Nor what cannot prove itself; one relay that fails does not hide the next one."""
    with Relay(tls=make_tls(authority, "DNS:other.example")) as other, Relay() as bare, socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        names = [f"localhost:{free_port()}", other.name, bare.name, "nowhere.invalid:25", f"smtps://localhost:{bare.port}"]
        status, lines = probe(database, ", ".join(names), **tls_settings(authority))
    failed = [line.split(": ")[:2] for line in lines if "FAILED" in line]
    assert status == 1 and failed == [[names[0], "connect"], [names[1], "TLS"], [names[2], "STARTTLS"], [names[3], "name"], [names[4], "TLS"]], lines


@pytest.mark.parametrize("words", [["nobody"], ["a@b.example", "c@d.example"], ["a@b.example\r\nDATA"]])
def test_what_is_no_address(database, words):
    with Relay() as relay:
        status, _ = probe(database, relay.name, *words)
    assert status == 2 and relay.connections == []
