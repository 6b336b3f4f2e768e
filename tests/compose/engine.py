"""A Docker engine of the test's own: empty at start, gone at the end, and the images it needs without a registry."""
import hashlib
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
CACHE = pathlib.Path(os.environ.get("OTP_LOCAL", ROOT / ".local")) / "compose"
STACK = ROOT / "tests" / "stack"
# Since Debian 13 docker.io only recommends the client, which is a package of its own.
PACKAGES = {"dockerd": ["docker.io"], "docker": ["docker-cli", "docker.io"], "docker-compose": ["docker-compose"],
            "iptables": ["iptables"], "debootstrap": ["debootstrap"]}
BASE = "debian:bookworm-slim"
STANDINS = {"POSTGRES_IMAGE": "postgres", "NGINX_IMAGE": "nginx", "MAIL_IMAGE": "mailpit"}
RELEASE_WITH_V2 = "trixie"


class Unavailable(Exception):
    """No engine can run here; says why."""


def run(*command, **options):
    """The command's output; raises with both its streams when it fails."""
    done = subprocess.run(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **options)
    if done.returncode:
        raise AssertionError(f"{' '.join(map(str, command))}: exit {done.returncode}\n{done.stdout}")
    return done.stdout


def install_packages():
    missing = [packages for program, packages in PACKAGES.items() if not shutil.which(program)]
    if not missing:
        return
    environment = dict(os.environ, DEBIAN_FRONTEND="noninteractive")
    try:
        run("apt-get", "update", env=environment)
        # The package starts a service of its own, which is not wanted here.
        policy = pathlib.Path("/usr/sbin/policy-rc.d")
        ours = not policy.exists()
        if ours:
            policy.write_text("#!/bin/sh\nexit 101\n")
            policy.chmod(0o755)
        try:
            names = {next(name for name in packages if is_available(name)) for packages in missing}
            run("apt-get", "install", "-y", "--no-install-recommends", *sorted(names), env=environment)
        finally:
            if ours:
                policy.unlink()
    except (AssertionError, OSError, StopIteration) as error:
        raise Unavailable(f"cannot install {missing}: {error}") from error


def is_available(package):
    return bool(run("apt-cache", "pkgnames", package).split().count(package))


def compose_v2():
    """The command of Compose v2: Debian 13's, from its package where this machine is older; it is unpacked, not installed."""
    if run("docker-compose", "version", "--short").strip().lstrip("v").startswith("2"):
        return ["docker-compose"]
    folder = CACHE / "compose-v2"
    program = folder / "usr/libexec/docker/cli-plugins/docker-compose"
    if not program.exists():
        lists = folder / "apt"
        for name in ("lists/partial", "archives/partial"):
            (lists / name).mkdir(parents=True, exist_ok=True)
        mirrors = run("apt-get", "indextargets", "--format", "$(COMPONENT) $(REPO_URI)", "Created-By: Packages",
                      "Origin: Debian", "Label: Debian").split("\n")
        mirror = next(line.split()[1] for line in mirrors if line.startswith("main "))
        (lists / "sources.list").write_text(f"deb {mirror} {RELEASE_WITH_V2} main\n")
        options = [f"-oDir::Etc::SourceList={lists}/sources.list", "-oDir::Etc::SourceParts=/nonexistent", f"-oDir::State={lists}",
                   f"-oDir::Cache={lists}", "-oDir::State::status=/dev/null", "-oAPT::Sandbox::User=root"]
        run("apt-get", *options, "update")
        run("apt-get", *options, "download", "docker-compose", cwd=lists)
        [package] = lists.glob("docker-compose_*.deb")
        run("dpkg-deb", "-x", package, folder)
        shutil.rmtree(lists)
        give_cache_back()
    return [program]


def give_cache_back():
    """What root kept in the checkout of a user is that user's to remove."""
    run("chown", "-R", f"--reference={ROOT}", CACHE)


class Engine:
    """dockerd with folders of its own. It shares with the machine only the bridge docker0 and the packet filter, which
    are put back at the end; so it does not start beside another engine."""

    def __init__(self):
        if os.geteuid() != 0:
            raise Unavailable("a Docker engine needs root")
        install_packages()
        if pathlib.Path("/sys/class/net/docker0").exists():
            raise Unavailable("another Docker engine has the bridge docker0; stop it first")
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="otpd-engine-"))
        self.host = f"unix://{self.folder}/docker.sock"
        self.dropping = {tool: ":FORWARD DROP" in saved_rules(tool) for tool in ("iptables", "ip6tables")}
        self.forwarding = pathlib.Path("/proc/sys/net/ipv4/ip_forward").read_text()
        (self.folder / "daemon.json").write_text("{}")
        with open(self.folder / "log", "wb") as log:
            self.process = subprocess.Popen(
                ["dockerd", "--data-root", self.folder / "data", "--exec-root", self.folder / "exec", "-H", self.host,
                 "--pidfile", self.folder / "pid", "--config-file", self.folder / "daemon.json"],
                stdout=log, stderr=log, start_new_session=True)
        try:
            self.wait_until_ready()
        except BaseException:
            self.stop()
            raise

    @property
    def environment(self):
        keep = {name: value for name, value in os.environ.items() if not name.startswith(("DOCKER_", "COMPOSE_"))}
        return dict(keep, DOCKER_HOST=self.host, DOCKER_CONFIG=str(self.folder), DOCKER_BUILDKIT="0",
                    COMPOSE_DOCKER_CLI_BUILD="0", COMPOSE_HTTP_TIMEOUT="120")

    def wait_until_ready(self):
        deadline = time.monotonic() + 60
        while subprocess.run(["docker", "info"], env=self.environment, stdout=subprocess.DEVNULL,
                             stderr=subprocess.DEVNULL).returncode:
            if self.process.poll() is not None or time.monotonic() > deadline:
                lines = (self.folder / "log").read_text(errors="replace").splitlines()[-5:]
                raise Unavailable("dockerd does not start here: " + " | ".join(lines))
            time.sleep(0.2)

    def docker(self, *arguments, **options):
        return run("docker", *map(str, arguments), env=self.environment, **options)

    def load_images(self):
        """The base and the stand-ins; returns the variables that name them. Made once, then kept under .local/."""
        CACHE.mkdir(parents=True, exist_ok=True)
        base = CACHE / "base.tar"
        if not base.exists():
            make_base(base)
        self.docker("import", base, BASE)
        variables = {"BASE_IMAGE": BASE}
        for variable, name in STANDINS.items():
            variables[variable] = self.load_standin(name, base)
        give_cache_back()
        return dict(variables, POSTGRES_IMAGE=self.postgres(17), TEST_IMAGE=variables["MAIL_IMAGE"])

    def postgres(self, major):
        """The stand-in for postgres:MAJOR."""
        data = "/var/lib/postgresql/data" if major < 18 else f"/var/lib/postgresql/{major}/docker"
        volume = data if major < 18 else "/var/lib/postgresql"
        return self.build("postgres-layout", f"standin/postgres:{major}", "standin/postgres:test", PG_MAJOR=major, PGDATA=data,
                          VOLUME=volume)

    def build(self, name, image, base=BASE, **arguments):
        """Builds from the stand-in's folder and the relay of the other tests."""
        options = [f"--build-arg={key}={value}" for key, value in {"BASE_IMAGE": base, **arguments}.items()]
        with tempfile.TemporaryDirectory(prefix="otpd-standin-") as context:
            shutil.copytree(HERE / "standins" / name, context, dirs_exist_ok=True)
            shutil.copytree(STACK, f"{context}/stack", ignore=shutil.ignore_patterns("__pycache__"))
            self.docker("build", *options, "-t", image, context)
        return image

    def load_standin(self, name, base):
        image = f"standin/{name}:test"
        digest = hashlib.sha256(str(base.stat().st_mtime_ns).encode())
        for file in sorted([*(HERE / "standins" / name).iterdir(), *(STACK.glob("*.py") if name == "mailpit" else ())]):
            digest.update(file.read_bytes())
        saved = CACHE / f"{name}-{digest.hexdigest()[:16]}.tar"
        if saved.exists():
            self.docker("load", "-i", saved)
        else:
            self.build(name, image)
            for old in CACHE.glob(f"{name}-*.tar"):
                old.unlink()
            self.docker("save", "-o", saved.with_suffix(".part"), image)
            saved.with_suffix(".part").rename(saved)
        return image

    def stop(self):
        bridges = {path.name for path in pathlib.Path("/sys/class/net").glob("br-*")} | {"docker0"}
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        for line in pathlib.Path("/proc/mounts").read_text().splitlines()[::-1]:
            if line.split()[1].startswith(str(self.folder)):
                subprocess.run(["umount", "-l", line.split()[1]], check=False)
        for bridge in bridges:
            subprocess.run(["ip", "link", "delete", bridge], stderr=subprocess.DEVNULL, check=False)
        for tool, dropping in self.dropping.items():
            remove_rules(tool, bridges, dropping)
        pathlib.Path("/proc/sys/net/ipv4/ip_forward").write_text(self.forwarding)
        shutil.rmtree(self.folder, ignore_errors=True)


def saved_rules(tool):
    return subprocess.run([f"{tool}-save"], text=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout


def remove_rules(tool, bridges, dropping):
    """Takes the engine's chains, rules and policy out of the packet filter and leaves all else."""
    saved = saved_rules(tool).splitlines()
    kept = [line for line in saved if "DOCKER" not in line and not any(name in line for name in bridges)]
    if not dropping:
        kept = [line.replace(":FORWARD DROP", ":FORWARD ACCEPT") for line in kept]
    if kept != saved:
        run(f"{tool}-restore", input="\n".join(kept) + "\n")


def make_base(target):
    """A minimal Debian from the archive, as the official image has it: no package lists, no archives."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="otpd-base-"))
    try:
        run("debootstrap", "--variant=minbase", "bookworm", folder)
        part = target.with_suffix(".part")
        run("tar", "-C", folder, "--exclude=./var/cache/apt/*.bin", "--exclude=./var/cache/apt/archives/*.deb",
            "--exclude=./var/lib/apt/lists/*_*", "--exclude=./dev/*", "--exclude=./usr/share/doc/*",
            "--exclude=./usr/share/man/*", "--exclude=./usr/share/locale/*", "-cf", part, ".")
        part.rename(target)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
