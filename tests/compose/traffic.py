"""Clients that keep asking for codes, and the books they keep: every token that was acknowledged must come good."""
import base64
import http.client
import itertools
import json
import os
import re
import ssl
import threading
import time
import urllib.parse
import urllib.request


class Client:
    """One client of a stack on this machine."""

    def __init__(self, port, mail_port, certificate):
        self.port, self.mail = port, f"http://127.0.0.1:{mail_port}"
        self.tls = ssl.create_default_context(cadata=certificate)

    def post(self, path, body):
        """(status, parsed body); raises OSError or http.client.HTTPException when there is no answer."""
        connection = http.client.HTTPSConnection("127.0.0.1", self.port, timeout=15, context=self.tls)
        try:
            connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            connection.close()

    def code(self, address):
        """The code last mailed to this address, None if there is no mail."""
        query = urllib.parse.urlencode({"query": f'to:"{address}"', "limit": 1})
        with urllib.request.urlopen(f"{self.mail}/api/v1/search?{query}", timeout=10) as answer:
            found = json.load(answer)["messages"]
        if not found:
            return None
        with urllib.request.urlopen(f"{self.mail}/api/v1/message/{found[0]['ID']}", timeout=10) as answer:
            return re.search(r"^\s*(\d{4,12})\s*$", json.load(answer)["Text"], re.MULTILINE).group(1)

    def wait_for_code(self, address, seconds):
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            try:
                code = self.code(address)
            except (OSError, http.client.HTTPException):
                code = None
            if code:
                return code
            time.sleep(0.1)
        return None


class Traffic:
    """A context: threads that ask for codes and try unknown tokens until it ends, some ten requests each second."""

    numbers = itertools.count()

    def __init__(self, client, threads=2, pause=0.15):
        self.client, self.pause = client, pause
        self.acknowledged = []  # (address, token) of each 200
        self.rejected = 0  # unknown tokens, rightly
        self.refused = []  # what else was seen
        self.stopping = threading.Event()
        self.threads = [threading.Thread(target=self.work) for _ in range(threads)]

    def ask(self, path, body):
        try:
            status, answer = self.client.post(path, body)
        except (OSError, http.client.HTTPException) as error:
            self.refused.append(type(error).__name__)
            return None
        if status not in (200, 401):
            self.refused.append(f"{status} {answer['error']}")
        return answer if status == 200 else answer.get("error")

    def work(self):
        while not self.stopping.wait(self.pause):
            address = f"traffic-{next(self.numbers)}@example.com"
            answer = self.ask("/generate-password", {"email": address})
            if isinstance(answer, dict):
                self.acknowledged.append((address, answer["token"]))
            token = base64.urlsafe_b64encode(os.urandom(32)).decode().rstrip("=")
            if self.ask("/validate-password", {"password": "123456", "token": token}) == "unknown_token":
                self.rejected += 1

    def wait_for_success(self, seconds):
        """Until both kinds of request are served that were not before; False when that is not in this time."""
        before, deadline = (len(self.acknowledged), self.rejected), time.monotonic() + seconds
        while time.monotonic() < deadline:
            if len(self.acknowledged) > before[0] and self.rejected > before[1]:
                return True
            time.sleep(0.05)
        return False

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *error):
        self.stopping.set()
        for thread in self.threads:
            thread.join()
