"""pytest fixtures: one stack per session, brought back to its usual state before each test."""
import signal
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE / "integration")]

from stack.harness import Harness  # noqa: E402


def pytest_configure(config):
    """A pytest that is told to end ends like any program: its own processes are stopped on the way out."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))


@pytest.fixture(scope="session", autouse=True)
def enterable(tmp_path_factory):
    """Programs run as users of their own, who must get through the folders that pytest makes for itself alone."""
    base = tmp_path_factory.getbasetemp()
    for folder in (base, *base.parents):
        if folder.name.startswith(("pytest-", "popen-")):
            folder.chmod(0o755)


@pytest.fixture(scope="session")
def session_stack():
    """The stack, started on first use; at the end every process must stop cleanly."""
    stack = Harness()
    yield stack
    problems = stack.close()
    assert not problems, "\n".join(problems)


@pytest.fixture
def stack(session_stack):
    """The whole stack in its usual state with empty tables."""
    session_stack.ensure()
    return session_stack


@pytest.fixture
def database(session_stack):
    """The stack with PostgreSQL alone needed: empty tables, programs may or may not run."""
    session_stack.ensure_database()
    return session_stack


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """A failed test shows the ends of all logs."""
    report = (yield).get_result()
    stack = item.funcargs.get("session_stack") if hasattr(item, "funcargs") else None
    if report.failed and call.when == "call" and stack is not None:
        report.sections.append(("logs of the stack", stack.logs()))
