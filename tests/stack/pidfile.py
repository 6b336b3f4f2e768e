"""Pid files: they find a process again that was started by another command, in another terminal, or before a crash."""
import contextlib
import os
import signal
from pathlib import Path

from .process import is_running
from .wait import NotReady, wait_for

BOOT = Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def identity_of(pid):
    """Identifies a process for ever: a pid comes again, but not with its start (in clock ticks) in the same boot."""
    with contextlib.suppress(OSError):
        return f"{pid} {Path(f'/proc/{pid}/stat').read_text().rsplit(')', 1)[1].split()[19]} {BOOT}"
    return None


def has_members(group):
    """Does any process of this group run?"""
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, its_group = path.read_text().rsplit(")", 1)[1].split()[:3]
            if its_group == str(group) and state not in "ZX":
                return True
    return False


class PidFile:
    """Which process a program of the stack is."""

    def __init__(self, path):
        self.path = path

    def read(self):
        """(pid, identity) as noted, or (0, "")."""
        noted = self.path.read_text().strip() if self.path.exists() else ""
        first = noted.split(" ")[0]
        return (int(first), noted) if first.isdigit() else (0, "")

    def write(self, pid):
        self.path.write_text(f"{identity_of(pid)}\n")

    def pid(self):
        """The program's pid if it runs; a file that names another process counts for nothing."""
        pid, noted = self.read()
        return pid if pid and identity_of(pid) == noted and is_running(pid) else None

    def kill_group(self):
        """Ends what a program that was killed left behind, such as nginx's workers: the rest of its process group, whose
        number no process gets as its pid as long as the group exists."""
        pid, noted = self.read()
        if pid and noted.endswith(BOOT) and identity_of(pid) in (None, noted) and has_members(pid):
            os.killpg(pid, signal.SIGKILL)
            wait_for(lambda: not has_members(pid), 20, interval=0.02)

    def stop(self, number):
        """Ends the program: gently, and by force if that has no effect for 20 seconds; False if it took force."""
        pid = self.pid()
        gently = True
        if pid:
            os.kill(pid, number)
            try:
                wait_for(lambda: not self.pid(), 20, interval=0.02)
            except NotReady:
                gently = False
                os.kill(pid, signal.SIGQUIT if number == signal.SIGINT else signal.SIGKILL)
                wait_for(lambda: not self.pid(), 60, interval=0.02)
        self.kill_group()
        self.path.unlink(missing_ok=True)
        return gently
