"""The compose stack on a real, empty Docker engine: comes up, is hardened, survives kills and upgrades, leaves nothing.

The tests run in order on one stack. Only public images are replaced, by stand-ins of the same interface (standins/).
"""
import base64
import io
import json
import os
import pathlib
import re
import signal
import subprocess
import tarfile
import time

import pytest

from engine import BASE, compose_v2, run
from traffic import Client, Traffic

from stack import free_port
from stack.checkout import copy_checkout

LASTING = ["db", "generate", "validate", "worker", "nginx", "mail"]
IMAGE_MB_MAX = 40
VOLUMES = {
    "db": {"db_data", "db_socket", "site"},
    "generate": {"db_socket", "run_generate", "secrets_generate"},
    "validate": {"db_socket", "run_validate", "secrets_validate"},
    "worker": {"db_socket", "secrets_worker"},
    "nginx": {"run_generate", "run_validate", "site", "tls"},
    "mail": set(),
}
WRITABLE = {
    "db": {"/var/lib/postgresql", "/run/postgresql", "/tmp"},
    "generate": {"/run/otpd/generate"},
    "validate": {"/run/otpd/validate"},
    "worker": set(),
    "nginx": {"/tmp"},
    "mail": {"/tmp"},
}
NETWORKS = {
    "db": {"none"}, "generate": {"none"}, "validate": {"none"}, "worker": {"mail"},
    "nginx": {"web"}, "mail": {"mail", "inbox"},
}

# What clients may see while a service is gone: JSON from nginx, or no connection when nginx itself is gone.
REFUSALS = {
    "db": "503 unavailable$", "generate": "503 unavailable$", "validate": "503 unavailable$",
    "nginx": "ConnectionRefused|ConnectionReset|RemoteDisconnected|BrokenPipe|SSLEOF|SSLZeroReturn|SSLError|503 unavailable$",
}


class Stack:
    """A clean clone of this checkout (with what is not committed yet), as umask 077 makes it, and compose in it."""

    def __init__(self, engine, variables, folder, command=("docker-compose",)):
        self.engine, self.folder, self.command = engine, folder, [*command, "--ansi", "never"]
        self.ports = {"HTTPS_PORT": str(free_port()), "MAIL_PORT": str(free_port())}
        self.environment = dict(engine.environment, COMPOSE_PROJECT_NAME="otpd", LIMITS="off", **self.ports, **variables)
        copy_checkout(folder)
        run("chmod", "-R", "go-rwx", folder)

    def compose(self, *arguments):
        return run(*self.command, *arguments, env=self.environment, cwd=self.folder)

    def up(self, *arguments):
        """When it returns, all is ready."""
        try:
            self.compose("up", "-d", *arguments)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.compose('logs', '--no-color', '--tail=30')}") from error
        for service in LASTING:
            state = self.container(service)["State"]
            assert state["Health"]["Status"] == "healthy", f"{service}: {state}"

    def container(self, service):
        """The inspected container of a service."""
        identifier = self.engine.docker("ps", "-aq", "--filter", "label=com.docker.compose.project=otpd",
                                        "--filter", f"label=com.docker.compose.service={service}",
                                        "--filter", "label=com.docker.compose.oneoff=False").split()
        assert len(identifier) == 1, f"{service}: containers {identifier}"
        return json.loads(self.engine.docker("inspect", identifier[0]))[0]

    def wait_healthy(self, service, seconds):
        deadline = time.monotonic() + seconds
        while (state := self.container(service)["State"]).get("Health", {}).get("Status") != "healthy":
            assert time.monotonic() < deadline, f"{service}: {state}\n{self.compose('logs', '--tail=30', service)}"
            time.sleep(0.2)
        return state

    def sql(self, statement):
        return self.compose("exec", "-T", "db", "psql", "-U", "postgres", "-d", "otp", "-XAtc", statement).strip()

    def volume(self, name):
        """The volume's folder on this machine."""
        return pathlib.Path(json.loads(self.engine.docker("volume", "inspect", f"otpd_{name}"))[0]["Mountpoint"])

    def processes(self, container):
        """The ids, on this machine, of a container's processes."""
        return [int(pid) for pid in self.engine.docker("top", container["Id"], "-eo", "pid").split()[1:]]

    def client(self):
        certificate = (self.volume("tls") / "certificate.pem").read_text()
        return Client(int(self.ports["HTTPS_PORT"]), int(self.ports["MAIL_PORT"]), certificate)

    def secrets(self):
        """Every secret of the stack, in each form in which it could show."""
        found = []
        for program in ("generate", "validate", "worker"):
            for path in self.volume(f"secrets_{program}").iterdir():
                raw = path.read_bytes()
                if path.name == "pgpass":
                    found.append(raw.strip().split(b":")[4])
                elif not path.name.endswith(".pub"):
                    found += [raw, raw.hex().encode(), base64.b64encode(raw), base64.urlsafe_b64encode(raw).rstrip(b"=")]
        found += (self.volume("tls") / "key.pem").read_bytes().splitlines()[1:-1]
        return found


@pytest.fixture(scope="module")
def stack(engine, images, tmp_path_factory):
    stack = Stack(engine, images, tmp_path_factory.mktemp("clone"))
    started = time.monotonic()
    stack.up()
    print(f"up from nothing: {time.monotonic() - started:.0f} s")
    yield stack
    stack.compose("down", "-v", "--remove-orphans", "-t", "5")


def flow(client, address, seconds=20):
    status, answer = client.post("/generate-password", {"email": address})
    assert status == 200, answer
    code = client.wait_for_code(address, seconds)
    assert code, f"no mail to {address}"
    return client.post("/validate-password", {"password": code, "token": answer["token"]})


def check_validated(answer, address):
    """The answer to a right code, whose ticket is another one each time."""
    status, body = answer
    assert body.pop("ticket", "")
    assert (status, body) == (200, {"message": "Password validated successfully! Enjoy your access.", "email": address, "mailbox": address})


def test_up_needs_no_other_step(stack):
    """`up` in a clean clone, then generate -> mail -> validate over HTTPS with a certificate that verifies."""
    check_validated(flow(stack.client(), "first@example.com"), "first@example.com")
    assert [stack.container(name)["State"]["ExitCode"] for name in ("secrets", "setup")] == [0, 0]


def test_acceptance_suite(stack):
    """`docker compose run --rm tests` (profile test) passes and really ran."""
    output = stack.compose("run", "--rm", "-T", "tests")
    assert int(re.search(r"Ran (\d+) tests", output).group(1)) >= 9, output
    assert output.rstrip().endswith("OK"), output


def test_settings_reach_the_programs(stack):
    """.env.example names only settings that docker-compose.yml knows, and every default there is the real one."""
    compose = (stack.folder / "docker-compose.yml").read_text()
    names = re.findall(r"^#([A-Z_]+)=", (stack.folder / ".env.example").read_text(), re.MULTILINE)
    assert len(names) >= 15
    for name in names:
        assert re.search(rf"\${{{name}\b|^ +{name}:$", compose, re.MULTILINE), name
    (stack.folder / ".env").write_text("APP_NAME=Walrus & Sons\nEMAIL_FROM=Walrus <walrus@example.com>\nEXPIRE_MINUTES=7\n")
    stack.up()
    client = stack.client()
    status, answer = client.post("/generate-password", {"email": "settings@example.com"})
    assert (status, answer["expires_in"]) == (200, 420)
    assert client.wait_for_code("settings@example.com", 20)
    environment = stack.container("worker")["Config"]["Env"]
    assert "APP_NAME=Walrus & Sons" in environment
    (stack.folder / ".env").unlink()
    stack.up()


def worker_would(stack, ending, *options):
    """Runs the worker's command with another ending than `exec otp-worker`; its output, or AssertionError when it fails."""
    script = stack.container("worker")["Config"]["Cmd"][2]
    assert script.endswith("exec otp-worker\n") or script.endswith("exec otp-worker")
    return stack.compose("run", "--rm", "-T", "--no-deps", *options, "worker", "sh", "-euc", script.replace("exec otp-worker", ending))


def test_plaintext_mail_goes_to_the_catcher_only(stack):
    """With any relay but the catcher TLS is required unless the operator says otherwise."""
    for relay, expected in (("mail:1025", "off-trusted"), ("smtp.example.com:587", "required"), ("mail:1025, mail:1026", "required")):
        assert f"tls={expected}" in worker_would(stack, 'echo "tls=$SMTP_TLS"', "-e", f"SMTP_RELAYS={relay}"), relay


def test_a_real_relay_as_the_example_says(stack):
    """.env.example's way to a real relay passes the worker's own check; a password file that others can read does not."""
    password = stack.folder / "smtp-password"
    password.write_text("the password")
    os.chown(password, 10001, 10001)
    example = (stack.folder / ".env.example").read_text()
    lines = re.findall(r"^#(SMTP_(?:RELAYS|USER|PASSWORD_FILE)=.*)$", example, re.MULTILINE)
    assert len(lines) == 3
    (stack.folder / ".env").write_text("\n".join(lines) + "\n")
    try:
        password.chmod(0o400)
        worker_would(stack, "exec otp-worker --check")
        password.chmod(0o444)
        with pytest.raises(AssertionError, match="chmod 0400"):
            worker_would(stack, "exec otp-worker --check")
    finally:
        (stack.folder / ".env").unlink()
        password.unlink()


def test_a_missing_password_file_is_no_folder(stack):
    """`up` says that there is no such file, and makes none."""
    (stack.folder / ".env").write_text("SMTP_RELAYS=smtp.example.com:587\nSMTP_USER=a\nSMTP_PASSWORD_FILE=./no-such-file\n")
    try:
        with pytest.raises(AssertionError, match="no-such-file"):
            stack.compose("up", "-d", "worker")
        assert not (stack.folder / "no-such-file").exists()
    finally:
        (stack.folder / ".env").unlink()
        stack.up()


def status_of(pid):
    """/proc/PID/status as a dictionary."""
    return dict(line.split(":\t", 1) for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines())


@pytest.mark.parametrize("service", LASTING)
def test_hardening(stack, service):
    """What the running container may do, from the engine and from the kernel."""
    container = stack.container(service)
    host = container["HostConfig"]
    assert host["ReadonlyRootfs"] and not host["Privileged"] and not host["CapAdd"]
    assert host["CapDrop"] == ["ALL"]
    assert "no-new-privileges:true" in host["SecurityOpt"]
    assert 0 < host["Memory"] <= 1 << 30 and 0 < host["PidsLimit"] <= 256
    assert host["RestartPolicy"]["Name"] == "unless-stopped"
    assert container["State"]["Health"]["Status"] == "healthy"
    assert {name.removeprefix("otpd_") for name in container["NetworkSettings"]["Networks"]} == NETWORKS[service]

    pids = stack.processes(container)
    assert container["State"]["Pid"] in pids
    for pid in pids:
        try:
            status = status_of(pid)
        except (FileNotFoundError, ProcessLookupError):
            assert pid != container["State"]["Pid"]  # one of PostgreSQL's, or a health check, that has ended since
            continue
        assert "0" not in status["Uid"].split() + status["Gid"].split(), status
        assert {int(status[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {0}
        assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")

    volumes = {mount["Name"].removeprefix("otpd_") for mount in container["Mounts"] if mount["Type"] == "volume"}
    assert volumes == VOLUMES[service]
    assert writable_paths(container["State"]["Pid"]) == WRITABLE[service]


def test_only_the_worker_meets_the_mail_catcher(stack):
    """A network has two ends at most among the lasting services, and from nginx there is no way to the catcher."""
    for network in {name for names in NETWORKS.values() for name in names} - {"none"}:
        ends = {service for service in LASTING if network in NETWORKS[service]}
        assert ends in ({"nginx"}, {"mail"}, {"worker", "mail"}), (network, ends)
    addresses = [network["IPAddress"] for network in stack.container("mail")["NetworkSettings"]["Networks"].values()]
    assert len(addresses) == 2
    reach = "exec 3<>/dev/tcp/{}/1025"
    for host in ("mail", *addresses):
        with pytest.raises(AssertionError):
            stack.compose("exec", "-T", "nginx", "timeout", "3", "bash", "-c", reach.format(host))
    stack.compose("exec", "-T", "worker", "timeout", "3", "bash", "-c", reach.format("mail"))


@pytest.mark.parametrize("service", ["secrets", "setup"])
def test_one_shots_are_hardened_too(stack, service):
    container = stack.container(service)
    host = container["HostConfig"]
    assert host["ReadonlyRootfs"] and host["CapDrop"] == ["ALL"] and not host["CapAdd"] and not host["Privileged"]
    assert "no-new-privileges:true" in host["SecurityOpt"] and host["Memory"] and host["PidsLimit"]
    assert host["NetworkMode"] == "none"
    assert container["Config"]["User"] == {"secrets": "10001:10001", "setup": "999:10001"}[service]


def test_the_number_of_nginx_workers_is_not_the_machines(stack):
    """The limits of memory and processes are for a few, however many cores there are."""
    command = pathlib.Path(f"/proc/{stack.container('nginx')['State']['Pid']}/cmdline").read_text()
    assert re.search(r"worker_processes [1-4];", command), command
    assert "worker_processes" not in (stack.folder / "nginx" / "standalone.conf").read_text()


def test_the_database_has_checksums_and_no_language(stack):
    """It sorts by bytes, whatever locale the image has."""
    assert stack.sql("show data_checksums") == "on"
    assert stack.sql("select datcollate, datctype, pg_encoding_to_char(encoding) from pg_database where datname = 'otp'") == (
        "C.UTF-8|C.UTF-8|UTF8")


def check_key_folders(stack):
    """B4: each program's volume is its own alone, and holds files only."""
    for program in ("generate", "validate", "worker"):
        folder = stack.volume(f"secrets_{program}")
        assert (folder.stat().st_mode & 0o777, folder.stat().st_uid) == (0o700, 10001), folder
        assert all(path.is_file() for path in folder.iterdir()), list(folder.iterdir())


def check_volumes_have_names(stack):
    """No image's own volume is left behind by `down`."""
    assert all(name.startswith("otpd_") for name in stack.engine.docker("volume", "ls", "-q").split())


def writable_paths(pid):
    """Mounts that this process can write to as it is, but for what every container has (/proc, /dev, /sys)."""
    status = status_of(pid)
    user = ["--reuid", status["Uid"].split()[0], "--regid", status["Gid"].split()[0]]
    groups = ",".join(status["Groups"].split())
    user += ["--groups", groups] if groups else ["--clear-groups"]
    found = set()
    for line in pathlib.Path(f"/proc/{pid}/mountinfo").read_text().splitlines():
        path = line.split()[4]
        if not re.match(r"/(proc|dev|sys)(/|$)", path):
            # The worker has /dev/null where a password file could be.
            script = 'test -w "$1" && ! test -c "$1"'
            test = subprocess.run(["nsenter", "-t", str(pid), "-m", "setpriv", *user, "sh", "-c", script, "sh", path])
            assert test.returncode in (0, 1)
            if test.returncode == 0:
                found.add(path)
    return found


def test_only_two_ports_on_loopback(stack):
    """8443 and 8025 by default, on 127.0.0.1; nothing else is published."""
    published = {}
    for service in LASTING:
        for port, bindings in stack.container(service)["NetworkSettings"]["Ports"].items():
            for binding in bindings or []:
                published[port] = binding
    assert published == {"8443/tcp": {"HostIp": "127.0.0.1", "HostPort": stack.ports["HTTPS_PORT"]},
                         "8025/tcp": {"HostIp": "127.0.0.1", "HostPort": stack.ports["MAIL_PORT"]}}
    text = (stack.folder / "docker-compose.yml").read_text()
    assert "127.0.0.1:${HTTPS_PORT:-8443}:8443" in text and "127.0.0.1:${MAIL_PORT:-8025}:8025" in text


def test_each_program_is_only_itself_to_the_database(stack):
    """Nothing listens on a network, a program's password opens its own role only, and none is superuser."""
    assert stack.sql("show listen_addresses") == ""
    script = """
        psql -XAtwq "$DATABASE_URL" -c "select current_user"
        for role in postgres otp_admin otp_generate otp_validate otp_worker; do
            psql -XAtwq "host=/db dbname=otp user=$role passfile=/secrets/pgpass" -c "select 'as', current_user" || true
        done 2> /dev/null"""
    for program in ("generate", "validate", "worker"):
        output = stack.compose("run", "--rm", "-T", "--no-deps", program, "sh", "-c", script).splitlines()
        assert [line for line in output if line.startswith(("otp_", "as|"))] == [f"otp_{program}", f"as|otp_{program}"]


def test_no_secret_shows(stack):
    """B4: none in what inspect and logs tell, none in a layer of our image, and each file is for its owner alone."""
    client = stack.client()
    status, answer = client.post("/generate-password", {"email": "canary@example.com"})
    code = client.wait_for_code("canary@example.com", 20)
    assert client.post("/validate-password", {"password": code, "token": answer["token"]})[0] == 200
    secrets = stack.secrets() + [answer["token"].encode()]
    assert len(secrets) >= 3 + 3 * 4 + 2
    identifiers = stack.engine.docker("ps", "-aq").split()
    told = {"inspect": stack.engine.docker("inspect", *identifiers)}
    for identifier in identifiers:
        told[f"logs of {identifier}"] = stack.engine.docker("logs", identifier)
    assert "otp-generate" in told["inspect"] and any("database system is ready" in text for text in told.values())
    for name, text in told.items():
        for secret in secrets:
            assert secret not in text.encode(), f"a secret is in {name}"
        assert not re.search(rf"(?<![0-9A-Za-z.-]){code}(?![0-9A-Za-z.-])", text) or name == "inspect", f"the code is in {name}"

    check_key_folders(stack)
    for path in [*stack.volume("secrets_generate").iterdir(), *stack.volume("secrets_validate").iterdir(),
                 *stack.volume("secrets_worker").iterdir()]:
        assert (path.stat().st_mode & 0o777, path.stat().st_uid) == (0o400, 10001), path
    assert {path.name for path in stack.volume("secrets_generate").iterdir()} == {"pepper-1", "mail-1.pub", "ticket-1", "pgpass"}
    assert {path.name for path in stack.volume("secrets_validate").iterdir()} == {"pepper-1", "ticket-1", "pgpass"}
    assert {path.name for path in stack.volume("secrets_worker").iterdir()} == {"mail-1.key", "pgpass"}
    for path in [*stack.volume("secrets_database").iterdir(), stack.volume("tls") / "key.pem"]:
        assert (path.stat().st_mode & 0o777, path.stat().st_uid, path.stat().st_gid) == (0o440, 10001, 10001), path


def layers(engine, image, folder):
    """(path, content) of every file in every layer of an image but its base's."""
    engine.docker("save", "-o", folder / "image.tar", image)
    engine.docker("save", "-o", folder / "base.tar", BASE)
    with tarfile.open(folder / "base.tar") as archive:
        known = set(json.load(archive.extractfile("manifest.json"))[0]["Layers"])
        sizes = {archive.getmember(name).size for name in known}
    with tarfile.open(folder / "image.tar") as archive:
        for name in json.load(archive.extractfile("manifest.json"))[0]["Layers"][len(sizes):]:
            with tarfile.open(fileobj=io.BytesIO(archive.extractfile(name).read())) as layer:
                for member in layer:
                    yield member.name, layer.extractfile(member).read() if member.isfile() else b""


def test_image(stack, tmp_path):
    """Under 40 MB over its base, the four programs and the migrations, no secret, no tool of the build."""
    size, base = (int(stack.engine.docker("image", "inspect", "-f", "{{.Size}}", name)) for name in ("otpd:local", BASE))
    print(f"base {base / 1e6:.1f} MB, image {size / 1e6:.1f} MB, adds {(size - base) / 1e6:.1f} MB")
    assert size - base < IMAGE_MB_MAX * 1e6
    secrets = stack.secrets()
    files = dict(layers(stack.engine, "otpd:local", tmp_path))
    for path, content in files.items():
        assert not re.search(r"(^|/)(\.env|\.git|pgpass|pepper-\d+|ticket-\d+|mail-\d+\.key|.*\.(c|h|o))(/|$)", path), path
        for secret in secrets:
            assert secret not in content, f"a secret is in {path}"
    for program in ("otp-generate", "otp-validate", "otp-worker", "otp-keygen", "otp-setup", "psql"):
        assert files[f"usr/bin/{program}"], program
    assert any(path.startswith("usr/share/otpd/sql/tables/001_") for path in files)
    assert "usr/bin/gcc" not in files and "usr/bin/perl" not in files


def test_health_tells_the_truth(stack):
    """A worker that does not poll and a responder without its database are unhealthy; both recover."""
    worker = stack.container("worker")
    # A paused container cannot be asked from inside, so its own check is run beside it.
    check = worker["Config"]["Healthcheck"]["Test"][1].replace("1 minute", "2 seconds")
    command = [*stack.command, "run", "--rm", "-T", "--no-deps", "worker", "sh", "-c", f"{check}; echo check=$?"]

    def verdict():
        output = run(*command, env=stack.environment, cwd=stack.folder)
        return re.search(r"^check=(\d)", output, re.MULTILINE).group(1)

    assert verdict() == "0"
    stack.engine.docker("pause", worker["Id"])
    try:
        deadline = time.monotonic() + 20
        while verdict() != "1":
            assert time.monotonic() < deadline, "a worker that does nothing is called healthy"
    finally:
        stack.engine.docker("unpause", worker["Id"])
    stack.engine.docker("pause", stack.container("db")["Id"])
    try:
        deadline = time.monotonic() + 40
        while stack.container("generate")["State"]["Health"]["Status"] != "unhealthy":
            assert time.monotonic() < deadline, "generate is called healthy without a database"
            time.sleep(0.2)
    finally:
        stack.engine.docker("unpause", stack.container("db")["Id"])
    for service in LASTING:
        stack.wait_healthy(service, 30)


owed = []  # (address, token) acknowledged under disruption, to be made good


@pytest.mark.parametrize("how", ["restart", "kill"])
@pytest.mark.parametrize("service", ["mail", "generate", "validate", "worker", "nginx", "db"])
def test_comes_back(stack, service, how):
    """Restarted or killed under traffic, the service is back by itself and the next request is served."""
    before = stack.container(service)["State"]
    with Traffic(stack.client()) as traffic:
        assert traffic.wait_for_success(20), traffic.refused[-5:]
        if how == "restart":
            stack.compose("restart", service)
        else:
            os.kill(before["Pid"], signal.SIGKILL)
        deadline = time.monotonic() + 30
        while (now := stack.container(service)["State"])["StartedAt"] == before["StartedAt"] or not now["Running"]:
            assert time.monotonic() < deadline, f"{service} does not come back: {now}"
            time.sleep(0.1)
        stack.wait_healthy(service, 30)
        assert traffic.wait_for_success(20), f"no request is served any more: {traffic.refused[-5:]}"
    allowed = REFUSALS.get(service, "nothing")
    assert [seen for seen in traffic.refused if not re.match(allowed, seen)] == []
    owed.extend(traffic.acknowledged)
    print(f"{service} {how}: {len(traffic.acknowledged)} served, {len(traffic.refused)} refused")


def test_no_acknowledged_token_is_lost(stack):
    """P1, P2: the code of every token acknowledged under disruption came by mail and is valid, once."""
    assert len(owed) > 100
    deadline = time.monotonic() + 150  # a lease of a killed worker has to end first
    while stack.sql("select count(*) from otp.mail where state = 'queued'") != "0":
        assert time.monotonic() < deadline, stack.sql("select state, count(*) from otp.mail group by 1")
        time.sleep(1)
    assert stack.sql("select count(*) from otp.mail where state <> 'sent'") == "0"
    client, missing = stack.client(), []
    for address, token in owed:
        code = client.code(address)
        if code:
            assert client.post("/validate-password", {"password": code, "token": token})[0] == 200, address
        else:
            missing.append(address)
    # The catcher keeps mail in memory: what it had accepted when it was killed is gone, and nothing else may be.
    started = stack.container("mail")["State"]["StartedAt"]
    names = ",".join(f"'{address}'" for address in missing) or "''"
    assert stack.sql(f"select email from otp.mail join otp.challenge using (id) where email in ({names}) and sent_at > '{started}'") == ""
    print(f"{len(owed)} tokens, {len(missing)} mails went down with the catcher that had accepted them")


COMPOSE = """
docker() {
	if [ "$1" = compose ]; then
		shift
		command docker-compose --ansi never "$@"
	else
		command docker "$@"
	fi
}
"""


def test_b5_keys_rotate_without_an_outage(stack):
    """B5: the commands of docs/OPERATIONS.md for compose, under traffic: nobody is refused, a code of before is valid after, and new
    ones are made under the new key."""
    client = stack.client()
    status, answer = client.post("/generate-password", {"email": "early@example.com"})
    assert status == 200
    code = client.wait_for_code("early@example.com", 20)
    text = (stack.folder / "docs" / "OPERATIONS.md").read_text()
    commands = re.search(r"```sh\n(docker compose run --rm secrets otp-keygen --rotate .*?)```", text, re.DOTALL)[1]
    with Traffic(client) as traffic:
        assert traffic.wait_for_success(20), traffic.refused[-5:]
        print(run("bash", "-c", f"set -eu\n{COMPOSE}\n{commands}", env=stack.environment, cwd=stack.folder, stdin=subprocess.DEVNULL))
        assert traffic.wait_for_success(20), traffic.refused[-5:]
    assert traffic.refused == []
    assert client.post("/validate-password", {"password": code, "token": answer["token"]})[0] == 200
    assert flow(client, "rotated@example.com")[0] == 200
    assert stack.sql("select distinct mac_key from otp.challenge order by 1").split() == ["1", "2"]
    for address, token in traffic.acknowledged:
        assert client.post("/validate-password", {"password": client.wait_for_code(address, 20), "token": token})[0] == 200


def test_setup_is_idempotent(stack):
    """A second `up` runs setup again: same secrets, nothing restarted, old passwords still good."""
    secrets, identifiers = stack.secrets(), [stack.container(service)["Id"] for service in LASTING]
    first = stack.container("setup")["State"]["StartedAt"]
    stack.up()
    assert stack.container("setup")["State"]["StartedAt"] > first
    assert [stack.container(name)["State"]["ExitCode"] for name in ("secrets", "setup")] == [0, 0]
    assert stack.secrets() == secrets
    assert [stack.container(service)["Id"] for service in LASTING] == identifiers
    assert flow(stack.client(), "again@example.com")[0] == 200


def test_data_survives_down_and_up_and_a_migration(stack):
    """`down`, a new migration, `up --build`: upgraded in place, a token of before is valid after, secrets are the same."""
    client = stack.client()
    status, answer = client.post("/generate-password", {"email": "survivor@example.com"})
    assert status == 200
    code = client.wait_for_code("survivor@example.com", 20)
    secrets = stack.secrets()
    stack.compose("stop")
    for service in LASTING:
        assert stack.container(service)["State"]["ExitCode"] == 0, f"{service} had to be killed"
    stack.compose("down")
    assert stack.engine.docker("ps", "-aq") == ""
    check_volumes_have_names(stack)
    assert stack.secrets() == secrets
    (stack.folder / "sql" / "tables" / "900_test.sql").write_text("-- A later version's table.\ncreate table otp.later (id int);\n")
    makefile = stack.folder / "Makefile.am"
    makefile.write_text(makefile.read_text().replace("sql/roles.sql", "sql/roles.sql sql/tables/900_test.sql"))
    stack.up("--build")
    assert stack.sql("select count(*) from otp.migration where name = '900_test.sql'") == "1"
    assert stack.sql("select to_regclass('otp.later')") == "otp.later"
    assert "applied 900_test.sql" in stack.engine.docker("logs", stack.container("setup")["Id"])
    check_validated(client.post("/validate-password", {"password": code, "token": answer["token"]}), "survivor@example.com")
    assert flow(client, "upgraded@example.com")[0] == 200


def test_down_v_leaves_nothing(stack):
    stack.compose("down", "-v")
    assert stack.engine.docker("ps", "-aq") == ""
    assert stack.engine.docker("volume", "ls", "-q") == ""
    networks = stack.engine.docker("network", "ls", "--format", "{{.Name}}").split()
    assert sorted(networks) == ["bridge", "host", "none"]


@pytest.fixture(scope="module")
def stack_v2(engine, images, tmp_path_factory):
    """The same with Compose v2 and the folders of postgres:18, once the stack above is gone."""
    stack = Stack(engine, {**images, "POSTGRES_IMAGE": engine.postgres(18)}, tmp_path_factory.mktemp("clone-v2"), compose_v2())
    yield stack
    stack.compose("down", "-v", "--remove-orphans", "-t", "5")


def test_v2_and_postgres_18(stack_v2):
    """`up -d` of Compose v2 returns when all is ready; keys are as closely kept; the data survive `down`."""
    stack_v2.up()
    client = stack_v2.client()
    assert flow(client, "second@example.com")[0] == 200
    check_key_folders(stack_v2)
    output = stack_v2.compose("run", "--rm", "-T", "tests")
    assert output.rstrip().endswith("OK"), output
    status, answer = client.post("/generate-password", {"email": "survivor@example.com"})
    assert status == 200
    code, secrets = client.wait_for_code("survivor@example.com", 20), stack_v2.secrets()
    stack_v2.compose("down")
    assert stack_v2.engine.docker("ps", "-aq") == ""
    check_volumes_have_names(stack_v2)
    stack_v2.up()
    assert stack_v2.secrets() == secrets
    assert client.post("/validate-password", {"password": code, "token": answer["token"]})[0] == 200


def test_v2_missing_password_file(stack_v2):
    test_a_missing_password_file_is_no_folder(stack_v2)


def test_v2_down_v_leaves_nothing(stack_v2):
    test_down_v_leaves_nothing(stack_v2)
