"""Keys and certificates: a site's own, and those that relays of the tests show, signed by an authority of the tests."""
import datetime
import re
import ssl
import subprocess

NEW_KEY = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
# What "openssl ca" wants to know. It is used since it alone takes both dates, past ones too, in every version.
AUTHORITY = """[ca]
default_ca = authority
[authority]
database = {folder}/index.txt
new_certs_dir = {folder}
rand_serial = yes
default_md = sha256
policy = any
unique_subject = no
[any]
commonName = supplied
"""


def openssl(*arguments):
    done = subprocess.run(["openssl", *arguments], check=False, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert done.returncode == 0, f"openssl {' '.join(map(str, arguments))}:\n{done.stdout}"


def make_self_signed(certificate, key, days=365):
    """A certificate for this machine only."""
    openssl("req", "-x509", *NEW_KEY, "-days", str(days), "-subj", "/CN=localhost", "-addext",
            "subjectAltName=DNS:localhost,IP:127.0.0.1,IP:::1", "-keyout", key, "-out", certificate)


def is_valid_for(certificate, days):
    return subprocess.run(["openssl", "x509", "-noout", "-checkend", str(days * 86400), "-in", certificate], check=False,
                          stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0


def make_authority(folder):
    """A certificate authority for tests."""
    folder.mkdir(parents=True, exist_ok=True)
    openssl("req", "-x509", *NEW_KEY, "-days", "2", "-subj", "/CN=test authority", "-keyout", folder / "ca.key", "-out",
            folder / "ca.pem")
    (folder / "ca.conf").write_text(AUTHORITY.format(folder=folder))
    (folder / "index.txt").touch()
    return folder / "ca.pem"


def make_tls(folder, names, days=2, sign=True):
    """A server's context with a certificate for names ("DNS:localhost"), signed by the folder's authority or by itself. It is
    valid from the day before for this number of days; with -1 it has expired the day before."""
    stem = folder / re.sub(r"[^a-z0-9]", "-", f"{names}{days}{sign}".lower())
    key, request, certificate, extensions = (stem.with_suffix(suffix) for suffix in (".key", ".csr", ".pem", ".ext"))
    extensions.write_text(f"subjectAltName={names}\n")
    openssl("req", *NEW_KEY, "-subj", "/CN=relay", "-keyout", key, "-out", request)
    end = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(days=days)
    start = end - datetime.timedelta(days=abs(days) + 1)
    signer = ["-cert", folder / "ca.pem", "-keyfile", folder / "ca.key"] if sign else ["-selfsign", "-keyfile", key]
    openssl("ca", "-batch", "-notext", "-config", folder / "ca.conf", *signer, "-in", request, "-extfile", extensions,
            "-startdate", f"{start:%Y%m%d%H%M%SZ}", "-enddate", f"{end:%Y%m%d%H%M%SZ}", "-out", certificate)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context
