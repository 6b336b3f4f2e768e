"""B1, B3, B4, B5: what a thief of the dump gets, which keys a program takes, and how keys rotate."""
import hashlib
import os
import shutil
import subprocess

import pytest

from stack import BUILD, CODE_LABEL, address_of, as_service, give_to_service, sodium, token_id, token_raw, wait_for
from swarm import Traffic

CODES = [b"%06d" % n for n in range(10**6)]


def check(stack, program, folder, **overrides):
    """Runs PROGRAM --check with this key folder -> exit status, output."""
    env = {"PATH": os.environ["PATH"], **{k: str(v) for k, v in stack.environment(program, KEY_DIR=folder, **overrides).items()}}
    for name in ("ASAN_OPTIONS", "LSAN_OPTIONS", "UBSAN_OPTIONS"):
        if name in os.environ:
            env[name] = os.environ[name]
    done = subprocess.run([*as_service(), BUILD / f"otp-{program}", "--check"], env=env, cwd="/", stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, timeout=20, check=False)
    return done.returncode, done.stdout


@pytest.fixture
def keys(session_stack, tmp_path_factory):
    """A copy of the key folders to break."""
    folder = session_stack.folder / "tmp" / "keys"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(session_stack.keys, folder)
    give_to_service(folder)
    return folder


# --- B1 ---

def test_b1_a_stolen_dump_and_every_key_but_the_workers(stack):
    """B1: the thief has pg_dump, the pepper and all of generate's and validate's keys. What is stored of a challenge is
    id = time + 10 bytes of hash(token) and MAC(pepper, token, code): without the token's 26 random bytes no code can
    be tried. 10^6 codes under every MAC that the thief can compute match nothing, and no key opens the sealed code."""
    stack.stop_worker()  # the mails stay queued: sealed is in the dump
    addresses = [address_of() for _ in range(3)]
    tokens = {a: stack.generate(a).token for a in addresses}
    dump = stack.postgres.dump()
    pepper = stack.pepper()
    rows = stack.query("select id, email, code_mac, sealed from otp.challenge join otp.mail using (id)")
    assert len(rows) == 3
    for row_id, email, mac, sealed in rows:
        assert bytes(mac).hex().encode() in dump and bytes(sealed).hex().encode() in dump and email.encode() in dump
    macs = {bytes(row[2]) for row in rows}
    first = rows[0][0]
    for prefix in (b"", CODE_LABEL, CODE_LABEL + first.bytes, first.bytes, CODE_LABEL + bytes(32), CODE_LABEL + first.bytes + bytes(16)):
        base = hashlib.blake2b(prefix, key=pepper, digest_size=32)
        for code in CODES if prefix in (b"", CODE_LABEL, CODE_LABEL + first.bytes) else CODES[::50]:
            attempt = base.copy()
            attempt.update(code)
            assert attempt.digest() not in macs
    # The control: with the token, which is not in the dump, the same search finds the code: the search is no sham.
    token = tokens[rows[0][1]]
    base = hashlib.blake2b(CODE_LABEL + token_raw(token), key=pepper, digest_size=32)
    found = []
    for code in CODES:
        attempt = base.copy()
        attempt.update(code)
        if attempt.digest() == bytes(rows[0][2]):
            found.append(code)
    assert len(found) == 1
    assert token.encode() not in dump and found[0] + b"\t" not in dump

    # Sealed: every key but the worker's fails; the worker's opens it.
    library, length = sodium(), 64
    import ctypes

    def opens(key, row):
        plain = ctypes.create_string_buffer(length)
        sealed = bytes(row[3])
        nonce = row[0].bytes + bytes(8)
        done = library.crypto_box_open_easy(plain, sealed[32:], ctypes.c_ulonglong(len(sealed) - 32), nonce, sealed[:32], key)
        return plain.raw[:len(sealed) - 48].rstrip(b"\0") if done == 0 else None
    for name in ("generate/pepper-1", "generate/mail-1.pub", "generate/ticket-1", "validate/pepper-1", "validate/ticket-1"):
        assert opens((stack.keys / name).read_bytes(), rows[0]) is None
    assert opens((stack.keys / "worker" / "mail-1.key").read_bytes(), rows[0]) == found[0]
    assert opens((stack.keys / "worker" / "mail-1.key").read_bytes(), (rows[1][0], None, None, rows[0][3])) is None


def test_b1_sealed_is_erased_after_delivery(stack):
    """B1: after the relay's 250 the dump holds no sealed code."""
    stack.stop_worker()
    address = address_of()
    token = stack.generate(address).token
    sealed = bytes(stack.query("select sealed from otp.mail where id = %s", token_id(token))[0][0]).hex().encode()
    assert sealed in stack.postgres.dump()
    stack.start_worker()
    stack.smtp.wait(address)
    wait_for(lambda: stack.query("select state::text, sealed from otp.mail where id = %s", token_id(token)) == [("sent", None)], 10)
    assert sealed not in stack.postgres.dump()


# --- B3, B4 ---

EXTRA = [("generate", "mail-1.key"), ("validate", "mail-1.key"), ("validate", "mail-1.pub"), ("worker", "pepper-1"),
         ("worker", "mail-1.pub"), ("worker", "pepper-2"), ("worker", "ticket-1"), ("generate", "mail-2.key")]


def test_b3_each_folder_holds_its_own_keys_only(stack):
    """B3: what otp-keygen makes: generate no private key, validate no mail key, the worker no pepper and no key of tickets."""
    found = {str(path.relative_to(stack.keys)) for path in stack.keys.rglob("*") if path.is_file()}
    assert found == {"generate/pepper-1", "generate/mail-1.pub", "generate/ticket-1", "validate/pepper-1", "validate/ticket-1", "worker/mail-1.key"}
    for path in stack.keys.rglob("*"):
        assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o400), path
        assert path.is_dir() or path.stat().st_size == 32
    for name in ("pepper-1", "ticket-1"):
        assert (stack.keys / "generate" / name).read_bytes() == (stack.keys / "validate" / name).read_bytes()


@pytest.mark.parametrize("program", ["generate", "validate", "worker"])
def test_check_accepts_a_right_configuration(stack, keys, program):
    status, output = check(stack, program, keys / program)
    assert status == 0, output


@pytest.mark.parametrize("program, name", EXTRA)
def test_b3_an_extra_secret_is_refused(stack, keys, program, name):
    """B3: --check and the start itself refuse a key that the program must not hold, and name it."""
    path = keys / program / name
    path.write_bytes(os.urandom(32))
    path.chmod(0o400)
    give_to_service(path)
    status, output = check(stack, program, keys / program)
    assert status == 2 and name in output, output
    if program == "worker":
        process = stack.start_worker(5, wait=False, KEY_DIR=keys / program)
        stack.workers.pop("worker-5")
    else:
        process = stack.start_responder(program, 5, wait=False, KEY_DIR=keys / program)
        stack.responders.pop(f"{program}-5")
    assert process.wait(15) == 2
    assert name in process.output()


KEYS = [("generate", "pepper-1"), ("generate", "mail-1.pub"), ("generate", "ticket-1"), ("validate", "pepper-1"), ("validate", "ticket-1"),
        ("worker", "mail-1.key")]


@pytest.mark.parametrize("mode", [0o440, 0o404, 0o420, 0o402, 0o644, 0o777])
@pytest.mark.parametrize("program, name", KEYS)
def test_b4_a_key_that_others_can_read_is_refused(stack, keys, program, name, mode):
    """B4: group or world may neither read nor write a key file."""
    (keys / program / name).chmod(mode)
    status, output = check(stack, program, keys / program)
    assert status == 2 and name in output and "chmod" in output, output


@pytest.mark.parametrize("program, name", KEYS)
@pytest.mark.parametrize("content", [None, b"", bytes(31), bytes(range(33)), bytes(32)])
def test_b4_a_broken_key_is_refused(stack, keys, program, name, content):
    """B4: missing, empty, of a wrong size, or all zeros."""
    path = keys / program / name
    path.unlink()
    if content is not None:
        path.write_bytes(content)
        path.chmod(0o400)
        give_to_service(path)
    status, output = check(stack, program, keys / program)
    assert status == 2 and name in output, output
    assert content is not None or f"{name}: is missing: run otp-keygen" in output


def test_b4_a_password_file_that_others_can_read_is_refused(stack, keys):
    """B4: the relay's password too."""
    path = keys / "password"
    path.write_text("hunter22\n")
    path.chmod(0o400)
    give_to_service(path)
    settings = {"SMTP_USER": "otp", "SMTP_PASSWORD_FILE": path}
    status, output = check(stack, "worker", keys / "worker", **settings)
    assert status == 0, output
    path.chmod(0o440)
    status, output = check(stack, "worker", keys / "worker", **settings)
    assert status == 2 and "hunter22" not in output, output


def test_keygen_keeps_what_there_is(stack, keys):
    """A second run changes nothing; --rotate adds the next numbers and keeps the old ones."""
    before = {path.relative_to(keys): path.read_bytes() for path in keys.rglob("*") if path.is_file()}
    stack.make_keys(folder=keys)
    assert {path.relative_to(keys): path.read_bytes() for path in keys.rglob("*") if path.is_file()} == before
    stack.make_keys("--rotate", folder=keys)
    after = {path.relative_to(keys): path.read_bytes() for path in keys.rglob("*") if path.is_file()}
    assert before.items() <= after.items()
    assert {str(path) for path in after.keys() - before.keys()} == {"generate/pepper-2", "generate/mail-2.pub", "validate/pepper-2", "worker/mail-2.key"}
    assert len(set(after.values())) == 7  # the two peppers and the key of tickets are in two folders each


# --- B5 ---

def test_b5_keys_rotate_without_an_outage(stack):
    """B5: new keys are made, the programs are restarted one by one under load: no request fails, and codes made under
    the old pepper still validate, as do mails sealed to the old key."""
    early = stack.plant("123456")
    folder = stack.folder / "tmp" / "rotating"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(stack.keys, folder)
    give_to_service(folder)

    def flow(stack, connection):
        address = address_of("flow")
        answer = stack.generate(address, connection=connection)
        assert answer.status == 200, answer
        code = stack.smtp.wait(address, timeout=20).code
        answer = stack.validate(answer.token, code, connection=connection)
        assert answer.status == 200, answer
        return 200
    with Traffic(stack, flow) as traffic:
        wait_for(lambda: len(traffic.results) > 10, 20)
        stack.make_keys("--rotate", folder=folder)
        # First who reads, then who writes.
        stack.stop_worker()
        stack.start_worker(KEY_DIR=folder / "worker")
        for kind, number in (("validate", 0), ("validate", 1), ("generate", 0)):
            old = stack.responders.pop(f"{kind}-{number}")
            stack.start_responder(kind, number, KEY_DIR=folder / kind)
            assert old.stop(timeout=20) == 0
        count = len(traffic.results)
        wait_for(lambda: len(traffic.results) > count + 20, 20)
    assert [str(r)[:300] for r in traffic.results if r != 200] == []
    assert stack.query("select count(*) > 0 from otp.challenge where mac_key = 2") == [(True,)]
    assert stack.query("select count(*) > 0 from otp.challenge where mac_key = 1") == [(True,)]
    assert stack.validate(early, "123456").status == 200


def test_b5_a_rotation_in_the_wrong_order_harms_nobody(stack):
    """B5: codes are made under the new pepper while otp-validate does not know it yet: 503 and an error in its log, no guess is
    counted however often people try, and once it is restarted the code is valid."""
    folder = stack.folder / "tmp" / "hasty"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(stack.keys, folder)
    give_to_service(folder)
    stack.make_keys("--rotate", folder=folder)
    stack.stop_worker()
    stack.start_worker(KEY_DIR=folder / "worker")
    stack.stop_responder("generate", 0)
    stack.start_responder("generate", 0, KEY_DIR=folder / "generate")
    address = address_of()
    token = stack.generate(address).token
    code = stack.smtp.wait(address, timeout=20).code
    assert stack.validate(token, "not a code").error == "not_a_code"
    for password in [code, "000000" if code != "000000" else "111111"] * 3:
        answer = stack.validate(token, password)
        assert answer.status == 503 and answer.error == "unavailable" and answer.headers["retry-after"] == "1", answer
    assert stack.challenge(token)["attempts"] == 0
    assert stack.validate(stack.plant("123456"), "123456").status == 200  # under the old pepper
    lines = [event for n in range(2) for event in stack.responders[f"validate-{n}"].events("unknown_key")]
    assert {(line["level"], line["key"]) for line in lines} == {("error", 2)} and len(lines) <= 2  # once a minute
    for n in range(2):
        stack.stop_responder("validate", n)
        stack.start_responder("validate", n, KEY_DIR=folder / "validate")
    assert stack.validate(token, code).status == 200
    # The same for the mail: without its key the worker keeps it.
    stack.stop_worker()
    stack.start_worker()
    late = address_of()
    token = stack.generate(late).token
    wait_for(lambda: stack.query("select last_reply from otp.mail where id = %s and last_reply is not null", token_id(token)), 10)
    stack.stop_worker()
    stack.query("update otp.mail set next_attempt_at = clock_timestamp() where id = %s", token_id(token))
    stack.start_worker(KEY_DIR=folder / "worker")
    assert stack.validate(token, stack.smtp.wait(late, timeout=20).code).status == 200
