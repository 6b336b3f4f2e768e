"""What a bench run measures. Each function takes the run and the bed and returns its figures, medians over its rounds."""
import statistics
import subprocess
import time
from pathlib import Path

from bed import as_service, processor_us
from stack import Process, address_of, family, free_port, wait_for

CLIENTS = (1, 16, 64, 256)
KINDS = ("generate", "validate")
MIB = 1024 * 1024


def medians(rounds):
    """Round results, dicts of the same keys, as one dict of medians."""
    return {key: statistics.median(one[key] for one in rounds) for key in rounds[0]}


def throughput(run, bed):
    """Requests per second and latency over HTTPS beside pgbench's, for 1 to 256 clients."""
    bed.empty()
    bed.serve(generate=["generate-0"], validate=["validate-0"])
    count = 10000
    tokens = bed.plant_tokens(count)
    base = bed.plant_for_pgbench(count)
    loads = {
        "generate": {"https": lambda clients: bed.wrk("generate", clients, run.seconds, f"h{bed.next_serial()}"),
                     "pgbench": lambda clients: bed.pgbench("generate", clients, run.seconds, run=bed.next_serial(),
                                                            base=int(time.time() * 1000))},
        "validate": {"https": lambda clients: bed.wrk("validate", clients, run.seconds, "", tokens),
                     "pgbench": lambda clients: bed.pgbench("validate", clients, run.seconds, base=base, rows=count)},
    }

    def prepare(kind):
        if kind == "generate":
            bed.empty()
        bed.checkpoint()

    figures = {}
    for kind in reversed(KINDS):
        figures[kind] = {}
        for clients in CLIENTS:
            before = bed.attempts()
            rounds = run.alternate({side: lambda load=load, clients=clients: load(clients)
                                    for side, load in loads[kind].items()}, f"{kind}, {clients} clients",
                                   prepare=lambda kind=kind: prepare(kind))
            if kind == "validate":
                answered = sum(one["requests"] for one in rounds["https"])
                counted = bed.attempts() - before
                assert answered <= counted <= answered + run.rounds * clients, f"{answered} guesses answered, {counted} counted"
            figures[kind][clients] = {side: medians(results) for side, results in rounds.items()}
    bed.empty()
    return figures


def live_rows(run, bed):
    """Throughput at 64 clients with few and with many live rows, each round right after a checkpoint."""
    tokens_count = 10000
    sizes = {"otp": tokens_count, "million": 10**6, "tens": 10**7}
    if run.quick:
        del sizes["tens"]
    tokens = {}
    for dbname, size in sizes.items():
        run.say(f"planting {size} rows")
        if dbname != "otp":
            bed.postgres.create(dbname)
            for kind in KINDS:
                bed.start_responder(kind, dbname, DATABASE_URL=bed.postgres.conninfo(f"otp_{kind}", dbname))
        if size > tokens_count:
            bed.plant_rows(size - tokens_count, dbname)
        tokens[dbname] = bed.plant_tokens(tokens_count, dbname)

    def load(kind, dbname):
        bed.serve(**{kind: [f"{kind}-{'0' if dbname == 'otp' else dbname}"]})
        if dbname == "otp":
            bed.empty()
            tokens[dbname] = bed.plant_tokens(tokens_count)
        bed.checkpoint()
        run.wait_quiet()
        return bed.wrk(kind, 64, run.seconds, f"r{bed.next_serial()}", tokens[dbname])

    figures = {}
    for kind in KINDS:
        rounds = run.alternate({size: lambda kind=kind, dbname=dbname: load(kind, dbname) for dbname, size in sizes.items()},
                               f"{kind}, live rows")
        figures[kind] = {size: medians(results) for size, results in rounds.items()}
    for dbname in sizes:
        if dbname != "otp":
            for kind in KINDS:
                bed.responders.pop(f"{kind}-{dbname}").stop()
    bed.serve(generate=["generate-0"], validate=["validate-0"])
    for dbname in sizes:
        if dbname != "otp":
            bed.query(f"drop database {dbname} with (force)")
    bed.empty()
    return figures


def sweep(run, bed):
    """Latency of validate at 64 clients while a million expired rows are swept and without, and how long that takes."""
    count = 10**5 if run.quick else 10**6
    without, during, durations = [], [], []
    for number in range(run.sweep_rounds):
        bed.empty()
        tokens = bed.plant_tokens(10000)
        bed.plant_rows(count, name=f"old{number}", age=3 * 86400, lifetime=600.0)
        bed.checkpoint()
        run.wait_quiet()
        without.append(bed.wrk("validate", 64, run.seconds, "", tokens))
        bed.smtp.start()
        bed.start_worker(SWEEP_SECONDS=1)
        start = time.monotonic()
        wait_for(lambda: expired(bed) < count, 20, "the sweep to start", 0.05)
        rounds = []
        while expired(bed) > count // 20 or not rounds:
            rounds.append(bed.wrk("validate", 64, 2, "", tokens))
        wait_for(lambda: expired(bed) == 0, 300, "the sweep to end", 0.1)
        durations.append(time.monotonic() - start)
        bed.stop_worker()
        bed.smtp.stop()
        during.append(medians(rounds))
        without.append(bed.wrk("validate", 64, run.seconds, "", tokens))
        run.say(f"sweep of {count}: {durations[-1]:.1f} s, p99 before, meanwhile, after: {without[-2]['p99_ms']:.2f}"
                f" {during[-1]['p99_ms']:.2f} {without[-1]['p99_ms']:.2f} ms")
    bed.empty()
    return {"rows": count, "without": medians(without), "during": medians(during), "seconds": statistics.median(durations)}


def expired(bed):
    """Rows that expired and are still there, counted without reading them all."""
    return bed.query("select count(*) from otp.challenge where id < otp.id_at(now() - interval '1 day')")[0][0]


def scaling(run, bed):
    """One and two processes of each responder behind one upstream."""
    for kind in KINDS:
        bed.start_responder(kind, 1)
    bed.empty()
    tokens = bed.plant_tokens(10000)
    figures = {}
    for kind in KINDS:
        def load(processes, kind=kind):
            bed.serve(**{kind: [f"{kind}-{i}" for i in range(processes)]})
            return bed.wrk(kind, 64, run.seconds, f"s{bed.next_serial()}", tokens)
        rounds = run.alternate({"one": lambda: load(1), "two": lambda: load(2)}, f"{kind}, one and two processes")
        figures[kind] = {side: medians(results) for side, results in rounds.items()}
    bed.serve(generate=["generate-0"], validate=["validate-0"])
    for kind in KINDS:
        bed.responders.pop(f"{kind}-1").stop()
    bed.empty()
    return figures


def hop(run, bed):
    """A request that ends in the responder's process beside a file that nginx serves itself."""
    rounds = run.alternate({"process": lambda: bed.wrk("get", 64, run.seconds, "/healthz?check=process"),
                            "static": lambda: bed.wrk("get", 64, run.seconds, "/static.json")}, "FastCGI hop")
    return {side: medians(results) for side, results in rounds.items()}


# --- Mail ---

def start_sink(bed):
    port = free_port()
    sink = Process("smtp-sink", [*as_service(), "/usr/sbin/smtp-sink", f"127.0.0.1:{port}", "1000"], bed.log / "smtp-sink.log")
    wait_for(lambda: subprocess.run(["/usr/sbin/smtp-source", "-m", "1", f"127.0.0.1:{port}"], check=False,
                                    stderr=subprocess.DEVNULL).returncode == 0, 10, "smtp-sink")
    return sink, port


def queue_mails(bed, count):
    """Has count mails generated and keeps them aside as table bench.mail."""
    bed.empty()
    while bed.query("select count(*) from otp.mail")[0][0] < count:
        bed.wrk("generate", 16, 1, f"m{bed.next_serial()}")
    bed.query("drop schema if exists bench cascade")
    bed.query("create schema bench")
    bed.query("create table bench.mail as select * from otp.mail order by id limit %s", count)
    bed.query("truncate otp.mail")


def deliver(bed, count, sessions, sink, port):
    """Mails per second from the moment they are queued until the last is settled, by a worker that is already up, and what
    processor time a mail takes."""
    worker = bed.start_worker(WORKER_SESSIONS=sessions, SMTP_RELAYS=f"127.0.0.1:{port}")
    wait_for(lambda: bed.query("select count(*) from pg_stat_activity where usename = 'otp_worker'")[0][0] >= sessions, 15,
             "the delivery processes")

    def spent():
        return {"worker_us": processor_us([worker]), "worker_kernel_us": processor_us([worker], in_kernel_only=True),
                "postgres_us": processor_us([bed.postgres.process]), "sink_us": processor_us([sink])}

    bed.query("insert into otp.mail select * from bench.mail")
    before = spent()
    start = bed.query("select clock_timestamp()")[0][0]
    bed.query("notify otp_mail")
    wait_for(lambda: bed.query("select count(*) from otp.mail where state = 'queued'")[0][0] == 0, 120, "delivery", 0.2)
    sent, last = bed.query("select count(*) filter (where state = 'sent'), max(sent_at) from otp.mail")[0]
    cpu = {name: (after - before[name]) / count for name, after in spent().items()}
    assert sent == count, f"{sent} of {count} mails were sent"
    bed.stop_worker()
    bed.query("truncate otp.mail")
    return {"rps": count / (last - start).total_seconds(), **cpu}


def smtp_source(count, sessions, sink, port, size):
    before = processor_us([sink])
    start = time.monotonic()
    subprocess.run(["/usr/sbin/smtp-source", "-s", str(sessions), "-d", "-m", str(count), "-l", str(size), "-f", "otp@example.org",
                    "-t", "user@example.com", f"127.0.0.1:{port}"], check=True)
    return {"rps": count / (time.monotonic() - start), "sink_us": (processor_us([sink]) - before) / count}


def message_size(bed):
    """Bytes of one mail as the relay gets it."""
    bed.smtp.start()
    bed.start_worker()
    address = address_of()
    bed.generate(address)
    mail = wait_for(lambda: [m for m in bed.smtp.mails if m.recipients == [address]], 10, "a mail")[0]
    bed.stop_worker()
    bed.smtp.stop()
    return len(mail.raw)


def mail(run, bed):
    """Mails per second of one and of four delivery processes beside Postfix's smtp-source, into the same smtp-sink."""
    size = message_size(bed)
    count = 3000 if run.quick else 10000
    queue_mails(bed, count)
    sink, port = start_sink(bed)
    rounds = run.alternate({
        "worker 1": lambda: deliver(bed, count, 1, sink, port), "smtp-source 1": lambda: smtp_source(count, 1, sink, port, size),
        "worker 4": lambda: deliver(bed, count, 4, sink, port), "smtp-source 4": lambda: smtp_source(count, 4, sink, port, size)}, "mail")
    sink.stop()
    bed.query("drop schema bench cascade")
    bed.empty()
    return {"bytes": size, **{side: medians(results) for side, results in rounds.items()}}


def post_to_relay(run, bed):
    """From POST to the moment the relay accepts the mail, one at a time on an idle system."""
    bed.smtp.reset()
    bed.smtp.start()
    bed.start_worker()
    connection = bed.http()
    delays = []
    run.wait_quiet()
    for _ in range(run.idle_posts):
        time.sleep(0.1)  # idle: the last mail is settled, the worker waits
        address = address_of()
        start = time.time()
        assert bed.generate(address, connection).status == 200
        mail = wait_for(lambda address=address: [m for m in bed.smtp.mails if m.recipients == [address]], 10, "a mail", 0.001)[0]
        delays.append((mail.when - start) * 1000)
    connection.close()
    bed.stop_worker()
    bed.smtp.stop()
    return {"p50_ms": statistics.median(delays), "max_ms": max(delays)}


# --- Idle ---

def idle(run, bed):
    """Processor time and memory of all our programs when nothing comes; they have just been under load."""
    bed.smtp.start()
    bed.start_worker()
    tokens = bed.plant_tokens(1000)
    bed.wrk("generate", 64, 1, f"i{bed.next_serial()}")
    bed.wrk("validate", 64, 1, "", tokens)
    wait_for(lambda: bed.query("select count(*) from otp.mail where state = 'queued'")[0][0] == 0, 120, "the queue to empty", 0.5)
    run.wait_quiet()
    pids = {}
    for process in (bed.responders["generate-0"], bed.responders["validate-0"], bed.workers["worker-0"]):
        for number, pid in enumerate(family(process.pid)):
            pids[process.name + (f".{number}" if number else "")] = pid

    def nanoseconds():
        return sum(int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) for pid in pids.values())

    start, spent = time.monotonic(), nanoseconds()
    time.sleep(run.idle_seconds)
    share = (nanoseconds() - spent) / 1e9 / (time.monotonic() - start)
    memory = {}
    for name, pid in pids.items():
        fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        memory[name] = {"rss_mib": int(fields["VmRSS"].split()[0]) / 1024, "own_mib": int(fields["RssAnon"].split()[0]) / 1024}
    bed.stop_worker()
    bed.smtp.stop()
    bed.empty()
    return {"cpu_share": share, "memory": memory}
