"""A first database host that does not serve, and a real synchronous standby that takes over under load. The seconds are
printed (pytest -s)."""
import contextlib
import shutil
import signal
import socket
import subprocess
import time

import pytest

from memory import Clients
from stack import as_service, free_port, give_to_service, pg_bin, wait_for
from stack.postgres import Postgres


class Standby(Postgres):
    """A hot standby of the stack's PostgreSQL, by streaming replication."""

    def __init__(self, stack):
        self.folder = stack.folder / "standby"
        self.folder.mkdir()
        (self.folder / "socket").mkdir()
        give_to_service(self.folder)
        super().__init__(self.folder / "pg", self.folder / "socket", stack.launch, hot_standby="on", max_connections=200)
        subprocess.run([*as_service(self.folder), pg_bin("pg_basebackup"), "-D", self.data, "-R", "-X", "stream", "-c", "fast", "--no-sync",
                        "-d", f"{stack.postgres.conninfo()} application_name=standby"], check=True, cwd="/", stderr=subprocess.PIPE)
        self.start(wait=False)
        self.process.wait_ready(lambda: self.psql("select pg_is_in_recovery()", "postgres") == "t")

    def promote(self):
        self.psql("select pg_promote(wait => false)", "postgres")

    def close(self):
        self.stop()
        shutil.rmtree(self.folder)


@pytest.fixture
def standby(stack):
    server = Standby(stack)
    yield server
    server.close()


def conninfo(kind, *servers):
    """servers: (host, port)"""
    hosts, ports = zip(*servers, strict=True)
    return f"host={','.join(map(str, hosts))} port={','.join(map(str, ports))} dbname=otp user=otp_{kind}"


@contextlib.contextmanager
def silent_host():
    """Takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield "127.0.0.1", listener.getsockname()[1]


@contextlib.contextmanager
def full_host():
    """Its backlog is full: who connects hears nothing at all, as from an address that nobody has."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener, contextlib.ExitStack() as crowd:
        while True:
            one = crowd.enter_context(socket.socket())
            one.settimeout(0.3)
            try:
                one.connect(listener.getsockname())
            except TimeoutError:
                break
        yield "127.0.0.1", listener.getsockname()[1]


@contextlib.contextmanager
def refusing_host():
    yield "127.0.0.1", free_port()


def seconds_to_serve(stack, first):
    """How long a responder takes that finds `first` in front of the server that works."""
    stack.stop_responder("validate", 0)
    begin = time.monotonic()
    stack.start_responder("validate", 0, DATABASE_URL=conninfo("validate", first, (stack.postgres.socket, 5432)))
    return time.monotonic() - begin


@pytest.mark.parametrize("first, most", [(silent_host, 5), (full_host, 5), (refusing_host, 2)])
def test_a_first_host_that_is_none(stack, first, most):
    """A host that takes connections and says nothing, one that does not even take them, one that refuses them."""
    with first() as server:
        took = seconds_to_serve(stack, server)
    print(f"{first.__name__}: {took:.2f} s until the second host serves")
    assert took < most


def test_a_first_host_that_is_no_primary(stack, standby):
    """A hot standby in front is passed over, and so is a whole server that is stopped (SIGSTOP), its socket still there."""
    took = seconds_to_serve(stack, (standby.socket, 5432))
    standby.freeze()
    try:
        frozen = seconds_to_serve(stack, (standby.socket, 5432))
    finally:
        standby.thaw()
    print(f"hot standby: {took:.2f} s until the second host serves; frozen: {frozen:.2f} s")
    assert took < 2 and frozen < 5


@pytest.mark.parametrize("fate", ["kill", "freeze"])
def test_p1_p4_a_synchronous_standby_is_promoted_under_load(stack, standby, fate):
    """P1, P4: the primary dies or freezes under load and its synchronous standby is promoted: every token that was answered
    is there, with its mail, and every guess that was counted; service goes on within seconds."""
    stack.close_admin()
    stack.postgres.stop()
    stack.postgres.start(synchronous_standby_names="standby")
    wait_for(lambda: stack.query("select sync_state from pg_stat_replication") == [("sync",)], 30, "the standby to be synchronous")
    servers = ((stack.postgres.socket, 5432), (standby.socket, 5432))
    for name in list(stack.responders):
        kind, number = name.split("-")
        stack.stop_responder(kind, int(number))
        stack.start_responder(kind, int(number), DATABASE_URL=conninfo(kind, *servers))
    with Clients(stack) as clients:
        wait_for(lambda: clients.tokens() > 200, 60, "traffic")
        fallen = time.monotonic()
        getattr(stack.postgres, fate)()
        stack.close_admin()
        standby.promote()
        away = wait_for(lambda: clients.first(503, fallen), 20, "the primary to be missed")
        served = wait_for(lambda: clients.first(200, away), 20, "service after the failover")
        before = clients.tokens()
        wait_for(lambda: clients.tokens() > before + 50, 30, "traffic to go on")
    print(f"{fate}: {served - fallen:.2f} s to the first 200")
    with standby.connect() as connection:
        clients.check(connection)
    assert served - fallen < 10
    if fate == "freeze":
        stack.postgres.thaw()
        stack.postgres.stop(signal.SIGQUIT)  # it waits for its standby
