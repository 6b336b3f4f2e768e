"""The dev script as a person meets it: up, the printed flow, up twice, down twice, stale pid files, taken ports, faults."""
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
from pathlib import Path

import pytest

from stack import BUILD, ROOT, free_port, is_running, wait_for

PROGRAMS = ("postgres", "mail", "worker", "generate", "validate", "nginx")


class Dev:
    """A checkout's ./dev with a folder and ports of its own."""

    def __init__(self):
        self.local = Path(tempfile.mkdtemp(prefix="otp-dev-", dir="/tmp"))
        self.local.chmod(0o755)
        self.env = {**os.environ, "OTP_LOCAL": str(self.local), "OTP_BUILD": str(BUILD), "HTTPS_PORT": str(free_port()),
                    "SMTP_PORT": str(free_port())}

    def start(self, *words, **env):
        """As from a terminal: what runs in the background of a script, such as these tests may, ignores SIGINT."""
        return subprocess.Popen([ROOT / "dev", *words], env={**self.env, **env}, text=True, stdin=subprocess.DEVNULL,
                                stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))

    def run(self, *words, status=0, **env):
        """Its output, once it has ended with this status."""
        process = self.start(*words, **env)
        # A background program that held the pipe would keep this waiting.
        output = process.communicate(timeout=120)[0]
        assert process.returncode == status, output
        return output

    def start_foreground(self):
        """./dev up, once it says that it stays."""
        foreground = self.start("up")
        for line in foreground.stdout:
            if line.startswith("Ctrl-C stops it"):
                return foreground
        raise AssertionError(f"up ended with {foreground.wait()}")

    def pids(self):
        found = {}
        for name in PROGRAMS:
            path = self.local / "pids" / name
            if path.exists():
                found[name] = int(path.read_text().split()[0])
        return found

    def curl(self, path, body=None):
        """What curl gets: (status, body)."""
        command = ["curl", "-s", "--max-time", "20", "--noproxy", "*", "--cacert", self.local / "nginx" / "cert.pem", "-w", "\n%{http_code}",
                   f"https://localhost:{self.env['HTTPS_PORT']}{path}"]
        if body is not None:
            command += ["--json", json.dumps(body)]
        text, _, status = subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE).stdout.rpartition("\n")
        return int(status), text


def children(pid):
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.fixture
def dev():
    dev = Dev()
    yield dev
    dev.run("down")
    assert not any(is_running(pid) for pid in dev.pids().values())
    shutil.rmtree(dev.local, ignore_errors=True)


def test_the_printed_flow(dev):
    """The commands that up prints, run to the letter: generate, the mail, validate, validate again."""
    hints = dev.run("up", "-d", LIMITS="off")
    commands = re.findall(r"^ +((?:curl|\./dev) .*)$", hints, re.M)
    assert [command.split()[0] for command in commands] == ["curl", "./dev", "curl"]

    def say(command):
        return subprocess.run(command, shell=True, check=True, text=True, stdout=subprocess.PIPE, cwd=ROOT, env=dev.env).stdout
    token = json.loads(say(commands[0]))["token"]
    mail = say(commands[1])
    assert "To: jane@example.com" in mail
    code = re.search(r"^\s*([0-9]{6})\s*$", mail, re.M)[1]
    validate = commands[2].replace("TOKEN", token).replace("CODE", code)
    assert json.loads(say(validate))["email"] == "jane@example.com"
    assert json.loads(say(validate))["error"] == "used"
    assert len(list((dev.local / "mail" / "new").iterdir())) == 1
    assert "(1 row)" in dev.run("psql", "-c", "select * from otp.stats limit 1")


def test_the_cluster_has_checksums_and_no_language(dev):
    """It sorts by bytes, whatever the machine's locale is."""
    dev.run("up", "-d", LANG="en_US.UTF-8", LC_COLLATE="en_US.UTF-8")
    assert dev.run("psql", "-Atc", "show data_checksums") == "on\n"
    assert dev.run("psql", "-Atc", "select datcollate, datctype, pg_encoding_to_char(encoding) from pg_database") == "C.UTF-8|C.UTF-8|UTF8\n" * 4


def test_mail_by_hand(dev):
    """The catcher takes what anybody sends, and survives what is no SMTP."""
    dev.run("up", "-d")
    with socket.create_connection(("127.0.0.1", int(dev.env["SMTP_PORT"])), 10) as client, client.makefile("rwb") as stream:
        replies = [stream.readline()]
        for line in (b"NONSENSE", b"RCPT TO:<a@example.com>", b"MAIL FROM", b"HELO me", b"MAIL FROM:<>", b"RCPT TO:<a@example.com>", b"DATA",
                     b"Subject: by hand\r\n\r\nA line.\r\n.", b"QUIT"):
            stream.write(line + b"\r\n")
            stream.flush()
            replies.append(stream.readline())
    assert [reply[:3] for reply in replies] == [b"220", b"502", b"503", b"501", b"250", b"250", b"250", b"354", b"250", b"221"]
    assert "Subject: by hand" in dev.run("mail")
    assert [path.read_bytes() for path in (dev.local / "mail" / "new").iterdir()] == [b"Subject: by hand\n\nA line.\n"]


def test_up_twice_and_down_twice(dev):
    dev.run("up", "-d")
    pids = dev.pids()
    assert set(pids) == set(PROGRAMS)
    assert "already runs" in dev.run("up", "-d")
    assert "already runs" in dev.run("up")
    assert dev.pids() == pids
    assert dev.run("status").count("runs, pid") == len(PROGRAMS)
    assert "Stopped" in dev.run("down")
    assert not any(is_running(pid) for pid in pids.values())
    assert "Nothing runs" in dev.run("down")
    dev.run("status", status=1)
    dev.run("up", "-d")
    assert dev.curl("/healthz")[0] == 200


def test_pid_files_of_others(dev):
    """Pid files of an earlier boot, whose pids belong to another process by now: ignored, and that process is left alone."""
    bystander = subprocess.Popen(["sleep", "300"], start_new_session=True)
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    try:
        (dev.local / "pids").mkdir()
        for name in PROGRAMS:
            (dev.local / "pids" / name).write_text(f"{bystander.pid} 1 {boot}\n")
        assert "Nothing runs" in dev.run("down")
        dev.run("up", "-d")
        pids = dev.pids()
        dev.run("down")
        assert not any(is_running(pid) for pid in pids.values())
        for name in PROGRAMS:
            (dev.local / "pids" / name).write_text(f"{bystander.pid}\n")
        (dev.local / "pg" / "postmaster.pid").write_text(f"{bystander.pid}\n{dev.local}/pg\n1\n5432\n")
        dev.run("up", "-d")
        assert dev.curl("/healthz")[0] == 200
        dev.run("down")
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_after_kill_9_of_everything(dev):
    """Whatever the killed programs left, such as nginx's workers on their port, up starts anew and down finds."""
    dev.run("up", "-d")
    workers = children(dev.pids()["nginx"])
    assert workers
    for pid in dev.pids().values():
        os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not any(is_running(pid) for pid in dev.pids().values()), what="the killed programs to be gone")
    dev.run("up", "-d")
    assert dev.curl("/healthz")[0] == 200
    assert not any(is_running(pid) for pid in workers)
    workers = children(dev.pids()["nginx"])
    os.kill(dev.pids()["nginx"], signal.SIGKILL)
    dev.run("down")
    wait_for(lambda: not any(is_running(pid) for pid in workers), what="nginx's workers to be gone")


@pytest.mark.parametrize("setting", ["HTTPS_PORT", "SMTP_PORT"])
def test_a_taken_port(dev, setting):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", int(dev.env[setting])))
        taken.listen()
        complaint = dev.run("up", "-d", status=1)
        assert f"port {dev.env[setting]} is taken by" in complaint
        assert f"(pid {os.getpid()})" in complaint
        assert f"{setting}=" in complaint
    assert dev.pids() == {}


def test_a_wrong_setting_leaves_nothing_behind(dev):
    assert "EXPIRE_MINUTES=soon" in dev.run("up", "-d", status=1, EXPIRE_MINUTES="soon")
    assert "LIMITS" in dev.run("up", "-d", status=1, LIMITS="maybe")
    assert "HTTPS_PORT" in dev.run("up", "-d", status=1, HTTPS_PORT="99999")
    assert dev.pids() == {}


def test_a_start_that_fails_half_way_is_taken_back(dev):
    """nginx cannot open its log: what ran by then is stopped."""
    (dev.local / "log" / "access.log").mkdir(parents=True)
    assert "nginx ended while it started" in dev.run("up", "-d", status=1)
    assert dev.pids() == {}
    (dev.local / "log" / "access.log").rmdir()
    dev.run("up", "-d")


def test_settings_reach_the_programs(dev):
    dev.run("up", "-d", EXPIRE_MINUTES="1", APP_NAME="Corner Shop", LIMITS="on")
    status, text = dev.curl("/generate-password", {"email": "jane@example.com"})
    assert (status, json.loads(text)["expires_in"]) == (200, 60)
    assert "Subject: Your Corner Shop code" in dev.run("mail")
    assert 429 in {dev.curl("/generate-password", {})[0] for _ in range(20)}


@pytest.mark.parametrize("program", ["worker", "generate", "nginx", "postgres"])
def test_in_the_foreground_a_program_that_ends_ends_all(dev, program):
    foreground = dev.start_foreground()
    pids = dev.pids()
    os.kill(pids[program], signal.SIGKILL)
    output = foreground.communicate(timeout=60)[0]
    assert f"{program} has ended" in output
    assert foreground.returncode == 1
    assert not any(is_running(pid) for pid in pids.values())


@pytest.mark.parametrize("way", ["ctrl-c", "down"])
def test_ways_to_stop_the_foreground(dev, way):
    foreground = dev.start_foreground()
    pids = dev.pids()
    if way == "down":
        dev.run("down")
    else:
        foreground.send_signal(signal.SIGINT)
    output = foreground.communicate(timeout=60)[0]
    assert "Stopped" in output, f"status {foreground.returncode}: {output!r}"
    assert foreground.returncode == 0
    assert not any(is_running(pid) for pid in pids.values())


def test_a_dead_program_is_noticed_by_the_next_up(dev):
    dev.run("up", "-d")
    os.kill(dev.pids()["validate"], signal.SIGKILL)
    wait_for(lambda: "validate   does not run" in dev.run("status", status=1), what="status to tell")
    dev.run("up", "-d")
    assert dev.curl("/healthz/validate")[0] == 200


def test_unknown_commands_are_refused(dev):
    assert "no such command: upp" in dev.run("upp", status=1)
    assert "./dev up" in dev.run("help")
