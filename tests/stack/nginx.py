"""nginx as production has it: the checkout's nginx/ with a site.conf of make-site's, in a folder of its own."""
import shutil
import socket
import subprocess

from .process import ROOT, give_to_service


def make_site(**settings):
    """site.conf; settings as nginx/make-site names them, a list is for several sockets or addresses."""
    words = [f"{name}={' '.join(map(str, value)) if isinstance(value, list) else value}" for name, value in settings.items()]
    return subprocess.run(["sh", ROOT / "nginx" / "make-site", *words], check=True, text=True, stdout=subprocess.PIPE).stdout


def write_site(home, text):
    (home / "otpd" / "site.conf").write_text(text)


def write_configuration(home, site):
    """All that nginx reads, below home."""
    shutil.rmtree(home / "otpd", ignore_errors=True)
    (home / "otpd").mkdir()
    for path in (ROOT / "nginx").glob("*.conf"):
        (home / "otpd" / path.name).symlink_to(path)
    shutil.copy(ROOT / "nginx" / "standalone.conf", home / "nginx.conf")
    write_site(home, site)
    give_to_service(home)


def command(home, early_log, *directives):
    """Runs it in the foreground; directives are those of the main file that differ from stack to stack."""
    given = " ".join(f"{directive};" for directive in ("daemon off", *directives))
    return ["nginx", "-p", home, "-c", home / "nginx.conf", "-e", early_log, "-g", given]


def is_listening(port):
    with socket.create_connection(("127.0.0.1", port), 2):
        return True
