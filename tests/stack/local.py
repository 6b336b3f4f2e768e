"""The lasting stack of ./dev in .local/: processes that outlive the command that started them, found again by pid files."""
import contextlib
import email
import email.policy
import fcntl
import json
import os
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from . import nginx
from .pidfile import PidFile
from .ports import port_holder
from .process import BUILD, ROOT, as_service, give_to_service
from .stack import Stack
from .wait import NotReady, wait_for

# In the order in which they start; they stop in the opposite order.
PROGRAMS = ("postgres", "mail", "worker", "generate", "validate", "nginx")
STOP_SIGNALS = {"postgres": signal.SIGINT, "nginx": signal.SIGQUIT}
# Applications to try, besides the default one.
EXAMPLES = {
    "shop": {"app_name": "Shop", "email_from": "Shop <otp@shop.example>", "subject": "Sign in to {{app_name}}", "expire_minutes": 5},
    "bank": {"app_name": "Bank", "email_from": "Bank <otp@bank.example>", "password_length": 8, "max_attempts": 3,
             "purposes": ["sign-in", "confirm-action"]},
}
SOCKET_PATH_MAX = 75  # of the folder, so that with a socket's name it stays under the system's 107


class Local(Stack):
    """Settings are the environment's; the mail catcher is a process of its own, or a relay of the user's takes its place."""

    FOLDERS = (*Stack.FOLDERS, "mail", "mail/new", "mail/cur", "mail/tmp")

    def __init__(self, folder):
        https_port, self.smtp_port = os.environ.get("HTTPS_PORT") or "8443", os.environ.get("SMTP_PORT") or "2525"
        super().__init__(folder, https_port, max_connections=400, shared_buffers="256MB")
        self.limits = os.environ.get("LIMITS") or "on"
        self.applications = folder / "applications"
        self.pids = folder / "pids"
        self.own_relay = folder / "own-relay"
        self.port = folder / "port"
        self.find_sockets()

    def find_sockets(self):
        """They are in run/, or where that points to."""
        self.run = self.postgres.socket = (self.folder / "run").resolve()

    # --- What runs ---

    def pid_file(self, name):
        return PidFile(self.pids / name)

    def pid_of(self, name):
        return self.pid_file(name).pid()

    def expected(self):
        """The programs that this stack consists of."""
        return [name for name in PROGRAMS if name != "mail" or not self.own_relay.exists()]

    def running(self):
        return [name for name in PROGRAMS if self.pid_of(name)]

    def launch(self, name, argv, env=None, **options):
        process = super().launch(name, argv, {**os.environ, **(env or {})}, lasting=True, **options)
        self.pid_file(name).write(process.pid)
        return process

    def stop_all(self):
        """Stops what runs, last started first."""
        for name in reversed(PROGRAMS):
            if not self.pid_file(name).stop(STOP_SIGNALS.get(name, signal.SIGTERM)):
                say(f"{name} did not stop and was killed")

    @contextlib.contextmanager
    def lock(self):
        """Lets only one command at a time start or stop this stack."""
        if not os.access(self.folder, os.W_OK):
            die(f"{self.folder} belongs to {self.folder.owner()}: use sudo ./dev, or remove that folder")
        with open(self.folder / "lock", "a", encoding="ascii") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                say("Waiting for another ./dev to finish")
                fcntl.flock(file, fcntl.LOCK_EX)
            yield

    # --- Start ---

    def up(self, *words):
        """Installs, builds and starts."""
        if words not in ((), ("-d",)):
            die("usage: ./dev up [-d]")
        self.folder.mkdir(parents=True, exist_ok=True)
        with self.lock():
            if self.running() == self.expected():
                say("It already runs; ./dev down stops it.")
                return self.print_hints()
            if self.running():
                say("Only a part runs: starting all anew")
            self.stop_all()
            self.check_settings()
            if subprocess.run([ROOT / "dev", "build"], check=False).returncode != 0:
                sys.exit(1)
            self.make_folders()
            for number in (signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, lambda *_: sys.exit(130))
            try:
                self.start_all()
            except BaseException:
                self.stop_all()  # after a failure nothing stays half started
                raise
        self.print_hints()
        return None if words else self.stay()

    def check_settings(self):
        """Fails early where the environment asks for what cannot be."""
        if self.limits not in ("on", "off"):
            die(f"LIMITS={self.limits}: must be on or off")
        check_port("HTTPS_PORT", self.https_port)
        if not os.environ.get("SMTP_RELAYS"):
            check_port("SMTP_PORT", self.smtp_port)
            if self.smtp_port == self.https_port:
                die(f"HTTPS_PORT and SMTP_PORT are the same: {self.smtp_port}")

    def make_folders(self):
        """Folders and notes below .local. Sockets go elsewhere when their paths would be too long for the system."""
        link = self.folder / "run"
        if not link.is_dir() and len(str(self.folder)) > SOCKET_PATH_MAX:
            link.unlink(missing_ok=True)
            link.symlink_to(tempfile.mkdtemp(prefix="otpd.", dir="/tmp"))
        for name in (*self.FOLDERS, "pids"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        self.find_sockets()
        self.run.chmod(0o700)
        give_to_service(self.run, *(self.folder / name for name in self.FOLDERS), recursive=False)
        for path in self.pids.iterdir():
            path.unlink()
        relay = os.environ.get("SMTP_RELAYS")
        self.own_relay.write_text(f"{relay}\n") if relay else self.own_relay.unlink(missing_ok=True)
        self.port.write_text(f"{self.https_port}\n")

    def settings(self, kind):
        """The environment of ./dev itself goes to every program; this is beyond it."""
        own = {"LISTEN": self.socket_path(kind), "APPLICATIONS": self.applications_file()}
        if kind == "generate" and self.limits == "off":
            own |= {"BUDGET_PER_HOUR": os.environ.get("BUDGET_PER_HOUR") or 0}
        if kind == "worker":
            own |= {"EMAIL_FROM": os.environ.get("EMAIL_FROM") or "OTP <otp@example.com>",
                    "TEMPLATE_DIR": os.environ.get("TEMPLATE_DIR") or ROOT / "templates"}
            own |= {} if os.environ.get("SMTP_RELAYS") else {"SMTP_RELAYS": f"127.0.0.1:{self.smtp_port}", "SMTP_TLS": "off"}
        return own

    def applications_file(self):
        """The user's, or the one with the examples."""
        own = os.environ.get("APPLICATIONS")
        return Path(own).absolute() if own else self.applications / "applications.json"

    def make_applications(self):
        """A file with two applications to try, and the key of each beside it; what is there already stays."""
        file = self.applications_file()
        if os.environ.get("APPLICATIONS") or file.exists():
            return
        self.applications.mkdir(exist_ok=True)
        members = {"default": {}}
        for name, more in EXAMPLES.items():
            made = subprocess.run([BUILD / "otp-keygen", "--api-key", name], check=True, text=True, stdout=subprocess.PIPE).stdout
            key, member = made.splitlines()
            members |= json.loads(f"{{{member}}}")
            members[name] |= more
            (self.applications / f"{name}.key").write_text(f"{key}\n")
        file.write_text(json.dumps(members, indent=2) + "\n")
        file.chmod(0o644)

    def check_programs(self):
        """Each program's own opinion of its settings, before anything starts."""
        for kind in ("generate", "validate", "worker"):
            env = {k: str(v) for k, v in {**os.environ, **self.environment(kind)}.items()}
            done = subprocess.run([*as_service(self.folder), BUILD / f"otp-{kind}", "--check"], env=env, cwd="/", check=False,
                                  text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            if done.returncode != 0:
                die(f"otp-{kind} does not take these settings", done.stdout)

    def start_all(self):
        """Starts everything in order; each program is ready before the next one starts."""
        self.make_keys()
        self.make_applications()
        self.check_programs()
        say("Starting")
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(16384, most) if most > 0 else 16384, most))  # many clients at once
        self.postgres.make()
        self.postgres.start()
        sys.stdout.write(self.postgres.create())
        if "mail" in self.expected():
            catcher = self.launch("mail", [*as_service(self.folder), sys.executable, "-B", "-m", "stack.catcher", self.smtp_port,
                                           self.folder / "mail"], {"PYTHONPATH": ROOT / "tests"})
            catcher.wait_ready(lambda: nginx.is_listening(self.smtp_port))
        self.wait_worker(self.launch_program("worker", "worker", self.environment("worker")))
        for kind in ("generate", "validate"):
            self.socket_path(kind).unlink(missing_ok=True)
            self.wait_responder(self.launch_program(kind, kind, self.environment(kind)), self.socket_path(kind))
        self.launch_nginx("stderr", "worker_processes auto", "error_log stderr warn")
        for kind in ("", "/validate"):
            wait_for(lambda path=f"/healthz{kind}": self.is_healthy(path), 30, f"nginx to reach otp-{kind[1:] or 'generate'}")

    def is_healthy(self, path):
        """Asks a health check through nginx, as an answer from the program and its database."""
        url = f"https://localhost:{self.https_port}{path}"
        return subprocess.run(["curl", "-sf", "--max-time", "5", "--cacert", self.certificate, "--noproxy", "*", "-o", "/dev/null",
                               url], check=False).returncode == 0

    def site(self):
        interfaces = Path("/proc/net/if_inet6")
        has_ipv6 = interfaces.exists() and re.search(r"^0*1 ", interfaces.read_text(), re.M)
        listen = [f"{address}:{self.https_port}" for address in ["127.0.0.1"] + ["[::1]"] * bool(has_ipv6)]
        # A browser that remembered Strict-Transport-Security would refuse other things on localhost.
        return {"listen": listen, "generate": self.socket_path("generate"), "validate": self.socket_path("validate"),
                "access_log": f"{self.log}/access.log otp buffer=32k flush=1s if=$otp_logged", "limits": self.limits, "hsts": ""}

    def print_hints(self):
        """Where the stack is and what to try."""
        url = f"https://localhost:{self.port.read_text().strip()}"
        read_mail = f"(the mail goes by {self.own_relay.read_text().strip()})" if self.own_relay.exists() else "./dev mail"
        say(f"""
otpd runs on {url}

  curl -k {url}/generate-password --json '{{"email": "jane@example.com"}}'
  {read_mail}
  curl -k {url}/validate-password --json '{{"password": "CODE", "token": "TOKEN"}}'

Two applications to try, "shop" and "bank": {self.applications}
""")

    def stay(self):
        """Stays until a program ends or the user does, showing the logs meanwhile; then stops the rest."""
        files = {name: self.pid_file(name) for name in self.expected()}
        asked = []
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, lambda number, _: asked.append(number))
        follower = subprocess.Popen(["tail", "-q", "-n", "0", "-F", *self.logs_of("*")], stderr=subprocess.DEVNULL)
        try:
            say("Ctrl-C stops it. The logs follow.")
            while not asked and all(file.pid() for file in files.values()):
                time.sleep(0.2)
            if signal.SIGHUP in asked:  # the terminal has gone, and with it the place to write to
                os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
                os.dup2(1, 2)
            if not asked and (self.pids / "stopping").exists():
                return say("Stopped by ./dev down")
            with self.lock():
                for name in [] if asked else [name for name, file in files.items() if not file.pid()]:
                    say(f"{name} has ended; the end of its log:")
                    say("\n".join((self.log / f"{name}.log").read_text(errors="replace").splitlines()[-15:]))
                self.stop_all()
            say("Stopped")
            sys.exit(0 if asked else 1)
        finally:
            follower.kill()

    # --- The other commands ---

    def down(self):
        """Stops the stack, also one of which only a part runs."""
        found = []
        if self.pids.is_dir():
            with self.lock():
                found = self.running()
                (self.pids / "stopping").touch()
                self.stop_all()
        say("Stopped" if found else "Nothing runs")

    def status(self):
        """What runs; fails unless all does."""
        pids = {name: self.pid_of(name) for name in self.expected()}
        for name, pid in pids.items():
            say(f"{name:10} runs, pid {pid}" if pid else f"{name:10} does not run")
        sys.exit(0 if all(pids.values()) else 1)

    def psql(self, *words):
        """psql as the database's owner."""
        if not self.pid_of("postgres"):
            die("nothing runs: ./dev up -d")
        os.execvp("psql", ["psql", "-h", str(self.run), "-U", "postgres", "otp", *words])

    def logs_of(self, name):
        return sorted(self.log.glob(f"{name}.log"))

    def logs(self, name="*"):
        """Follows the logs, all or one program's."""
        files = self.logs_of(name)
        if not files:
            die(f"no log {self.log}/{name}.log")
        os.execvp("tail", ["tail", "-n", "20", "-F", *map(str, files)])

    def mail(self):
        """The newest mail as a person would read it, once those under way have come."""
        if self.own_relay.exists():
            die(f"the mail goes by {self.own_relay.read_text().strip()}, not into {self.folder}/mail")
        if self.pid_of("worker"):
            with contextlib.suppress(NotReady):
                queued = "select count(*) from otp.mail where state = 'queued'"
                wait_for(lambda: self.postgres.psql(queued) == "0", 3, interval=0.1)
        mails = sorted((self.folder / "mail" / "new").glob("*"), key=lambda path: path.stat().st_mtime_ns)
        if not mails:
            die(f"no mail yet in {self.folder}/mail/new")
        newest = email.message_from_bytes(mails[-1].read_bytes(), policy=email.policy.default)
        for name in ("From", "To", "Subject", "Date"):
            say(f"{name}: {newest[name]}")
        say(f"\n{newest.get_body(('plain', 'html')).get_content()}")


def say(text):
    print(text, flush=True)


def die(complaint, output=""):
    """Ends with a complaint, below what it is about."""
    sys.exit(f"{output}dev: {complaint}")


def check_port(setting, value):
    """Fails unless the port that a setting names is a free one."""
    if not re.fullmatch(r"[1-9][0-9]{0,4}", value) or int(value) > 65535:
        die(f"{setting}={value}: must be a port, 1 to 65535")
    holder = port_holder(int(value))
    if holder:
        die(f"port {value} is taken by {holder}: stop that, or choose another port: {setting}={int(value) + 1000} ./dev up")
