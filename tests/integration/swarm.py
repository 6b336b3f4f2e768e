"""Many HTTPS requests at the same moment: open connections that each hold back the last byte of their request."""
import asyncio
import threading

from stack import Answer, http_bytes


class Swarm:
    """count kept connections to the stack's nginx. fire() sends one request on each, truly in parallel: everything but
    the last byte goes out first, and nginx passes a request on when its body is whole."""

    def __init__(self, stack, count, timeout=60):
        self.stack = stack
        self.count = count
        self.timeout = timeout
        self.loop = asyncio.new_event_loop()
        self.streams = []

    def __enter__(self):
        self.loop.run_until_complete(self._open())
        return self

    def __exit__(self, *_):
        for _, writer in self.streams:
            writer.transport.abort()
        self.loop.run_until_complete(asyncio.sleep(0))
        self.loop.close()

    async def _connect(self, context, gate):
        async with gate:
            return await asyncio.open_connection("127.0.0.1", self.stack.https_port, ssl=context, server_hostname="localhost")

    async def _open(self):
        context, gate = self.stack.tls(), asyncio.Semaphore(32)
        self.streams = await asyncio.gather(*(self._connect(context, gate) for _ in range(self.count)))

    def fire(self, requests, between=None):
        """Sends requests (bytes, at most count of them) at once; between() runs after the last byte of each has left.
        Returns the answers in order; an exception stands for a connection that failed."""
        return self.loop.run_until_complete(asyncio.wait_for(self._fire(requests, between), self.timeout))

    async def _fire(self, requests, between):
        pairs = list(zip(self.streams, requests, strict=False))
        assert len(pairs) == len(requests)
        for (_, writer), request in pairs:
            writer.write(request[:-1])
        await asyncio.gather(*(writer.drain() for (_, writer), _ in pairs))
        for (_, writer), request in pairs:
            writer.write(request[-1:])
        if between:
            threading.Thread(target=between, daemon=True).start()
        return await asyncio.gather(*(read_answer(reader) for (reader, _), _ in pairs), return_exceptions=True)

    def validate_all(self, guesses, between=None):
        """One validate request per (token, code)."""
        return self.fire([http_bytes("POST", "/validate-password", {"token": t, "password": c},
                                     ["Content-Type: application/json"]) for t, c in guesses], between)

    def generate_all(self, addresses, between=None):
        """One generate request per address."""
        return self.fire([http_bytes("POST", "/generate-password", {"email": a}, ["Content-Type: application/json"])
                          for a in addresses], between)


async def read_answer(reader):
    """One HTTP/1.1 answer, by length or in chunks."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    lines = head.split("\r\n")
    headers = [tuple(part.strip() for part in line.split(":", 1)) for line in lines[1:] if ":" in line]
    names = {k.lower(): v for k, v in headers}
    body = b""
    if "content-length" in names:
        body = await reader.readexactly(int(names["content-length"]))
    elif names.get("transfer-encoding") == "chunked":
        while True:
            size = int((await reader.readuntil(b"\r\n")).split(b";")[0], 16)
            chunk = await reader.readexactly(size + 2)
            if size == 0:
                break
            body += chunk[:-2]
    return Answer(int(lines[0].split()[1]), headers, body)


class Traffic:
    """Steady requests from a few threads, each on its own kept connection, until stopped; keeps every answer."""

    def __init__(self, stack, make, threads=4, reconnect=False):
        self.stack = stack
        self.make = make  # make(stack, connection) -> whatever is to be kept; an exception is kept as it is
        self.reconnect = reconnect
        self.results = []
        self.stopping = threading.Event()
        self.threads = [threading.Thread(target=self._run, daemon=True) for _ in range(threads)]

    def _run(self):
        connection = self.stack.http()
        while not self.stopping.is_set():
            try:
                self.results.append(self.make(self.stack, connection))
            except Exception as problem:  # the test judges it
                self.results.append(problem)
                connection.close()
                connection = self.stack.http()
            if self.reconnect:
                connection.close()
        connection.close()

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.stop()

    def stop(self):
        self.stopping.set()
        for thread in self.threads:
            thread.join(30)
