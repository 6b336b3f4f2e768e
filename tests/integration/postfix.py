"""A Postfix of the test's own: in a folder, on free loopback ports, one for each way in which it is to behave."""
import os
import shutil
import tempfile
from pathlib import Path

from stack.ports import free_port
from stack.process import Process
from stack.wait import wait_for

DAEMON = Path("/usr/lib/postfix/sbin")
COMMON = """
compatibility_level = 3.6
config_directory = {folder}/etc
queue_directory = {folder}/queue
data_directory = {folder}/data
maillog_file = {folder}/mail.log
maillog_file_prefixes = /tmp
myhostname = relay.test
mydestination =
mynetworks = 127.0.0.0/8
inet_interfaces = loopback-only
inet_protocols = ipv4
alias_maps =
default_transport = discard
relay_transport = discard
relay_domains = relayed.example
relay_recipient_maps = inline:{{joe@relayed.example=x}}
smtpd_recipient_restrictions =
smtpd_delay_reject = yes
smtpd_tls_cert_file = {certificate}
smtpd_tls_key_file = {key}
smtpd_tls_security_level = may
smtpd_peername_lookup = no
smtpd_client_event_limit_exceptions =
"""
SERVICES = """
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
strict unix n - n - 0 cleanup -o header_checks=static:{{REJECT no such mail here}}
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
proxymap unix - - n - - proxymap
anvil unix - - n - 1 anvil
postlog unix-dgram n - n - 1 postlogd
"""


class Postfix:
    """ways: name -> settings of smtpd, as "name=value". Started as root, as Postfix wants it."""

    def __init__(self, certificate, key, ways):
        self.folder = Path(tempfile.mkdtemp(prefix="otp-postfix-", dir="/tmp"))
        self.ports = {way: free_port() for way in ways}
        self.folder.chmod(0o755)
        for name in ("etc", "queue", "data"):
            (self.folder / name).mkdir()
        shutil.chown(self.folder / "data", "postfix")
        (self.folder / "etc" / "main.cf").write_text(COMMON.format(folder=self.folder, certificate=certificate, key=key))
        services = [f"127.0.0.1:{self.ports[way]} inet n - n - - smtpd" + "".join(f"\n  -o {{ {setting} }}" for setting in settings)
                    for way, settings in ways.items()]
        (self.folder / "etc" / "master.cf").write_text("\n".join(services) + SERVICES.format())
        self.process = None

    def __enter__(self):
        self.process = Process("postfix", ["/usr/sbin/postfix", "-c", self.folder / "etc", "start-fg"], self.folder / "start.log")
        self.process.wait_ready(lambda: "daemon started" in self.log())
        return self

    def __exit__(self, *_):
        self.process.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def log(self):
        path = self.folder / "mail.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def taken(self, recipient):
        """How many mails for somebody it has taken and passed on."""
        return sum(f"to=<{recipient}>" in line and "status=sent" in line for line in self.log().splitlines())

    def wait_taken(self, recipient, count=1):
        return wait_for(lambda: self.taken(recipient) >= count, 10, f"{count} mails to {recipient}:\n{self.log()[-2000:]}")


def is_there():
    return os.geteuid() == 0 and (DAEMON / "master").exists()
