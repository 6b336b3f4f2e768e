"""The parts of a stack in one folder, and how each is started: the same for ./dev up, the tests and the benchmark."""
import socket
import struct
import subprocess

from . import certificates, nginx
from .fastcgi import FastCgi
from .postgres import Postgres
from .process import BUILD, Process, as_service
from .wait import NotReady


class Stack:
    """PostgreSQL, responders, worker and nginx. An heir says which of them there are and what they are told, and ends them."""

    FOLDERS = ("log", "run", "keys", "nginx")  # and what an heir adds

    def __init__(self, folder, https_port, **cluster):
        self.folder = folder
        self.https_port = https_port
        self.log, self.run, self.keys, self.home = (folder / name for name in Stack.FOLDERS)
        self.certificate = self.home / "cert.pem"
        self.postgres = Postgres(folder / "pg", self.run, self.launch, **cluster)

    def launch(self, name, argv, env=None, **options):
        """Starts a process that logs to log/NAME.log."""
        return Process(name, argv, self.log / f"{name}.log", env, **options)

    def make_keys(self, *options, folder=None):
        done = subprocess.run([*as_service(self.folder), BUILD / "otp-keygen", *options, folder or self.keys], check=False,
                              cwd="/", text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        if done.returncode != 0:
            raise NotReady(f"otp-keygen: {done.stdout}")

    def environment(self, kind, **overrides):
        """The environment of a program of this stack; an override of None removes a setting."""
        database = f"{self.postgres.conninfo(f'otp_{kind}')} application_name=otp-{kind}"
        env = {"DATABASE_URL": database, "KEY_DIR": self.keys / kind, **self.settings(kind), **overrides}
        return {k: v for k, v in env.items() if v is not None}

    def settings(self, kind):
        """What this stack sets for a program of a kind besides where its database and keys are."""
        raise NotImplementedError

    def socket_path(self, name):
        return self.run / f"{name}.sock"

    def launch_program(self, kind, name, env):
        """Starts one of the programs; a responder that runs on the same path loses it to the new one."""
        process = self.launch(name, [*as_service(self.folder), BUILD / f"otp-{kind}"], env)
        process.kind = kind
        return process

    def wait_responder(self, process, path):
        """Ready: this very process answers on its socket, with the database."""
        uri = "/healthz" if process.kind == "generate" else "/healthz/validate"

        def probe():
            with FastCgi(path, 5) as connection:
                # A predecessor on the same path may still answer: SO_PEERCRED tells who listens.
                listens = struct.unpack("3i", connection.socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
                return listens == process.pid and connection.request("GET", uri, keep=False).status == 200
        process.wait_ready(probe, 15)

    def wait_worker(self, process):
        """Ready: a worker is connected."""
        process.wait_ready(lambda: self.postgres.psql("select 1 from pg_stat_activity where usename = 'otp_worker' limit 1"), 15)

    def site_conf(self):
        """site.conf, as nginx/site.conf.example but for names and paths."""
        return nginx.make_site(name="localhost", certificate=self.certificate, key=self.home / "key.pem", **self.site())

    def site(self):
        """This stack's settings for make-site."""
        raise NotImplementedError

    def launch_nginx(self, early_log, *directives):
        if not certificates.is_valid_for(self.certificate, 10):
            certificates.make_self_signed(self.certificate, self.home / "key.pem")
        nginx.write_configuration(self.home, self.site_conf())
        process = self.launch("nginx", [*as_service(self.folder), *nginx.command(self.home, early_log, *directives)])
        process.wait_ready(lambda: nginx.is_listening(self.https_port), 15)
        return process
