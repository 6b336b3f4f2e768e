"""The documents' commands to the letter: every sh block, in order. Those for a checkout run against a stack of ./dev on other
ports, those of docs/OPERATIONS.md on a machine of their own."""
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

import machine
from stack import BUILD, ROOT, free_port
from stack.checkout import copy_checkout

CHECKOUT = ["README.md", "docs/API.md", "docs/CONFIGURATION.md", "CONTRIBUTING.md"]
MACHINE = ["docs/OPERATIONS.md"]
EXCUSED = re.compile(r"<!-- not run by the tests: (\S.*) -->")
CALL = re.compile(r"<!-- the tests call: (\w+) -->")
FLAWED = re.compile(r"```(sh|bash|shell|console)\b.+|```(bash|shell|console)\b")


def parts(text):
    """The document as a script: (line, commands) of each ```sh block that no comment right above excuses with its reason, and of
    each call that a comment asks for."""
    found, lines, above, number = [], text.splitlines(), "", 0
    while number < len(lines):
        line = lines[number]
        if line.strip() == "```sh":
            end = lines.index("```", number)
            if not EXCUSED.fullmatch(above):
                found.append((number + 2, "\n".join(lines[number + 1:end])))
            number = end
        elif call := CALL.fullmatch(line):
            found.append((number + 1, call[1]))
        if line.strip():
            above = line.strip()
        number += 1
    return found


def script_of(names):
    """All of some documents as one session of one shell: a later block uses the variables of an earlier one."""
    script = ""
    for name in names:
        for number, commands in parts((ROOT / name).read_text()):
            script += f"echo '== {name}:{number}'\n{commands}\n"
    return script


def test_the_extractor():
    """Blocks and calls in order; those of other languages and excused ones left out."""
    text = ("a\n```sh\none\ntwo\n```\n```json\n{}\n```\n<!-- not run by the tests: needs a server -->\n```sh\nthree\n```\n"
            "<!-- the tests call: look -->\n\n```sh\nfour\n```\n<!-- not run by the tests: -->\n```sh\nfive\n```\n")
    assert parts(text) == [(3, "one\ntwo"), (13, "look"), (16, "four"), (20, "five")]


def test_every_document_is_run():
    """No document with commands is left out, and no block is one in name only."""
    documents = [path for path in (ROOT, ROOT / "docs") for path in path.glob("*.md")]
    for path in documents:
        text = path.read_text()
        name = str(path.relative_to(ROOT))
        assert not FLAWED.search(text), f"{name}: a block of commands is marked ```sh and nothing else"
        assert ("```sh\n" in text) == (name in CHECKOUT + MACHINE), name


@pytest.fixture
def folder():
    """A folder with a short path that every user may enter."""
    with tempfile.TemporaryDirectory(prefix="otp-documents-", dir="/tmp") as name:
        os.chmod(name, 0o755)
        yield Path(name)


@pytest.fixture
def local(folder):
    """The environment of a local stack on other ports, which is down at the end."""
    environment = {**os.environ, "OTP_BUILD": str(BUILD), "OTP_LOCAL": str(folder / "local"),
                   "HTTPS_PORT": str(free_port()), "SMTP_PORT": str(free_port())}
    yield environment
    subprocess.run(["./dev", "down"], cwd=ROOT, env=environment, check=False, stdout=subprocess.DEVNULL, timeout=60)


def test_commands_for_a_checkout(local):
    """README, API, configuration, contributing: the stack comes up; generate, the mail, validate 200, validate again 401 used; a test
    runs by itself and keeps its stack; the checks of style run."""
    script = script_of(CHECKOUT).replace("localhost:8443", f"localhost:{local['HTTPS_PORT']}").replace(".local/", f"{local['OTP_LOCAL']}/")
    done = subprocess.run(["bash", "-c", f"set -eu\n{script}"], cwd=ROOT, env=local, text=True, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, timeout=300, check=False)
    for kept in re.findall(r"kept: (/tmp/otp-\w+)", done.stdout):
        shutil.rmtree(kept, ignore_errors=True)
    assert done.returncode == 0, done.stdout[-6000:]
    for expected in ("Password generated successfully! Please check your email.", "Password validated successfully! Enjoy your access.",
                     '"used"', "kept: /tmp/"):
        assert expected in done.stdout, f"{expected}\n{done.stdout[-6000:]}"


def test_commands_for_a_server(folder):
    """Operations on a machine of its own: install, settings, users, nginx, a code through a relay with TLS and login; a restart; a
    rotation of keys; backup, loss of everything and restore, after which no code of before is valid."""
    if reason := machine.why_not():
        pytest.skip(reason)
    (folder / "work").mkdir()
    copy_checkout(folder / "tree")
    (folder / "script").write_text(script_of(MACHINE))
    status, output = machine.run(folder, 300)
    assert status == 0, output[-8000:]
    for expected in ("Password generated successfully! Please check your email.", "otpd_answers_total", "applied functions"):
        assert expected in output, output[-8000:]
