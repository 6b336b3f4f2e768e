"""PostgreSQL away, slow, stuck, refusing: what the client sees and what is stored."""
import time

import pytest

from stack import NotReady, address_of, make_token, metric, token_id, wait_for
from swarm import Swarm, Traffic


def consistent(stack):
    """Every challenge has its mail and every mail its challenge; attempts within bounds; used implies an attempt."""
    assert stack.query("select count(*) from otp.challenge c full join otp.mail m using (id) where c.id is null or m.id is null") == [(0,)]
    assert stack.query("select count(*) from otp.challenge where attempts > max_attempts or (used_at is not null and attempts = 0)") == [(0,)]


class Gate:
    """Holds back every insert into otp.challenge from the moment it is entered until open() is called."""

    def __init__(self, stack):
        self.stack = stack
        stack.query("create table public.gate ()")
        stack.query("create function public.gate() returns trigger language plpgsql security definer as"
                    " $$ begin lock table public.gate in share mode; return null; end $$")
        stack.query("create trigger gate before insert on otp.challenge for each statement execute function public.gate()")

    def fire(self, swarm, addresses, probe, rise):
        """Requests for all addresses while the gate is closed; it opens once probe() has risen so far. The whole is tried again where a
        busy machine was too slow for the responders' patience of a second."""
        for attempt in range(4):
            late, base = [], probe()
            self.stack.truncate()
            holder = self.stack.postgres.connect()
            holder.execute("begin")
            holder.execute("lock table public.gate in exclusive mode")

            def release(late=late, holder=holder, base=base):
                try:
                    wait_for(lambda: probe() - base >= rise, 0.8)
                except NotReady as problem:
                    late.append(problem)
                holder.execute("commit")
                holder.close()
            start = time.monotonic()
            answers = swarm.generate_all(addresses, between=release)
            if not late:
                return answers, time.monotonic() - start
        raise late[0]

    def remove(self):
        self.stack.query("drop trigger gate on otp.challenge")
        self.stack.query("drop function public.gate")
        self.stack.query("drop table public.gate")


def generate(stack, connection):
    address = address_of()
    return address, stack.generate(address, connection=connection)


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_p1_postgresql_stopped_and_started_under_traffic(stack, how):
    """P1: 503 with Retry-After while it is away, 200 soon after it is back, the processes stay up; every token returned
    has challenge and mail job, and nothing is half done."""
    pids = {name: process.pid for name, process in stack.responders.items()}
    with Traffic(stack, generate) as traffic:
        wait_for(lambda: len(traffic.results) > 50, 20)
        for _ in range(2):
            if how == "stop":
                stack.postgres.stop()
            else:
                stack.postgres.kill()
            stack.close_admin()
            before = len(traffic.results)
            wait_for(lambda b=before: len(traffic.results) > b + 20, 20)
            assert any(r[1].status == 503 for r in traffic.results[before:] if not isinstance(r, Exception))
            stack.postgres.start()
            start = time.monotonic()
            before = len(traffic.results)
            wait_for(lambda b=before: any(not isinstance(r, Exception) and r[1].status == 200 for r in traffic.results[b:]), 10, "200 again")
            assert time.monotonic() - start < 5
    assert not [r for r in traffic.results if isinstance(r, Exception)]
    statuses = {}
    for _, answer in traffic.results:
        statuses[answer.status] = statuses.get(answer.status, 0) + 1
        if answer.status == 503:
            assert int(answer.headers["retry-after"]) >= 1 and answer.error == "unavailable"
    assert set(statuses) == {200, 503}, statuses
    tokens = [answer.token for _, answer in traffic.results if answer.status == 200]
    assert stack.query("select count(*) from otp.challenge join otp.mail using (id) where id = any(%s)", [token_id(t) for t in tokens]) == [(len(tokens),)]
    consistent(stack)
    assert {name: process.pid for name, process in stack.responders.items()} == pids
    assert all(process.is_alive() for process in stack.responders.values())


def test_postgresql_away_at_the_start(stack):
    """Programs start without PostgreSQL, answer 503, and connect by themselves when it comes."""
    stack.postgres.stop()
    stack.close_admin()
    for kind, number in (("generate", 0), ("validate", 0), ("validate", 1)):
        stack.stop_responder(kind, number)
        stack.start_responder(kind, number, wait=False)
    stack.workers.pop("worker-0").stop()
    stack.start_worker(wait=False)

    def is_503(path):
        answer = stack.request("POST", path, {"email": address_of(), "token": make_token(), "password": "1"})
        return answer.status == 503 and "retry-after" in answer.headers
    for path in ("/generate-password", "/validate-password"):
        wait_for(lambda path=path: is_503(path), 10)
    assert stack.request("GET", "/healthz").status == 503
    assert stack.request("GET", "/healthz?check=process").status == 200
    stack.postgres.start()
    address = address_of()
    token = wait_for(lambda: (answer := stack.generate(address)).status == 200 and answer.token, 10)
    code = stack.smtp.wait(address, timeout=20).code
    assert wait_for(lambda: stack.validate(token, code).status == 200, 10)
    assert all(process.is_alive() for process in [*stack.responders.values(), *stack.workers.values()])


def test_postgresql_frozen(stack):
    """A server that stops answering: 503 within about 3 s for each of many requests, and normal service once it goes on.
    A guess whose outcome was unknown is told 503 and never success twice."""
    token = stack.plant("123456")
    stack.postgres.freeze()
    try:
        with Swarm(stack, 40) as swarm:
            start = time.monotonic()
            answers = swarm.validate_all([(token if n == 0 else make_token(), "123456") for n in range(40)])
            took = time.monotonic() - start
        assert [a.status for a in answers] == [503] * 40, answers
        assert took < 3.5
        start = time.monotonic()
        assert stack.generate().status == 503
        assert time.monotonic() - start < 3.5
    finally:
        stack.postgres.thaw()
    wait_for(lambda: stack.validate(make_token(), "1").status == 401, 10)
    wait_for(lambda: stack.generate().status == 200, 10)
    row = stack.challenge(token)
    # The unknown outcome is one of the two definite ones; it is not repeated by the responder.
    assert row["attempts"] == (row["used_at"] is not None)
    assert stack.validate(token, "123456").status == (401 if row["used_at"] else 200)


def test_a_slow_statement_is_given_up(stack):
    """A row that stays locked: 503 within 3 s, no success, and the next request is served."""
    token = stack.plant("123456")
    with stack.postgres.connect() as holder:
        holder.execute("begin")
        holder.execute("select from otp.challenge where id = %s for update", (token_id(token),))
        start = time.monotonic()
        answer = stack.validate(token, "123456")
        assert answer.status == 503 and time.monotonic() - start < 3
        holder.execute("rollback")
    assert stack.challenge(token)["attempts"] == 0
    assert stack.validate(token, "123456").status == 200


def test_guesses_in_line_for_a_locked_row_are_given_up_together(stack):
    """Who waits behind a slow guess on one token is answered in time too, and other tokens do not ride along with it."""
    token, other = stack.plant("123456"), stack.plant("654321")
    with stack.postgres.connect() as holder, Swarm(stack, 8) as swarm:
        holder.execute("begin")
        holder.execute("select from otp.challenge where id = %s for update", (token_id(token),))
        start = time.monotonic()
        answers = swarm.validate_all([(token, "123456")] * 8)
        assert [answer.status for answer in answers] == [503] * 8
        assert time.monotonic() - start < 3
        assert stack.validate(other, "654321").status == 200
        holder.execute("rollback")
    assert stack.challenge(token)["attempts"] == 0


def test_a_lost_connection_is_made_again(stack):
    """The server ends our connections: at most one 503 each, then service."""
    for _ in range(5):
        stack.query("select pg_terminate_backend(pid) from pg_stat_activity where usename in ('otp_validate', 'otp_generate', 'otp_worker')")
        wait_for(lambda: stack.validate(make_token(), "1").status == 401, 5)
        wait_for(lambda: stack.generate().status == 200, 5)
    assert all(process.is_alive() for process in [*stack.responders.values(), *stack.workers.values()])


def test_read_only_server_is_no_success(stack):
    """A server that became read-only (a standby after a failover): 503, health included; when it takes writes again the
    responders notice by themselves."""
    token = stack.plant("123456")
    stack.query("alter database otp set default_transaction_read_only = on")
    try:
        stack.query("select pg_terminate_backend(pid) from pg_stat_activity where usename like 'otp_%%' and pid <> pg_backend_pid()")
        for path in ("/healthz", "/healthz/validate"):
            wait_for(lambda path=path: stack.request("GET", path).status == 503, 5)
        for _ in range(10):
            assert stack.validate(token, "123456").status == 503
            assert stack.generate().status == 503
    finally:
        stack.close_admin()
        with stack.postgres.connect(dbname="postgres") as connection:
            connection.execute("alter database otp reset default_transaction_read_only")
    wait_for(lambda: stack.validate(token, "123456").status == 200, 10)


def test_a_session_that_becomes_read_only_is_left(stack):
    """A failover under an open session: its first refused write makes the responder look for a server that takes writes."""
    token = stack.plant("123456")
    for name in [name for name in stack.responders if name.startswith("validate-")]:
        stack.stop_responder("validate", int(name.removeprefix("validate-")))
    stack.start_responder("validate", DATABASE_URL=stack.postgres.conninfo("otp_validate") +
                          " target_session_attrs=any options='-c default_transaction_read_only=on'")
    assert stack.validate(token, "123456").status == 503
    wait_for(lambda: stack.responders["validate-0"].events("database_away"), 5)
    assert stack.challenge(token)["used_at"] is None


@pytest.mark.parametrize("when", ["after insert", "constraint"])
def test_a_poisoned_batch(stack, when):
    """One request that the database refuses, in one batch with 60 others: they succeed, it alone gets 500."""
    stack.query("create function public.refuse() returns trigger language plpgsql as"
                " $$ begin if new.email like 'poison%%' then raise exception 'poisoned'; end if; return null; end $$")
    if when == "constraint":  # fails at commit, after the statement itself has succeeded
        stack.query("create constraint trigger refuse after insert on otp.challenge deferrable initially deferred"
                    " for each row execute function public.refuse()")
    else:
        stack.query("create trigger refuse after insert on otp.challenge for each row execute function public.refuse()")
    gate = Gate(stack)
    try:
        addresses = [address_of() for _ in range(60)]
        addresses.insert(30, address_of("poison"))
        before = metric(stack, "generate-0", "otpd_batches_total")
        with Swarm(stack, 61) as swarm:
            answers, _ = gate.fire(swarm, addresses, lambda: metric(stack, "generate-0", "otpd_requests_waiting"), 61)
        assert [a.status for a in answers] == [200] * 30 + [500] + [200] * 30
        assert answers[30].error == "internal"
        assert metric(stack, "generate-0", "otpd_batches_total") - before >= 2
        consistent(stack)
        assert stack.query("select count(*) from otp.challenge") == [(60,)]
        for address, answer in zip(addresses, answers, strict=True):
            if answer.status == 200:
                assert stack.challenge(answer.token)["email"] == address
    finally:
        gate.remove()
        stack.query("drop trigger refuse on otp.challenge")
        stack.query("drop function public.refuse")


def test_overload_sheds(stack):
    """More than the queue holds while the database is held up: 503 with Retry-After at once for the rest, no hang, and
    those in the queue are served when it goes on."""
    stack.stop_responder("generate", 0)
    stack.start_responder("generate", 0, QUEUE_MAX=50, BATCH_MAX=10)
    gate = Gate(stack)
    try:
        with Swarm(stack, 300) as swarm:
            answers, took = gate.fire(swarm, [address_of() for _ in range(300)],
                                      lambda: metric(stack, "generate-0", "otpd_answers_total", 'answer="unavailable"'), 250)
        statuses = [a.status for a in answers]
        assert statuses.count(200) == 50 and statuses.count(503) == 250
        assert all("retry-after" in a.headers for a in answers if a.status == 503)
        assert took < 4
    finally:
        gate.remove()
    assert stack.generate().status == 200


def test_sweep_on_schedule_while_validates_run(stack):
    """The worker's sweep: by SWEEP_SECONDS and SWEEP_BATCH, rows go after expiry plus RETENTION_HOURS, in bounded steps,
    while validates are answered definitely."""
    stack.stop_worker()
    stack.query("insert into otp.challenge (id, email, code_mac, mac_key, max_attempts, created_at, expires_at)"
                " select overlay(otp.id_at(clock_timestamp() - interval '26 hours')::text placing lpad(to_hex(g), 8, '0') from 29)::uuid,"
                " 'old@example.com', '\\x00', 1, 5, clock_timestamp() - interval '26 hours', clock_timestamp() - interval '25 hours'"
                " from generate_series(1, 1000) g")
    retained = [stack.plant(age=70000, lifetime=-60000) for _ in range(5)]
    live = stack.plant("123456")
    stack.query("create table public.steps (deleted bigint)")
    stack.query("grant insert on public.steps to public")
    stack.query("create function public.note() returns trigger language plpgsql security definer as"
                " $$ begin insert into public.steps select count(*) from gone; return null; end $$")
    stack.query("create trigger note after delete on otp.challenge referencing old table as gone for each statement execute function public.note()")

    def guess(stack, connection):
        return stack.validate(make_token(), "123456", connection=connection).status
    try:
        with Traffic(stack, guess, threads=2) as traffic:
            wait_for(lambda: len(traffic.results) > 20, 10)
            stack.start_worker(SWEEP_SECONDS=1, SWEEP_BATCH=100)
            wait_for(lambda: stack.query("select count(*) from otp.challenge where email = 'old@example.com'") == [(0,)], 30, "the sweep")
        assert set(traffic.results) == {401}
        steps = [row[0] for row in stack.query("select deleted from public.steps where deleted > 0")]
        assert sum(steps) == 1000 and max(steps) <= 100
        assert all(stack.challenge(t) for t in retained)
        # And again on schedule: a row that becomes due later goes without a restart.
        later = stack.plant(age=95000, lifetime=-90000)
        wait_for(lambda: stack.challenge(later) is None, 10, "the next sweep")
        assert stack.validate(live, "123456").status == 200
    finally:
        stack.query("drop trigger note on otp.challenge")
        stack.query("drop function public.note")
        stack.query("drop table public.steps")
