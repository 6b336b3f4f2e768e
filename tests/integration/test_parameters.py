"""What nginx tells a responder of a request, seen by a responder of the test's: which header goes where, and under which name a
request goes into answers and logs."""
import json
import re
import socketserver
import threading

import pytest

from stack import address_of, make_token, wait_for
from stack.fastcgi import FCGI_END, FCGI_PARAMS, FCGI_STDIN, FCGI_STDOUT, fcgi_record

JSON_ANSWER = b"Status: 200 OK\r\nContent-Type: application/json\r\n\r\n{}"
MADE = re.compile(r"[0-9a-f]{32}")
TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
CALLS = {"/generate-password": "generate", "/validate-password": "validate", "/revoke": "validate", "/delivery-status": "validate"}
PARAMETERS = {"REQUEST_METHOD", "DOCUMENT_URI", "QUERY_STRING", "CONTENT_TYPE", "CONTENT_LENGTH", "REQUEST_ID", "HTTP_ACCEPT_LANGUAGE",
              "HTTP_AUTHORIZATION", "HTTP_CONTENT_ENCODING", "HTTP_ORIGIN"}


def parameters_of(data):
    """Name-value pairs of FastCGI as a dictionary."""
    found, at = {}, 0

    def size():
        nonlocal at
        width = 4 if data[at] & 0x80 else 1
        at += width
        return int.from_bytes(data[at - width:at], "big") & 0x7FFFFFFF
    while at < len(data):
        name, value = size(), size()
        found[data[at:at + name].decode()] = data[at + name:at + name + value].decode("latin-1")
        at += name + value
    return found


class Listener(socketserver.ThreadingUnixStreamServer):
    """A responder that answers 200 to everything and keeps the parameters it was given, one dictionary a request."""
    daemon_threads = True

    def __init__(self, path):
        self.seen = []
        super().__init__(str(path), Connection)
        path.chmod(0o666)
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()


class Connection(socketserver.StreamRequestHandler):
    """One kept connection of nginx's."""

    def handle(self):
        parameters = b""
        while len(head := self.rfile.read(8)) == 8:
            content = self.rfile.read(int.from_bytes(head[4:6], "big"))
            self.rfile.read(head[6])
            if head[1] == FCGI_PARAMS:
                parameters += content
            elif head[1] == FCGI_STDIN and not content:
                self.server.seen.append(parameters_of(parameters))
                parameters = b""
                self.wfile.write(fcgi_record(FCGI_STDOUT, JSON_ANSWER) + fcgi_record(FCGI_STDOUT) + fcgi_record(FCGI_END, bytes(8)))


@pytest.fixture
def listeners(stack):
    """One in the place of each kind of responder."""
    found = {}
    for kind in ("generate", "validate"):
        stack.upstreams[kind] = [f"{kind}-listener"]
        found[kind] = Listener(stack.socket_path(f"{kind}-listener"))
    stack.ensure_nginx()
    yield found
    for kind, listener in found.items():
        listener.shutdown()
        listener.server_close()
        stack.socket_path(f"{kind}-listener").unlink()


def other(kind):
    return {"generate": "validate", "validate": "generate"}[kind]


@pytest.mark.parametrize("path, kind", CALLS.items())
def test_each_call_has_its_responder(listeners, stack, path, kind):
    """A call with its key and its origin goes to one kind of responder, under its path, and to no other."""
    answer = stack.request("POST", f"{path}?a=b", {}, {"Authorization": "Bearer otp_canary", "Origin": "https://app.example",
                                                       "Cookie": "a=b", "X-Api-Key": "no", "X-Forwarded-For": "192.0.2.1"})
    assert answer.status == 200, answer
    assert not listeners[other(kind)].seen
    seen, = listeners[kind].seen
    assert seen.keys() == PARAMETERS
    assert (seen["DOCUMENT_URI"], seen["REQUEST_METHOD"]) == (path, "POST")
    assert (seen["HTTP_AUTHORIZATION"], seen["HTTP_ORIGIN"]) == ("Bearer otp_canary", "https://app.example")
    assert seen["REQUEST_ID"] == answer.headers["x-request-id"]


def test_a_key_goes_to_the_responders_alone(listeners, stack):
    """No log of nginx's, and no answer, holds what Authorization said, on whatever path and however the request ends. (At the
    level info, which no site has, nginx quotes header lines that are too long.)"""
    canary = "otp_canary-of-a-key"
    answers = []
    for path in (*CALLS, "/nowhere", "/healthz", "/metrics"):
        for method in ("GET", "POST", "PUT", "OPTIONS", "TRACE"):
            answers.append(stack.request(method, path, headers={"Authorization": f"Bearer {canary}"}))
        answers.append(stack.request("POST", path, b"x" * 20000, {"Authorization": f"Bearer {canary}"}))
    answers.append(stack.request("POST", "/revoke", {}, {"Authorization": f"Bearer {canary}{'x' * 9000}"}))
    assert any(canary in seen["HTTP_AUTHORIZATION"] for seen in listeners["validate"].seen)
    last = answers[-1].headers["x-request-id"]
    wait_for(lambda: last in stack.text("nginx-access.log"))
    for name in ("nginx-access.log", "nginx-error.log", "nginx.log"):
        assert not [line for line in stack.text(name).splitlines() if canary in line and " [info] " not in line], name
    assert not [answer for answer in answers if canary in repr(answer.header_list) or canary.encode() in answer.body]


# --- The request's name ---

TAKEN = [({"X-Request-Id": "a"}, "a"), ({"X-Request-Id": "0aZ._-9" * 18 + "ab"}, "0aZ._-9" * 18 + "ab"),
         ({"X-Request-Id": "mine", "traceparent": f"00-{TRACE}-{PARENT}-01"}, "mine"),
         ({"traceparent": f"00-{TRACE}-{PARENT}-01"}, TRACE), ({"traceparent": f"00-{TRACE}-{PARENT}-ff"}, TRACE),
         ({"X-Request-Id": "two words", "traceparent": f"00-{TRACE}-{PARENT}-00"}, TRACE)]
MADE_ANEW = [{}, {"X-Request-Id": ""}, {"X-Request-Id": "a" * 129}, {"X-Request-Id": "two words"}, {"X-Request-Id": '"quoted"'},
             {"X-Request-Id": "'"}, {"X-Request-Id": "a\\n"}, {"X-Request-Id": "a,b"}, {"X-Request-Id": "\u00e4"}, {"X-Request-Id": "a/b"},
             {"X-Request-Id": "a\ta"}, {"traceparent": f"00-{'0' * 32}-{PARENT}-01"}, {"traceparent": f"00-{TRACE}-{'0' * 16}-01"},
             {"traceparent": f"01-{TRACE}-{PARENT}-01"}, {"traceparent": f"00-{TRACE.upper()}-{PARENT}-01"},
             {"traceparent": f"00-{TRACE}-{PARENT}-01-x"}, {"traceparent": f"x00-{TRACE}-{PARENT}-01"}, {"traceparent": TRACE},
             {"traceparent": f"00-{TRACE[1:]}-{PARENT}-01"}, {"traceparent": ""}]


def check_name(stack, listener, headers, is_right):
    """One name in the answer, the responder's parameters and the access log, also where nginx itself answers."""
    for method, path in (("POST", "/generate-password"), ("GET", "/nowhere")):
        answer = stack.request(method, path, headers=headers)
        name = answer.headers["x-request-id"]
        assert is_right(name), (headers, answer)
        assert [value for key, value in answer.header_list if key.lower() == "x-request-id"] == [name]
        wait_for(lambda name=name, path=path: (name, path) in logged_names(stack), what=f"{name} in the access log")
    assert is_right(listener.seen[-1]["REQUEST_ID"])


def logged_names(stack):
    lines = [json.loads(line) for line in stack.text("nginx-access.log").splitlines()]
    return {(line["request_id"], line["path"]) for line in lines}


@pytest.mark.parametrize("headers, name", TAKEN)
def test_a_request_is_called_as_its_caller_calls_it(listeners, stack, headers, name):
    """X-Request-Id of the caller, else the trace id of its traceparent."""
    check_name(stack, listeners["generate"], headers, lambda found: found == name)


@pytest.mark.parametrize("headers", MADE_ANEW)
def test_a_name_that_is_none_is_replaced(listeners, stack, headers):
    """By one that nginx makes, and nothing of the bad one is anywhere."""
    check_name(stack, listeners["generate"], headers, lambda found: MADE.fullmatch(found) and found != TRACE)


def test_a_line_feed_ends_no_name(listeners, stack):
    """It ends the header instead (folded lines are no HTTP any more), so that no line of a log can be forged."""
    raw = stack.raw(b"POST /generate-password HTTP/1.1\r\nHost: localhost\r\nX-Request-Id: name\n{\"forged\":1}\r\n"
                    b"Content-Length: 0\r\nConnection: close\r\n\r\n")
    assert b"forged" not in raw
    wait_for(lambda: ("name", "/generate-password") in logged_names(stack))
    assert "forged" not in stack.text("nginx-access.log") + "".join(seen["REQUEST_ID"] for seen in listeners["generate"].seen)


def test_the_callers_name_is_in_the_responders_log(stack):
    """All 128 characters of it, where a request fails."""
    name = "Order-7._" * 14 + "zz"
    stack.query("alter table otp.challenge add constraint broken check (email not like 'poison%')")
    try:
        answer = stack.request("POST", "/generate-password", {"email": address_of("poison")}, {"X-Request-Id": name})
    finally:
        stack.query("alter table otp.challenge drop constraint broken")
    assert (answer.status, answer.headers["x-request-id"]) == (500, name)
    event, = wait_for(lambda: [event for event in stack.responders["generate-0"].events("request_failed")
                               if event["request_id"] == name])
    assert event["error"] == "internal"


# --- Limits of callers with a key ---

@pytest.mark.parametrize("path", CALLS)
@pytest.mark.parametrize("scheme, wide", [("Bearer", True), ("bearer", True), ("Basic", False), ("Bearerish", False), ("", False)])
def test_callers_with_a_key_have_a_limit_of_their_own(listeners, stack, path, scheme, wide):
    """A key is counted apart from the client's anonymous calls, against guessing of keys: a hundred at once pass, not more."""
    stack.limits = "on"
    stack.ensure_nginx()
    headers = {"Authorization": f"{scheme} key".strip()} if scheme else {}
    connection = stack.http()
    statuses = [stack.request("POST", path, {}, headers, connection).status for _ in range(150)]
    passed = statuses.count(200)
    assert set(statuses) == {200, 429}
    assert 101 <= passed <= 120 if wide else passed <= 34, passed
    # The other kind has its own count; OPTIONS none.
    opposite = {} if wide else {"Authorization": "Bearer key"}
    assert stack.request("POST", path, {}, opposite, connection).status == 200
    assert stack.request("OPTIONS", path, headers=headers, connection=connection).status == 204
    answer = next(answer for answer in iter(lambda: stack.request("POST", path, {}, headers, connection), None) if answer.status == 429)
    assert answer.json["retry_after"] == int(answer.headers["retry-after"]) == (3 if path == "/generate-password" and not wide else 1)
    connection.close()


def test_limits_off_lifts_that_of_keys_too(listeners, stack):
    connection = stack.http()
    found = {stack.request("POST", "/generate-password", {}, {"Authorization": "Bearer x"}, connection).status for _ in range(300)}
    connection.close()
    assert found == {200}


def test_status_calls_do_not_spend_guesses(listeners, stack):
    """/delivery-status and /revoke are counted apart from /validate-password."""
    stack.limits = "on"
    stack.ensure_nginx()
    connection = stack.http()
    statuses = [stack.request("POST", ("/delivery-status", "/revoke")[n % 2], {}, connection=connection).status for n in range(50)]
    assert 429 in statuses
    assert stack.request("POST", "/validate-password", {"token": make_token()}, connection=connection).status == 200
    connection.close()
