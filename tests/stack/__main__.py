"""The command line of ./dev's stack: up [-d], down, status, mail, psql [...], logs [NAME]. OTP_LOCAL is its folder."""
import inspect
import os
import signal
import sys
from pathlib import Path

from .local import Local, die
from .process import ROOT
from .wait import NotReady

COMMANDS = ("up", "down", "status", "mail", "psql", "logs")

signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # ./dev mail | head
command, *words = sys.argv[1:] or [""]
if command not in COMMANDS:
    die(f"no such command: {command}")
run = getattr(Local(Path(os.environ.get("OTP_LOCAL") or ROOT / ".local").absolute()), command)
try:
    inspect.signature(run).bind(*words)
except TypeError:
    die(f"{command} takes no {' '.join(words)}")
try:
    run(*words)
except NotReady as problem:
    die(problem)
except KeyboardInterrupt:
    sys.exit(130)
