"""A real full disk under PostgreSQL: a small tmpfs that holds all of it, log of writes included."""
import contextlib
import shutil
import subprocess
import time

import pytest

from memory import Clients
from stack import give_to_service, is_root, wait_for
from stack.postgres import Postgres

DISK_BYTES = 160 << 20


class Disk:
    """A file system of a few bytes."""

    def __init__(self, folder):
        self.folder = folder
        folder.mkdir()
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "otp-full-disk", folder], check=False, text=True,
                              stderr=subprocess.PIPE)
        if done.returncode != 0:
            folder.rmdir()
            pytest.skip(f"nothing can be mounted here: {done.stderr.strip()}")

    def fill(self):
        with contextlib.suppress(OSError), open(self.folder / "filler", "ab", buffering=0) as filler:
            while filler.write(b"x" * 4096):
                pass

    def empty(self):
        (self.folder / "filler").unlink()

    def close(self):
        subprocess.run(["umount", "--lazy", self.folder], check=True)
        shutil.rmtree(self.folder)


@pytest.fixture
def disk(stack, request):
    if not is_root():
        pytest.skip("only root can mount a disk")
    disk = Disk(stack.folder / "disk")
    request.addfinalizer(disk.close)
    return disk


@pytest.fixture
def server(stack, disk, request):
    """A server on the disk, which all programs use."""
    (disk.folder / "socket").mkdir()
    give_to_service(disk.folder)
    server = Postgres(disk.folder / "pg", disk.folder / "socket", stack.launch, max_wal_size="32MB", min_wal_size="32MB",
                      shared_buffers="16MB", max_connections=50)
    server.make("--no-sync")
    server.start()
    request.addfinalizer(server.stop)
    server.create()
    stack.stop_worker()
    stack.start_worker(wait=False, DATABASE_URL=server.conninfo("otp_worker"))
    for name in list(stack.responders):
        kind, number = name.split("-")
        stack.stop_responder(kind, int(number))
        stack.start_responder(kind, int(number), DATABASE_URL=server.conninfo(f"otp_{kind}"))
    return server


@pytest.mark.parametrize("what", ["rows", "log"])
def test_p1_p4_a_full_disk(stack, disk, server, what):
    """P1, P4: no row can be added, or the log of writes cannot go on and the server panics: 503 in time, nothing half done,
    nothing lost of what was answered, and service by itself when there is room again."""
    programs = {name: process.pid for name, process in {**stack.responders, **stack.workers}.items()}
    with Clients(stack) as clients:
        wait_for(lambda: clients.tokens() > 100, 60, "traffic")
        disk.fill()
        full = time.monotonic()
        wait_for(lambda: clients.count(503, full) > 20, 60, "the disk to be missed")
        first = server.process
        if what == "log":
            with contextlib.suppress(subprocess.CalledProcessError):  # the panic ends the session
                for _ in range(9):
                    server.psql("select pg_switch_wal(); select pg_logical_emit_message(false, 'x', repeat('x', 9999))")
        disk.empty()
        room = time.monotonic()

        def serves():
            if not server.is_alive():  # it could not even recover: a supervisor starts it again
                server.start(wait=False)
            return clients.first(200, room)
        served = wait_for(serves, 30, "service with room")
        before = clients.tokens()
        wait_for(lambda: clients.tokens() > before + 50, 30, "traffic to go on")
    assert ("PANIC" in first.output()) == (what == "log")
    print(f"{what}: {served - room:.2f} s from room to the first 200, the slowest answer took {max(c.slowest for c in clients):.2f} s")
    assert {name: process.pid for name, process in {**stack.responders, **stack.workers}.items()} == programs
    assert max(client.slowest for client in clients) < 4
    with server.connect() as connection:
        clients.check(connection)
