"""Clusters of PostgreSQL for what a database of the stack cannot show: other versions, other languages, a restore elsewhere.

OTP_PG_BINS names folders with initdb and postgres of further versions, separated by colons.
"""
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import psycopg

from stack import ROOT, Process, as_service, give_to_service, wait_for

SQL = ROOT / "sql"


def versions():
    """The folders with server programs, by major version."""
    folders = [*Path("/usr/lib/postgresql").glob("*/bin"), *map(Path, filter(None, os.environ.get("OTP_PG_BINS", "").split(":")))]
    found = {}
    for folder in folders:
        if (folder / "initdb").exists():
            text = subprocess.run([folder / "postgres", "--version"], check=True, stdout=subprocess.PIPE, text=True).stdout
            found[int(re.search(r"(\d+)", text)[1])] = folder
    return found


VERSIONS = versions()
NEWEST = max(VERSIONS)
DUMPED = int(re.search(r"(\d+)", subprocess.run(["pg_dump", "--version"], check=True, stdout=subprocess.PIPE, text=True).stdout)[1])


class Cluster:
    """A server on a unix socket in a folder of its own, without any role or database of ours."""

    def __init__(self, version=NEWEST):
        self.version = version
        self.folder = Path(tempfile.mkdtemp(prefix="otp-cluster-", dir="/tmp"))
        self.folder.chmod(0o755)
        give_to_service(self.folder)
        programs = VERSIONS[version]
        subprocess.run([*as_service(programs), programs / "initdb", "-D", self.folder / "data", "-U", "postgres", "-A", "trust", "-E",
                        "UTF8", "--locale", "C.UTF-8", "-N"], check=True, stdout=subprocess.DEVNULL, cwd="/")
        self.process = Process(f"postgres-{version}", [*as_service(programs), programs / "postgres", "-D", self.folder / "data", "-c",
                                                       "listen_addresses=", "-c", f"unix_socket_directories={self.folder}", "-c",
                                                       "fsync=off"], self.folder / "log")
        wait_for(lambda: self.query("select 1", dbname="postgres"), 30, "PostgreSQL")

    def close(self):
        self.process.stop(2)
        shutil.rmtree(self.folder)

    def conninfo(self, user="postgres", dbname="otp"):
        return f"host={self.folder} dbname={dbname} user={user}"

    def connect(self, user="postgres", dbname="otp"):
        return psycopg.connect(self.conninfo(user, dbname), autocommit=True)

    def query(self, sql, *values, user="postgres", dbname="otp"):
        with self.connect(user, dbname) as connection:
            cursor = connection.execute(sql, values or None)
            return cursor.fetchall() if cursor.description else []

    def create(self, owner="postgres", options=""):
        """An empty database otp, without the one of before."""
        self.query("drop database if exists otp", dbname="postgres")
        self.query(f"create database otp owner {owner} {options}", dbname="postgres")

    def migrate(self, sql=SQL, user="postgres", status=0):
        """-> what it printed"""
        done = subprocess.run(["sh", sql / "migrate", self.conninfo(user)], check=False, text=True, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT)
        assert (done.returncode == 0) == (status == 0), f"exit {done.returncode}: {done.stdout}"
        return done.stdout
