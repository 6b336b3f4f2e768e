"""A16 and malformed FastCGI: no body and no record becomes a request that nobody sent."""
import json
import os
import random
import socket
import time

import pytest

from stack import (FCGI_ABORT, FCGI_BEGIN, FCGI_PARAMS, FCGI_STDIN, FastCgi, address_of, fcgi_params, fcgi_record, fcgi_request,
                   http_bytes, is_root, make_token, wait_for)

JSON = ["Content-Type: application/json"]
BODY_MAX = 2048  # nginx takes no larger ones
FILLER = fcgi_record(FCGI_BEGIN, b"\0\1\1" + bytes(5))  # sixteen bytes: begins a request, and libfcgi passes over the next ones


def payload(canary, size, shift):
    """A body of records: fillers at every alignment (shift), then forged requests: a guess at the canary's token, a
    request for a mail to the thief, and a look at the metrics."""
    guess = json.dumps({"token": canary, "password": "123456"}).encode()
    forged = fcgi_request("POST", "/validate-password", guess, REMOTE_ADDR="127.0.0.1")
    forged += fcgi_request("POST", "/generate-password", b'{"email":"smuggled@example.com"}', REMOTE_ADDR="127.0.0.1")
    forged += fcgi_request("GET", "/metrics", b"")
    room = size - shift - len(forged)
    return b"x" * shift + FILLER * (room // 16) + forged[16:] + b"x" * (16 + room % 16)


def read_answers(raw):
    """The HTTP answers in what a kept connection returned, as (status, body)."""
    answers = []
    while raw:
        head, separator, rest = raw.partition(b"\r\n\r\n")
        assert separator and head.startswith(b"HTTP/1.1 "), raw[:200]
        status = int(head.split()[1])
        headers = {line.split(b":", 1)[0].lower(): line.split(b":", 1)[1].strip() for line in head.split(b"\r\n")[1:]}
        if headers.get(b"transfer-encoding") == b"chunked":
            body = b""
            while True:
                size, _, rest = rest.partition(b"\r\n")
                length = int(size, 16)
                body, rest = body + rest[:length], rest[length + 2:]
                if length == 0:
                    break
        else:
            length = int(headers.get(b"content-length", 0))
            body, rest = rest[:length], rest[length:]
        answers.append((status, body))
        raw = rest
    return answers


ROUTES = ["/generate-password", "/validate-password", "/healthz", "/healthz/validate", "/metrics", "/metrics/validate", "/nowhere"]
METHODS = ["POST", "PUT", "GET", "DELETE", "PATCH", "OPTIONS", "REPORT"]


def check_ended(stack, requests, harmless):
    """Each request is answered 413, and what stands behind it on its connection is not answered."""
    for request in requests:
        (status, body), = read_answers(stack.raw(request + harmless))
        assert (status, json.loads(body)["error"]) == (413, "payload_too_large")


@pytest.mark.parametrize("route", ROUTES)
def test_a16_bodies_of_records_over_kept_connections(stack, route):
    """A16: bodies holding FastCGI records, as large as nginx takes them, to every route with every method, Content-Type and
    alignment, many over one kept connection, a harmless request behind each: every answer is that of its own request, and no
    forged one was carried out. Where nginx reads no body it ends the connection, and nothing behind it is a request."""
    stack.upstreams["validate"] = ["validate-0"]
    stack.ensure_nginx()
    canary = stack.plant("123456")
    harmless = http_bytes("POST", "/validate-password", {"token": make_token(), "password": "1"}, JSON)
    for method in METHODS:
        requests = [http_bytes(method, route, payload(canary, BODY_MAX, shift), [f"Content-Type: {content_type}"])
                    for shift in range(16) for content_type in ("application/json", "text/plain")[:1 + shift % 2]]
        if method == "GET" and route.startswith(("/healthz", "/metrics")):
            check_ended(stack, requests[::8], harmless)
            continue
        last = http_bytes("GET", "/nowhere", b"", ["Connection: close"])
        answers = read_answers(stack.raw(b"".join(request + harmless for request in requests) + last))
        assert len(answers) == 2 * len(requests) + 1, (method, len(answers))
        for status, body in answers[1:-1:2]:
            assert status == 401 and json.loads(body)["error"] == "unknown_token", (method, status, body)
        for status, body in answers[0:-1:2]:
            assert status in (204, 400, 404, 405, 415), (method, status)
            assert not any(word in body for word in (b"Password validated", b'"token"', b"otpd_")), (method, body)
        check_ended(stack, [http_bytes(method, route, payload(canary, 15000, shift), JSON) for shift in (0, 7)], harmless)
    row = stack.challenge(canary)
    assert (row["attempts"], row["used_at"]) == (0, None)
    assert stack.query("select count(*) from otp.challenge where email = 'smuggled@example.com'") == [(0,)]
    assert stack.responders["generate-0"].is_alive() and stack.responders["validate-0"].is_alive()


LENGTHS = [("smaller", -5000), ("one less", -1), ("one more", 1), ("larger", 500), ("zero", None)]


@pytest.mark.parametrize("name", ["generate-0", "validate-0"])
@pytest.mark.parametrize("label, difference", LENGTHS)
def test_a16_a_wrong_content_length_on_the_socket(stack, name, label, difference):
    """A16: CONTENT_LENGTH and the stream differ: no 200, and what is left over is never read as records: the next answer
    on the connection is that of the next request, or the connection is closed."""
    canary = stack.plant("123456")
    route = f"/{name.split('-')[0]}-password"
    for shift in range(16):
        body = payload(canary, 15000, shift)
        length = "0" if difference is None else str(len(body) + difference)
        with stack.fastcgi(name) as connection:
            connection.send(fcgi_request("POST", route, body, length=length))
            answer = connection.answer()
            assert answer.status in (400, 413), (label, answer)
            try:
                second = connection.request("GET", "/nowhere")
                assert second.status == 404
                with pytest.raises((EOFError, TimeoutError)):
                    connection.socket.settimeout(0.05)
                    connection.record()
            except (EOFError, ConnectionError):
                pass  # closed: as good
    row = stack.challenge(canary)
    assert (row["attempts"], row["used_at"]) == (0, None)
    assert stack.query("select count(*) from otp.challenge where email = 'smuggled@example.com'") == [(0,)]


@pytest.mark.parametrize("length", ["-1", "+5", " 5", "5 ", "0x10", "1e3", "99999999999999999999999", "16385", "five", "5,5", "\u0665"])
@pytest.mark.parametrize("name", ["generate-0", "validate-0"])
def test_strict_content_length(stack, name, length):
    """Digits alone, within the limit; anything else is 400 or 413 and changes nothing."""
    body = json.dumps({"email": "strict@example.com", "token": make_token(), "password": "1"}).encode()
    with stack.fastcgi(name) as connection:
        answer = connection.request("POST", f"/{name.split('-')[0]}-password", body, length=length)
    assert answer.status in (400, 413), answer
    assert stack.query("select count(*) from otp.challenge") == [(0,)]


def test_a_truncated_body_is_never_carried_out(stack):
    """The connection ends in the middle of a body that is whole JSON already: nothing is evaluated."""
    token = stack.plant("123456")
    body = json.dumps({"token": token, "password": "123456"}).encode()
    start = fcgi_record(FCGI_BEGIN, b"\0\1\1" + bytes(5)) + fcgi_record(FCGI_PARAMS, fcgi_params("POST", "/validate-password", body))
    start += fcgi_record(FCGI_PARAMS)
    for tail in (b"", fcgi_record(FCGI_STDIN, body)[:-1], fcgi_record(FCGI_STDIN, body), fcgi_record(FCGI_STDIN, body) + fcgi_record(FCGI_STDIN)[:7]):
        with stack.fastcgi("validate-0") as connection:
            connection.send(start + tail)
            connection.socket.shutdown(socket.SHUT_WR)
            try:
                assert connection.answer().status != 200
            except (EOFError, ConnectionError):
                pass
    assert stack.challenge(token)["attempts"] == 0
    assert stack.validate(token, "123456").status == 200


MALFORMED = [
    b"GET / HTTP/1.1\r\n\r\n", b"\0" * 64, b"\xff" * 64, fcgi_record(FCGI_BEGIN, b"\0\1\1" + bytes(5), version=7),
    fcgi_record(FCGI_BEGIN, b"\0\1"), fcgi_record(FCGI_BEGIN, b"\0\2\1" + bytes(5)), fcgi_record(FCGI_STDIN, b"x" * 100),
    fcgi_record(FCGI_BEGIN, b"\0\1\1" + bytes(5)) + fcgi_record(FCGI_PARAMS, b"\x7f\x7fab") + fcgi_record(FCGI_PARAMS),
    fcgi_record(FCGI_BEGIN, b"\0\1\1" + bytes(5)) + fcgi_record(FCGI_ABORT),
    fcgi_record(FCGI_BEGIN, b"\0\1\1" + bytes(5)) + fcgi_record(FCGI_PARAMS, fcgi_params("POST", "/validate-password")) + fcgi_record(FCGI_ABORT),
    fcgi_record(200, b"abc"), fcgi_record(FCGI_PARAMS, fcgi_params("POST", "/validate-password")), b"\1", b"",
    fcgi_record(FCGI_BEGIN, b"\0\1\1" + bytes(5)) * 3,
    fcgi_request("POST", "/validate-password", b"{}").replace(b"CONTENT_LENGTH", b"CONTENT_LENGT\0"),
    fcgi_request("", "", b""), fcgi_request("POST", "/validate-password" + "/" * 5000, b"{}"),
]


@pytest.mark.parametrize("number", range(len(MALFORMED)))
def test_malformed_records(stack, number):
    """Malformed FastCGI: the connection ends or an error is answered; the process lives and serves the next one."""
    process = stack.responders["validate-0"]
    with stack.fastcgi("validate-0", timeout=5) as connection:
        try:
            connection.send(MALFORMED[number])
            connection.socket.shutdown(socket.SHUT_WR)
            while connection.socket.recv(65536):
                pass
        except ConnectionError:
            pass
    with stack.fastcgi("validate-0", timeout=5) as connection:
        assert connection.request("GET", "/healthz/validate").status == 200
    assert process.is_alive()


def test_random_records(stack):
    """Random bytes and randomly damaged requests never lead to a success or a counted guess at a canary; whatever they do
    to libfcgi and the process, service goes on (a supervisor restarts it, here the test does)."""
    dice = random.Random(16)
    canary = stack.plant("123456")
    whole = fcgi_request("POST", "/validate-password", json.dumps({"token": make_token(), "password": "1"}).encode())
    # libfcgi asserts on absurd lengths and forgets some memory on broken ones: ASan must not judge this process.
    sanitizers = {"ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1"}
    stack.start_responder("validate", 9, **sanitizers)

    def supervise():
        if not stack.responders["validate-9"].is_alive():
            stack.responders.pop("validate-9").wait()
            stack.start_responder("validate", 9, **sanitizers)

    def serves():
        with stack.fastcgi("validate-9") as connection:
            return connection.request("POST", "/validate-password", {"token": make_token(), "password": "1"}).status == 401
    for _ in range(400):
        data = bytearray(whole)
        for _ in range(dice.randrange(1, 6)):
            data[dice.randrange(len(data))] = dice.randrange(256)
        if dice.random() < 0.3:
            data = data[:dice.randrange(len(data))]
        try:
            with stack.fastcgi("validate-9", timeout=5) as connection:
                connection.send(bytes(data))
                connection.socket.shutdown(socket.SHUT_WR)
                got = b""
                while more := connection.socket.recv(65536):
                    got += more
                assert b"Password validated" not in got
        except (ConnectionError, FileNotFoundError):
            pass
        supervise()
    wait_for(lambda: supervise() or serves(), 15, "the responder, supervised")
    (stack.log / "validate-9.log").unlink()
    assert stack.challenge(canary)["attempts"] == 0
    assert stack.validate(canary, "123456").status == 200


def test_a_slow_record_does_not_hang_others(stack):
    """Peers that stop in the middle of a record are dropped; a request on another connection is answered meanwhile."""
    start = fcgi_request("POST", "/validate-password", b"{}" * 100)
    for cut in (1, 7, 8, 20, 200, len(start) - 1):
        with stack.fastcgi("validate-0") as stalled:
            stalled.send(start[:cut])
            begin = time.monotonic()
            with stack.fastcgi("validate-0") as connection:
                body = {"token": make_token(), "password": "1"}
                assert connection.request("POST", "/validate-password", body).status == 401
            assert time.monotonic() - begin < 2, cut
            stalled.socket.settimeout(5)  # dropped within this time, with an error's answer or without
            got = b""
            while more := stalled.socket.recv(65536):
                got += more
            assert b"200 OK" not in got


def test_records_in_many_pieces(stack):
    """A whole request that arrives byte by byte, records split anywhere, is served as one that arrives at once."""
    token = stack.plant("123456")
    body = json.dumps({"token": token, "password": "123456"}).encode()
    data = fcgi_record(FCGI_BEGIN, b"\0\1\1" + bytes(5))
    params = fcgi_params("POST", "/validate-password", body)
    for start in range(0, len(params), 7):
        data += fcgi_record(FCGI_PARAMS, params[start:start + 7], padding=start % 9)
    data += fcgi_record(FCGI_PARAMS)
    for byte in body:
        data += fcgi_record(FCGI_STDIN, bytes([byte]), padding=3)
    data += fcgi_record(FCGI_STDIN)
    with stack.fastcgi("validate-0") as connection:
        for start in range(0, len(data), 97):
            connection.send(data[start:start + 97])
        assert connection.answer().status == 200


def test_many_requests_on_one_connection(stack):
    """A kept connection serves request after request; one that asks to be closed is closed (libfcgi driven from a loop)."""
    with stack.fastcgi("validate-0") as connection:
        for _ in range(300):
            assert connection.request("POST", "/validate-password", {"token": make_token(), "password": "1"}).status == 401
        assert connection.request("GET", "/healthz/validate", keep=False).status == 200
        connection.socket.settimeout(5)
        assert connection.is_closed()


def test_a_client_that_leaves_during_its_request(stack):
    """The peer goes while its request is at the database: the batch goes on, nothing crashes, what was done stays done."""
    process = stack.responders["validate-0"]
    planted = []
    for _ in range(30):
        tokens = [stack.plant("123456") for _ in range(3)]
        planted += tokens
        connections = []
        for token in tokens:
            connection = FastCgi(stack.socket_path("validate-0"))
            connection.send(fcgi_request("POST", "/validate-password", json.dumps({"token": token, "password": "123456"}).encode()))
            connections.append(connection)
        for connection in connections:
            connection.close()
    with stack.fastcgi("validate-0") as connection:
        assert connection.request("GET", "/healthz/validate").status == 200
    assert process.is_alive()
    rows = [stack.challenge(token) for token in planted]
    assert all(row["attempts"] == (row["used_at"] is not None) for row in rows)
    assert any(row["used_at"] is not None for row in rows)


@pytest.mark.skipif(not is_root(), reason="only root may look into a process that is not dumpable")
def test_the_socket_is_for_the_web_server_alone(stack):
    """Mode 0660, no TCP, and nothing listens elsewhere."""
    for name in ("generate-0", "validate-0"):
        path = stack.socket_path(name)
        assert path.stat().st_mode & 0o7777 == 0o660
        pid = stack.responders[name].pid
        inodes = {os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")}
        for table in ("tcp", "tcp6", "udp", "udp6"):
            for line in open(f"/proc/net/{table}").read().splitlines()[1:]:
                assert f"socket:[{line.split()[9]}]" not in inodes


def test_no_challenge_by_smuggling(stack):
    """The control of A16: the forged requests are real ones: sent as requests they are carried out."""
    canary = stack.plant("654321")
    address = address_of()
    guess = json.dumps({"token": canary, "password": "123456"}).encode()
    with stack.fastcgi("validate-0") as connection:
        connection.send(FILLER * 3 + fcgi_request("POST", "/validate-password", guess, REMOTE_ADDR="127.0.0.1")[16:])
        answers = [connection.answer() for _ in range(3)]  # two are told that there is one request at a time
        assert [a.error for a in answers if a.body] == ["wrong_password"]
    with stack.fastcgi("generate-0") as connection:
        connection.send(fcgi_request("POST", "/generate-password", json.dumps({"email": address}).encode()))
        assert connection.answer().status == 200
