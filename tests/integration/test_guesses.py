"""A3, A4, A5, A6, P3, P4: guesses in parallel, through crashes, at the end of a lifetime."""
import os
import subprocess
import threading
import time
from pathlib import Path

import pytest

from stack import NotReady, address_of, build_shared, is_root, is_sanitized, make_token, metric, token_id, token_raw, wait_for
from swarm import Swarm

CLOCK_SHIM = Path(__file__).with_name("clock.c")


def count(answers):
    """How often each outcome came: 200 or the error's slug; every connection must have had an answer."""
    counts = {}
    for answer in answers:
        if isinstance(answer, Exception):
            raise AssertionError(f"a request got no answer: {answer!r}")
        key = 200 if answer.status == 200 else answer.error
        counts[key] = counts.get(key, 0) + 1
    return counts


class Held:
    """Holds the row of a token, so that requests pile up before it; released at the end of the block."""

    def __init__(self, stack, *tokens):
        self.connection = stack.postgres.connect()
        self.ids = [token_id(t) for t in tokens]
        self.stack = stack

    def __enter__(self):
        self.connection.execute("begin")
        self.connection.execute("select from otp.challenge where id = any(%s) for update", (self.ids,))
        return self

    def wait_for_waiters(self, least=1):
        wait_for(lambda: self.stack.query("select count(*) from pg_stat_activity where wait_event_type = 'Lock'"
                                          " and usename = 'otp_validate'")[0][0] >= least, 5, "a responder to wait for the row")

    def __exit__(self, *_):
        self.connection.execute("commit")
        self.connection.close()


@pytest.fixture
def swarm(stack):
    """200 kept connections, used by many rounds."""
    with Swarm(stack, 200) as swarm:
        yield swarm


ROUNDS = 200 if os.environ.get("OTP_SOAK") else 25


def test_a3_one_success_of_200_parallel_requests(stack, swarm):
    """A3, P3: 200 parallel correct requests over two responder processes, many rounds: one success each."""
    for _ in range(ROUNDS):
        token = stack.plant("123456")
        assert count(swarm.validate_all([(token, "123456")] * 200)) == {200: 1, "used": 199}
        assert stack.challenge(token)["attempts"] == 1


def test_a4_five_evaluated_of_200_parallel_requests(stack, swarm):
    """A4: 200 parallel wrong guesses, many rounds: five are evaluated, each told a different number of attempts left."""
    for _ in range(ROUNDS):
        token = stack.plant("123456")
        answers = swarm.validate_all([(token, "000000")] * 200)
        assert count(answers) == {"wrong_password": 5, "exhausted": 195}
        assert sorted(a.json["attempts_left"] for a in answers if a.error == "wrong_password") == [0, 1, 2, 3, 4]
        assert stack.validate(token, "123456").error == "exhausted"
        row = stack.challenge(token)
        assert row["attempts"] == 5 and row["used_at"] is None


def test_a4_a3_right_and_wrong_mixed(stack, swarm):
    """A3, A4: one right guess among 199 wrong ones: either it came among the first five and won, or nobody did."""
    for _ in range(ROUNDS):
        token = stack.plant("123456")
        counts = count(swarm.validate_all([(token, "123456" if n == 100 else "000000") for n in range(200)]))
        row = stack.challenge(token)
        assert counts.get(200, 0) == (row["used_at"] is not None)
        assert counts.get("wrong_password", 0) + counts.get(200, 0) == row["attempts"] <= 5
        assert sum(counts.values()) == 200 and set(counts) <= {200, "wrong_password", "used", "exhausted"}


@pytest.mark.parametrize("code, expected", [("123456", {200: 1, "used": 999}), ("000000", {"wrong_password": 5, "exhausted": 995})])
def test_a3_a4_one_thousand_parallel_requests(stack, code, expected):
    """A3, A4: 1,000 truly parallel requests with one token, right or wrong, several rounds."""
    with Swarm(stack, 1000) as swarm:
        for _ in range(3):
            token = stack.plant("123456")
            assert count(swarm.validate_all([(token, code)] * 1000)) == expected
            assert stack.validate(token, "123456").error == ("used" if code == "123456" else "exhausted")
            assert stack.challenge(token)["attempts"] == (1 if code == "123456" else 5)


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("code, expected", [("123456", {200: 1, "used": 199}), ("000000", {"wrong_password": 5, "exhausted": 195})])
def test_a3_a4_many_times_in_one_batch(stack, processes, code, expected):
    """A3, A4: the row is held until all 200 requests wait: with one process they would all go into one batch, with two
    into one batch of each."""
    if processes == 1:
        stack.upstreams["validate"] = ["validate-0"]
        stack.ensure_nginx()
    with Swarm(stack, 200) as swarm:
        in_time = 0
        for _ in range(9):
            token, late = stack.plant("123456"), []
            held = Held(stack, token)

            def release(held=held, late=late):
                try:
                    held.wait_for_waiters(processes)
                    wait_for(lambda: sum(metric(stack, f"validate-{n}", "otpd_requests_waiting") for n in range(processes)) >= 200, 0.8)
                except NotReady as problem:
                    late.append(problem)
                held.__exit__()
            held.__enter__()
            answers = swarm.validate_all([(token, code)] * 200, between=release)
            if late:  # a busy machine was too slow for the responders' patience of a second: some were told 503
                continue
            assert count(answers) == expected
            assert stack.challenge(token)["attempts"] == (1 if code == "123456" else 5)
            in_time += 1
            if in_time == 3:
                break
        assert in_time == 3, late


def test_a4_many_tokens_many_times_in_mixed_order(stack, swarm):
    """A4: 20 tokens, ten guesses each, shuffled, in batches of two processes: five evaluated per token."""
    import random
    order = random.Random(4)
    for _ in range(5):
        tokens = [stack.plant("123456") for _ in range(20)]
        guesses = [(t, "000000") for t in tokens] * 10
        order.shuffle(guesses)
        answers = swarm.validate_all(guesses)
        assert count(answers) == {"wrong_password": 100, "exhausted": 100}
        for token in tokens:
            mine = [a.json["attempts_left"] for (t, _), a in zip(guesses, answers, strict=True) if t == token and a.error == "wrong_password"]
            assert sorted(mine) == [0, 1, 2, 3, 4]


def test_a3_each_of_many_tokens_once(stack, swarm):
    """A3: 100 tokens, each twice in the same moment: 100 successes, each with its own address."""
    addresses = [address_of() for _ in range(100)]
    tokens = [stack.plant("123456", email=a) for a in addresses]
    answers = swarm.validate_all([(t, "123456") for t in tokens for _ in range(2)])
    assert count(answers) == {200: 100, "used": 100}
    for index, address in enumerate(addresses):
        pair = answers[2 * index:2 * index + 2]
        assert [a.json["email"] for a in pair if a.status == 200] == [address]


# --- Batches that are rolled back ---

def thawing(stack, process, name, count):
    """Lets a responder go on once nginx has passed it that many requests: they become one batch."""
    path = str(stack.socket_path(name))

    def thaw():
        try:
            wait_for(lambda: Path("/proc/net/unix").read_text().count(path) > count, 2, "the requests to be passed on")
        finally:
            process.thaw()
    process.freeze()
    return thaw


@pytest.mark.parametrize("kind", ["guesses", "asks"])
def test_one_locked_row_costs_the_others_of_its_batch_nothing(stack, kind):
    """A4: 60 requests in one batch, two of them for rows that stay locked: the batch is rolled back, and each goes again alone. The
    others are answered as ever, evaluated once; the two get 503; nobody waits for longer than promised."""
    size = 60
    addresses = [address_of() for _ in range(size)]
    tokens = [stack.plant("123456", email=a) for a in addresses]
    program = "validate" if kind == "guesses" else "generate"
    if kind == "asks":
        stack.stop_responder("generate", 0)
        stack.start_responder("generate", 0, SENDS_PER_HOUR=5)
    stack.upstreams[program] = [f"{program}-0"]
    stack.ensure_nginx()
    for address in (addresses[7], addresses[40]):
        stack.query("insert into otp.address_quota values (%s, array[now() - interval '2 days'])", address)
    process = stack.responders[f"{program}-0"]
    before = metric(stack, f"{program}-0", "otpd_batches_total")
    with stack.postgres.connect() as holder, Swarm(stack, size) as swarm:
        holder.execute("begin")
        holder.execute("select from otp.challenge where id = any(%s) for update", ([token_id(tokens[7]), token_id(tokens[40])],))
        holder.execute("select from otp.address_quota where mailbox = any(%s) for update", ([addresses[7], addresses[40]],))
        thaw = thawing(stack, process, f"{program}-0", size)
        start = time.monotonic()
        if kind == "guesses":
            answers = swarm.validate_all([(t, "123456" if n % 2 else "000000") for n, t in enumerate(tokens)], between=thaw)
        else:
            answers = swarm.generate_all(addresses, between=thaw)
        assert time.monotonic() - start < 3
        holder.execute("rollback")
    assert metric(stack, f"{program}-0", "otpd_batches_total") - before >= size  # they were in one batch, and then alone
    locked = {7, 40}
    assert {n for n, answer in enumerate(answers) if answer.status == 503} == locked
    if kind == "guesses":
        assert count(answers) == {200: 29, "wrong_password": 29, "unavailable": 2}
        assert [stack.challenge(t)["attempts"] for t in tokens] == [0 if n in locked else 1 for n in range(size)]
        assert stack.validate(tokens[7], "123456").status == 200
    else:
        assert {a.status for n, a in enumerate(answers) if n not in locked} == {200}
        assert all(stack.challenge(a.token)["email"] == addresses[n] for n, a in enumerate(answers) if n not in locked)


def test_a_server_that_can_do_nothing_is_not_asked_for_each(stack):
    """A whole batch that fails because nothing can be written is given up after a few tries, and the log is not flooded."""
    stack.upstreams["validate"] = ["validate-0"]
    stack.ensure_nginx()
    tokens = [stack.plant("123456") for _ in range(60)]
    process = stack.responders["validate-0"]
    stack.query("create function public.full_disk() returns trigger language plpgsql as"
                " $$ begin raise exception 'no space left on device' using errcode = 'disk_full'; end $$")
    stack.query("create trigger full_disk before update on otp.challenge for each row execute function public.full_disk()")
    before = len(process.events("database_refused"))
    try:
        with Swarm(stack, 60) as swarm:
            answers = swarm.validate_all([(t, "123456") for t in tokens], between=thawing(stack, process, "validate-0", 60))
    finally:
        stack.query("drop trigger full_disk on otp.challenge")
        stack.query("drop function public.full_disk")
    assert {a.status for a in answers} == {503}
    assert 1 <= len(process.events("database_refused")) - before <= 30
    assert stack.validate(tokens[0], "123456").status == 200


# --- A5 ---

def test_a5_kill_9_of_a_responder_between_guesses(stack):
    """A5, P4: after each answer the responder is killed; no counted guess is lost."""
    stack.upstreams["validate"] = ["validate-0"]
    stack.ensure_nginx()
    token = stack.plant("123456")
    for left in (4, 3, 2, 1, 0):
        assert stack.validate(token, "000000").json["attempts_left"] == left
        stack.responders.pop("validate-0").kill()
        stack.start_responder("validate", 0)
    assert stack.validate(token, "123456").error == "exhausted"


def test_a5_kill_9_of_postgresql_between_guesses(stack):
    """A5, P4: after each answer PostgreSQL is killed with all its processes; after recovery each guess is there."""
    token = stack.plant("123456")
    for left in (4, 3, 2):
        assert wait_for(lambda: stack.validate(token, "000000").json.get("attempts_left"), 20) == left
        stack.postgres.kill()
        stack.close_admin()
        stack.postgres.start()
        assert stack.challenge(token)["attempts"] == 5 - left
    other = stack.plant("123456")
    assert wait_for(lambda: stack.validate(other, "123456").status == 200, 20)
    stack.postgres.kill()
    stack.close_admin()
    stack.postgres.start()
    assert stack.challenge(other)["used_at"] is not None
    assert wait_for(lambda: stack.validate(other, "123456").error == "used", 20)


def test_a5_an_answer_waits_for_the_commit(stack):
    """A5: synchronous_commit is on for the responders, and no answer leaves while the commit is held back."""
    for role in ("otp_generate", "otp_validate", "otp_worker"):
        with stack.postgres.connect(role) as connection:
            assert connection.execute("show synchronous_commit").fetchone() == ("on",)
    token = stack.plant("123456")
    stack.query("create table public.gate ()")
    stack.query("create function public.hold() returns trigger language plpgsql security definer as"
                " $$ begin lock table public.gate in share mode; return null; end $$")
    # A deferred trigger runs at commit, after the statement's own answer is known.
    stack.query("create constraint trigger hold after update on otp.challenge deferrable initially deferred"
                " for each row execute function public.hold()")
    answers = []
    try:
        with stack.postgres.connect() as holder:
            holder.execute("begin")
            holder.execute("lock table public.gate in exclusive mode")
            thread = threading.Thread(target=lambda: answers.append(stack.validate(token, "123456")))
            thread.start()
            wait_for(lambda: stack.query("select count(*) from pg_stat_activity where usename = 'otp_validate'"
                                         " and wait_event_type = 'Lock'")[0][0] == 1, 5, "the commit to be held")
            # An answer that had left too early would be here by now: others have come all the way since.
            assert all(stack.request("GET", "/healthz").status == 200 for _ in range(20))
            assert not answers
            holder.execute("commit")
        thread.join(20)
        assert answers[0].status == 200
    finally:
        stack.query("drop trigger hold on otp.challenge")
        stack.query("drop function public.hold")
        stack.query("drop table public.gate")


def test_a5_acknowledged_guesses_survive_a_storm_of_kills(stack):
    """A5, P3, P4: guesses from four clients while responders and PostgreSQL are killed at random moments: what was
    answered is on disk, no token is accepted twice or evaluated more than five times."""
    import random
    dice = random.Random(5)
    tokens = [stack.plant("123456", max_attempts=5) for _ in range(60)]
    history = {t: [] for t in tokens}
    done = threading.Event()

    def client(seed):
        mine = random.Random(seed)
        connection = stack.http(10)
        while not done.is_set():
            token = mine.choice(tokens)
            code = "123456" if mine.random() < 0.2 else "000000"
            try:
                answer = stack.validate(token, code, connection=connection)
                history[token].append(200 if answer.status == 200 else answer.error)
            except Exception:
                connection.close()
                connection = stack.http(10)
        connection.close()
    threads = [threading.Thread(target=client, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    rounds = 60 if os.environ.get("OTP_SOAK") else 8
    for turn in range(rounds):
        victim = turn % 4
        if victim == 3:
            stack.postgres.kill()
            stack.close_admin()
            stack.postgres.start()
        else:
            number = victim % 2
            stack.responders.pop(f"validate-{number}").kill()
            stack.start_responder("validate", number, wait=False)
        before = sum(len(h) for h in history.values())
        wait_for(lambda: sum(len(h) for h in history.values()) > before + dice.randrange(5, 60), 20, "traffic to go on")
    done.set()
    for thread in threads:
        thread.join(20)
    assert {outcome for h in history.values() for outcome in h} <= {200, "wrong_password", "used", "exhausted", "unavailable"}
    accepted = 0
    for token in tokens:
        row = stack.challenge(token)
        told = history[token]
        accepted += told.count(200)
        assert told.count(200) <= 1
        assert told.count("wrong_password") + told.count(200) <= row["attempts"] <= 5
        if 200 in told:
            assert row["used_at"] is not None
    assert accepted > 0


# --- A6 ---

def test_a6_the_boundary(stack):
    """A6: by the database's clock: a second before the end the code works, at the end it does not."""
    assert stack.validate(stack.plant(lifetime=1.5), "123456").status == 200
    token = stack.plant(lifetime=1.0)
    assert stack.validate(token, "000000").error == "wrong_password"
    wait_for(lambda: stack.query("select clock_timestamp() >= expires_at from otp.challenge where id = %s", token_id(token))[0][0], 5)
    answer = stack.validate(token, "123456")
    assert answer.error == "expired"
    assert stack.challenge(token)["attempts"] == 1
    assert stack.validate(stack.plant(lifetime=-1), "123456").error == "expired"


def test_a6_expire_minutes_is_what_is_stored(stack):
    """A6: ten minutes by default, and EXPIRE_MINUTES otherwise, counted from the database's own clock."""
    tokens = [stack.generate().token]
    stack.stop_responder("generate", 0)
    stack.start_responder("generate", EXPIRE_MINUTES=1)
    tokens.append(stack.generate().token)
    spans = [stack.query("select extract(epoch from expires_at - created_at)::int, extract(epoch from clock_timestamp() - created_at) < 5"
                         " from otp.challenge where id = %s", token_id(t))[0] for t in tokens]
    assert spans == [(600, True), (60, True)]


@pytest.fixture(scope="module")
def clock_shim(session_stack):
    return build_shared(CLOCK_SHIM, session_stack.folder / "tmp" / "clock.so")


@pytest.mark.skipif(not is_root(), reason="only root may look into a process that is not dumpable")
@pytest.mark.skipif(is_sanitized(), reason="a preloaded clock and ASan exclude each other")
@pytest.mark.parametrize("skew", [-3600, 3600])
def test_a6_a_responders_wrong_clock_changes_nothing(stack, clock_shim, skew):
    """A6: both responders run an hour off: codes live as long as ever, and expired ones stay expired."""
    for kind, number in (("generate", 0), ("validate", 0), ("validate", 1)):
        stack.stop_responder(kind, number)
        stack.start_responder(kind, number, preload=clock_shim, CLOCK_SKEW=skew)
    generate = stack.responders["generate-0"]
    assert "clock.so" in Path(f"/proc/{generate.pid}/maps").read_text()
    address = address_of()
    answer = stack.generate(address)
    token = answer.token
    assert abs(time.time() - int.from_bytes(token_raw(token)[:6], "big") / 1000) < 60
    assert stack.query("select abs(extract(epoch from expires_at - clock_timestamp()) - 600) < 5 from otp.challenge where id = %s",
                       token_id(token)) == [(True,)]
    assert stack.validate(token, stack.smtp.wait(address).code).status == 200
    assert stack.validate(stack.plant(lifetime=-1), "123456").error == "expired"
    assert stack.validate(stack.plant(lifetime=5), "123456").status == 200


# --- A13 ---

def timings(stack, tokens, rounds):
    """Seconds per request for each kind of token, interleaved, over one connection to the responder itself."""
    samples = {kind: [] for kind in tokens}
    with stack.fastcgi("validate-0") as connection:
        for turn in range(rounds):
            for kind, make in tokens.items():
                body = b'{"token":"%s","password":"000000"}' % make(turn).encode()
                start = time.perf_counter()
                answer = connection.request("POST", "/validate-password", body)
                samples[kind].append(time.perf_counter() - start)
                assert answer.status == 401
    return samples


def test_a13_timing_of_unknown_and_known_tokens(stack):
    """A13: the median times of an unknown token and of known ones differ by less than 1 ms over 10,000 requests, and so
    do those of unknown tokens in whatever shape."""
    rounds = 2500
    known = stack.plant("123456", attempts=5)
    wrong = [stack.plant("123456", max_attempts=2 * rounds)]
    used = stack.plant("123456", used=True)
    samples = timings(stack, {"unknown": lambda turn: make_token(), "exhausted": lambda turn: known, "wrong": lambda turn: wrong[0],
                              "used": lambda turn: used}, rounds)
    medians = {kind: sorted(s)[len(s) // 2] for kind, s in samples.items()}
    for kind in ("exhausted", "used"):
        assert abs(medians[kind] - medians["unknown"]) < 0.001, medians
    # A counted guess waits for the disk (A5), which an unknown token does not; its holder knows that the token exists.
    assert medians["wrong"] < 0.05, medians


def test_a13_one_uniform_answer(stack):
    """A13: an unknown, a malformed and a swept token cannot be told apart by their answers."""
    swept = stack.plant(age=90000, lifetime=-89000)
    with stack.postgres.connect("otp_worker") as connection:
        assert connection.execute("select deleted from otp.sweep(null, 3600, 10)").fetchone() == (1,)
    answers = [stack.validate(t, "123456") for t in (make_token(), swept, "x", "A" * 43, make_token(0))]
    assert len({(a.status, a.body, tuple(sorted((k, v) for k, v in a.headers.items() if k not in ("x-request-id", "date")))) for a in answers}) == 1
    # And generate does not tell whether an address is known.
    address = address_of()
    one, two = stack.generate(address), stack.generate(address)
    assert one.status == two.status == 200 and {**one.json, "token": "", "reference": ""} == {**two.json, "token": "", "reference": ""}


def test_helpers_notice_a_lost_answer():
    """count() does not pass over a connection that failed."""
    with pytest.raises(AssertionError):
        count([EOFError()])


def test_clock_shim_works(clock_shim):
    """The shim does skew a clock."""
    done = subprocess.run(["/bin/date", "+%s"], env={"LD_PRELOAD": str(clock_shim), "CLOCK_SKEW": "-3600"}, check=True, stdout=subprocess.PIPE)
    assert abs(time.time() - 3600 - int(done.stdout)) < 5
