"""A14: whatever call fails inside a responder, a wrong code never succeeds and nothing is half done."""
from pathlib import Path

import pytest

from stack import address_of, build_shared, is_sanitized, token_id, wait_for

SHIM = Path(__file__).with_name("failnth.c")
preloads = pytest.mark.skipif(is_sanitized(), reason="a preloaded allocator and ASan exclude each other")

FUNCTIONS = ["malloc", "calloc", "read", "recv", "write", "send", "accept4", "epoll_ctl", "epoll_wait", "setsockopt"]
CALLS = [1, 2, 3, 4, 5, 7, 10, 14, 20, 40]


@pytest.fixture(scope="module")
def shim(session_stack):
    return build_shared(SHIM, session_stack.folder / "tmp" / "failnth.so")


class Broken:
    """A responder in which the Nth call of a function fails once it is armed."""

    def __init__(self, stack, kind, function, shim):
        self.stack, self.kind = stack, kind
        self.arm_file = stack.folder / "tmp" / "arm"
        self.journal = stack.folder / "tmp" / "failures"
        for path in (self.arm_file, self.journal):
            path.unlink(missing_ok=True)
        self.process = stack.start_responder(kind, 8, preload=shim, FAIL_FUNCTION=function, FAIL_ARM=self.arm_file, FAIL_LOG=self.journal)

    def arm(self, number, count=1):
        self.arm_file.write_text(f"{number} {count}\n")

    def failures(self):
        return self.journal.read_text().count("failed") if self.journal.exists() else 0

    def request(self, body):
        """An answer, or None when there was none."""
        try:
            # Another connection is open meanwhile, so that this one needs memory of its own.
            with self.stack.fastcgi(f"{self.kind}-8", timeout=4), self.stack.fastcgi(f"{self.kind}-8", timeout=4) as connection:
                return connection.request("POST", f"/{self.kind}-password", body)
        except (EOFError, OSError):
            return None

    def end(self):
        process = self.stack.responders.pop(f"{self.kind}-8")
        if process.is_alive():
            process.kill()


@preloads
@pytest.mark.parametrize("function", FUNCTIONS)
def test_a14_validate_fails_closed(stack, shim, function):
    """A14: each Nth call fails in turn while wrong and right codes are tried: a wrong code is never answered 200, a right
    one at most once, every counted attempt and use agrees with the answers."""
    failed = 0
    for number in CALLS:
        broken = Broken(stack, "validate", function, shim)
        wrong, right = stack.plant("123456"), stack.plant("123456")
        broken.arm(number)
        wrong_answers = [broken.request({"token": wrong, "password": "000000"}) for _ in range(4)]
        right_answers = [broken.request({"token": right, "password": "123456"}) for _ in range(3)]
        assert all(a is None or a.status != 200 for a in wrong_answers), (number, wrong_answers)
        assert sum(a is not None and a.status == 200 for a in right_answers) <= 1, (number, right_answers)
        assert all(a is None or a.status in (200, 400, 401, 500, 503) for a in wrong_answers + right_answers)
        row = stack.challenge(wrong)
        assert row["used_at"] is None
        assert sum(a is not None and a.error == "wrong_password" for a in wrong_answers) <= row["attempts"] <= 4
        if any(a is not None and a.status == 200 for a in right_answers):
            assert stack.challenge(right)["used_at"] is not None
        failed += broken.failures()
        # A single failure is got over: the process serves again, or it has ended and a supervisor would start it.
        if broken.process.is_alive():
            fresh = stack.plant("123456")
            wait_for(lambda fresh=fresh: (answer := broken.request({"token": fresh, "password": "123456"})) and answer.status in (200, 401), 10,
                     f"service after the failure of {function} {number}")
        broken.end()
    assert failed > 0, f"{function} was never called: what does this test?"


@preloads
@pytest.mark.parametrize("function", FUNCTIONS)
def test_a14_p1_generate_is_all_or_nothing(stack, shim, function):
    """A14, P1: each Nth call fails in turn: every token that was returned has its challenge and its mail job."""
    stack.stop_worker()
    failed = 0
    for number in CALLS:
        broken = Broken(stack, "generate", function, shim)
        broken.arm(number)
        for _ in range(5):
            answer = broken.request({"email": address_of()})
            assert answer is None or answer.status in (200, 400, 500, 503), answer
            if answer is not None and answer.status == 200:
                assert stack.query("select count(*) from otp.challenge join otp.mail using (id) where id = %s and sealed is not null",
                                   token_id(answer.token)) == [(1,)]
        failed += broken.failures()
        broken.end()
    assert failed > 0, f"{function} was never called: what does this test?"
    assert stack.query("select (select count(*) from otp.challenge) - (select count(*) from otp.mail)") == [(0,)]


@preloads
def test_a14_lasting_failures(stack, shim):
    """A14: when every allocation fails from one moment on, a wrong code still never succeeds."""
    for function in ("malloc", "calloc", "recv", "send", "write"):
        failed = 0
        for number in (1, 3):
            broken = Broken(stack, "validate", function, shim)
            token = stack.plant("123456")
            broken.arm(number, 100000)
            for _ in range(3):
                answer = broken.request({"token": token, "password": "000000"})
                assert answer is None or answer.status != 200
            assert stack.challenge(token)["used_at"] is None
            failed += broken.failures()
            broken.end()
        assert failed > 0, f"{function} was never called: what does this test?"


BAD_ROWS = {
    "no rows": "return",
    "two rows": "return query select o, 'valid', 4, 'a@example.com' from generate_series(1, cardinality(ids)) o union all select 1, 'valid', 4, 'a@example.com'",
    "an unknown verdict": "return query select o, 'excellent', 4, 'a@example.com' from generate_series(1, cardinality(ids)) o",
    "a null verdict": "return query select o, null::text, 4, 'a@example.com' from generate_series(1, cardinality(ids)) o",
    "an ordinal of nobody": "return query select o + 1, 'valid', 4, 'a@example.com' from generate_series(1, cardinality(ids)) o",
    "ordinal zero": "return query select 0, 'valid', 4, 'a@example.com' from generate_series(1, cardinality(ids)) o",
    "a null ordinal": "return query select null::int, 'valid', 4, 'a@example.com' from generate_series(1, cardinality(ids)) o",
    "valid for nobody": "return query select o, 'valid', 4, null::text from generate_series(1, cardinality(ids)) o",
    "an exception": "raise exception 'broken'",
    "an exception that passes": "raise exception 'broken' using errcode = 'serialization_failure'",
    "a cut answer": "return query select o, 'val', 4, 'a@example.com' from generate_series(1, cardinality(ids)) o",
    "a terminated backend": "perform pg_terminate_backend(pg_backend_pid()); perform pg_sleep(1); return query select o, 'valid', 4, 'a@example.com' from generate_series(1, cardinality(ids)) o",
    "silence": "perform pg_sleep(30)",
}


@pytest.mark.parametrize("label", BAD_ROWS)
def test_a14_bad_answers_of_the_database(stack, label):
    """A14: each way in which the query can fail or answer nonsense: 500 or 503, never 200, and service goes on after it."""
    token = stack.plant("123456")
    definition = stack.query("select pg_get_functiondef('otp.validate'::regproc)")[0][0]
    head, _, _ = definition.partition("AS $function$")
    try:
        stack.query(f"{head}AS $function$ begin {BAD_ROWS[label]}; end $function$")
        for name in ("validate-0", "validate-1"):
            with stack.fastcgi(name) as connection:
                answer = connection.request("POST", "/validate-password", {"token": token, "password": "123456"})
            assert answer.status in (500, 503), (label, answer)
            assert answer.error == ("unavailable" if answer.status == 503 else "internal")
    finally:
        stack.query(definition)
    assert stack.challenge(token)["used_at"] is None
    for name in ("validate-0", "validate-1"):
        stack.wait_responder(stack.responders[name], stack.socket_path(name))
    assert stack.validate(token, "123456").status == 200
