"""A private PostgreSQL cluster: on a unix socket in a folder of its own, with data checksums, sorting by bytes."""
import contextlib
import os
import re
import signal
import subprocess
from pathlib import Path

from .process import ROOT, as_service, family, give_to_service, is_running
from .wait import NotReady, wait_for


def pg_bin(name, version=None):
    """A server program of this major version, or of the newest that is installed."""
    found = sorted(Path("/usr/lib/postgresql").glob(f"{version or '*'}/bin/{name}"), key=lambda path: float(path.parts[4]))
    return str(found[-1]) if found else name


class Postgres:
    """launch(name, argv) starts the server's process; settings are postgresql.conf's."""

    def __init__(self, data, socket, launch, **settings):
        self.data = Path(data)
        self.socket = Path(socket)
        self.launch = launch
        self.settings = {"listen_addresses": "", "unix_socket_permissions": "0700", **settings}
        self.process = None
        self.options = {}

    @property
    def version(self):
        """The major version that made the cluster; None before there is one."""
        path = self.data / "PG_VERSION"
        return path.read_text().strip() if path.exists() else None

    def make(self, *options):
        """Makes the cluster unless there is one; what was half made does not count."""
        if self.version:
            return
        new = self.data.with_suffix(".new")
        subprocess.run(["rm", "-rf", new], check=True)
        new.mkdir()
        give_to_service(new)
        done = subprocess.run([*as_service(new.parent), pg_bin("initdb"), "-D", new, "-U", "postgres", "--auth-local=trust",
                               "--auth-host=reject", "--encoding=UTF8", "--locale=C.UTF-8", "--data-checksums", *options],
                              check=False, cwd="/", text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        if done.returncode != 0:
            raise NotReady(f"{done.stdout}\ninitdb failed")
        new.rename(self.data)

    def start(self, wait=True, **options):
        server = pg_bin("postgres", self.version)
        if self.version and not os.path.isabs(server):
            raise NotReady(f"{self.data} was made by PostgreSQL {self.version}, which is not installed: remove that folder")
        self.forget_dead_server()
        self.options = options
        settings = {**self.settings, "unix_socket_directories": self.socket, **options}
        given = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        self.process = self.launch("postgres", [*as_service(self.data.parent), server, "-D", self.data, *given])
        if wait:
            self.wait_ready()

    def forget_dead_server(self):
        """After a crash the pid noted in the cluster may be another process's by now, for which PostgreSQL would not start."""
        noted = self.data / "postmaster.pid"
        if noted.exists():
            pid = noted.read_text().split("\n", 1)[0]
            with contextlib.suppress(OSError):
                if os.readlink(f"/proc/{pid}/cwd") == str(self.data.resolve()):
                    return
            noted.unlink()
            for path in self.socket.glob(".s.PGSQL.*"):
                path.unlink()

    def wait_ready(self, timeout=30):
        self.process.wait_ready(lambda: self.psql("select pg_is_in_recovery()", "postgres") == "f", timeout)

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
        wait_for(lambda: not any(is_running(pid) for pid in pids), 10, "the children of PostgreSQL to be gone")

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

    def psql(self, statement, dbname="otp"):
        """What a statement returns, as text, run by the superuser."""
        return subprocess.run(["psql", "-XAtq", "-v", "ON_ERROR_STOP=1", f"{self.conninfo(dbname=dbname)} connect_timeout=5",
                               "-c", statement], check=True, text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE).stdout.strip()

    def connect(self, user="postgres", dbname="otp", **kwargs):
        import psycopg  # tests have it; ./dev up does without
        return psycopg.connect(self.conninfo(user, dbname), autocommit=True, **kwargs)

    def create(self, dbname="otp"):
        """Makes the database unless it is there, and brings it to the schema of this checkout."""
        if not re.search(rf"^{dbname}$", self.psql("select datname from pg_database", "postgres"), re.M):
            self.psql(f'create database "{dbname}"', "postgres")
        return self.migrate(dbname)

    def migrate(self, dbname="otp", sql=ROOT / "sql"):
        done = subprocess.run(["sh", sql / "migrate", self.conninfo(dbname=dbname)], check=False, text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        if done.returncode != 0:
            raise NotReady(f"{done.stdout}\nthe migrations failed")
        return done.stdout

    def dump(self, dbname="otp"):
        return subprocess.run([pg_bin("pg_dump", self.version), self.conninfo(dbname=dbname)], check=True,
                              stdout=subprocess.PIPE).stdout
