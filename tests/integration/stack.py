"""A private stack for tests: PostgreSQL, responders, worker, nginx and an SMTP server, each started and stopped singly.

Everything lives in one temporary folder and listens on unix sockets or free loopback ports. Nothing sleeps to
synchronise: wait_for polls. Processes are stopped by their own process ids.
"""
import atexit
import base64
import contextlib
import ctypes
import ctypes.util
import email
import email.policy
import hashlib
import http.client
import json
import os
import re
import secrets
import shutil
import signal
import socket
import ssl
import struct
import subprocess
import tempfile
import threading
import time
import uuid
from pathlib import Path

import psycopg
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP as SmtpProtocol

ROOT = Path(__file__).resolve().parents[2]
BUILD = Path(os.environ.get("OTP_BUILD", ROOT / ".local" / "build")).resolve()
CODE_CONTEXT = b"otpd code 1"
SANITIZER_REPORT = re.compile(r"AddressSanitizer|LeakSanitizer|runtime error:|UndefinedBehavior|stack smashing")


class NotReady(AssertionError):
    """Something did not come about in time."""


def wait_for(probe, timeout=15.0, what=None, interval=0.005):
    """Polls until probe() is true and returns its value; an exception of the probe counts as not yet."""
    end = time.monotonic() + timeout
    error = None
    while True:
        try:
            value = probe()
            error = None
            if value:
                return value
        except Exception as problem:  # not ready yet: the last reason is reported
            error = problem
        if time.monotonic() > end:
            reason = f" ({type(error).__name__}: {error})" if error else ""
            raise NotReady(f"waited {timeout} s in vain for {what or probe}{reason}")
        time.sleep(interval)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def is_root():
    """Only root may look into our programs through /proc: they are not dumpable."""
    return os.getuid() == 0


def is_sanitized(program="otp-validate"):
    """Is this an ASan build? Preloaded shims and memory measurements do not go with it."""
    path = BUILD / program
    return path.exists() and b"__asan_init" in path.read_bytes()


def as_service(*paths):
    """The command prefix that lowers root to user postgres; PostgreSQL refuses to run as root."""
    if os.getuid() != 0:
        return []
    prefix = ["setpriv", "--reuid", "postgres", "--regid", "postgres", "--init-groups"]
    for path in (BUILD, ROOT / "sql", *paths):
        if subprocess.run([*prefix, "test", "-x", str(path), "-a", "-r", str(path)], check=False).returncode != 0:
            return [*prefix, "--inh-caps=+dac_override", "--ambient-caps=+dac_override"]
    return prefix


def give_to_service(path):
    """Makes path, and what is in it, the service user's own."""
    if os.getuid() == 0:
        subprocess.run(["chown", "-R", "postgres:postgres", str(path)], check=True)


def pg_bin(name):
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda p: float(p.parts[4]))
    return str(found[-1]) if found else name


class Process:
    """One process of the stack: started by us, logged to a file, stopped by its pid."""

    running = []

    def __init__(self, name, argv, log, env=None, cwd="/", pass_fds=(), stdin=subprocess.DEVNULL, preexec_fn=None):
        self.name = name
        self.argv = [str(a) for a in argv]
        self.log = Path(log)
        base = {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "LC_ALL": "C.UTF-8", "TZ": "UTC"}
        for key in ("ASAN_OPTIONS", "UBSAN_OPTIONS", "LSAN_OPTIONS"):
            if key in os.environ:
                base[key] = os.environ[key]
        self.env = {**base, **{k: str(v) for k, v in (env or {}).items()}}
        self.log_start = self.log.stat().st_size if self.log.exists() else 0
        with open(self.log, "ab") as sink:
            self.popen = subprocess.Popen(self.argv, env=self.env, cwd=cwd, stdin=stdin, stdout=sink, stderr=sink,
                                          pass_fds=pass_fds, preexec_fn=preexec_fn)
        Process.running.append(self)

    @property
    def pid(self):
        return self.popen.pid

    def is_alive(self):
        return self.popen.poll() is None

    def send(self, number):
        if self.is_alive():
            os.kill(self.pid, number)

    def wait(self, timeout=15.0):
        """The exit status once it has ended; negative for a signal."""
        status = self.popen.wait(timeout)
        if self in Process.running:
            Process.running.remove(self)
        return status

    def stop(self, number=signal.SIGTERM, timeout=15.0):
        """Ends it and returns the exit status; a process that does not end in time is killed and complained about."""
        self.send(signal.SIGCONT)
        self.send(number)
        try:
            return self.wait(timeout)
        except subprocess.TimeoutExpired:
            self.send(signal.SIGKILL)
            self.wait()
            raise NotReady(f"{self.name} did not end within {timeout} s of signal {number}:\n{self.tail()}") from None

    def kill(self):
        return self.stop(signal.SIGKILL)

    def hurry(self, timeout=15.0):
        """Ends a responder without the wait for nginx to leave its kept connections: a second SIGTERM means now."""
        def ended():
            self.send(signal.SIGTERM)
            return not self.is_alive()
        self.send(signal.SIGCONT)
        wait_for(ended, timeout, f"{self.name} to end", interval=0.02)
        return self.wait()

    def freeze(self):
        self.send(signal.SIGSTOP)

    def thaw(self):
        self.send(signal.SIGCONT)

    def output(self):
        """What this run wrote to its log."""
        with open(self.log, "rb") as source:
            source.seek(self.log_start)
            return source.read().decode(errors="replace")

    def tail(self, lines=25):
        return "\n".join(self.output().splitlines()[-lines:])

    def events(self, event=None):
        """The JSON lines of its log."""
        found = []
        for line in self.output().splitlines():
            with contextlib.suppress(ValueError):
                item = json.loads(line)
                if isinstance(item, dict) and (event is None or item.get("event") == event):
                    found.append(item)
        return found

    def memory(self, field):
        """A field of /proc/PID/status in bytes."""
        fields = dict(line.split(":", 1) for line in Path(f"/proc/{self.pid}/status").read_text().splitlines())
        return int(fields[field].split()[0]) * 1024

    def rss(self):
        """Resident memory of its own in bytes, without shared pages of files."""
        return self.memory("RssAnon")

    def peak(self):
        """The most memory that was ever resident."""
        return self.memory("VmHWM")


def stop_all():
    for process in list(reversed(Process.running)):
        with contextlib.suppress(Exception):
            process.kill()


atexit.register(stop_all)


def family(pid):
    """A process and its children."""
    with contextlib.suppress(FileNotFoundError):
        return [pid, *(int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]
    return [pid]


class Postgres:
    """A private cluster with data checksums on a unix socket; one per test session."""

    def __init__(self, folder, log):
        self.folder = Path(folder)
        self.data = self.folder / "data"
        self.socket = self.folder / "socket"
        self.log = Path(log)
        self.process = None
        self.options = {}
        self.socket.mkdir(parents=True, exist_ok=True)
        give_to_service(self.folder)
        subprocess.run([*as_service(), pg_bin("initdb"), "-D", self.data, "-U", "postgres", "-A", "trust", "-E", "UTF8",
                        "--locale", "C.UTF-8", "--data-checksums", "-N"], check=True, stdout=subprocess.DEVNULL, cwd="/")
        (self.data / "postgresql.auto.conf").write_text(
            f"listen_addresses = ''\nunix_socket_directories = '{self.socket}'\nmax_connections = 200\n"
            "shared_buffers = 128MB\nlog_line_prefix = '%m [%p] %u '\nautovacuum_naptime = 5s\n"
            "max_wal_size = 2GB\ncheckpoint_timeout = 30min\n")
        give_to_service(self.data / "postgresql.auto.conf")

    def start(self, wait=True, **options):
        extra = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
        self.options = options
        self.process = Process("postgres", [*as_service(), pg_bin("postgres"), "-D", self.data, *extra], self.log)
        if wait:
            self.wait_ready()

    def wait_ready(self, timeout=30):
        def probe():
            if not self.process.is_alive():
                raise NotReady(self.process.tail())
            with self.connect(dbname="postgres", connect_timeout=2) as connection:
                return connection.execute("select not pg_is_in_recovery()").fetchone()[0]
        wait_for(probe, timeout, "PostgreSQL")

    def stop(self, number=signal.SIGINT):
        self.thaw()
        self.process.stop(number, 30)

    def is_alive(self):
        return self.process is not None and self.process.is_alive()

    def family(self):
        """The postmaster and its children."""
        return family(self.process.pid)

    def kill(self):
        """kill -9 of every process of the cluster, as a crash of the machine's memory would."""
        pids = self.family()
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()
        wait_for(lambda: not any(os.path.exists(f"/proc/{pid}/fd") and is_running(pid) for pid in pids), 10,
                 "the children of PostgreSQL to be gone")

    def freeze(self):
        for pid in self.family():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)

    def thaw(self):
        if self.is_alive():
            for pid in self.family():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)

    def conninfo(self, user="postgres", dbname="otp"):
        return f"host={self.socket} dbname={dbname} user={user}"

    def connect(self, user="postgres", dbname="otp", **kwargs):
        return psycopg.connect(self.conninfo(user, dbname), autocommit=True, **kwargs)

    def create(self, dbname):
        """A database with schema otp."""
        with self.connect(dbname="postgres") as connection:
            connection.execute(f'create database "{dbname}"')
        self.migrate(dbname)

    def migrate(self, dbname="otp", sql=ROOT / "sql"):
        done = subprocess.run([str(sql / "migrate"), self.conninfo(dbname=dbname)], check=False, text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        assert done.returncode == 0, done.stdout
        return done.stdout

    def dump(self, dbname="otp"):
        return subprocess.run([pg_bin("pg_dump"), self.conninfo(dbname=dbname)], check=True, stdout=subprocess.PIPE).stdout


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


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


class Mail:
    """One message as the SMTP server got it."""

    def __init__(self, sender, recipients, raw, session, when):
        self.sender = sender
        self.recipients = recipients
        self.raw = raw
        self.session = session
        self.when = when
        self.message = email.message_from_bytes(raw, policy=email.policy.SMTP)

    @property
    def code(self):
        """The code: the line of the text part that holds digits alone."""
        text = self.message.get_body(("plain",)).get_content()
        lines = [line.strip() for line in text.splitlines() if re.fullmatch(r"\s*[0-9]{4,12}\s*", line)]
        assert len(lines) == 1, f"not one line of digits: {text!r}"
        return lines[0]


class _Handler:
    """aiosmtpd's hooks: asks the script for the reply to each step, records what was accepted."""

    def __init__(self, server):
        self.server = server

    async def handle_MAIL(self, server, session, envelope, address, mail_options):
        reply = self.server.reply("MAIL", address, session)
        if reply.startswith("250"):
            envelope.mail_from = address
            envelope.mail_options.extend(mail_options)
        return reply

    async def handle_RCPT(self, server, session, envelope, address, rcpt_options):
        self.server.rcpts.append(address)
        reply = self.server.reply("RCPT", address, session)
        if reply.startswith("250"):
            envelope.rcpt_tos.append(address)
        return reply

    async def handle_DATA(self, server, session, envelope):
        mail = Mail(envelope.mail_from, list(envelope.rcpt_tos), bytes(envelope.original_content), session, time.time())
        reply = self.server.reply("DATA", mail, session)
        with self.server.lock:
            (self.server.mails if reply.startswith("250") else self.server.refused).append(mail)
            self.server.crossed += filter(None, [foreign_text(mail.recipients, mail.raw)])
        if reply == "drop-after-dot":
            session.drop = True
            server.transport.abort()
        return reply


class Smtp:
    """An SMTP server on a free loopback port. script(step, value, session) -> reply, or None for 250.

    step is MAIL or RCPT (value: the address) or DATA (value: the Mail). The reply "drop-after-dot" closes the
    connection without an answer. options go to aiosmtpd's SMTP class: tls_context, require_starttls,
    authenticator, auth_required, ...
    """

    def __init__(self, port=None, script=None, **options):
        self.port = port or free_port()
        self.script = script
        self.options = options
        self.controller = None
        self.lock = threading.Lock()
        self.mails = []
        self.refused = []
        self.rcpts = []
        self.crossed = []  # see foreign_text

    def reply(self, step, value, session):
        return (self.script and self.script(step, value, session)) or "250 2.0.0 OK"

    def start(self):
        smtp = self

        class Server(Controller):
            def factory(self):
                return SmtpProtocol(self.handler, **self.SMTP_kwargs)

        options = {"hostname": "mail.test", "decode_data": False, **smtp.options}
        self.controller = Server(_Handler(self), hostname="127.0.0.1", port=self.port, server_kwargs=options)
        self.controller.start()
        return self

    def stop(self):
        if self.controller:
            self.controller.stop()
            self.controller = None

    def is_alive(self):
        return self.controller is not None

    def reset(self):
        with self.lock:
            self.mails.clear()
            self.refused.clear()
            self.rcpts.clear()
        self.script = None

    def to(self, address):
        """The mails taken for this recipient, oldest first."""
        with self.lock:
            return [mail for mail in self.mails if address in mail.recipients]

    def wait(self, address, count=1, timeout=15.0):
        """Waits for the count-th mail to this recipient and returns it."""
        return wait_for(lambda: (self.to(address) + [None] * count)[count - 1], timeout, f"mail {count} to {address}")


class Answer:
    """An HTTP or FastCGI answer."""

    def __init__(self, status, headers, body):
        self.status = status
        self.header_list = headers
        self.headers = {}
        for name, value in headers:
            self.headers.setdefault(name.lower(), value)
        self.body = body

    def __repr__(self):
        return f"<{self.status} {self.headers} {self.body[:300]!r}>"

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def error(self):
        return self.json.get("error")

    @property
    def token(self):
        return self.json["token"]


# --- FastCGI, spoken directly ---

FCGI_BEGIN, FCGI_ABORT, FCGI_END, FCGI_PARAMS, FCGI_STDIN, FCGI_STDOUT, FCGI_STDERR = 1, 2, 3, 4, 5, 6, 7


def fcgi_record(kind, content=b"", request=1, padding=0, version=1, length=None):
    size = len(content) if length is None else length
    return (bytes([version, kind]) + request.to_bytes(2, "big") + size.to_bytes(2, "big") + bytes([padding, 0])
            + content + bytes(padding))


def fcgi_pair(name, value):
    out = b""
    for part in (name, value):
        out += bytes([len(part)]) if len(part) < 128 else (len(part) | 1 << 31).to_bytes(4, "big")
    return out + name + value


def fcgi_params(method, uri, body=b"", content_type="application/json", length=None, request_id=None, **extra):
    params = {"REQUEST_METHOD": method, "DOCUMENT_URI": uri, "QUERY_STRING": "", "CONTENT_TYPE": content_type,
              "CONTENT_LENGTH": str(len(body)) if length is None else length,
              "REQUEST_ID": request_id or secrets.token_hex(16), **extra}
    return b"".join(fcgi_pair(k.encode(), v.encode()) for k, v in params.items())


def fcgi_request(method, uri, body=b"", keep=True, **kwargs):
    """The bytes of one whole request."""
    params = fcgi_params(method, uri, body, **kwargs)
    out = fcgi_record(FCGI_BEGIN, b"\0\1" + bytes([keep]) + bytes(5))
    out += fcgi_record(FCGI_PARAMS, params) + fcgi_record(FCGI_PARAMS)
    for start in range(0, len(body), 60000):
        out += fcgi_record(FCGI_STDIN, body[start:start + 60000])
    return out + fcgi_record(FCGI_STDIN)


class FastCgi:
    """A connection to a responder's socket."""

    def __init__(self, path, timeout=10.0):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(timeout)
        self.socket.connect(str(path))
        self.buffer = b""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.socket.close()

    def send(self, data):
        self.socket.sendall(data)

    def _take(self, count):
        while len(self.buffer) < count:
            more = self.socket.recv(65536)
            if not more:
                raise EOFError("the responder closed the connection")
            self.buffer += more
        out, self.buffer = self.buffer[:count], self.buffer[count:]
        return out

    def record(self):
        head = self._take(8)
        content = self._take(int.from_bytes(head[4:6], "big"))
        self._take(head[6])
        return head[1], int.from_bytes(head[2:4], "big"), content

    def answer(self):
        out = b""
        while True:
            kind, _, content = self.record()
            if kind == FCGI_STDOUT:
                out += content
            elif kind == FCGI_END:
                break
        head, _, body = out.partition(b"\r\n\r\n")
        headers = [tuple(part.strip() for part in line.split(":", 1)) for line in head.decode().split("\r\n") if ":" in line]
        status = next((int(v.split()[0]) for k, v in headers if k.lower() == "status"), 200)
        return Answer(status, headers, body)

    def request(self, method, uri, body=b"", **kwargs):
        if isinstance(body, (dict, list)):
            body = json.dumps(body).encode()
        self.send(fcgi_request(method, uri, body, **kwargs))
        return self.answer()

    def is_closed(self):
        """Has the responder closed it? (within the timeout)"""
        try:
            return self.socket.recv(1) == b""
        except ConnectionError:
            return True


# --- Keys, tokens and codes as the programs compute them, for planting challenges and for looking inside ---

def make_token(when_ms=None):
    raw = int(when_ms if when_ms is not None else time.time() * 1000).to_bytes(6, "big") + secrets.token_bytes(26)
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def token_raw(token):
    return base64.urlsafe_b64decode(token + "=")


def token_id(token):
    raw = token_raw(token)
    return uuid.UUID(bytes=raw[:6] + hashlib.blake2b(raw, digest_size=32).digest()[:10])


def code_mac(pepper, token, code):
    return hashlib.blake2b(CODE_CONTEXT + token_raw(token) + code.encode(), key=pepper, digest_size=32).digest()


def address_of(prefix="user"):
    """An address that no other test uses."""
    return f"{prefix}-{secrets.token_hex(6)}@example.com"


class Stack:
    """Everything, with the folder that it lives in."""

    def __init__(self):
        self.folder = Path(tempfile.mkdtemp(prefix="otp-", dir="/tmp"))
        self.folder.chmod(0o755)
        for name in ("log", "run", "keys", "nginx", "tmp"):
            (self.folder / name).mkdir()
        self.log = self.folder / "log"
        self.run = self.folder / "run"
        self.keys = self.folder / "keys"
        self.postgres = Postgres(self.folder / "pg", self.log / "postgres.log")
        self.smtp = Smtp()
        self.responders = {}
        self.workers = {}
        self.nginx = None
        self.https_port = free_port()
        self._nginx_key = None
        self._usual_site()
        self._certificate()
        give_to_service(self.folder)
        self.postgres.start()
        self.postgres.create("otp")
        self.make_keys()
        self._admin = None

    def _usual_site(self):
        self.upstreams = {"generate": ["generate-0"], "validate": ["validate-0", "validate-1"]}
        self.limits = "off"
        self.cors_origin = ""
        self.metrics = True

    # --- Pieces ---

    def make_keys(self, *options, folder=None):
        folder = folder or self.keys
        subprocess.run([*as_service(), BUILD / "otp-keygen", *options, folder], check=True, cwd="/", stdout=subprocess.DEVNULL)

    def pepper(self, number=1):
        return (self.keys / "generate" / f"pepper-{number}").read_bytes()

    def environment(self, kind, **overrides):
        """The environment of a program of this stack; an override of None removes a setting."""
        env = {"DATABASE_URL": self.postgres.conninfo(f"otp_{kind}"), "KEY_DIR": self.keys / kind}
        if kind == "generate":
            env |= {"RESEND_SECONDS": 0, "SENDS_PER_HOUR": 0, "SENDS_PER_DAY": 0}
        if kind == "worker":
            env |= {"SMTP_RELAYS": f"127.0.0.1:{self.smtp.port}", "SMTP_TLS": "off", "EMAIL_FROM": "OTP <otp@example.org>",
                    "TEMPLATE_DIR": ROOT / "templates", "SWEEP_SECONDS": 3600}
        env |= overrides
        return {k: v for k, v in env.items() if v is not None}

    def socket_path(self, name):
        return self.run / f"{name}.sock"

    def start_responder(self, kind, number=0, wait=True, listen=None, preload=None, **overrides):
        """Starts otp-generate or otp-validate number N on run/KIND-N.sock; a new one takes the path over."""
        name = f"{kind}-{number}"
        env = {"LISTEN": listen or self.socket_path(name), **self.environment(kind, **overrides)}
        if preload:
            env["LD_PRELOAD"] = preload
        process = Process(name, [*as_service(), BUILD / f"otp-{kind}"], self.log / f"{name}.log",
                          {k: v for k, v in env.items() if k != "LD_PRELOAD"} | preload_environment(env))
        process.overrides = (listen, str(preload), tuple(sorted((k, str(v)) for k, v in overrides.items())))
        process.kind = kind
        self.responders[name] = process
        if wait:
            self.wait_responder(process, env["LISTEN"])
        return process

    def stop_responder(self, kind, number=0):
        """Ends it at once; an orderly end is asserted."""
        status = self.responders.pop(f"{kind}-{number}").hurry()
        assert status == 0, f"{kind}-{number} ended with {status}"

    def wait_responder(self, process, path):
        """Ready: this very process answers on its socket, with the database."""
        uri = "/healthz" if process.kind == "generate" else "/healthz/validate"

        def probe():
            if not process.is_alive():
                return True
            with FastCgi(path, 5) as connection:
                # A predecessor on the same path may still answer: SO_PEERCRED tells who listens.
                listens = struct.unpack("3i", connection.socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
                return listens == process.pid and connection.request("GET", uri, keep=False).status == 200
        wait_for(probe, 15, f"{process.name}\n{process.tail()}")
        assert process.is_alive(), f"{process.name} ended:\n{process.tail()}"

    def start_worker(self, number=0, wait=True, **overrides):
        name = f"worker-{number}"
        process = Process(name, [*as_service(), BUILD / "otp-worker"], self.log / f"{name}.log",
                          self.environment("worker", **overrides))
        process.overrides = tuple(sorted((k, str(v)) for k, v in overrides.items()))
        self.workers[name] = process
        if wait:
            def probe():
                assert process.is_alive(), f"{name} ended:\n{process.tail()}"
                return self.query("select count(*) from pg_stat_activity where usename = 'otp_worker'")[0][0] > 0
            wait_for(probe, 15, f"{name} to connect")
        return process

    def stop_worker(self, number=0):
        process = self.workers.pop(f"worker-{number}", None)
        return process.stop() if process else 0

    def _certificate(self):
        self.certificate = self.folder / "nginx" / "cert.pem"
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                        "-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
                        "-keyout", self.folder / "nginx" / "key.pem", "-out", self.certificate],
                       check=True, stderr=subprocess.DEVNULL)

    def start_nginx(self):
        home = self.folder / "nginx"
        site = home / "otpd"
        shutil.rmtree(site, ignore_errors=True)
        shutil.copytree(ROOT / "nginx", site)
        (site / "site.conf").write_text(self.site_conf())
        (home / "nginx.conf").write_text(
            f"daemon off;\npid {home}/nginx.pid;\nerror_log {self.log}/nginx-error.log info;\nworker_processes 1;\n"
            "worker_rlimit_nofile 16384;\n"
            "events { worker_connections 8192; }\n"
            f"http {{\n\tclient_body_temp_path {home}/body;\n\tfastcgi_temp_path {home}/fastcgi;\n"
            f"\tproxy_temp_path {home}/proxy;\n\tscgi_temp_path {home}/scgi;\n\tuwsgi_temp_path {home}/uwsgi;\n"
            "\tinclude otpd/otpd.conf;\n}\n")
        give_to_service(home)
        self.nginx = Process("nginx", [*as_service(), "/usr/sbin/nginx", "-p", home, "-c", home / "nginx.conf", "-e",
                                       self.log / "nginx-error.log"], self.log / "nginx.log")
        self._nginx_key = self._site_key()

        def probe():
            assert self.nginx.is_alive(), f"nginx ended:\n{self.nginx.tail()}\n{self.text('nginx-error.log')[-2000:]}"
            with socket.create_connection(("127.0.0.1", self.https_port), 2):
                return True
        wait_for(probe, 15, "nginx")

    def _site_key(self):
        return json.dumps([self.upstreams, self.limits, self.cors_origin, self.metrics])

    def site_conf(self):
        """The only file that differs per site, as nginx/site.conf.example but for names and paths."""
        text = (ROOT / "nginx" / "site.conf.example").read_text()
        return adapt_site(text, self)

    def reload_nginx(self):
        (self.folder / "nginx" / "otpd" / "site.conf").write_text(self.site_conf())
        self.nginx.send(signal.SIGHUP)
        self._nginx_key = self._site_key()

    # --- The whole ---

    def ensure_database(self):
        """PostgreSQL up with its usual settings; tables empty, and no program that writes to them."""
        self._ensure_postgres()
        for processes in (self.workers, self.responders):
            for name in list(processes):
                process = processes.pop(name)
                process.hurry() if processes is self.responders else process.stop()
        self.truncate()

    def _ensure_postgres(self):
        if not self.postgres.is_alive() or self.postgres.options:
            self.close_admin()
            if self.postgres.is_alive():
                self.postgres.stop()
            self.postgres.start()
        self.postgres.thaw()

    def ensure(self):
        """Back to the usual state: one otp-generate, two otp-validate, a worker, nginx; nothing stored."""
        self._ensure_postgres()
        for name in list(self.workers):
            process = self.workers[name]
            if name != "worker-0" or process.overrides or not process.is_alive():
                self.workers.pop(name)
                process.stop()
        for name in list(self.responders):
            process = self.responders[name]
            if name not in ("generate-0", "validate-0", "validate-1") or process.overrides != (None, "None", ()) \
                    or not process.is_alive():
                self.responders.pop(name)
                process.hurry()
        self.truncate()
        if not self.smtp.is_alive():
            self.smtp.start()
        self.smtp.reset()
        for kind, number in (("generate", 0), ("validate", 0), ("validate", 1)):
            if f"{kind}-{number}" not in self.responders:
                self.start_responder(kind, number)
        for name in ("generate-0", "validate-0", "validate-1"):
            self.wait_responder(self.responders[name], self.socket_path(name))
        if "worker-0" not in self.workers:
            self.start_worker(0)
        self._usual_site()
        self.ensure_nginx()

    def ensure_nginx(self):
        """nginx with the current upstreams and limits."""
        if self.nginx is None or not self.nginx.is_alive() or self._nginx_key != self._site_key():
            if self.nginx is not None and self.nginx.is_alive():
                self.nginx.stop()
            self.start_nginx()

    def close(self):
        """Stops everything and returns what was wrong: exit statuses and sanitizer reports."""
        problems = []
        self.close_admin()
        for process in [*self.workers.values(), *self.responders.values()]:
            if process.is_alive():
                try:
                    status = process.hurry() if process in self.responders.values() else process.stop()
                    if status != 0:
                        problems.append(f"{process.name} ended with {status} on SIGTERM:\n{process.tail()}")
                except NotReady as problem:
                    problems.append(str(problem))
        if self.nginx and self.nginx.is_alive():
            self.nginx.stop()
        self.smtp.stop()
        problems += self.smtp.crossed
        if self.postgres.is_alive():
            self.postgres.stop()
        for path in self.log.glob("*.log"):
            for line in path.read_text(errors="replace").splitlines():
                if path.name != "postgres.log" and SANITIZER_REPORT.search(line):
                    problems.append(f"{path.name}: {line}")
        stop_all()
        if os.environ.get("OTP_KEEP"):
            print(f"kept: {self.folder}")
        else:
            shutil.rmtree(self.folder, ignore_errors=True)
        return problems

    def logs(self, lines=25):
        """The ends of all logs, for a failed test."""
        parts = []
        for path in sorted(self.log.glob("*.log")):
            tail = path.read_text(errors="replace").splitlines()[-lines:]
            if tail:
                parts.append(f"--- {path.name}\n" + "\n".join(line[:400] for line in tail))
        return "\n".join(parts)

    def text(self, name):
        path = self.log / name
        return path.read_text(errors="replace") if path.exists() else ""

    # --- SQL ---

    @property
    def admin(self):
        """A superuser's connection, reopened after a restart of PostgreSQL."""
        if self._admin is None or self._admin.closed or self._admin.broken:
            self._admin = self.postgres.connect(connect_timeout=10)
        return self._admin

    def close_admin(self):
        if self._admin is not None:
            with contextlib.suppress(Exception):
                self._admin.close()
            self._admin = None

    def query(self, sql, *values):
        """Rows of a statement run by the superuser; a connection lost to a restart is reopened once."""
        for attempt in (1, 2):
            try:
                cursor = self.admin.execute(sql, values or None)
                return cursor.fetchall() if cursor.description else []
            except psycopg.OperationalError:
                self.close_admin()
                if attempt == 2:
                    raise
        return []

    def truncate(self):
        self.query("truncate otp.challenge, otp.mail, otp.address_quota")

    def challenge(self, token):
        """The row behind a token, as a dict, or None."""
        with self.postgres.connect() as connection:
            cursor = connection.cursor(row_factory=psycopg.rows.dict_row)
            return cursor.execute("select * from otp.challenge where id = %s", (token_id(token),)).fetchone()

    def plant(self, code="123456", email=None, max_attempts=5, lifetime=600.0, age=0.0, attempts=0, used=False, key=1):
        """Stores a challenge with a known code, as otp.generate would, and returns its token. lifetime: seconds from
        now by the database's clock."""
        token = make_token((time.time() - age) * 1000)
        self.query("insert into otp.challenge (id, email, code_mac, mac_key, attempts, max_attempts, created_at, expires_at, used_at)"
                   " values (%s, %s, %s, %s, %s, %s, clock_timestamp() - make_interval(secs => %s),"
                   " clock_timestamp() + make_interval(secs => %s), case when %s then clock_timestamp() end)",
                   token_id(token), email or address_of("planted"), code_mac(self.pepper(key), token, code), key, attempts,
                   max_attempts, age, lifetime, used)
        return token

    # --- HTTP ---

    def tls(self):
        context = ssl.create_default_context(cafile=str(self.certificate))
        return context

    def request(self, method, path, body=None, headers=None, connection=None):
        """One HTTPS request through nginx. body: bytes, text, or something that becomes JSON."""
        headers = dict(headers or {})
        if body is not None and not isinstance(body, (bytes, str)):
            body = json.dumps(body).encode()
            headers.setdefault("Content-Type", "application/json")
        elif isinstance(body, str):
            body = body.encode()
        own = connection is None
        connection = connection or self.http()
        try:
            connection.request(method, path, body, headers)
            reply = connection.getresponse()
            return Answer(reply.status, reply.getheaders(), reply.read())
        finally:
            if own:
                connection.close()

    def http(self, timeout=20):
        return http.client.HTTPSConnection("localhost", self.https_port, context=self.tls(), timeout=timeout)

    def generate(self, address=None, connection=None, **fields):
        """POST /generate-password."""
        return self.request("POST", "/generate-password", {"email": address or address_of(), **fields}, connection=connection)

    def validate(self, token, code, connection=None):
        """POST /validate-password."""
        return self.request("POST", "/validate-password", {"token": token, "password": code}, connection=connection)

    def raw(self, data, timeout=10.0, half_close=False):
        """Sends bytes over TLS and returns all that comes back until the server closes or falls silent."""
        with socket.create_connection(("localhost", self.https_port), timeout) as plain:
            with self.tls().wrap_socket(plain, server_hostname="localhost") as secure:
                secure.sendall(data)
                out = b""
                with contextlib.suppress(TimeoutError, ssl.SSLEOFError, ConnectionError):
                    while True:
                        more = secure.recv(65536)
                        if not more:
                            break
                        out += more
                return out

    def fastcgi(self, name, timeout=10.0):
        """A direct connection to a responder, such as "validate-0"."""
        return FastCgi(self.socket_path(name), timeout)


def preload_environment(env):
    """LD_PRELOAD for the program alone: setpriv before it would load it too, which is harmless for our shims."""
    return {"LD_PRELOAD": str(env["LD_PRELOAD"])} if env.get("LD_PRELOAD") else {}


def metric(stack, responder, name, label=""):
    """The sum of a metric over the samples with this label, read on the responder's own socket."""
    kind = responder.split("-")[0]
    with stack.fastcgi(responder) as connection:
        text = connection.request("GET", "/metrics" if kind == "generate" else "/metrics/validate", keep=False).body.decode()
    values = re.findall(rf"^{name}(?:{{[^}}]*{re.escape(label)}[^}}]*}})? (\S+)$", text, re.M)
    assert values, f"no metric {name} in {text}"
    return sum(float(v) for v in values)


def http_bytes(method, path, body=b"", headers=(), host="localhost"):
    """An HTTP/1.1 request as bytes."""
    if isinstance(body, (dict, list)):
        body = json.dumps(body).encode()
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}", *headers]
    if body or method == "POST":
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def adapt_site(text, stack):
    """nginx/site.conf.example with this stack's names, sockets and paths; nothing else changes."""
    def replace(pattern, value, count=1):
        nonlocal text
        text, done = re.subn(pattern, lambda _: value, text, flags=re.M)
        assert done == count, f"site.conf.example: {pattern!r} found {done} times, not {count}"

    for kind, names in stack.upstreams.items():
        servers = "\n".join(f"\tserver unix:{stack.socket_path(name)} max_fails=0;" for name in names)
        replace(rf"^\tserver unix:/run/otpd/{kind}\.sock max_fails=0;$", servers)
    replace(r"^\tlisten 443 (.*)$", f"\tlisten 127.0.0.1:{stack.https_port} ssl http2 default_server backlog=4096;")
    replace(r"^\tlisten \[::\]:443 (.*)$", "")
    replace(r"otp\.example\.com;", "localhost;")
    replace(r"^\tssl_certificate .*$", f"\tssl_certificate {stack.certificate};")
    replace(r"^\tssl_certificate_key .*$", f"\tssl_certificate_key {stack.certificate.with_name('key.pem')};")
    replace(r"^\taccess_log \S+ otp .*$", f"\taccess_log {stack.log}/nginx-access.log otp;")
    replace(r"^geo \$otp_limits \{\n\tdefault +on;", f"geo $otp_limits {{\n\tdefault    {stack.limits};")
    if stack.cors_origin:
        replace(r'^map \$http_origin \$otp_cors_origin \{\n\tdefault    "\*";',
                f'map $http_origin $otp_cors_origin {{\n\tdefault    "";\n\t"{stack.cors_origin}"    $http_origin;')
    if not stack.metrics:
        replace(r"^\t127\.0\.0\.0/8  1;$", "")
    return text


def build_shared(source, target):
    """Compiles a preload shim."""
    subprocess.run(["gcc", "-O1", "-g", "-shared", "-fPIC", "-Wall", "-Werror", "-o", str(target), str(source), "-ldl"], check=True)
    os.chmod(target, 0o755)
    return target


def sodium():
    return ctypes.CDLL(ctypes.util.find_library("sodium"))
