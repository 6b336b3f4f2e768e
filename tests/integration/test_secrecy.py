"""A12: no code, token or key in any response, log, SQL text, dump, file of PostgreSQL or core."""
import base64
import re
import signal
from pathlib import Path

import pytest

from stack import address_of, family, is_root, is_sanitized, make_token, token_raw, wait_for


def spellings(value):
    """How a secret could show up: as it is, in hex, in base64, reversed bits of it excluded."""
    raw = value if isinstance(value, bytes) else value.encode()
    found = {raw, raw.hex().encode(), raw.hex().upper().encode(), base64.b64encode(raw).rstrip(b"="), base64.urlsafe_b64encode(raw).rstrip(b"=")}
    return {form for form in found if len(form) >= 8}


def all_files(*folders):
    for folder in folders:
        for path in Path(folder).rglob("*"):
            if path.is_file():
                yield path


def test_a12_no_secret_leaves(stack):
    """A12: canaries are searched in nginx's, the programs' and PostgreSQL's logs (log_statement=all with parameters,
    also of failing statements), in pg_dump, in the data files and the WAL, in metrics, and in every HTTP answer."""
    stack.postgres.stop()
    stack.close_admin()
    stack.postgres.start(log_statement="all", log_parameter_max_length=-1, log_parameter_max_length_on_error=-1,
                         log_min_duration_statement=0, log_connections="on", debug_print_plan="off", log_min_messages="debug1")
    for kind, number in (("generate", 0), ("validate", 0), ("validate", 1)):
        stack.stop_responder(kind, number)
        stack.start_responder(kind, number, LOG_LEVEL="debug", **({"PASSWORD_LENGTH": 12} if kind == "generate" else {}))
    stack.stop_worker()
    stack.start_worker(LOG_LEVEL="debug")
    log_starts = {path: path.stat().st_size for path in all_files(stack.log)}

    answers, codes, tokens = [], [], []
    for _ in range(5):
        address = address_of()
        answer = stack.generate(address)
        answers.append(answer.body.replace(answer.token.encode(), b""))
        tokens.append(answer.token)
        codes.append(stack.smtp.wait(address).code)
    assert all(len(code) == 12 for code in codes)
    guesses = ["%012d" % ((int(code) + 7) % 10**12) for code in codes]
    for token, code, guess in zip(tokens, codes, guesses, strict=True):
        for password in (guess, code, code):
            answers.append(stack.validate(token, password).body)
        # Requests that fail in every way there is, each carrying secrets.
        for method, path, body, headers in (
                ("PUT", "/validate-password", {"token": token, "password": code}, {}),
                ("POST", "/nowhere", {"token": token, "password": code}, {}),
                ("POST", "/validate-password", f'{{"token": "{token}", "password": "{code}"', {}),
                ("POST", "/validate-password", {"token": token, "password": code}, {"Content-Type": "text/plain"}),
                ("POST", "/validate-password", {"token": token, "password": code + "x" * 20000}, {}),
                ("POST", f"/validate-password?token={token}&password={code}", {}, {}),
                ("GET", "/healthz", None, {"Referer": f"https://app.example/{token}/{code}", "Cookie": code, "User-Agent": token}),
                ("POST", "/generate-password", {"email": f"{code}@", "token": token}, {})):
            answers.append(stack.request(method, path, body, headers).body)
    # A statement that fails is logged with its parameters.
    stack.query("alter table otp.challenge add constraint broken check (email not like 'poison%')")
    poisoned = stack.generate("poison@example.com")
    assert poisoned.status == 500
    stack.query("alter table otp.challenge drop constraint broken")
    for name in ("generate-0", "validate-0"):
        with stack.fastcgi(name) as connection:
            answers.append(connection.request("GET", "/metrics").body)
    # A worker that cannot deliver logs its refusals.
    stack.smtp.script = lambda connection, verb, value: "550 5.1.1 no such user" if verb == "RCPT" else None
    refused = address_of()
    stack.generate(refused)
    wait_for(lambda: stack.query("select state::text from otp.challenge join otp.mail using (id) where email = %s", refused) == [("failed",)], 15)
    stack.query("checkpoint")

    keys = {path.name: path.read_bytes() for path in all_files(stack.keys)}
    assert set(keys) == {"pepper-1", "mail-1.pub", "mail-1.key", "ticket-1"}
    dump = stack.postgres.dump()
    assert b"otp.challenge" in dump

    haystacks = {"answers": b"\n".join(answers), "pg_dump": dump}
    for path in all_files(stack.log):
        haystacks[path.name] = path.read_bytes()[log_starts.get(path, 0):]
    for path in all_files(stack.postgres.data):
        haystacks[str(path.relative_to(stack.postgres.data))] = path.read_bytes()
    # The search does find what is there: the statements with their parameters, and the addresses.
    assert b"otp.generate" in haystacks["postgres.log"] and b"arameters: $1" in haystacks["postgres.log"]
    assert any(b"poison@example.com" in haystacks[name] for name in haystacks if name == "postgres.log")
    assert len(haystacks["nginx-access.log"]) > 1000 and len(haystacks["worker-0.log"]) > 100

    for label, values in (("code", codes), ("token", tokens), ("random part of a token", [token_raw(t)[6:] for t in tokens]),
                          ("guess", guesses), ("key", [k for n, k in keys.items() if not n.endswith(".pub")])):
        for value in values:
            for form in spellings(value):
                for name, text in haystacks.items():
                    assert form not in text, f"a {label} is in {name}"


def test_a12_addresses_are_masked_in_logs(stack):
    """Full addresses are in the database alone, not in the programs' logs."""
    stack.stop_responder("generate", 0)
    stack.start_responder("generate", LOG_LEVEL="debug")
    stack.stop_worker()
    stack.start_worker(LOG_LEVEL="debug")
    address = address_of("maskme")
    token = stack.generate(address).token
    answer = stack.validate(token, stack.smtp.wait(address).code)
    # The worker and nginx log what they did after they did it.
    wait_for(lambda: stack.workers["worker-0"].events("mail"))
    wait_for(lambda: answer.headers["x-request-id"] in stack.text("nginx-access.log"))
    for name in ("generate-0.log", "validate-0.log", "validate-1.log", "worker-0.log", "nginx-access.log"):
        assert "maskme" not in stack.text(name), name


def test_a12_logs_are_json_lines(stack):
    """One JSON object per line, with time, level, program and event; so is the access log."""
    import json
    address = address_of()
    stack.validate(stack.generate(address).token, stack.smtp.wait(address).code)
    hostile = stack.request("GET", "/\x22quoted\x5c", headers={"User-Agent": '"} '})
    wait_for(lambda: hostile.headers["x-request-id"] in stack.text("nginx-access.log"))
    for name in ("generate-0", "validate-0", "worker-0"):
        lines = stack.text(f"{name}.log").splitlines()
        assert lines
        for line in lines:
            item = json.loads(line)
            assert {"time", "level", "program", "event"} <= set(item), line
    for line in stack.text("nginx-access.log").splitlines():
        json.loads(line)


@pytest.mark.skipif(is_sanitized(), reason="LeakSanitizer needs a dumpable process")
@pytest.mark.parametrize("name", ["generate-0", "validate-0", "worker-0"])
def test_a12_no_core_dumps(stack, name):
    """A12: core files are off by limit, and the process is not dumpable: its memory in /proc belongs to root, and a crash
    leaves nothing behind."""
    process = stack.responders.get(name) or stack.workers[name]
    limits = Path(f"/proc/{process.pid}/limits").read_text()
    line = next(line for line in limits.splitlines() if line.startswith("Max core file size"))
    assert line.split()[4:6] == ["0", "0"]
    uids = re.search(r"^Uid:\t(\d+)", Path(f"/proc/{process.pid}/status").read_text(), re.M)[1]
    assert uids != "0" and Path(f"/proc/{process.pid}/environ").stat().st_uid == 0, "the process can be dumped"
    status = Path(f"/proc/{process.pid}/status").read_text()
    assert "CoreDumping:\t0" in status
    pattern = Path("/proc/sys/kernel/core_pattern").read_text().strip()
    folder = (process.cwd / pattern).parent  # an absolute pattern stands for itself
    is_piped = pattern.startswith("|")
    before = set() if is_piped else set(folder.iterdir())
    process.send(signal.SIGSEGV)
    assert process.wait() == -signal.SIGSEGV
    assert is_piped or not [path for path in set(folder.iterdir()) - before if "core" in path.name]
    (stack.responders if name in stack.responders else stack.workers).pop(name)


@pytest.mark.skipif(not is_root(), reason="only root may look into a process that is not dumpable")
def test_a12_no_secret_in_the_environment_or_arguments(stack):
    """B4, A12: keys come from files: no environment and no command line of a program holds one."""
    keys = [path.read_bytes() for path in all_files(stack.keys)]
    for process in [*stack.responders.values(), *stack.workers.values()]:
        text = Path(f"/proc/{process.pid}/environ").read_bytes() + Path(f"/proc/{process.pid}/cmdline").read_bytes()
        assert b"KEY_DIR" in text
        for key in keys:
            assert not any(form in text for form in spellings(key))


def test_the_search_finds_what_is_there(stack):
    """The canary search of A12 is not blind: a token put where it must not be is found."""
    token = make_token()
    stack.query("insert into otp.address_quota values (%s, '{}')", token)
    assert any(form in stack.postgres.dump() for form in spellings(token))


def memory_of(pid):
    """What the process has in its writable memory."""
    with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        for line in maps:
            span, mode = line.split()[:2]
            if mode.startswith("rw") and "[vvar]" not in line:
                start, end = (int(part, 16) for part in span.split("-"))
                memory.seek(start)
                yield memory.read(end - start)


@pytest.mark.skipif(not is_root(), reason="reads the memory of processes")
@pytest.mark.skipif(is_sanitized(), reason="AddressSanitizer keeps what is freed for a while")
def test_a12_no_secret_stays_in_memory(stack):
    """A12: after the answer neither otp-generate nor otp-validate nor the worker holds a code or a token, in whatever spelling."""
    stack.stop_responder("generate", 0)
    stack.start_responder("generate", 0, PASSWORD_LENGTH=12)
    secrets = []
    for i in range(8):
        address = address_of()
        padding = {"padding": "x" * (240 * i)}  # bodies of all sizes, to the largest
        answer = stack.request("POST", "/generate-password", {"email": address, **padding})
        code = stack.smtp.wait(address).code
        spaced = f"{code[:3]} {code[3:]}"
        assert stack.validate(answer.token, spaced[:-1] + str((int(code[-1]) + 1) % 10)).error == "wrong_password"
        assert stack.request("POST", "/validate-password", {"password": spaced, "token": answer.token, **padding}).status == 200
        secrets += [answer.token.encode(), token_raw(answer.token), code.encode(), spaced.encode()]
    wait_for(lambda: stack.query("select count(*) from otp.mail where state = 'queued'") == [(0,)], 10, "the mails")
    searched = 0
    for process in (*stack.responders.values(), *stack.workers.values()):
        for pid in family(process.pid):
            for block in memory_of(pid):
                searched += len(block)
                left = [(secret, block[max(0, block.index(secret) - 60):][:200]) for secret in secrets if secret in block]
                assert not left, (process.name, left)
    assert searched > 1_000_000
