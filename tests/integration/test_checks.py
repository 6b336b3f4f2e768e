"""./dev's checks do what they say: a tool that crashes fails, a step that does not exist is refused, silence is broken."""
import os
import pty
import re
import subprocess
import time

import pytest

from stack import BUILD, ROOT
from stack.checkout import copy_checkout


@pytest.fixture
def stub(tmp_path):
    """stub(name, script) puts a program in front of the real one; returns the environment to use."""
    def make(name, script):
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        return {**os.environ, "PATH": f"{path.parent}:{os.environ['PATH']}", "OTP_BUILD": str(BUILD),
                "OTP_LOCAL": str(tmp_path / "local")}
    return make


def run(command, env, status, cwd=ROOT):
    done = subprocess.run(command, env=env, cwd=cwd, check=False, text=True, timeout=300, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert done.returncode == status, done.stdout
    return done.stdout


@pytest.mark.parametrize("how", ["kill -SEGV $$", "exit 3"])
@pytest.mark.parametrize("check, tool", [("format", "clang-format"), ("clang-tidy", "clang-tidy"), ("cppcheck", "cppcheck"),
                                         ("shell", "shellcheck")])
def test_a_tool_that_crashes_fails_the_check(stub, check, tool, how):
    env = stub(tool, f'[ "$1" != --version ] || {{ echo version 14.0.6; exit 0; }}\n{how}')
    assert f"not ok 1 - style: {check}" in run(["tests/style/run", check], env, 1)


def test_another_formatter_is_no_verdict(stub):
    """A version that the tree does not name: skipped, and it says why."""
    output = run(["tests/style/run", "format"], stub("clang-format", "echo version 99.1"), 0)
    assert "ok 1 - style: format # SKIP" in output and "clang-format 99 is here; this tree is formatted by: 14 19" in output


def test_a_step_that_does_not_exist_is_refused(stub):
    """Before anything is done, and the steps are named."""
    output = run(["./dev", "check", "sql", "integraton"], stub("make", "exit 1"), 1)
    assert "no such step: integraton" in output and "integration" in output.split("there are:")[1] and "passed" not in output


def test_a_blank_in_the_path_is_named(stub, tmp_path):
    """autoconf cannot have one: that is what the complaint says."""
    folder = tmp_path / "a blank"
    folder.mkdir()
    (folder / "dev").write_bytes((ROOT / "dev").read_bytes())
    for command in ("build", "check"):
        assert "no blank in a path" in run(["bash", folder / "dev", command], stub("make", "exit 0"), 1)


BUSY = """
[ "$1" = update ] || exit 0
touch "$0.tries"; echo x >>"$0.tries"
[ "$(wc -l <"$0.tries")" -gt 2 ] && exit
echo "E: Could not get lock /var/lib/dpkg/lock-frontend. It is held by process 1 (apt-get)"
exit 100
"""


@pytest.mark.skipif(os.getuid() != 0, reason="it would ask for a password")
def test_apt_at_work_elsewhere_is_waited_for(stub):
    stub("make", "exit 1")
    stub("dpkg-query", "exit 1")
    output = run(["./dev", "build"], stub("apt-get", BUSY), 1)
    assert output.count("Waiting for another apt to finish: E: Could not get lock") == 1
    assert "Building" in output, "it did not go on"


@pytest.mark.skipif(os.getuid() != 0, reason="it would ask for a password")
def test_packages_that_cannot_be_had_are_a_failure(stub):
    stub("dpkg-query", "exit 1")
    output = run(["./dev", "build"], stub("apt-get", "echo E: Unable to locate package; exit 100"), 1)
    assert "Unable to locate package" in output and "could not be installed" in output


def test_progress_elsewhere_is_a_line_now_and_then(stub):
    env = stub("make", "echo working; sleep 3.5; exit 1")
    lines = run(["./dev", "build"], {**env, "PROGRESS_SECONDS": "1"}, 1).splitlines()
    assert 2 <= len([line for line in lines if re.fullmatch(r"Building: \d+ s so far", line)]) <= 4, lines


def test_progress_on_a_terminal_is_a_line_that_moves(stub):
    """The label, the seconds, and the end of the log, rewritten in place."""
    env = stub("make", "echo compiling a file; sleep 3; exit 1")
    ours, theirs = pty.openpty()
    process = subprocess.Popen(["./dev", "build"], env=env, cwd=ROOT, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    output = b""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        try:
            output += os.read(ours, 4096)
        except OSError:  # the other side has closed
            break
    os.close(ours)
    assert process.wait(10) == 1
    assert re.search(rb"\r\x1b\[KBuilding [12] s  compiling a file", output), output


def test_a_clone_interrupted_and_moved(tmp_path):
    """Ctrl-C while configure was being made, and a checkout that is moved after it was built: the next build mends both."""
    first, second = tmp_path / "first", tmp_path / "second"
    copy_checkout(first)
    first.chmod(0o755)
    (first / "configure").write_text("#!/bin/sh\nexit 1\n")
    (first / "configure").chmod(0o755)
    env = {key: value for key, value in os.environ.items() if key not in ("OTP_BUILD", "OTP_LOCAL")}
    run(["./dev", "build"], env, 0, first)
    assert (first / ".local" / "build" / "otp-worker").exists()
    first.rename(second)
    (second / "src" / "worker.c").touch()
    run(["./dev", "build"], env, 0, second)
    assert str(first) not in (second / ".local" / "build" / "Makefile").read_text()


def test_a_clone_on_a_machine_that_likes_crlf(tmp_path):
    """Whatever git's settings there are: lines end in LF, and bytes of the fuzzer's corpus stay as they are."""
    source, clone = tmp_path / "source", tmp_path / "clone"
    copy_checkout(source)
    commit = ["-c", "user.name=a", "-c", "user.email=a@example.com", "commit", "-qm", "all"]
    for command in (["init", "-q"], ["add", "-A"], commit):
        run(["git", "-C", source, *command], os.environ, 0)
    run(["git", "clone", "-q", "-c", "core.autocrlf=true", "-c", "core.eol=crlf", source, clone], os.environ, 0)
    names = run(["git", "-C", clone, "ls-files"], os.environ, 0).split("\n")[:-1]
    assert len(names) > 100
    changed = [name for name in names if (clone / name).read_bytes() != (source / name).read_bytes()]
    assert changed == []


def test_up_needs_no_package_of_the_checks():
    """What ./dev up runs imports neither psycopg nor pytest."""
    script = "import sys\nfor name in ('psycopg', 'pytest'): sys.modules[name] = None\nimport stack.local, stack.catcher"
    run(["/usr/bin/python3", "-B", "-c", script], {**os.environ, "PYTHONPATH": str(ROOT / "tests")}, 0)
