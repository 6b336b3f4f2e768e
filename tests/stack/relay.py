"""A scripted SMTP relay for tests: does what good, bad and hostile relays do, and keeps what it was told."""
import base64
import contextlib
import email
import email.policy
import re
import socket
import ssl
import threading
import time

from .ports import free_port
from .wait import wait_for

DROP = "drop"  # close the connection without an answer
HANG = "hang"  # say nothing, keep the connection
MUTE = "mute"  # say nothing to this, and go on
ROW_ID = re.compile(rb"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def foreign_text(recipients, raw):
    """What is in the bytes of one SMTP transaction, whole or not, that belongs to the mail of somebody else; "": nothing.
    Every mail begins with its head, names its row in Message-ID and boundaries, its recipient in To, and has its code on a
    line of its own."""
    found = [("rows", set(ROW_ID.findall(raw))), ("codes", set(re.findall(rb"(?m)^([0-9]{4,12})\r$", raw)))]
    crossed = [f"{len(values)} {name} in one transaction" for name, values in found if len(values) > 1]
    strangers = set(re.findall(r"(?m)^To: (.*?)\r$", raw.decode(errors="replace"))) - set(recipients)
    crossed += [] if (raw + b"Date: ").startswith(b"Date: ") else [f"it begins with {raw[:40]!r}"]
    return "; ".join(crossed + [f"a mail to {stranger}" for stranger in strangers])


class Delivery:
    """A message that was accepted."""

    def __init__(self, connection, sender, recipients, raw):
        self.connection = connection
        self.sender = sender
        self.recipients = recipients
        self.raw = raw
        self.when = time.time()
        self.message = email.message_from_bytes(raw, policy=email.policy.SMTP)

    @property
    def code(self):
        """The code: the line of the text part that holds digits alone."""
        text = self.message.get_body(("plain",)).get_content()
        lines = [line for line in text.splitlines() if re.fullmatch(r"[0-9]{4,12}", line)]
        assert len(lines) == 1, text
        return lines[0]


class Transaction:
    """What came between two MAIL commands: for whom, refused ones too, and all text, taken or not."""

    def __init__(self):
        self.recipients = []
        self.text = b""


class Connection:
    """One client."""

    def __init__(self, relay, client):
        self.relay = relay
        self.socket = client
        self.buffer = b""
        self.plain = b""  # all that came before TLS
        self.is_tls = False
        self.sni = None
        self.tls_version = None
        self.login = None
        self.commands = []
        self.sender = None
        self.recipients = []
        self.chunks = b""
        self.transactions = []
        self.is_open = True

    def read(self):
        data = self.socket.recv(65536)
        if not data:
            raise EOFError
        if not self.is_tls:
            self.plain += data
        self.buffer += data

    def line(self):
        while b"\r\n" not in self.buffer:
            self.read()
        line, self.buffer = self.buffer.split(b"\r\n", 1)
        return line

    def exactly(self, count):
        while len(self.buffer) < count:
            self.read()
        data, self.buffer = self.buffer[:count], self.buffer[count:]
        return data

    def say(self, text):
        self.socket.sendall(text.encode() + b"\r\n")

    def answer(self, verb, value, usual):
        """The script's reply to a step, or the usual one; False: do not go on with the step."""
        text = (self.relay.script and self.relay.script(self, verb, value)) or usual
        if text == DROP:
            raise EOFError
        if text == HANG:
            self.relay.stopped.wait(60)
            raise EOFError
        if text == MUTE:
            return True
        self.say(text)
        return text[0] in ("3" if verb == "DATA" else "23")

    def run(self):
        if self.relay.implicit:
            self.start_tls()
        if not self.answer("CONNECT", None, "220 relay.test ESMTP"):
            return
        while True:
            line = self.line().decode()
            verb = line.split(" ", 1)[0].split(":")[0].upper()
            self.commands.append(line if verb != "AUTH" else "AUTH")
            if verb == "QUIT":
                self.answer("QUIT", None, "221 bye")
                return
            getattr(self, f"on_{verb.lower()}", self.on_unknown)(line)

    def on_unknown(self, line):
        self.say("502 5.5.2 what?")

    def on_ehlo(self, line):
        self.sender = None
        offers = ["relay.test", "ENHANCEDSTATUSCODES"]
        offers += ["PIPELINING"] if self.relay.pipelining else []
        offers += ["CHUNKING"] if self.relay.chunking else []
        offers += ["STARTTLS"] if self.relay.tls and not self.is_tls else []
        offers += ["AUTH PLAIN LOGIN"] if self.relay.login else []
        offers += ["8BITMIME"]
        text = "\r\n".join(f"250{' ' if i == len(offers) - 1 else '-'}{offer}" for i, offer in enumerate(offers))
        self.answer("EHLO", line, text)

    def on_helo(self, line):
        self.answer("HELO", line, "250 relay.test")

    def start_tls(self):
        self.relay.tls.sni_callback = lambda _, name, __: setattr(self, "sni", name)
        self.socket = self.relay.tls.wrap_socket(self.socket, server_side=True)
        self.is_tls = True
        self.tls_version = self.socket.version()
        self.buffer = b""

    def on_starttls(self, line):
        if self.answer("STARTTLS", None, "220 2.0.0 go ahead"):
            self.start_tls()

    def on_auth(self, line):
        parts = line.split(" ")
        if parts[1].upper() == "PLAIN":
            _, user, password = base64.b64decode(parts[2]).decode().split("\0")
        else:
            if len(parts) == 2:
                self.say("334 VXNlcm5hbWU6")
            user = base64.b64decode(parts[2] if len(parts) == 3 else self.line()).decode()
            self.say("334 UGFzc3dvcmQ6")
            password = base64.b64decode(self.line()).decode()
        good = (user, password) == self.relay.login
        if self.answer("AUTH", user, "235 2.7.0 welcome" if good else "535 5.7.8 no such login"):
            self.login = user

    @staticmethod
    def path(line):
        """The address of a MAIL or RCPT command; None: there is none."""
        found = re.fullmatch(r"(?i)(?:MAIL FROM|RCPT TO): ?<(.*?)>.*", line)
        return found and found[1]

    def on_mail(self, line):
        if self.path(line) is None:
            return self.say("501 5.5.4 no address")
        refused = self.relay.login and not self.login
        self.recipients = []
        self.chunks = b""
        self.transactions.append(Transaction())
        if self.answer("MAIL", line, "530 5.7.0 log in first" if refused else "250 2.1.0 ok"):
            self.sender = self.path(line)

    def on_rcpt(self, line):
        address = self.path(line)
        if address is None or not self.transactions:
            return self.say("501 5.5.4 no address" if address is None else "503 5.5.1 MAIL first")
        with self.relay.lock:
            self.relay.rcpts.append(address)
        self.transactions[-1].recipients.append(address)
        if self.answer("RCPT", address, "250 2.1.5 ok"):
            self.recipients.append(address)

    def take(self, raw):
        delivery = Delivery(self, self.sender, list(self.recipients), raw)
        with self.relay.lock:
            self.relay.seen.append(delivery)
        if self.answer("DOT", delivery, "250 2.0.0 taken"):
            with self.relay.lock:
                self.relay.mails.append(delivery)

    def on_data(self, line):
        if not self.recipients:
            self.say("554 5.5.1 no valid recipients")
            return
        if not self.answer("DATA", None, "354 go on"):
            return
        lines, text = [], b""
        try:
            while (text := self.line()) != b".":
                lines.append(text[1:] if text.startswith(b".") else text)
        finally:
            self.transactions[-1].text += b"\r\n".join([*lines, b"" if text == b"." else self.buffer])
        self.take(b"\r\n".join(lines) + b"\r\n")

    def on_bdat(self, line):
        parts = line.split(" ")
        chunk = self.exactly(int(parts[1]))
        self.transactions[-1].text += chunk
        self.chunks += chunk
        if not self.recipients:
            self.say("554 5.5.1 no valid recipients")
        elif len(parts) == 3:
            self.take(self.chunks)
        else:
            self.answer("BDAT", None, "250 2.0.0 chunk")

    def on_rset(self, line):
        self.say("250 2.0.0 ok")


class Relay:
    """script(connection, verb, value) -> a reply, DROP, HANG, or None for the usual reply. verb: CONNECT EHLO STARTTLS AUTH
    MAIL RCPT DATA BDAT DOT QUIT. tls: an SSLContext; implicit: from the first byte; login: (user, password)."""

    def __init__(self, script=None, tls=None, login=None, pipelining=True, chunking=False, implicit=False, host="127.0.0.1", port=None):
        self.script = script
        self.tls = tls
        self.login = login
        self.implicit = implicit
        self.pipelining = pipelining
        self.chunking = chunking
        self.host = host
        self.port = port or free_port()
        self.lock = threading.Lock()
        self.stopped = threading.Event()
        self.mails = []  # accepted
        self.seen = []  # all whose text was received
        self.rcpts = []
        self.connections = []
        self.failures = []
        self.crossed = []  # see foreign_text
        self.listener = None

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.stop()

    @property
    def name(self):
        host = f"[{self.host}]" if ":" in self.host else "localhost"
        return f"{'smtps://' if self.implicit else ''}{host}:{self.port}"

    def start(self):
        self.stopped.clear()
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        self.listener = socket.create_server((self.host, self.port), family=family, backlog=128)
        threading.Thread(target=self._accept, args=(self.listener,), daemon=True).start()
        return self

    def is_alive(self):
        return self.listener is not None

    def stop(self):
        """Ends all connections. Whatever a test was about: nobody's text may have been in another person's mail."""
        if self.listener:
            self.stopped.set()
            self.listener.shutdown(socket.SHUT_RDWR)
            self.listener.close()
            self.listener = None
        for connection in self.connections:
            with contextlib.suppress(OSError):
                connection.socket.shutdown(socket.SHUT_RDWR)
        self.check()
        assert not self.crossed, self.crossed

    def check(self):
        """Notes what crossed from one mail into another so far."""
        found = [foreign_text(part.recipients, part.text) for part in self.transactions()]
        self.crossed += [text for text in found if text and text not in self.crossed]

    def forget(self):
        """Drops what came so far, but for connections that are still open."""
        with self.lock:
            self.connections = [connection for connection in self.connections if connection.is_open]
            for kept in (self.mails, self.seen, self.rcpts, self.failures):
                kept.clear()

    def reset(self):
        """As new, for the next test."""
        self.script = None
        self.check()
        self.forget()

    def _accept(self, listener):
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                connection = Connection(self, client)
                with self.lock:
                    self.connections.append(connection)
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection):
        try:
            connection.run()
        except (EOFError, ConnectionError, ssl.SSLError, TimeoutError) as end:
            self.failures.append(end)
        finally:
            connection.is_open = False
            with contextlib.suppress(OSError):
                connection.socket.close()

    def transactions(self):
        return [part for connection in self.connections for part in connection.transactions]

    def to(self, address):
        with self.lock:
            return [mail for mail in self.mails if address in mail.recipients]

    def wait(self, address, count=1, timeout=20.0):
        return wait_for(lambda: (self.to(address) + [None] * count)[count - 1], timeout, f"mail {count} to {address}")
