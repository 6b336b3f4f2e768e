"""A machine of its own for the commands of docs/OPERATIONS.md: a script is run as root in namespaces of its own, and whatever it
changes in /etc, /usr/local, /var and /run, or starts, is gone when it ends.

The machine has what a new server has: a PostgreSQL without a database of ours, Debian's nginx that does not run, a certificate for
otp.example.com, and a mail relay elsewhere, smtp.example.com, which wants STARTTLS and a login. As a program: machine.py FOLDER,
with the sources in FOLDER/tree and the script in FOLDER/script.
"""
import fcntl
import os
import shutil
import socket
import ssl
import struct
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from stack import pg_bin  # noqa: E402
from stack.relay import Relay  # noqa: E402

OVERLAID = ("/etc", "/usr/local", "/var")
NAMESPACES = ["unshare", "--mount", "--net", "--pid", "--ipc", "--uts", "--fork", "--kill-child", "--mount-proc"]
LOGIN = ("otp@example.com", "the password")


def as_root():
    """The command prefix that makes a user root, or None."""
    if os.getuid() == 0:
        return []
    sudo = ["sudo", "-n"]
    return sudo if shutil.which("sudo") and subprocess.run([*sudo, "true"], check=False, stderr=subprocess.DEVNULL).returncode == 0 else None


def why_not():
    """Why there can be no such machine here; None if there can."""
    prefix = as_root()
    if prefix is None:
        return "needs root, or sudo without a password"
    tried = subprocess.run([*prefix, *NAMESPACES, "mount", "-t", "tmpfs", "none", "/mnt"], check=False, text=True,
                           stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    return None if tried.returncode == 0 else f"no namespaces here: {tried.stdout.strip()}"


def run(folder, timeout):
    """Runs FOLDER/script on a machine of its own; returns the exit status and the output."""
    done = subprocess.run([*as_root(), *NAMESPACES, "/usr/bin/python3", "-B", "-W", "ignore", __file__, str(folder)], check=False, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=timeout)
    return done.returncode, done.stdout


# --- On the machine ---

def shell(*command, **options):
    subprocess.run(command, check=True, **options)


def cover(work):
    """What is written below these folders goes to memory; /run is empty, as after a reboot."""
    shell("mount", "-t", "tmpfs", "none", work)
    for path in OVERLAID:
        upper, extra = work / "upper" / path[1:], work / "work" / path[1:]
        upper.mkdir(parents=True)
        extra.mkdir(parents=True)
        shell("mount", "-t", "overlay", "overlay", "-o", f"lowerdir={path},upperdir={upper},workdir={extra}", path)
    shell("mount", "-t", "tmpfs", "-o", "mode=755", "none", "/run")
    Path("/run/lock").mkdir(mode=0o1777)


def raise_loopback():
    """ip link set lo up, without iproute2."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, 0x8914, struct.pack("16sh14x", b"lo", 0x1 | 0x40))  # SIOCSIFFLAGS, IFF_UP | IFF_RUNNING


def make_certificates(work):
    """An authority that the machine trusts, and what it signed for the API and the relay."""
    authority = Path("/usr/local/share/ca-certificates/machine.crt")
    authority.parent.mkdir(parents=True, exist_ok=True)
    shell("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj",
          "/CN=authority", "-keyout", work / "authority.key", "-out", authority, stderr=subprocess.DEVNULL)
    shell("update-ca-certificates", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for host in ("otp.example.com", "smtp.example.com"):
        home = Path("/etc/ssl", host)
        home.mkdir()
        (home / "names").write_text(f"subjectAltName=DNS:{host}\n")
        shell("openssl", "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", f"/CN={host}",
              "-keyout", home / "privkey.pem", "-out", home / "request.pem", stderr=subprocess.DEVNULL)
        shell("openssl", "x509", "-req", "-in", home / "request.pem", "-CA", authority, "-CAkey", work / "authority.key", "-CAcreateserial",
              "-days", "2", "-extfile", home / "names", "-out", home / "fullchain.pem", stderr=subprocess.DEVNULL)
    with open("/etc/hosts", "a") as hosts:
        hosts.write("127.0.0.1 otp.example.com smtp.example.com\n")


def start_relay():
    """smtp.example.com: takes mail with TLS and a login only, and keeps the newest code of each address as a file in /run/codes."""
    codes = Path("/run/codes")
    codes.mkdir()

    def keep(connection, verb, value):
        if verb in ("AUTH", "MAIL") and not connection.is_tls:
            return "530 5.7.0 STARTTLS first"
        if verb == "DOT":
            (codes / value.recipients[0]).write_text(value.code)
        return None
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain("/etc/ssl/smtp.example.com/fullchain.pem", "/etc/ssl/smtp.example.com/privkey.pem")
    return Relay(keep, port=587, tls=tls, login=LOGIN).start()


# PostgreSQL as Debian's package leaves it, and what the documents' hooks call ("<!-- the tests call: NAME -->").
PRELUDE = """
set -eu
new_cluster() {
	rm -rf /var/lib/otpd-machine
	install -d -o postgres -g postgres -m 700 /var/lib/otpd-machine
	install -d -o postgres -g postgres -m 2775 /run/postgresql
	runuser -u postgres -- "$pg_bin/initdb" -D /var/lib/otpd-machine --no-sync -A peer -E UTF8 --locale C.UTF-8 >/dev/null
	setpriv --reuid postgres --regid postgres --init-groups "$pg_bin/postgres" -D /var/lib/otpd-machine -c listen_addresses= \\
		2>>/var/log/otpd-machine-postgres.log &
	postgres=$!
	until runuser -u postgres -- pg_isready -q; do sleep 0.05; done
}

fail() {
	echo "FAILED: $*"
	tail -n 20 /var/log/otpd/*.log /var/log/otpd-machine-postgres.log /var/log/nginx/error.log
	exit 1
}

validate() {
	curl -sS https://otp.example.com/validate-password --json "{\\"token\\": \\"$token\\", \\"password\\": \\"$code\\"}"
}

# Asks for a code and reads the mail: $token and $code.
hold_a_code() {
	address=held-$SECONDS-$RANDOM@example.com
	token=$(curl -sS https://otp.example.com/generate-password --json "{\\"email\\": \\"$address\\"}" | sed 's/.*"token":"\\([^"]*\\)".*/\\1/')
	for turn in $(seq 100); do
		if [ -s "/run/codes/$address" ]; then code=$(cat "/run/codes/$address"); return; fi
		sleep 0.1
	done
	fail "no mail to $address"
}

is_valid() {
	answer=$(validate)
	case $answer in *Enjoy*) ;; *) fail "a right code was answered $answer" ;; esac
}

check_flow() {
	hold_a_code
	is_valid
}

check_tmpfiles() {
	[ "$(stat -c '%a %U %G' /run/otpd)" = "1770 root otpd" ]
	if command -v systemd-tmpfiles >/dev/null; then
		rmdir /run/otpd
		systemd-tmpfiles --create /etc/tmpfiles.d/otpd.conf
		[ "$(stat -c '%a %U %G' /run/otpd)" = "1770 root otpd" ] || fail "the line for systemd-tmpfiles makes another folder"
	fi
}

# A code of before the rotation is valid after it, and new rows have the new key.
check_rotation() {
	is_valid
	check_flow
	keys=$(runuser -u postgres -- psql -XAt otp -c 'select mac_key from otp.challenge group by 1 order by 1' | xargs)
	[ "$keys" = "1 2" ] || fail "challenges of the keys $keys"
}

# After the backup a code is used that the dump knows as live; then disk and memory are gone.
lose_the_machine() {
	is_valid
	kill "$worker" "$validate" "$generate" "$postgres" "$(cat /run/nginx.pid)"
	kill "$validate" "$generate"  # a second time: at once
	wait "$worker" "$validate" "$generate" "$postgres"
	while [ -e /run/nginx.pid ]; do sleep 0.05; done
	rm -rf /etc/otpd /etc/nginx/otpd /etc/nginx/conf.d/otpd.conf /etc/tmpfiles.d/otpd.conf /run/otpd /var/log/otpd/*
	new_cluster
}

check_restored() {
	for path in healthz healthz/validate; do
		until curl -fsS -o /dev/null "https://otp.example.com/$path" 2>/dev/null; do sleep 0.05; done
	done
	answer=$(validate)
	case $answer in *'"used"'* | *'"expired"'*) ;; *) fail "a code that was used after the backup was answered $answer" ;; esac
	others=$(runuser -u postgres -- psql -XAt otp -c "select count(*) from pg_proc where pronamespace = 'otp'::regnamespace
		and (proowner <> 'otp_owner'::regrole or has_function_privilege('public', oid, 'execute'))")
	[ "$others" = 0 ] || fail "functions that are not otp_owner's, or everybody's"
	timeout=$(runuser -u otp_admin -- psql -XAt otp -c 'show idle_in_transaction_session_timeout')
	[ "$timeout" = 10s ] || fail "otp_admin's sessions have a time limit of $timeout"
	! runuser -u nobody -- psql -XAt "dbname=otp user=nobody" 2>/dev/null || fail "somebody else connects"
	check_flow
}
"""


def main():
    folder = Path(sys.argv[1])
    work = folder / "work"
    cover(work)
    raise_loopback()
    make_certificates(work)
    shutil.copytree(folder / "tree", work / "tree")
    script = f"pg_bin={os.path.dirname(pg_bin('postgres'))}\n{PRELUDE}\nnew_cluster\n{(folder / 'script').read_text()}"
    relay = start_relay()
    environment = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", "HOME": "/root"}
    status = subprocess.run(["bash", "-c", script], cwd=work / "tree", env=environment, stdin=subprocess.DEVNULL, check=False).returncode
    relay.stop()
    sys.stdout.flush()
    os._exit(status)  # process 1: with it ends whatever the script left


if __name__ == "__main__":
    main()
