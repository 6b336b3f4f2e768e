"""PgBouncer between the programs and the database: in session mode all is as without it; transaction mode is named in the log."""
import shutil

import pytest

from memory import Clients
from stack import address_of, as_service, give_to_service, wait_for

PGBOUNCER = shutil.which("pgbouncer", path="/usr/sbin:/usr/bin:/usr/local/bin")
PORT = 6432  # names the socket's file; nothing listens on the network
pytestmark = pytest.mark.skipif(PGBOUNCER is None, reason="pgbouncer is not installed")


@pytest.fixture
def pooler(stack):
    """pooler(mode) starts PgBouncer and lets all programs use it."""
    folder = stack.folder / "pooler"
    folder.mkdir()
    started = []

    def start(mode, *more):
        (folder / "users").write_text("".join(f'"otp_{kind}" ""\n' for kind in ("generate", "validate", "worker")))
        (folder / "pgbouncer.ini").write_text(
            f"[databases]\notp = host={stack.postgres.socket}\n"
            f"[pgbouncer]\nlisten_addr =\nlisten_port = {PORT}\nunix_socket_dir = {folder}\nauth_type = trust\n"
            f"auth_file = {folder}/users\npool_mode = {mode}\n" + "".join(f"{line}\n" for line in more))
        give_to_service(folder)
        process = stack.launch("pgbouncer", [*as_service(folder), PGBOUNCER, folder / "pgbouncer.ini"])
        started.append(process)
        process.wait_ready((folder / f".s.PGSQL.{PORT}").exists)
        stack.stop_worker()
        for name in list(stack.responders):
            kind, number = name.split("-")
            stack.stop_responder(kind, int(number))
            stack.start_responder(kind, int(number), wait=False, DATABASE_URL=f"host={folder} port={PORT} dbname=otp user=otp_{kind}")
        stack.start_worker(wait=False, DATABASE_URL=f"host={folder} port={PORT} dbname=otp user=otp_worker")
        return process
    yield start
    for process in started:
        process.stop()
    shutil.rmtree(folder)


def processes(stack):
    return [*stack.responders.values(), *stack.workers.values()]


def words(process):
    """How loud a process was about the pooler, word for word."""
    return [event["level"] for event in process.events("database_pooler")]


def test_session_mode(stack, pooler):
    """Codes are asked for, mailed and accepted; what a session must keep is kept, wake-ups included."""
    pooler("session")
    for name, process in stack.responders.items():
        stack.wait_responder(process, stack.socket_path(name))
    wait_for(lambda: stack.workers["worker-0"].events("database_up"), 15)
    with Clients(stack) as clients:
        wait_for(lambda: clients.tokens() > 100, 30, "traffic")
    assert not clients.count(503)
    clients.check(stack.admin)
    address = address_of()
    token = stack.generate(address).token
    assert stack.validate(token, stack.smtp.wait(address).code).status == 200
    for process in processes(stack):
        assert set(words(process)) == {"info"} and not process.events("database_away"), process.output()


def test_transaction_mode_is_named(stack, pooler):
    """A session that is another one for each statement: an error says what to do instead, and nothing is answered wrongly."""
    pooler("transaction", "default_pool_size = 1")  # so that sessions of one user do meet
    with Clients(stack) as clients:
        wait_for(lambda: any("error" in words(process) for process in processes(stack)), 30, "the error")
    for process in processes(stack):
        errors = [event["reason"] for event in process.events("database_pooler") if event["level"] == "error"]
        assert all("use session mode or a direct connection" in reason for reason in errors)
        assert words(process).count("info") <= words(process).count("error") + 1, "once, not with every try"
    clients.check(stack.admin)
