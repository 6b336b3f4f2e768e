"""site.conf as make-site writes it: for nginx before and after 1.25.1, with every setting, without a word of complaint."""
import os
import socket
import ssl
import subprocess

import pytest

from stack import ROOT

EXAMPLE = (ROOT / "nginx" / "site.conf.example").read_text()


def make_site(tmp_path, *settings, version="1.22.1", status=0):
    """What it prints where nginx is of this version."""
    (tmp_path / "nginx").write_text(f"#!/bin/sh\necho 'nginx version: nginx/{version}' >&2\n")
    (tmp_path / "nginx").chmod(0o755)
    done = subprocess.run([ROOT / "nginx" / "make-site", *settings], env={"PATH": f"{tmp_path}:{os.environ['PATH']}"},
                          check=False, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert done.returncode == status, done.stdout
    return done.stdout


@pytest.mark.parametrize("version, is_directive", [("1.18.0", False), ("1.22.1", False), ("1.25.0", False), ("1.25.1", True),
                                                   ("1.26.3", True), ("1.100.0", True), ("2.0.0", True)])
def test_http2_is_named_as_this_nginx_wants(tmp_path, version, is_directive):
    site = make_site(tmp_path, version=version)
    assert site.count("listen") == EXAMPLE.count("listen")
    assert (site.count("\thttp2 on;\n"), site.count(" ssl http2 default_server")) == ((1, 0) if is_directive else (0, 2))
    if not is_directive:
        assert site == EXAMPLE


def test_every_setting(tmp_path):
    """Each in its place, and nothing of the example's own is left there."""
    site = make_site(tmp_path, "name=otp.test", "listen=127.0.0.1:8443 [::1]:8443", "generate=/run/a&b.sock /run/c.sock",
                     "validate=/run/v.sock", "certificate=/tls/c.pem", "key=/tls/k.pem", "limits=off", "hsts=",
                     "access_log=/var/log/o.log otp buffer=1k if=$otp_logged", "origin=https://www.example.com")
    for line in ("server unix:/run/a&b.sock max_fails=0;", "server unix:/run/c.sock max_fails=0;",
                 "server unix:/run/v.sock max_fails=0;", "listen 127.0.0.1:8443 ssl http2 default_server backlog=4096;",
                 "listen [::1]:8443 ssl http2 default_server backlog=4096;", "server_name otp.test;", "ssl_certificate /tls/c.pem;",
                 "ssl_certificate_key /tls/k.pem;", "access_log /var/log/o.log otp buffer=1k if=$otp_logged;", 'default    off;', 'default    "";',
                 '"https://www.example.com"    $http_origin;'):
        assert f"\n\t{line}\n" in site, line
    for rest in ("/run/otpd/", "listen 443", "[::]:443", "otp.example.com", "/etc/ssl/", "max-age", "default    on"):
        assert rest not in site, rest


def test_a_setting_that_there_is_not(tmp_path):
    assert "no such setting: limit=off" in make_site(tmp_path, "limit=off", status=2)
    assert "no such setting: limits=of" in make_site(tmp_path, "limits=of", status=2)


def test_nginx_warns_of_nothing_and_speaks_h2(stack):
    """The configuration as shipped, in the nginx that is installed."""
    assert "[warn]" not in stack.text("nginx.log") + stack.text("nginx-error.log")
    context = ssl.create_default_context(cafile=stack.certificate)
    context.set_alpn_protocols(["h2", "http/1.1"])
    with socket.create_connection(("localhost", stack.https_port), 10) as plain, \
            context.wrap_socket(plain, server_hostname="localhost") as secure:
        assert secure.selected_alpn_protocol() == "h2"
