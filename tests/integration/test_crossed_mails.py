"""A10: no relay gets one person's text in a transaction of another, whatever it offers and whatever it refuses.

libesmtp sends what it has not read of a text in front of the next one. A relay checks the property itself when it stops
(relay.py), in every test that has one; here are the relays that provoke it."""
import socket
import time

import pytest
from outbox import due_now, mail_row, queue, random_code, wait_state
from stack.relay import MUTE, Relay
from stack import foreign_text, wait_for
from test_mail import worker

REFUSABLE = ["MAIL", "RCPT", "DATA", "BDAT", "DOT"]
LARGE = {"EMAIL_FROM": "é" * 100 + " <otp@example.org>", "APP_NAME": "é" * 32, "EMAIL_SUBJECT": "{{app_name}}" * 14}


def refuse_every_other(verb, replies):
    """A script that refuses the verb for each second mail."""
    count = [0]

    def script(connection, said, value):
        if said != verb or not connection.transactions:
            return None
        count[0] += 1
        return replies[count[0] // 2 % len(replies)] if count[0] % 2 else None
    return script


@pytest.mark.parametrize("headers", ["small", "large"])
@pytest.mark.parametrize("pipelining", [False, True], ids=["", "pipelining"])
@pytest.mark.parametrize("chunking", [False, True], ids=["", "chunking"])
def test_no_text_in_anothers_mail_A10(database, chunking, pipelining, headers):
    """A10: a refusal at every verb, of two kinds, for every second mail of a session: each transaction holds the one text
    that belongs to its recipient. Headers over libesmtp's buffer of 2 KiB are written while the relay may already refuse."""
    codes = {}
    with Relay(chunking=chunking, pipelining=pipelining) as relay:
        for verb in REFUSABLE:
            # One after the other, so that the first one of a session is refused, and the next one is not.
            relay.script = refuse_every_other(verb, ["452 4.3.1 no room", "552 5.3.4 too large"])
            for number in range(4):
                address = f"{verb.lower()}{number}@example.com"
                codes[address] = random_code()
                queue(database, address, codes[address])
            with worker(database, relay, **(LARGE if headers == "large" else {})):
                wait_for(lambda: database.query("select count(*) from otp.mail where lease is not null"
                                                " or (attempts = 0 and state = 'queued')") == [(0,)])
            assert relay.transactions()
            database.query("delete from otp.mail")
    for part in relay.transactions():
        assert foreign_text(part.recipients, part.text) == ""
        strangers = {code for address, code in codes.items() if address not in part.recipients}
        assert not [code for code in strangers - {codes[a] for a in part.recipients} if b"\r\n%s\r\n" % code.encode() in part.text]
    assert {mail.recipients[0]: mail.code for mail in relay.mails}.items() <= codes.items()
    assert len(relay.mails) >= len(REFUSABLE)


def say_in_two(first, second):
    """A script that answers EHLO in two reads."""
    def script(connection, verb, value):
        if verb != "EHLO":
            return None
        connection.socket.sendall(first)
        time.sleep(0.2)  # the peer must read the first part by itself
        return second
    return script


def say_early(connection, verb, value):
    """A script that answers EHLO together with the greeting, before it was said."""
    early = {"CONNECT": "220 relay.test\r\n250-relay.test\r\n250 CHUNKING", "EHLO": MUTE}
    return early.get(verb)


OFFERS = {
    "plain": say_in_two(b"250-relay.test\r\n", "250 CHUNKING"),
    "small letters": say_in_two(b"250-relay.test\r\n", "250 chunkING"),
    "split": say_in_two(b"250-relay.test\r\n250-8BITMIME\r\n250 CHUN", "KING"),
    "split before its last letter": say_in_two(b"250-relay.test\r\n250 CHUNKIN", "G"),
    "twice": say_in_two(b"250-relay.test\r\n250-CHUNCHUNKING\r\n250-CHUNKING\r\n", "250 CHUNKING"),
    "with the greeting": say_early,
    "letters above ASCII": say_in_two(b"250-relay.test\r\n250-\xff\xfe\x80\xe9 \xe9\r\n", "250 CHUNKING"),
}


@pytest.mark.parametrize("offer", OFFERS)
def test_chunking_is_never_used(database, offer):
    """However the offer is written and cut, the mail goes by DATA."""
    with Relay(OFFERS[offer]) as relay, worker(database, relay):
        [row_id] = queue(database, "jane@example.com")
        wait_state(database, row_id, "sent")
    commands = [command.split(" ")[0] for connection in relay.connections for command in connection.commands]
    assert "DATA" in commands and "BDAT" not in commands


def test_a_text_may_hold_the_word(database):
    """The offer alone is hidden: a mail that says CHUNKING arrives as it was written, and so does a reply."""
    def script(connection, verb, value):
        return "451 4.3.0 CHUNKING" if verb == "RCPT" else None

    with Relay(script) as relay, worker(database, relay, APP_NAME="CHUNKING"):
        [row_id] = queue(database, "jane@example.com")
        wait_for(lambda: mail_row(database, row_id)["last_reply"] == "451 4.3.0 CHUNKING")
        relay.script = None
        due_now(database, row_id)
        assert relay.wait("jane@example.com").message["Subject"] == "Your CHUNKING code"


@pytest.mark.parametrize("way", ["kept", "forgotten"])
@pytest.mark.parametrize("text, complaint", [
    (b"Date: now\r\nTo: joe@example.com\r\n", "a mail to joe@example.com"), (b"QUIT", "begins with"),
    (b"Date: now\r\nTo: jane@example.com\r\n\r\n123456\r\n234567\r\n", "2 codes")])
def test_a_relay_notices_what_crossed(text, complaint, way):
    """Another person's text is noticed though the connection broke off, and also when the relay forgot it for another test."""
    relay = Relay().start()
    with socket.create_connection(("127.0.0.1", relay.port), 10) as client, client.makefile("rwb") as stream:
        for line in (b"EHLO me", b"MAIL FROM:<otp@example.com>", b"RCPT TO:<jane@example.com>", b"DATA"):
            stream.write(line + b"\r\n")
        stream.write(text)
        stream.flush()
        wait_for(lambda: relay.rcpts == ["jane@example.com"])
    wait_for(lambda: not relay.connections[0].is_open)
    if way == "forgotten":
        relay.reset()
        assert relay.connections == []
    with pytest.raises(AssertionError, match=complaint):
        relay.stop()
