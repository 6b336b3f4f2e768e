"""The HTTP contract through real nginx, row by row: statuses, messages word for word, slugs, headers."""
import json
import re
import subprocess

import pytest

from stack import address_of, http_bytes, make_token, wait_for

GENERATED = "Password generated successfully! Please check your email."
VALIDATED = "Password validated successfully! Enjoy your access."
BAD_REQUEST = "Error: Bad Request."
INVALID_EMAIL = "Error: Email field is required and must be valid."
INVALID_PASSWORD = "Error: Invalid password."
TOO_MANY = "Error: Too many requests."
FAILED = "Error: Operation failed."
JSON = {"Content-Type": "application/json"}


def check_common(answer):
    """What every answer carries, whoever gave it."""
    assert answer.headers["cache-control"] == "no-store"
    assert re.fullmatch(r"[0-9a-f]{32}", answer.headers["x-request-id"])
    assert answer.headers["access-control-allow-origin"] == "*"
    for name in ("cache-control", "x-request-id", "access-control-allow-origin", "content-type", "retry-after", "allow"):
        assert sum(k.lower() == name for k, _ in answer.header_list) <= 1, f"{name} twice: {answer}"
    assert "nginx/" not in answer.headers.get("server", "")


def check(answer, status, error, message, **more):
    """An error answer: status, JSON with exactly these members, and the common headers. A detail for a person may come with it."""
    assert answer.status == status, answer
    check_common(answer)
    assert answer.headers["content-type"].split(";")[0] == "application/json"
    body = answer.json
    detail = body.pop("detail", "A sentence.")
    assert body == {"message": message, "error": error, **more}
    assert re.fullmatch(r"[A-Z].*\.", detail) and status in (400, 415, 422) or detail == "A sentence.", detail


# --- success ---

def test_generate(stack):
    address = address_of()
    answer = stack.generate(address)
    assert answer.status == 200
    check_common(answer)
    assert answer.headers["content-type"].split(";")[0] == "application/json"
    assert set(answer.json) == {"message", "token", "expires_in", "resend_after", "reference"}
    assert answer.json["message"] == GENERATED
    assert answer.json["expires_in"] == 600
    assert answer.json["resend_after"] == 0
    assert re.fullmatch(r"[A-Za-z0-9_-]{43}", answer.token)


def test_generate_tells_the_configured_lifetime_and_gap(stack):
    stack.stop_responder("generate", 0)
    stack.start_responder("generate", EXPIRE_MINUTES=3, RESEND_SECONDS=60)
    answer = stack.generate()
    assert (answer.json["expires_in"], answer.json["resend_after"]) == (180, 60)


def test_the_whole_flow(stack):
    """Generate, read the mail, validate, validate again."""
    address = address_of()
    token = stack.generate(address).token
    code = stack.smtp.wait(address).code
    answer = stack.validate(token, code)
    assert answer.status == 200
    check_common(answer)
    assert {**answer.json, "ticket": ""} == {"message": VALIDATED, "email": address, "mailbox": address, "ticket": ""}
    check(stack.validate(token, code), 401, "used", INVALID_PASSWORD)


@pytest.mark.parametrize("written", ["123 456", " 123456 ", "123-456", "12 34 56", "1-2-3-4-5-6", "\t123456\n", "123\u00a0456"])
def test_a_pasted_code(stack, written):
    """Spaces and dashes, around and inside, are tolerated."""
    assert stack.validate(stack.plant("123456"), written).status == 200


def test_unknown_fields_are_ignored(stack):
    assert stack.generate(extra={"a": [1]}, password=5).status == 200
    token = stack.plant("123456")
    assert stack.request("POST", "/validate-password", {"token": token, "password": "123456", "email": 7, "x": None}).status == 200


@pytest.mark.parametrize("content_type", [None, "application/json", "application/json; charset=utf-8", "Application/JSON",
                                          "application/json ;charset=UTF-8"])
def test_content_types_that_are_taken(stack, content_type):
    headers = {"Content-Type": content_type} if content_type else {}
    body = json.dumps({"email": address_of()})
    raw = stack.raw(http_bytes("POST", "/generate-password", body.encode(),
                               [*(f"{k}: {v}" for k, v in headers.items()), "Connection: close"]))
    assert raw.startswith(b"HTTP/1.1 200 "), raw


@pytest.mark.parametrize("path", ["/generate-password", "/validate-password"])
@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", "application/jsonp", "multipart/form-data; boundary=x"])
def test_415(stack, path, content_type):
    check(stack.request("POST", path, '{"email": "a@example.com"}', {"Content-Type": content_type}), 415, "unsupported_media_type",
          "Error: Content-Type must be application/json.")


# --- 400, 422 ---

NO_JSON = [b"", b"{", b"nonsense", b"[]", b"null", b"7", b'"text"', b'{"email": "a@example.com"} trailing', b'{"email":}', b"\xff\xfe",
           b'{"email": "\xff@example.com"}', b"{'email': 'a@example.com'}", b'{"email": "a@example.com",}',
           b'{"email": "a@example.com\\u0000"}', b'{"email": "a@example.com", "unread": ["\\u0000"]}', b'{"a\\u0000": 1}',
           b'{"password": "123456\\u0000", "token": "x"}']


@pytest.mark.parametrize("body", NO_JSON)
@pytest.mark.parametrize("path", ["/generate-password", "/validate-password"])
def test_400_no_json_object(stack, path, body):
    check(stack.request("POST", path, body, JSON), 400, "bad_request", BAD_REQUEST)


NO_PASSWORD = [{}, {"password": "123456"}, {"token": "T"}, {"password": "", "token": "T"}, {"password": "123456", "token": ""},
               {"password": 123456, "token": "T"}, {"password": None, "token": "T"}, {"password": ["123456"], "token": "T"},
               {"password": {"a": 1}, "token": "T"}, {"password": True, "token": "T"}, {"password": "123456", "token": 5},
               {"password": "123456", "token": None}, {"password": "123456", "token": ["T"]}, {"Password": "123456", "token": "T"}]


@pytest.mark.parametrize("fields", NO_PASSWORD)
def test_400_validate_fields(stack, fields):
    """Absent, empty or no string: 400, and no guess is counted."""
    token = stack.plant("123456")
    body = {k: token if v == "T" else [token] if v == ["T"] else v for k, v in fields.items()}
    check(stack.request("POST", "/validate-password", body), 400, "bad_request", BAD_REQUEST)
    assert stack.challenge(token)["attempts"] == 0


NO_EMAIL = [{}, {"email": ""}, {"email": None}, {"email": 7}, {"email": ["a@example.com"]}, {"email": {}}, {"email": True}, {"email": " "},
            {"email": "plain"}, {"email": "@example.com"}, {"email": "a@"}, {"email": "a@b"}, {"email": "a b@example.com"},
            {"email": "a@@example.com"}, {"email": "a@example..com"}, {"email": "a@-example.com"}, {"email": "a@example.com\r\nBcc: b@example.com"},
            {"email": "a\u0001@example.com"}, {"email": "a\n@example.com"}, {"email": "<a@example.com>"}, {"email": "A <a@example.com>"},
            {"email": "a@example.com,b@example.com"}, {"email": "a@[127.0.0.1]"}, {"email": '"a b"@example.com'}, {"email": "a@exa_mple.com"},
            {"email": "\u00e4@example.com"}, {"email": "a" * 65 + "@example.com"}, {"email": "a@" + "b" * 64 + ".com"},
            {"email": "a@" + ".".join(["b" * 60] * 5) + ".com"}, {"EMAIL": "a@example.com"}, {"email": "a(c)@example.com"}]


@pytest.mark.parametrize("body", NO_EMAIL)
def test_422(stack, body):
    check(stack.request("POST", "/generate-password", body), 422, "invalid_email", INVALID_EMAIL)
    assert stack.query("select count(*) from otp.challenge") == [(0,)]


# --- 401 ---

def test_401_each_slug(stack):
    """A13's table: an unknown token gets one uniform answer; the holder of a token learns what is wrong."""
    for token in (make_token(), "x", "A" * 43, "A" * 42, "A" * 44, "\u00e4" * 43, make_token() + "=", "../../etc/passwd", "A" * 1500,
                  "\u0001" * 43):
        check(stack.validate(token, "123456"), 401, "unknown_token", INVALID_PASSWORD)
    token = stack.plant("123456")
    for left in (4, 3, 2, 1, 0):
        check(stack.validate(token, "654321"), 401, "wrong_password", INVALID_PASSWORD, attempts_left=left)
    check(stack.validate(token, "123456"), 401, "exhausted", INVALID_PASSWORD)
    check(stack.validate(stack.plant(lifetime=-1), "123456"), 401, "expired", INVALID_PASSWORD)
    check(stack.validate(stack.plant(used=True), "123456"), 401, "used", INVALID_PASSWORD)


# --- 404, 405, 413, 414, 431, 400 by nginx ---

@pytest.mark.parametrize("path", ["/", "/generate", "/generate-password/", "/validate-password/x", "/index.html", "/generate-password.php", "/.git/config"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_404(stack, method, path):
    check(stack.request(method, path), 404, "not_found", "Error: Not found.")


@pytest.mark.parametrize("path", ["/generate-password", "/validate-password"])
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "HEAD", "TRACE"])
def test_405(stack, method, path):
    answer = stack.request(method, path)
    assert answer.headers["allow"] == "POST, OPTIONS"
    if method == "HEAD":
        assert answer.status == 405 and answer.body == b""
        check_common(answer)
    else:
        check(answer, 405, "method_not_allowed", "Error: Method not allowed.")


@pytest.mark.parametrize("path", ["/healthz", "/metrics", "/healthz/validate", "/metrics/validate"])
def test_405_of_the_other_routes(stack, path):
    answer = stack.request("POST", path, {})
    check(answer, 405, "method_not_allowed", "Error: Method not allowed.")
    assert "GET" in answer.headers["allow"]


@pytest.mark.parametrize("path", ["/generate-password", "/validate-password"])
@pytest.mark.parametrize("size", [2049, 3000, 200000])
def test_413(stack, path, size):
    check(stack.request("POST", path, b" " * size, JSON), 413, "payload_too_large", "Error: Request body is too large.")


def test_a_body_of_the_largest_size_is_read(stack):
    body = json.dumps({"email": address_of()}).encode()
    assert stack.request("POST", "/generate-password", body + b" " * (2048 - len(body)), JSON).status == 200


def test_414_and_431(stack):
    check(stack.request("POST", "/" + "a" * 9000), 414, "uri_too_long", "Error: Request address is too long.")
    check(stack.request("GET", "/", headers={"X-Long": "a" * 9000}), 431, "headers_too_large", "Error: Request headers are too large.")
    check(stack.request("GET", "/", headers={f"X-{n}": "a" * 4000 for n in range(20)}), 431, "headers_too_large", "Error: Request headers are too large.")


@pytest.mark.parametrize("data, status", [
    (b"nonsense\r\n\r\n", 400), (b"GET / HTTP/1.1\r\n\r\n", 400), (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
    (b"POST /generate-password HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n", 400),
    (b"POST /generate-password HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    (b"POST /generate-password HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
    (b"GET / HTTP/3.0\r\nHost: a\r\n\r\n", 505)])
def test_broken_http(stack, data, status):
    """What is not HTTP is refused in JSON with the same keys and headers."""
    raw = stack.raw(data)
    head, _, body = raw.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status), raw
    if b"chunked" in head:
        body = body.split(b"\r\n")[1]
    assert set(json.loads(body)) == {"message", "error"}
    assert b"x-request-id: " in head.lower() and b"cache-control: no-store" in head.lower()


def test_plain_http_on_the_tls_port(stack):
    import socket
    with socket.create_connection(("127.0.0.1", stack.https_port), 5) as plain:
        plain.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        raw = b""
        while more := plain.recv(65536):
            raw += more
    assert raw.startswith(b"HTTP/1.1 400 ") and b'"error":"bad_request"' in raw


def test_chunked_bodies_are_accepted(stack):
    body = json.dumps({"email": address_of()}).encode()
    raw = stack.raw(b"POST /generate-password HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n"
                    b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(body), body))
    assert raw.startswith(b"HTTP/1.1 200 "), raw


# --- 429 ---

def test_429_of_the_address(stack):
    stack.stop_responder("generate", 0)
    stack.start_responder("generate", RESEND_SECONDS=60)
    address = address_of()
    assert stack.generate(address).status == 200
    answer = stack.generate(address)
    wait = answer.json["retry_after"]
    assert 50 <= wait <= 60
    check(answer, 429, "rate_limited", TOO_MANY, retry_after=wait)
    assert answer.headers["retry-after"] == str(wait)
    assert stack.query("select count(*) from otp.challenge") == [(1,)]


@pytest.mark.parametrize("path, allowed", [("/generate-password", 11), ("/validate-password", 31)])
def test_429_of_nginx_per_client(stack, path, allowed):
    """A client over its limit: 429 from nginx with the same keys and Retry-After; other routes are not affected."""
    stack.limits = "on"
    stack.ensure_nginx()
    connection = stack.http()
    answers = []
    for _ in range(allowed + 4):
        body = {"email": address_of()} if "generate" in path else {"token": make_token(), "password": "123456"}
        answers.append(stack.request("POST", path, body, connection=connection))
    connection.close()
    assert all(a.status in (200, 401) for a in answers[:allowed])
    refused = [a for a in answers if a.status == 429]
    assert refused
    check(refused[0], 429, "rate_limited", TOO_MANY, retry_after=refused[0].json["retry_after"])
    assert refused[0].headers["retry-after"] == str(refused[0].json["retry_after"])
    assert stack.request("OPTIONS", path).status == 204
    assert stack.request("GET", "/healthz").status == 200


# --- 503 ---

def test_503_without_a_responder(stack):
    """nginx's own 502 is a 503 with Retry-After to the client."""
    for name in ("validate-0", "validate-1"):
        stack.stop_responder(*name.split("-"))
    answer = stack.validate(make_token(), "123456")
    check(answer, 503, "unavailable", FAILED)
    assert int(answer.headers["retry-after"]) >= 1
    stack.start_responder("validate", 1)
    assert stack.validate(make_token(), "123456").status == 401


# --- CORS, health, metrics, h2 ---

@pytest.mark.parametrize("path", ["/generate-password", "/validate-password"])
def test_cors_preflight(stack, path):
    answer = stack.request("OPTIONS", path, headers={"Origin": "https://app.example", "Access-Control-Request-Method": "POST",
                                                     "Access-Control-Request-Headers": "content-type"})
    assert answer.status in (200, 204) and answer.body == b""
    assert answer.headers["access-control-allow-origin"] == "*"
    assert "POST" in answer.headers["access-control-allow-methods"]
    assert "content-type" in answer.headers["access-control-allow-headers"].lower()
    assert int(answer.headers["access-control-max-age"]) > 0
    assert re.fullmatch(r"[0-9a-f]{32}", answer.headers["x-request-id"])


def test_request_ids_differ_and_are_logged(stack):
    """Each answer's X-Request-Id is its own where the caller gave none, and is in nginx's access log."""
    answers = [stack.request("POST", "/validate-password", {}) for _ in range(5)]
    ids = {a.headers["x-request-id"] for a in answers}
    assert len(ids) == 5
    # nginx writes a request's line only after it has sent the answer.
    wait_for(lambda: ids <= {json.loads(line)["request_id"] for line in stack.text("nginx-access.log").splitlines()},
             what=f"{ids} in the access log")


@pytest.mark.parametrize("path", ["/healthz", "/healthz/validate", "/healthz?check=process", "/healthz/validate?check=process"])
def test_health(stack, path):
    answer = stack.request("GET", path)
    assert answer.status == 200
    check_common(answer)


@pytest.mark.parametrize("path", ["/metrics", "/metrics/validate"])
def test_metrics(stack, path):
    """Prometheus text: every line a comment or NAME{LABELS} VALUE."""
    stack.generate()
    stack.validate(make_token(), "123456")
    answer = stack.request("GET", path)
    assert answer.status == 200 and answer.headers["content-type"].startswith("text/plain")
    lines = answer.body.decode().splitlines()
    assert len(lines) > 5
    for line in lines:
        assert re.fullmatch(r'# (HELP|TYPE) [a-z_]+ .+|[a-z_]+(\{([a-z_]+="[^"]*",?)+\})? -?[0-9.e+-]+(?:[0-9]+)?|', line), line


def test_metrics_are_not_for_everybody(stack):
    stack.metrics = False
    stack.ensure_nginx()
    check(stack.request("GET", "/metrics"), 403, "forbidden", "Error: Forbidden.")
    check(stack.request("GET", "/metrics/validate"), 403, "forbidden", "Error: Forbidden.")


def curl(stack, *arguments):
    done = subprocess.run(["curl", "-sS", "--cacert", stack.certificate, "-w", "\n%{http_version} %{http_code}", *arguments],
                          check=True, stdout=subprocess.PIPE, text=True)
    body, _, last = done.stdout.rpartition("\n")
    return body, *last.split()


def test_http_2(stack):
    """The same over HTTP/2: success, the responder's errors, nginx's errors. (Headers too large reset an HTTP/2 stream:
    nginx gives no answer there, so there is no 431.)"""
    url = f"https://localhost:{stack.https_port}"
    address = address_of()
    body, version, status = curl(stack, "--http2", "--json", json.dumps({"email": address}), f"{url}/generate-password")
    assert (version, status) == ("2", "200")
    token = json.loads(body)["token"]
    code = stack.smtp.wait(address).code
    for expected, error in (("200", None), ("401", "used")):
        body, version, status = curl(stack, "--http2", "--json", json.dumps({"token": token, "password": code}), f"{url}/validate-password")
        assert (version, status) == ("2", expected) and json.loads(body).get("error") == error
    for arguments, expected, error in (
            (["--json", "x" * 17000, f"{url}/generate-password"], "413", "payload_too_large"),
            ([f"{url}/nowhere"], "404", "not_found"), (["-X", "PUT", f"{url}/validate-password"], "405", "method_not_allowed"),
            (["--json", "nonsense", f"{url}/generate-password"], "400", "bad_request")):
        body, version, status = curl(stack, "--http2", *arguments)
        assert (version, status) == ("2", expected), body
        assert json.loads(body)["error"] == error


@pytest.mark.parametrize("options, works", [(["--tls-max", "1.1"], False), (["--tls-max", "1.2"], True), (["--tlsv1.3"], True)])
def test_tls_versions(stack, options, works):
    done = subprocess.run(["curl", "-sS", "--cacert", stack.certificate, "--ciphers", "DEFAULT@SECLEVEL=0", *options,
                           f"https://localhost:{stack.https_port}/healthz"], check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert (done.returncode == 0) == works, done.stdout


def test_slow_bodies_do_not_reach_a_responder(stack):
    """A client that stops in the middle of its body costs a responder nothing: others are answered meanwhile."""
    import socket
    plain = [socket.create_connection(("localhost", stack.https_port), 5) for _ in range(20)]
    slow = [stack.tls().wrap_socket(s, server_hostname="localhost") for s in plain]
    for connection in slow:
        connection.sendall(b"POST /validate-password HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n{")
    for _ in range(20):
        assert stack.validate(make_token(), "123456").status == 401
    for connection in slow:
        connection.close()
