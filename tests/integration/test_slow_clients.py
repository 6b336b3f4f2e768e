"""What clients hold and not only what they begin: bodies and headers that never come, streams, floods of requests for nothing. No
client holds more than its share of nginx, and others are served meanwhile. Each address 127.0.0.x is a client of its own."""
import json
import select
import socket
import ssl
import time

import pytest

from stack import http_bytes, make_token, wait_for

HELD_MAX = 32
KEY = "Authorization: Bearer x"  # so that the limits of what begins stand aside
OTHER = "127.0.0.250"


@pytest.fixture
def limited(stack):
    stack.limits = "on"
    stack.ensure_nginx()
    # A fresh nginx has counted nobody.
    stack.nginx.stop()
    stack.start_nginx()
    return stack


def connect(stack, source, protocols=("http/1.1",)):
    context = stack.tls()
    context.set_alpn_protocols(list(protocols))
    plain = socket.create_connection(("127.0.0.1", stack.https_port), 10, source_address=(source, 0))
    return context.wrap_socket(plain, server_hostname="localhost")


class Slow:
    """Connections, each with a request whose rest never comes; what the server says to them is kept."""

    def __init__(self, stack, sources, count, data):
        self.answers = {}
        for number in range(count):
            connection = connect(stack, sources[number % len(sources)])
            connection.sendall(data)
            connection.setblocking(False)
            self.answers[connection] = b""
        self.open = set(self.answers)

    def held(self):
        """How many are open."""
        for connection in list(self.open):
            try:
                while data := connection.recv(65536):
                    self.answers[connection] += data
                self.open.remove(connection)
            except ssl.SSLWantReadError:
                pass
            except OSError:
                self.open.remove(connection)
        return len(self.open)

    def statuses(self):
        """Of those that were answered."""
        return {int(answer.split()[1]) for answer in self.answers.values() if answer}

    def close(self):
        for connection in self.answers:
            connection.close()


@pytest.fixture
def slow_clients(limited):
    """Slow(limited, ...), closed at the end."""
    made = []

    def make(*arguments):
        made.append(Slow(limited, *arguments))
        return made[-1]
    yield make
    for slow in made:
        slow.close()


def is_served(stack, source):
    """Is a guess of this client's answered, and at once?"""
    began = time.monotonic()
    connection = connect(stack, source)
    connection.sendall(http_bytes("POST", "/validate-password", {"token": make_token(), "password": "1"}, ["Connection: close"]))
    answer = connection.recv(65536)
    connection.close()
    return answer.startswith(b"HTTP/1.1 401 ") and time.monotonic() - began < 2


@pytest.mark.parametrize("path, length, addresses", [
    ("/validate-password", "Content-Length: 1000", 1), ("/generate-password", "Transfer-Encoding: chunked", 4),
    ("/revoke", "Transfer-Encoding: chunked", 1), ("/nowhere", "Content-Length: 1000", 4)])
def test_bodies_that_never_come(limited, slow_clients, path, length, addresses):
    """A client holds 32 requests at most, whatever it announces; another is served meanwhile, and this one again soon."""
    slow = slow_clients([f"127.0.0.{n + 1}" for n in range(addresses)], 60 * addresses,
                        f"POST {path} HTTP/1.1\r\nHost: localhost\r\n{KEY}\r\n{length}\r\n\r\n".encode())
    assert is_served(limited, OTHER)
    wait_for(lambda: slow.held() <= HELD_MAX * addresses, 3.5, "nginx to let go of what is over the limit")
    assert slow.statuses() <= {404, 429}
    assert is_served(limited, OTHER)
    wait_for(lambda: slow.held() == 0, 8, "nginx to let go of all")
    assert is_served(limited, "127.0.0.1")


def test_the_rest_of_a_head_that_never_comes(limited, slow_clients):
    """Neither a handshake nor a request's head may take longer than some seconds."""
    slow = slow_clients(["127.0.0.1"], 20, b"POST /validate-password HTTP/1.1\r\nHost: localhost\r\n")
    silent = [socket.create_connection(("127.0.0.1", limited.https_port), 10) for _ in range(20)]
    assert is_served(limited, "127.0.0.1")
    wait_for(lambda: slow.held() == 0, 8, "nginx to let go of unfinished heads")
    assert all(is_over(connection, 8) for connection in silent)


def is_over(connection, seconds):
    connection.settimeout(seconds)
    try:
        return connection.recv(1) == b""
    except ConnectionError:
        return True
    finally:
        connection.close()


# --- Bodies that are not read ---

@pytest.mark.parametrize("path, method, length", [
    ("/healthz", "GET", "Content-Length: 1000"), ("/healthz/validate", "HEAD", "Transfer-Encoding: chunked"),
    ("/metrics", "HEAD", "Content-Length: 1"), ("/metrics/validate", "GET", "Transfer-Encoding: chunked")])
def test_no_body_where_none_belongs(limited, path, method, length):
    """413 at once, in JSON, though no byte of the body has come; and the connection ends."""
    check_refused(limited, method, path, length, 413, "payload_too_large")


@pytest.mark.parametrize("path, method", [("/generate-password", "GET"), ("/validate-password", "PUT"), ("/revoke", "REPORT"),
                                          ("/delivery-status", "DELETE")])
def test_no_body_of_another_method_is_waited_for(limited, path, method):
    check_refused(limited, method, path, "Content-Length: 1000", 405, "method_not_allowed")


def test_a_large_body_is_refused_before_it_comes(limited):
    """3 KB are too much."""
    check_refused(limited, "POST", "/generate-password", "Content-Length: 3000", 413, "payload_too_large")


def check_refused(stack, method, path, length, status, error):
    began = time.monotonic()
    connection = connect(stack, "127.0.0.1")
    connection.sendall(f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n{length}\r\n\r\n".encode())
    answer = connection.recv(65536)
    if method != "HEAD" and not answer.endswith(b"}"):
        answer += connection.recv(65536)
    assert time.monotonic() - began < 1
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status), answer
    assert method == "HEAD" or json.loads(body)["error"] == error
    assert is_over(connection, 4)


# --- HTTP/2 ---

def h2_frame(kind, flags, stream, content=b""):
    return len(content).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + content


def h2_head(path):
    """A header block of a POST without any table or compression."""
    pairs = ((":method", "POST"), (":scheme", "https"), (":authority", "localhost"), (":path", path), ("authorization", "Bearer x"))
    return b"".join(bytes([0, len(name)]) + name.encode() + bytes([len(value)]) + value.encode() for name, value in pairs)


H2_DATA, H2_HEADERS, H2_SETTINGS, H2_END_HEADERS, H2_MAX_STREAMS = 0, 1, 4, 4, 3


def h2_frames(connection, is_enough):
    """(kind, stream, content) of what comes until is_enough of them."""
    frames, data = [], b""
    while not is_enough(frames):
        data += connection.recv(65536)
        while len(data) >= 9 and len(data) >= 9 + (size := int.from_bytes(data[:3], "big")):
            frames.append((data[3], int.from_bytes(data[5:9], "big"), data[9:9 + size]))
            data = data[9 + size:]
    return frames


def test_streams_of_http_2(limited):
    """nginx announces as many streams as a client may hold requests; streams over that, on several connections, are refused."""
    connections = [connect(limited, "127.0.0.1", ["h2"]) for _ in range(3)]
    refused = 0
    for connection in connections:
        connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + h2_frame(H2_SETTINGS, 0, 0))
        settings = h2_frames(connection, bool)[0]
        assert settings[0] == H2_SETTINGS
        announced = {int.from_bytes(settings[2][at:at + 2], "big"): int.from_bytes(settings[2][at + 2:at + 6], "big")
                     for at in range(0, len(settings[2]), 6)}
        assert announced[H2_MAX_STREAMS] == HELD_MAX
        connection.sendall(b"".join(h2_frame(H2_HEADERS, H2_END_HEADERS, 1 + 2 * n, h2_head("/validate-password")) for n in range(20)))
    assert is_served(limited, OTHER)
    for connection, expected in zip(connections, (0, 8, 20), strict=True):
        if expected:
            connection.settimeout(3)
            frames = h2_frames(connection, lambda frames, expected=expected: sum(f[0] == H2_HEADERS for f in frames) >= expected)
            refused += sum(frame[0] == H2_HEADERS for frame in frames)
    assert refused == 60 - HELD_MAX
    for connection in connections:
        connection.close()


# --- Floods ---

def pipeline(stack, source, request, count):
    """Sends a request again and again, over as many connections as that takes; the statuses of all answers."""
    statuses = []
    while len(statuses) < count:
        connection = connect(stack, source)
        connection.setblocking(False)
        rest, answers, is_open = memoryview(request * (count - len(statuses))), bytearray(), True
        while is_open:
            select.select([connection], [connection] if rest else [], [], 10)
            try:
                while data := connection.recv(1 << 20):
                    answers += data
                is_open = False
            except ssl.SSLWantReadError:
                pass
            except OSError:
                is_open = False
            try:
                while is_open and rest:
                    rest = rest[connection.send(rest[:16384]):]
            except ssl.SSLWantWriteError:
                pass
            except OSError:
                rest = memoryview(b"")
        connection.close()
        found = [int(part[:3]) for part in bytes(answers).split(b"HTTP/1.1 ")[1:]]
        assert 0 < len(found) <= 1000  # keepalive_requests
        statuses += found
    return statuses


@pytest.mark.parametrize("request_line", ["GET /nowhere", "GET /error/bad_request", "OPTIONS /generate-password", "GET /validate-password",
                                          "GET /metrics", "POST /generate-password"])
def test_a_flood_fills_no_disk(limited, request_line):
    """20,000 pipelined requests that nginx answers by itself: a log of some lines for each connection, not one for each request;
    and a client has no more than a thousand requests answered on one connection."""
    limited.metrics = False
    limited.ensure_nginx()
    log = limited.log / "nginx-access.log"
    before = log.stat().st_size
    request = f"{request_line} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n".encode()
    statuses = pipeline(limited, "127.0.0.9", request, 20000)
    last = limited.request("GET", "/healthz").headers["x-request-id"]
    wait_for(lambda: last in log.read_text())
    assert 1000 < log.stat().st_size - before < 150_000
    if request_line == "GET /nowhere":
        assert statuses.count(404) < 51 + 10 * 30 and statuses.count(429) > 15000


def test_what_a_responder_was_asked_is_always_logged(stack):
    """Also the hundred and first request of a connection."""
    connection = stack.http()
    names = [stack.validate(make_token(), "1", connection).headers["x-request-id"] for _ in range(130)]
    connection.close()
    wait_for(lambda: all(name in stack.text("nginx-access.log") for name in names))
