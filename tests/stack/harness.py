"""The stack as tests use it: in a temporary folder on free ports, its parts started and stopped singly, brought back to its
usual state before each test, with SQL and HTTPS at hand. OTP_KEEP=1 keeps the folder."""
import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import socket
import ssl
import tempfile
import time
from pathlib import Path

import psycopg

from . import nginx
from .codes import address_of, code_context, code_mac, make_token, token_id
from .fastcgi import Answer, FastCgi
from .ports import free_port
from .process import ROOT, give_to_service, kill_all
from .relay import Relay
from .stack import Stack
from .wait import NotReady

SANITIZER_REPORT = re.compile(r"AddressSanitizer|LeakSanitizer|runtime error:|UndefinedBehavior|stack smashing")
NO_LIMITS = {"RESEND_SECONDS": 0, "SENDS_PER_HOUR": 0, "SENDS_PER_DAY": 0, "BUDGET_PER_HOUR": 0, "OUTBOX_MAX": 0}
USUAL = ("generate-0", "validate-0", "validate-1")
CLUSTER = {"max_connections": 200, "shared_buffers": "128MB", "log_line_prefix": "%m [%p] %u ", "autovacuum_naptime": "5s",
           "max_wal_size": "2GB", "checkpoint_timeout": "30min"}


class Harness(Stack):
    """Responders and workers go by names such as "validate-1"; the usual state is what ensure() says."""

    FOLDERS = (*Stack.FOLDERS, "tmp", "socket")

    def __init__(self):
        folder = Path(tempfile.mkdtemp(prefix="otp-", dir="/tmp"))
        folder.chmod(0o755)
        for name in self.FOLDERS:
            (folder / name).mkdir()
        super().__init__(folder, free_port(), **CLUSTER)
        self.postgres.socket = folder / "socket"  # so that run/ holds what the programs make, and nothing else
        self.smtp = Relay()
        self.responders = {}
        self.workers = {}
        self.nginx = None
        self._nginx_key = None
        self._admin = None
        self._usual_site()
        give_to_service(folder)
        self.postgres.make("--no-sync")
        self.postgres.start()
        self.postgres.create()
        self.make_keys()

    def _usual_site(self):
        self.upstreams = {"generate": ["generate-0"], "validate": ["validate-0", "validate-1"]}
        self.limits = "off"
        self.site_settings = {}  # more of make-site's
        self.metrics = True

    # --- Pieces ---

    def pepper(self, number=1):
        return (self.keys / "generate" / f"pepper-{number}").read_bytes()

    def settings(self, kind):
        return {"generate": NO_LIMITS, "validate": {},
                "worker": {"SMTP_RELAYS": f"127.0.0.1:{self.smtp.port}", "SMTP_TLS": "off", "EMAIL_FROM": "OTP <otp@example.org>",
                           "TEMPLATE_DIR": ROOT / "templates", "SWEEP_SECONDS": 3600}}[kind]

    def start_responder(self, kind, number=0, wait=True, listen=None, preload=None, **overrides):
        """Starts otp-generate or otp-validate number N on run/KIND-N.sock; a new one takes the path over. preload: a library
        of the test's, which setpriv before the program loads too, to no harm."""
        name = f"{kind}-{number}"
        env = {"LISTEN": listen or self.socket_path(name), **self.environment(kind, **overrides)}
        process = self.launch_program(kind, name, env | ({"LD_PRELOAD": preload} if preload else {}))
        process.overrides = (listen, str(preload), tuple(sorted((k, str(v)) for k, v in overrides.items())))
        self.responders[name] = process
        if wait:
            self.wait_responder(process, env["LISTEN"])
        return process

    def stop_responder(self, kind, number=0):
        """Ends it at once; an orderly end is asserted."""
        status = self.responders.pop(f"{kind}-{number}").hurry()
        assert status == 0, f"{kind}-{number} ended with {status}"

    def start_worker(self, number=0, wait=True, **overrides):
        name = f"worker-{number}"
        process = self.launch_program("worker", name, self.environment("worker", **overrides))
        process.overrides = tuple(sorted((k, str(v)) for k, v in overrides.items()))
        self.workers[name] = process
        if wait:
            self.wait_worker(process)
        return process

    def stop_worker(self, number=0):
        process = self.workers.pop(f"worker-{number}", None)
        return process.stop() if process else 0

    def start_nginx(self):
        log = self.log / "nginx-error.log"
        self.nginx = self.launch_nginx(log, "worker_processes 1", f"error_log {log} info")
        self._nginx_key = self._site_key()

    def _site_key(self):
        return json.dumps([self.upstreams, self.limits, self.site_settings, self.metrics])

    def site(self):
        sockets = {kind: [self.socket_path(name) for name in names] for kind, names in self.upstreams.items()}
        return {"listen": f"127.0.0.1:{self.https_port}", "access_log": f"{self.log}/nginx-access.log otp if=$otp_logged", "limits": self.limits,
                **sockets, **self.site_settings}

    def site_conf(self):
        text = super().site_conf()
        return text if self.metrics else re.sub(r"127\.0\.0\.0/8 +1;", "", text)

    def reload_nginx(self):
        nginx.write_site(self.home, self.site_conf())
        self.nginx.send(signal.SIGHUP)
        self._nginx_key = self._site_key()

    # --- The whole ---

    def ensure_database(self):
        """PostgreSQL up with its usual settings; tables empty, and no program that writes to them."""
        self._ensure_postgres()
        self._end(self.workers, list(self.workers))
        self._end(self.responders, list(self.responders))
        self.truncate()

    def _end(self, processes, names):
        """Ends processes of a dict, all at the same time."""
        ending = [processes.pop(name) for name in names]
        for process in ending:
            process.thaw()
            process.send(signal.SIGTERM)
        for process in ending:
            process.hurry() if processes is self.responders else process.wait()

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
        self._end(self.workers, [name for name, process in self.workers.items()
                                 if name != "worker-0" or process.overrides or not process.is_alive()])
        self._end(self.responders, [name for name, process in self.responders.items()
                                    if name not in USUAL or process.overrides != (None, "None", ()) or not process.is_alive()])
        self.truncate()
        if not self.smtp.is_alive():
            self.smtp.start()
        self.smtp.reset()
        for name in USUAL:
            if name not in self.responders:
                self.start_responder(*name.split("-"), wait=False)
        for name in USUAL:
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
        with contextlib.suppress(AssertionError):
            self.smtp.stop()
        problems += self.smtp.crossed
        if self.postgres.is_alive():
            self.postgres.stop()
        for path in self.log.glob("*.log"):
            for line in path.read_text(errors="replace").splitlines():
                if path.name != "postgres.log" and SANITIZER_REPORT.search(line):
                    problems.append(f"{path.name}: {line}")
        kill_all()
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

    def plant(self, code="123456", email=None, max_attempts=5, lifetime=600.0, age=0.0, attempts=0, used=False, key=1,
              application=None, purpose=None, context=None):
        """Stores a challenge with a known code, as otp.generate would, and returns its token. lifetime: seconds from
        now by the database's clock."""
        token = make_token((time.time() - age) * 1000)
        mac = code_mac(self.pepper(key), token, code, application, purpose, context)
        self.query("insert into otp.challenge (id, email, code_mac, mac_key, attempts, max_attempts, created_at, expires_at, used_at,"
                   " digits, application, purpose, context)"
                   " values (%s, %s, %s, %s, %s, %s, clock_timestamp() - make_interval(secs => %s),"
                   " clock_timestamp() + make_interval(secs => %s), case when %s then clock_timestamp() end, %s, %s, %s, %s)",
                   token_id(token), email or address_of("planted"), mac, key, attempts, max_attempts, age, lifetime, used,
                   len(code), application, purpose, code_context(token, context))
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

    def post(self, path, connection=None, key=None, headers=None, **fields):
        """POST of a JSON object; key: an application's."""
        headers = {**({"Authorization": f"Bearer {key}"} if key else {}), **(headers or {})}
        return self.request("POST", path, fields, headers, connection)

    def generate(self, address=None, connection=None, **fields):
        """POST /generate-password."""
        return self.post("/generate-password", connection, email=address or address_of(), **fields)

    def resend(self, token, **fields):
        """POST /generate-password for a token."""
        return self.post("/generate-password", token=token, **fields)

    def validate(self, token, code, connection=None, **fields):
        """POST /validate-password."""
        return self.post("/validate-password", connection, token=token, password=code, **fields)

    def revoke(self, token, **fields):
        """POST /revoke."""
        return self.post("/revoke", token=token, **fields)

    def delivery(self, token, **fields):
        """POST /delivery-status."""
        return self.post("/delivery-status", token=token, **fields)

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
