"""site.conf as make-site writes it: for nginx before and after 1.25.1, with every setting, without a word of complaint."""
import json
import os
import socket
import ssl
import subprocess

import pytest

from stack import ROOT, address_of

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
                     "access_log=/var/log/o.log otp buffer=1k if=$otp_logged", "prefix=/auth/otp",
                     "origin=https://www.example.com https://b.example", "headers=X-A, X-B", "credentials=on")
    for line in ("server unix:/run/a&b.sock max_fails=0;", "server unix:/run/c.sock max_fails=0;",
                 "server unix:/run/v.sock max_fails=0;", "listen 127.0.0.1:8443 ssl http2 default_server backlog=4096;",
                 "listen [::1]:8443 ssl http2 default_server backlog=4096;", "server_name otp.test;", "ssl_certificate /tls/c.pem;",
                 "ssl_certificate_key /tls/k.pem;", "access_log /var/log/o.log otp buffer=1k if=$otp_logged;", 'default    off;', 'default    "";',
                 '"https://www.example.com"    $http_origin;', '"https://b.example"    $http_origin;', 'default    "/auth/otp";',
                 'default    "X-A, X-B";'):
        assert f"\n\t{line}\n" in site, line
    for rest in ("/run/otpd/", "listen 443", "[::]:443", "otp.example.com", "/etc/ssl/", "max-age", 'default    "*"',
                 "sentry-trace"):
        assert rest not in site, rest


def test_a_setting_that_there_is_not(tmp_path):
    assert "no such setting: limit=off" in make_site(tmp_path, "limit=off", status=2)
    assert "no such setting: limits=of" in make_site(tmp_path, "limits=of", status=2)


@pytest.mark.parametrize("prefix", ["/", "auth", "/auth/", "/a//b", "/a b", "/a;b", "/\"", "/$uri"])
def test_a_prefix_that_is_none(tmp_path, prefix):
    assert "prefix must be like" in make_site(tmp_path, f"prefix={prefix}", status=2)


def test_credentials_need_named_origins(tmp_path):
    """A browser takes none together with "*"."""
    assert "credentials=on needs origin" in make_site(tmp_path, "credentials=on", status=2)
    assert "credentials=on needs origin" not in make_site(tmp_path, "credentials=on", "origin=https://a.example")


# --- Below a prefix ---

PATHS = ("/generate-password", "/validate-password", "/healthz", "/healthz/validate", "/metrics", "/metrics/validate")


@pytest.fixture
def prefixed(stack):
    stack.site_settings = {"prefix": "/auth/otp"}
    stack.ensure_nginx()
    return stack


def test_the_whole_flow_below_a_prefix(prefixed):
    """Every call, health and metrics; what nginx refuses too."""
    address = address_of()
    answer = prefixed.request("POST", "/auth/otp/generate-password", {"email": address})
    assert answer.status == 200, answer
    guess = {"token": answer.token, "password": prefixed.smtp.wait(address).code}
    assert prefixed.request("POST", "/auth/otp/validate-password", guess).status == 200
    assert [prefixed.request("GET", f"/auth/otp{path}").status for path in PATHS] == [405, 405, 200, 200, 200, 200]
    assert prefixed.request("OPTIONS", "/auth/otp/generate-password").status == 204
    for method in ("GET", "TRACE"):
        assert prefixed.request(method, "/auth/otp/validate-password").headers["allow"] == "POST, OPTIONS"
    assert prefixed.request("POST", "/auth/otp/validate-password", b" " * 3000).error == "payload_too_large"
    assert prefixed.request("GET", "/auth/otp/" + "a" * 9000).error == "uri_too_long"
    assert prefixed.request("GET", "/auth/otp/healthz", headers={"X-Long": "a" * 9000}).error == "headers_too_large"
    assert prefixed.raw(b"nonsense\r\n\r\n").startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize("before", ["", "/auth", "/otp", "/auth/otp/x", "/x/auth/otp", "/auth/otp/auth/otp", "/AUTH/otp", "/auth/otpx",
                                    "/auth/otp/error"])
def test_nothing_is_beside_the_prefix(prefixed, before):
    for path in PATHS:
        for method in ("GET", "POST", "OPTIONS"):
            assert prefixed.request(method, f"{before}{path}").error == "not_found", (method, before, path)


@pytest.mark.parametrize("prefix", ["", "/auth/otp"])
@pytest.mark.parametrize("path", ["/", "/error/bad_request", "/error/origin_not_allowed", "/none"])
def test_nginx_own_locations_are_not_for_clients(stack, prefix, path):
    stack.site_settings = {"prefix": prefix}
    stack.ensure_nginx()
    for asked in (path, prefix + path):
        assert stack.request("GET", asked).error == "not_found"


def test_limits_below_a_prefix(prefixed):
    """They are those of the call, and so is what a refused client is told."""
    prefixed.limits = "on"
    prefixed.ensure_nginx()
    connection = prefixed.http()
    answers = [prefixed.request("POST", "/auth/otp/generate-password", {}, connection=connection) for _ in range(15)]
    connection.close()
    assert [answer.status for answer in answers].count(422) in (11, 12)
    assert answers[-1].headers["retry-after"] == "3"


# --- Pages of other origins ---

MINE, OTHER, FOREIGN = "https://app.example", "https://b.example", "https://evil.example"


def test_named_origins(stack):
    """One that is named is named in every answer, errors included; another is not; caches are told; a call of another's is
    refused before it reaches a responder, though a browser would send it without a preflight."""
    stack.site_settings = {"origin": f"{MINE} {OTHER}"}
    stack.ensure_nginx()
    body = json.dumps({"email": address_of()})
    for path, method in (("/generate-password", "POST"), ("/validate-password", "OPTIONS"), ("/nowhere", "GET")):
        for origin in (MINE, OTHER):
            mine = stack.request(method, path, body if method == "POST" else None, headers={"Origin": origin})
            assert mine.headers["access-control-allow-origin"] == origin
            assert mine.headers["vary"] == "Origin" and "access-control-allow-credentials" not in mine.headers
            assert mine.status == {"POST": 200, "OPTIONS": 204, "GET": 404}[method]
        for origin in (FOREIGN, "null", MINE + ".evil.example"):
            other = stack.request(method, path, body if method == "POST" else None, headers={"Origin": origin})
            assert "access-control-allow-origin" not in other.headers
            assert other.headers["vary"] == "Origin"
            if method == "POST":
                assert (other.status, other.json) == (403, {"message": "Error: Origin is not allowed.", "error": "origin_not_allowed"})
    assert stack.query("select count(*) from otp.challenge") == [(2,)]
    assert stack.request("POST", "/generate-password", body).status == 200  # no browser at all
    assert stack.request("GET", "/healthz", headers={"Origin": FOREIGN}).status == 200


def test_every_origin_as_shipped(stack):
    answer = stack.request("POST", "/generate-password", {"email": address_of()}, {"Origin": FOREIGN})
    assert (answer.status, answer.headers["access-control-allow-origin"]) == (200, "*")
    assert "access-control-allow-credentials" not in answer.headers and "vary" not in answer.headers


def test_credentials(stack):
    """Only to named origins, in the preflight and in the answer."""
    stack.site_settings = {"origin": MINE, "credentials": "on"}
    stack.ensure_nginx()
    for method in ("OPTIONS", "POST"):
        assert stack.request(method, "/generate-password", headers={"Origin": MINE}).headers["access-control-allow-credentials"] == "true"
        assert "access-control-allow-credentials" not in stack.request(method, "/generate-password", headers={"Origin": FOREIGN}).headers


@pytest.mark.parametrize("setting, expected", [
    ({}, {"content-type", "authorization", "x-requested-with", "x-request-id", "traceparent", "tracestate", "baggage", "sentry-trace"}),
    ({"headers": "Content-Type, X-Own"}, {"content-type", "x-own"})])
def test_headers_that_pages_may_send(stack, setting, expected):
    """What tracing libraries add to every request is among them; what a page needs to read of an answer is exposed."""
    stack.site_settings = setting
    stack.ensure_nginx()
    answer = stack.request("OPTIONS", "/validate-password", headers={"Origin": MINE, "Access-Control-Request-Method": "POST"})
    assert set(answer.headers["access-control-allow-headers"].lower().split(", ")) == expected
    assert answer.headers["access-control-expose-headers"] == "Retry-After, X-Request-Id"


def test_nginx_warns_of_nothing_and_speaks_h2(stack):
    """The configuration as shipped, in the nginx that is installed."""
    assert "[warn]" not in stack.text("nginx.log") + stack.text("nginx-error.log")
    context = ssl.create_default_context(cafile=stack.certificate)
    context.set_alpn_protocols(["h2", "http/1.1"])
    with socket.create_connection(("localhost", stack.https_port), 10) as plain, \
            context.wrap_socket(plain, server_hostname="localhost") as secure:
        assert secure.selected_alpn_protocol() == "h2"
