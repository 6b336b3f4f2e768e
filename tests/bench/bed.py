"""The test bed: the stack of the integration tests with a cluster sized for load, planted rows, and loads to run on it."""
import contextlib
import datetime
import json
import os
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from stack import as_service, code_mac, family, give_to_service, make_token, pg_bin, token_id  # noqa: E402
from stack.harness import Harness  # noqa: E402

# Durability is PostgreSQL's default: fsync, synchronous_commit and full_page_writes are on, pages have checksums.
# shared_buffers is the usual quarter of the memory.
QUARTER_MIB = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 4 // 2**20
CLUSTER = {"shared_buffers": f"{QUARTER_MIB}MB", "max_wal_size": "16GB", "min_wal_size": "4GB", "max_connections": "400",
           "checkpoint_timeout": "30min", "autovacuum_naptime": "1min"}
WAL_SEGMENTS = 150  # of 16 MiB, more than is written between two checkpoints
DURABLE = ("fsync", "synchronous_commit", "full_page_writes", "data_checksums")
LIMITS = {"RESEND_SECONDS": 60, "SENDS_PER_HOUR": 5, "SENDS_PER_DAY": 10, "BUDGET_PER_HOUR": 0, "OUTBOX_MAX": 0}
TABLES = ("otp.challenge", "otp.mail", "otp.address_quota")
ENDLESS_ATTEMPTS = 32767
NEVER = "interval '30 days'"


class Bed(Harness):
    """The stack under load: all checks and quotas on, nginx's limits per client lifted by configuration."""

    def __init__(self):
        super().__init__()
        self.postgres.stop()
        self.postgres.start(**CLUSTER)
        for name in DURABLE:
            assert self.query(f"show {name}")[0][0] == "on", f"{name} is off"
        self.age_wal()
        self.serial = int(time.time()) % 100000 * 1000
        (self.folder / "nginx" / "static.json").write_text('{"status":"ok","program":"otp-generate","database":"unchecked"}\n')

    def settings(self, kind):
        """As configured for production where it matters: quotas are on."""
        return LIMITS if kind == "generate" else super().settings(kind)

    def site(self):
        """As in production: a buffered access log."""
        return {**super().site(), "access_log": f"{self.log}/nginx-access.log otp buffer=32k flush=1s"}

    def site_conf(self):
        """The site, and one file to serve for comparison."""
        return super().site_conf().replace("\tinclude otpd/server.conf;", "\tinclude otpd/server.conf;\n"
                            f"\tlocation = /static.json {{\n\t\talias {self.folder}/nginx/static.json;\n\t}}", 1)

    def serve(self, **upstreams):
        """nginx in front of these responders, such as generate=["generate-0"]."""
        self.upstreams = {**self.upstreams, **upstreams}
        self.ensure_nginx()

    def next_serial(self):
        """A number for addresses that nobody used before."""
        self.serial += 1
        return self.serial

    # --- Rows ---

    def plant_tokens(self, count, dbname="otp"):
        """Stores live challenges and returns the file with their tokens."""
        path = self.folder / "tmp" / f"tokens-{dbname}-{count}"
        pepper = self.pepper()
        now = time.time() * 1000
        tokens = sorted((make_token(now - (count - i) / 32) for i in range(count)), key=token_id)
        with self.postgres.connect(dbname=dbname) as connection:
            self.insert_tokens(connection, tokens, pepper)
        path.write_text("\n".join(tokens) + "\n")
        return path

    @staticmethod
    def insert_tokens(connection, tokens, pepper):
        """The right code of every token is 123456."""
        with connection.cursor() as cursor, cursor.copy(
                "copy otp.challenge (id, email, code_mac, mac_key, max_attempts, created_at, expires_at) from stdin") as copy:
            copy.set_types(["uuid", "text", "bytea", "int2", "int2", "timestamptz", "timestamptz"])
            now = time.time()
            moments = [moment_of(now), moment_of(now + 30 * 86400)]
            for number, token in enumerate(tokens):
                copy.write_row((token_id(token), f"planted-{number}@example.com", code_mac(pepper, token, "123456"), 1,
                                ENDLESS_ATTEMPTS, *moments))

    def plant_for_pgbench(self, count, dbname="otp"):
        """The same for validate.pgbench; returns the variable base of its arithmetic."""
        base = int(time.time() * 1000) - count // 32
        with self.postgres.connect(dbname=dbname) as connection:
            connection.execute(
                "insert into otp.challenge (id, email, code_mac, mac_key, max_attempts, created_at, expires_at)"
                " select ('0' || to_hex(%s::bigint + i / 32) || '0' || (1000000000000000000 + i * 104729)::text)::uuid,"
                " 'planted-' || i || '@example.org', sha256(i::text::bytea), 1, %s, now(), now() + " + NEVER +
                " from generate_series(1, %s::bigint) i", (base, ENDLESS_ATTEMPTS, count))
        return base

    def plant_rows(self, count, dbname="otp", name="live", age=0.0, lifetime=30 * 86400.0):
        """Stores count requests as they are after delivery: challenge, sent mail, quota. age: seconds since the newest."""
        base = int((time.time() - age) * 1000) - count // 32
        created = "to_timestamp((%(base)s::bigint + i / 32) / 1000.0)"
        key = "('0' || to_hex(%(base)s::bigint + i / 32) || '0' || (1000000000000000000 + i * 104729)::text)::uuid"
        rows = "from generate_series(1, %(count)s::bigint) i"
        address = "substr(md5(%(name)s || i), 1, 16) || '@example.com'"
        parameters = {"base": base, "count": count, "name": name, "lifetime": lifetime}

        def store(table, columns, values):
            with self.postgres.connect(dbname=dbname) as connection:
                connection.execute(f"insert into {table} ({columns}) select {values} {rows}", parameters)
                connection.execute(f"vacuum (analyze) {table}")

        with ThreadPoolExecutor() as pool:
            for done in [
                    pool.submit(store, "otp.challenge", "id, email, code_mac, mac_key, max_attempts, created_at, expires_at",
                                f"{key}, {address}, sha256(int8send(i)), 1, 5, {created},"
                                f" {created} + make_interval(secs => %(lifetime)s)"),
                    pool.submit(store, "otp.mail", "id, mail_key, state, attempts, next_attempt_at, give_up_at, last_reply, sent_at",
                                f"{key}, 1, 'sent', 1, {created}, {created}, '250 2.0.0 Ok', {created}"),
                    pool.submit(store, "otp.address_quota", "mailbox, sent", f"{address}, array[{created}]")]:
                done.result()

    def empty(self, dbname="otp"):
        with self.postgres.connect(dbname=dbname) as connection:
            connection.execute("truncate " + ", ".join(TABLES))

    def attempts(self):
        """Guesses counted so far on the tokens of plant_tokens: what the answers said must be in the table."""
        return self.query("select coalesce(sum(attempts), 0) from otp.challenge where email like 'planted-%@example.com'")[0][0]

    def checkpoint(self):
        self.query("checkpoint")

    def age_wal(self):
        """Makes segments of WAL for PostgreSQL to use again, as a server has them that has run for a while; a new cluster
        stops every writer for tens of milliseconds at each new segment, to fill it with zeros."""
        for _ in range(WAL_SEGMENTS):
            self.query("select pg_logical_emit_message(false, 'otpd', 'bench')")
            self.query("select pg_switch_wal()")
        self.checkpoint()

    # --- Loads ---

    def spent(self):
        """Processor time so far, in microseconds, by part of the stack."""
        return {"nginx": processor_us([self.nginx]), "responders": processor_us(self.responders.values()),
                "postgres": processor_us([self.postgres.process])}

    def wal_bytes(self):
        """WAL written so far."""
        return int(self.query("select pg_current_wal_lsn() - '0/0'")[0][0])

    def evaluated(self):
        """Guesses that were answered as wrong so far, by the responders in use: 503, for one, is none."""
        total = 0
        for name in self.upstreams["validate"]:
            with self.fastcgi(name) as connection:
                text = connection.request("GET", "/metrics/validate").body.decode()
            total += int(re.search(r'answer="wrong_password"\} (\d+)', text)[1])
        return total

    def wrk(self, kind, clients, seconds, *arguments):
        """Runs wrk over HTTPS with kept connections. kind: generate, validate or get."""
        before, wal, evaluated = self.spent(), self.wal_bytes(), self.evaluated()
        done = subprocess.run(["wrk", f"-t{1 if clients == 1 else 2}", f"-c{clients}", f"-d{seconds}s", "--timeout", "10s",
                               "-s", HERE / "load.lua", f"https://localhost:{self.https_port}", "--", kind,
                               *(str(a) for a in arguments)], check=True, stdout=subprocess.PIPE, text=True)
        figures = json.loads(done.stdout.strip().splitlines()[-1])
        evaluated = self.evaluated() - evaluated
        expected = figures["requests"] if kind == "validate" else 0
        assert figures["broken"] == 0 and abs(figures["refused"] - expected) <= clients, f"{kind}, {clients} clients: {figures}"
        assert expected <= evaluated <= expected + clients, f"{kind}: {evaluated} guesses evaluated, {expected} answered"
        cpu = {f"{part}_us": (after - before[part]) / figures["requests"] for part, after in self.spent().items()}
        return {"rps": figures["requests"] / figures["seconds"], **figures, **cpu,
                "wal_bytes": (self.wal_bytes() - wal) / figures["requests"]}

    def pgbench(self, kind, clients, seconds, dbname="otp", **variables):
        """Runs pgbench -M prepared: one request per call, as the responder's role, over the same unix socket. What it does
        while its connections plan their first calls is left out."""
        warm_up = 1 if clients < 256 else 3  # pgbench's own time begins before it has connected
        prefix = self.folder / "tmp" / f"pgbench-{os.getpid()}-{self.next_serial()}"
        definitions = [part for name, value in {"n": 0, **variables}.items() for part in ("-D", f"{name}={value}")]
        done = subprocess.run([pg_bin("pgbench"), "-n", "-M", "prepared", "-c", str(clients), "-j", str(min(clients, 2)),
                               "-T", str(seconds + warm_up), "-f", HERE / f"{kind}.pgbench", "--log", "--log-prefix", prefix,
                               *definitions, "-h", self.postgres.socket, "-U", f"otp_{kind}", dbname],
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False)
        assert done.returncode == 0, done.stderr
        calls = []  # (end in microseconds, latency in microseconds)
        for path in prefix.parent.glob(prefix.name + ".*"):
            for line in path.read_text().splitlines():
                _, _, latency, _, second, microsecond = line.split()
                calls.append((int(second) * 10**6 + int(microsecond), int(latency)))
            path.unlink()
        end = max(calls, default=(0, 0))[0]
        start = end - seconds * 10**6
        latencies = sorted(latency for moment, latency in calls if moment > start)
        assert latencies, f"pgbench stood still:\n{done.stdout}"
        return {"rps": len(latencies) / (end - start) * 10**6, "p50_ms": latencies[len(latencies) // 2] / 1000,
                "p99_ms": latencies[len(latencies) * 99 // 100] / 1000}


def processor_us(processes, in_kernel_only=False):
    """Processor time of processes and their children, those included that have ended, in microseconds."""
    fields = (12, 14) if in_kernel_only else (11, 12, 13, 14)  # of /proc/PID/stat, counted after the name
    ticks = 0
    for pid in (pid for process in processes for pid in family(process.pid)):
        with contextlib.suppress(OSError):  # it ended between two reads, as only an idle helper may here
            values = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
            ticks += sum(int(values[field]) for field in fields)
    return ticks * 10**6 / os.sysconf("SC_CLK_TCK")


def moment_of(seconds):
    """A moment for PostgreSQL."""
    return datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc)


def cpu_busy(seconds):
    """The share of the machine's processors in use over the next seconds, by anybody."""
    def read():
        fields = [int(x) for x in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]]
        return sum(fields), fields[3] + fields[4]
    total, idle = read()
    time.sleep(seconds)
    total_after, idle_after = read()
    return 1 - (idle_after - idle) / max(1, total_after - total)


__all__ = ["Bed", "as_service", "cpu_busy", "give_to_service", "pg_bin", "processor_us"]
