"""Ports of this machine: a free one, and who has one that is taken."""
import contextlib
import os
import socket
from pathlib import Path


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def port_holder(port):
    """Names the process that listens on a port; None: no process does."""
    for table in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):
            for fields in (line.split() for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]):
                if fields[3] == "0A" and fields[1].endswith(f":{port:04X}"):
                    return holder_of_socket(fields[9])
    return None


def holder_of_socket(inode):
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        with contextlib.suppress(OSError):
            if os.readlink(link) == f"socket:[{inode}]":
                return f"{(link.parents[1] / 'comm').read_text().strip()} (pid {link.parts[2]})"
    return "another user's process"
