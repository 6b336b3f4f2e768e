"""Processes of a stack: started with a log of their own as an ordinary user, stopped by their own process ids."""
import atexit
import contextlib
import functools
import json
import os
import signal
import subprocess
from pathlib import Path

from .wait import NotReady, wait_for

ROOT = Path(__file__).resolve().parents[2]
BUILD = Path(os.environ.get("OTP_BUILD", ROOT / ".local" / "build")).resolve()
SANITIZER_OPTIONS = ("ASAN_OPTIONS", "UBSAN_OPTIONS", "LSAN_OPTIONS")


def is_root():
    """Only root may look into our programs through /proc: they are not dumpable."""
    return os.getuid() == 0


def is_sanitized(program="otp-validate"):
    """Is this an ASan build? Preloaded shims and memory measurements do not go with it."""
    path = BUILD / program
    return path.exists() and b"__asan_init" in path.read_bytes()


def build_shared(source, target):
    """Compiles a preload shim."""
    subprocess.run(["gcc", "-O1", "-g", "-shared", "-fPIC", "-Wall", "-Werror", "-o", target, source, "-ldl"], check=True)
    target.chmod(0o755)
    return target


@functools.lru_cache
def as_service(*paths):
    """The command prefix that lowers root to user postgres, since PostgreSQL refuses to run as root. Where that user may not
    enter the checkout, or one of paths, it is given the capability to."""
    if not is_root():
        return ()
    prefix = ["setpriv", "--reuid", "postgres", "--regid", "postgres", "--init-groups"]
    for path in (BUILD, ROOT / "sql", ROOT / "nginx", *paths):
        if subprocess.run([*prefix, "test", "-x", path, "-a", "-r", path], check=False).returncode != 0:
            return (*prefix, "--inh-caps=+dac_override", "--ambient-caps=+dac_override")
    return tuple(prefix)


def give_to_service(*paths, recursive=True):
    """Makes paths, and what is in them, the service user's own."""
    if is_root():
        subprocess.run(["chown", *(["-R"] if recursive else []), "postgres:postgres", *paths], check=True)


def is_running(pid):
    """Is it there, and no zombie?"""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def family(pid):
    """A process and its children."""
    with contextlib.suppress(FileNotFoundError):
        return [pid, *(int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]
    return [pid]


class Process:
    """One process of the stack. It ends with the process that started it, or lasts, in a session of its own that Ctrl-C
    does not reach."""

    running = []

    def __init__(self, name, argv, log, env=None, lasting=False, cwd="/", **options):
        self.name = name
        self.argv = [str(a) for a in argv]
        self.log = Path(log)
        self.cwd = Path(cwd)
        base = {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "LC_ALL": "C.UTF-8", "TZ": "UTC"}
        base |= {key: os.environ[key] for key in SANITIZER_OPTIONS if key in os.environ}
        self.env = {**base, **{k: str(v) for k, v in (env or {}).items()}}
        self.log_start = self.log.stat().st_size if self.log.exists() else 0
        with open(self.log, "ab") as sink:
            self.popen = subprocess.Popen(self.argv, env=self.env, cwd=cwd, stdout=sink, stderr=sink, start_new_session=lasting,
                                          **{"stdin": subprocess.DEVNULL, **options})
        if not lasting:
            Process.running.append(self)

    @property
    def pid(self):
        return self.popen.pid

    def is_alive(self):
        return self.popen.poll() is None

    def wait_ready(self, probe, timeout=30.0):
        """Polls until the probe holds. A process that ends meanwhile, or is late, is complained about with the end of its log."""
        try:
            wait_for(lambda: not self.is_alive() or probe(), timeout, f"{self.name} to be ready")
        except NotReady as problem:
            raise NotReady(f"{self.tail()}\n{self.name} is not ready after {timeout:g} seconds: {problem}") from None
        if not self.is_alive():
            raise NotReady(f"{self.tail()}\n{self.name} ended while it started; the end of its log is above")

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


@atexit.register
def kill_all():
    """Whatever was started and does not last ends with us."""
    for process in list(reversed(Process.running)):
        with contextlib.suppress(Exception):
            process.kill()
