"""HTTP requests and answers as bytes, and FastCGI, spoken directly to a responder's socket."""
import json
import re
import secrets
import socket

FCGI_BEGIN, FCGI_ABORT, FCGI_END, FCGI_PARAMS, FCGI_STDIN, FCGI_STDOUT, FCGI_STDERR = 1, 2, 3, 4, 5, 6, 7


class Answer:
    """An HTTP or FastCGI answer."""

    def __init__(self, status, headers, body):
        self.status = status
        self.header_list = headers
        self.headers = {}
        for name, value in headers:
            self.headers.setdefault(name.lower(), value)
        self.body = body

    def __repr__(self):
        return f"<{self.status} {self.headers} {self.body[:300]!r}>"

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def error(self):
        return self.json.get("error")

    @property
    def token(self):
        return self.json["token"]


def refused(answer, status, error):
    """The answer, which must be that refusal."""
    assert (answer.status, answer.error) == (status, error), answer
    return answer


def http_bytes(method, path, body=b"", headers=(), host="localhost"):
    """An HTTP/1.1 request as bytes."""
    if isinstance(body, (dict, list)):
        body = json.dumps(body).encode()
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}", *headers]
    if body or method == "POST":
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def fcgi_record(kind, content=b"", request=1, padding=0, version=1, length=None):
    size = len(content) if length is None else length
    return (bytes([version, kind]) + request.to_bytes(2, "big") + size.to_bytes(2, "big") + bytes([padding, 0])
            + content + bytes(padding))


def fcgi_pair(name, value):
    out = b""
    for part in (name, value):
        out += bytes([len(part)]) if len(part) < 128 else (len(part) | 1 << 31).to_bytes(4, "big")
    return out + name + value


def fcgi_params(method, uri, body=b"", content_type="application/json", length=None, request_id=None, **extra):
    params = {"REQUEST_METHOD": method, "DOCUMENT_URI": uri, "QUERY_STRING": "", "CONTENT_TYPE": content_type,
              "CONTENT_LENGTH": str(len(body)) if length is None else length,
              "REQUEST_ID": request_id or secrets.token_hex(16), **extra}
    return b"".join(fcgi_pair(k.encode(), v.encode()) for k, v in params.items())


def fcgi_request(method, uri, body=b"", keep=True, **kwargs):
    """The bytes of one whole request."""
    params = fcgi_params(method, uri, body, **kwargs)
    out = fcgi_record(FCGI_BEGIN, b"\0\1" + bytes([keep]) + bytes(5))
    out += fcgi_record(FCGI_PARAMS, params) + fcgi_record(FCGI_PARAMS)
    for start in range(0, len(body), 60000):
        out += fcgi_record(FCGI_STDIN, body[start:start + 60000])
    return out + fcgi_record(FCGI_STDIN)


class FastCgi:
    """A connection to a responder's socket."""

    def __init__(self, path, timeout=10.0):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(timeout)
        self.socket.connect(str(path))
        self.buffer = b""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.socket.close()

    def send(self, data):
        self.socket.sendall(data)

    def _take(self, count):
        while len(self.buffer) < count:
            more = self.socket.recv(65536)
            if not more:
                raise EOFError("the responder closed the connection")
            self.buffer += more
        out, self.buffer = self.buffer[:count], self.buffer[count:]
        return out

    def record(self):
        head = self._take(8)
        content = self._take(int.from_bytes(head[4:6], "big"))
        self._take(head[6])
        return head[1], int.from_bytes(head[2:4], "big"), content

    def answer(self):
        out = b""
        while True:
            kind, _, content = self.record()
            if kind == FCGI_STDOUT:
                out += content
            elif kind == FCGI_END:
                break
        head, _, body = out.partition(b"\r\n\r\n")
        headers = [tuple(part.strip() for part in line.split(":", 1)) for line in head.decode().split("\r\n") if ":" in line]
        status = next((int(v.split()[0]) for k, v in headers if k.lower() == "status"), 200)
        return Answer(status, headers, body)

    def request(self, method, uri, body=b"", **kwargs):
        if isinstance(body, (dict, list)):
            body = json.dumps(body).encode()
        self.send(fcgi_request(method, uri, body, **kwargs))
        return self.answer()

    def is_closed(self):
        """Has the responder closed it? (within the timeout)"""
        try:
            return self.socket.recv(1) == b""
        except ConnectionError:
            return True


def metric(stack, responder, name, label=""):
    """The sum of a metric over the samples with this label, read on the responder's own socket."""
    kind = responder.split("-")[0]
    with stack.fastcgi(responder) as connection:
        text = connection.request("GET", "/metrics" if kind == "generate" else "/metrics/validate", keep=False).body.decode()
    values = re.findall(rf"^{name}(?:{{[^}}]*{re.escape(label)}[^}}]*}})? (\S+)$", text, re.M)
    assert values, f"no metric {name} in {text}"
    return sum(float(v) for v in values)
