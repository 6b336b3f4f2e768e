"""The programs' command lines and settings: --check, --help, --version, and refusals that name the setting."""
import os
import subprocess

import pytest

from stack import BUILD, address_of, as_service

PROGRAMS = ["generate", "validate", "worker"]


def run(program, *arguments, env=None):
    base = {k: v for k, v in os.environ.items() if k == "PATH" or k.endswith("SAN_OPTIONS")}
    return subprocess.run([*as_service(), BUILD / f"otp-{program}", *arguments], env={**base, **(env or {})}, cwd="/", text=True, timeout=20,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False)


def settings(stack, program, **overrides):
    return {k: str(v) for k, v in stack.environment(program, **overrides).items()}


@pytest.mark.parametrize("program", [*PROGRAMS, "keygen"])
def test_help_and_version(program):
    for option in ("--help", "--version"):
        done = run(program, option)
        assert done.returncode == 0 and f"otp-{program}" in done.stdout and not done.stderr
    done = run(program, "--nonsense")
    assert done.returncode == 2 and done.stderr


@pytest.mark.parametrize("program, name, value", [
    ("generate", "DATABASE_URL", None), ("validate", "DATABASE_URL", None), ("worker", "DATABASE_URL", None),
    ("generate", "DATABASE_URL", "host=x nonsense=1"), ("generate", "KEY_DIR", None), ("validate", "KEY_DIR", "/nonexistent"),
    ("generate", "EXPIRE_MINUTES", "0"), ("generate", "EXPIRE_MINUTES", "1441"), ("generate", "EXPIRE_MINUTES", "10m"),
    ("generate", "EXPIRE_MINUTES", "1e1"), ("generate", "EXPIRE_MINUTES", "99999999999999999999"), ("generate", "EXPIRE_MINUTES", "-5"),
    ("generate", "PASSWORD_LENGTH", "3"), ("generate", "PASSWORD_LENGTH", "13"), ("generate", "MAX_ATTEMPTS", "0"),
    ("generate", "BATCH_MAX", "0"), ("validate", "QUEUE_MAX", "0"), ("generate", "LOG_LEVEL", "loud"), ("generate", "RESEND_SECONDS", "-1"),
    ("worker", "EMAIL_FROM", None), ("worker", "EMAIL_FROM", "nobody"), ("worker", "EMAIL_FROM", "A <a@example.com>\r\nBcc: b@example.com"),
    ("worker", "SMTP_TLS", "sometimes"), ("worker", "SMTP_RELAYS", "host:99999"),
    ("worker", "SMTP_RELAYS", "mail.example.com:25"), ("worker", "TEMPLATE_DIR", "/nonexistent"), ("worker", "WORKER_SESSIONS", "33"),
    ("worker", "SMTP_USER", "only-a-user"), ("validate", "LISTEN", "/" + "x" * 120)])
def test_a_wrong_setting_is_named(stack, program, name, value):
    """Exit status 2 and the setting's name on standard error; plaintext to a relay elsewhere (SMTP_TLS=off) is refused."""
    done = run(program, "--check", env=settings(stack, program, **{name: value}))
    assert done.returncode == 2, done
    named = "SMTP" if name == "SMTP_RELAYS" else name
    assert named.lower() in done.stderr.lower(), done.stderr


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("text, complaint", [
    ('{"shop": {"expire_minutes": 0}}', "shop.expire_minutes=0: must be a whole number from 1 to 1440"),
    ('{"shop": {"app_name": 7}}', "shop.app_name: must be a text in quotes"),
    ('{"shop": {"test_addresses": {"a@b.example": {"code": "123456", "until": "2020-02-29"}}}}',
     'shop.test_addresses["a@b.example"]: ended on 2020-02-29: remove it, or give it a later day'),
    ('{"shop": {"app_name": "Sh', "must be an object with a member for each application: it ends too early, at line 1, column 25")])
def test_a_wrong_application_is_named(stack, program, text, complaint):
    """Every program reads the whole file, also what is another program's concern: application, member and fix."""
    path = stack.folder / "tmp" / "applications.json"
    path.write_text(text)
    path.chmod(0o644)
    done = run(program, "--check", env=settings(stack, program, APPLICATIONS=path))
    assert done.returncode == 2 and done.stderr == f"otp-{program}: {path}: {complaint}\n", done
    path.write_text('{"shop": {"expire_minutes": 1440}}')
    done = run(program, "--check", env=settings(stack, program, APPLICATIONS=path))
    assert (done.returncode, done.stderr) == (0, "")


def test_a_program_starts_though_a_day_has_passed(stack):
    """A test address whose day is over is refused by --check, not by a start, which may follow a crash in the night."""
    path = stack.folder / "tmp" / "passed.json"
    path.write_text('{"shop": {"test_addresses": {"a@b.example": {"code": "123456", "until": "2020-02-29"}}}}')
    path.chmod(0o644)
    assert run("validate", "--check", env=settings(stack, "validate", APPLICATIONS=path)).returncode == 2
    stack.start_responder("validate", 7, APPLICATIONS=path)
    stack.stop_responder("validate", 7)


@pytest.mark.parametrize("program", PROGRAMS)
def test_check_has_no_side_effect(stack, program):
    """--check neither binds the socket nor touches the database nor needs it."""
    path = stack.run / "check.sock"
    before = set(stack.run.iterdir())
    env = settings(stack, program, LISTEN=path, DATABASE_URL="host=/nonexistent user=nobody dbname=none")
    done = run(program, "--check", env=env)
    assert done.returncode == 0, done
    assert set(stack.run.iterdir()) == before


def test_a_password_in_the_database_url_is_never_shown(stack):
    """A12: neither a refusal of settings nor a failed connection shows it."""
    secret = "hunter22hunter"
    done = run("generate", "--check", env=settings(stack, "generate", DATABASE_URL=f"host=x password={secret} nonsense=1"))
    assert done.returncode == 2 and secret not in done.stderr + done.stdout
    process = stack.start_responder("generate", 7, wait=False, DATABASE_URL=f"postgresql://otp_generate:{secret}@127.0.0.1:1/none")
    from stack import wait_for
    wait_for(lambda: len(process.events()) >= 2, 10)
    stack.stop_responder("generate", 7)
    assert secret not in process.output()


SECRET = "hunter22hunter"
MALFORMED = ['"postgres://u:{}@h/otp"', "'postgresql://u:{}@h/otp'", "mysql://u:{}@h/otp", "postgresql://u:{}@[::1/otp", "postgresql://u:%{}@h/otp",
             "postgresql://u:{}@x@h/otp", "postgresql://u:x@{}@h/otp", "postgresql://u:x/{}@h/otp", "host=h password={} dbname", "host=h password='{}",
             "host=h password=a {}", "host={}@h", "host=h port={}", "{}", "postgresql://u:{}\n@h/otp", "postgresql://u:{}\u00a0\u0080@h/otp"]


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("url", MALFORMED)
def test_a25_no_malformed_url_is_shown(stack, program, url):
    """A25: a DATABASE_URL that cannot be parsed, or does not mean what it seems to, is named and never quoted."""
    for arguments in (["--check"], []):
        done = run(program, *arguments, env=settings(stack, program, DATABASE_URL=url.format(SECRET)))
        assert done.returncode == 2 and "DATABASE_URL: " in done.stderr, done
        assert SECRET not in done.stdout + done.stderr and SECRET[1:] not in done.stderr, done


@pytest.mark.parametrize("content", [SECRET.encode(), SECRET.encode() + b"\n" + b"x" * 40, b"\n" + SECRET.encode(), SECRET.encode() * 3])
def test_a25_no_malformed_secret_file_is_shown(stack, content):
    """A25: what is wrong with a key file or a password file is said without its contents."""
    folder = stack.folder / "tmp" / "a25"
    folder.mkdir(exist_ok=True)
    for name in ("pepper-1", "mail-1.pub", "mail-1.key", "ticket-1", "password"):
        (folder / name).unlink(missing_ok=True)
        (folder / name).write_bytes(content)
        (folder / name).chmod(0o400)
    subprocess.run(["chown", "-R", "--reference", str(stack.keys / "worker" / "mail-1.key"), str(folder)], check=True)
    for program in PROGRAMS:
        done = run(program, "--check", env=settings(stack, program, KEY_DIR=folder))
        assert done.returncode == 2 and str(folder) in done.stderr, done
        assert SECRET not in done.stdout + done.stderr, done
    done = run("worker", "--check", env=settings(stack, "worker", SMTP_USER="u", SMTP_PASSWORD_FILE=folder / "password"))
    assert SECRET not in done.stdout + done.stderr, done


@pytest.mark.parametrize("kind", ["generate", "validate"])
@pytest.mark.parametrize("way", ["fd0", "listen_fds"])
def test_listening_sockets_that_are_passed(stack, kind, way):
    """LISTEN="": a listening socket on descriptor 0 (spawn-fcgi), or LISTEN_FDS (systemd)."""
    import socket
    from stack import FastCgi, Process, wait_for
    path = stack.run / f"passed-{way}-{kind}.sock"
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    path.chmod(0o666)
    listener.listen(128)
    env = settings(stack, kind, LISTEN="")
    command = [*as_service(), str(BUILD / f"otp-{kind}")]
    if way == "fd0":
        process = Process(f"{kind}-passed", command, stack.log / f"{kind}-passed.log", env, stdin=listener)
    else:
        script = 'LISTEN_FDS=1 LISTEN_PID=$$ exec "$@"'

        def third():
            os.dup2(listener.fileno(), 3)
            os.set_inheritable(3, True)
        process = Process(f"{kind}-passed", ["/bin/sh", "-c", script, "sh", *command], stack.log / f"{kind}-passed.log", env,
                          pass_fds=(3,), preexec_fn=third)
    listener.close()
    uri = "/healthz" if kind == "generate" else "/healthz/validate"

    def probe():
        with FastCgi(path, 5) as connection:
            return connection.request("GET", uri, keep=False).status == 200
    wait_for(probe, 10, process.tail())
    assert process.stop(timeout=20) == 0
    assert path.exists()  # it was not ours to remove


def test_b2_no_program_calls_what_somebody_left_in_public(stack):
    """B2: an operator in schema public that fits a statement of ours better than PostgreSQL's own is not called by any program."""
    stack.query("create table public.trapped (who text)")
    stack.query("grant insert on public.trapped to public; grant usage on schema public to public")
    stack.query("create function public.trap(numeric, integer) returns numeric language plpgsql as"
                " $$ begin insert into public.trapped values (current_user); return $1 operator(pg_catalog.*) $2::numeric; end $$")
    stack.query("create operator public.* (leftarg = numeric, rightarg = integer, function = public.trap)")
    try:
        assert stack.query("select 1.0 * 1000") == [(1000,)] and stack.query("delete from public.trapped returning who") == [("postgres",)]
        for kind in ("generate", "validate"):
            stack.stop_responder(kind, 0)
            stack.start_responder(kind, 0)
        stack.stop_worker()
        stack.start_worker()
        address = address_of()
        token = stack.generate(address).token
        assert stack.validate(token, stack.smtp.wait(address).code).status == 200
        assert stack.query("select who from public.trapped") == []
    finally:
        stack.query("drop operator public.* (numeric, integer)")
        stack.query("drop function public.trap")
        stack.query("drop table public.trapped")
