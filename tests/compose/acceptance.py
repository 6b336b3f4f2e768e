"""The API as a client sees it, against a running stack: OTP_URL, its certificate OTP_CA_FILE, the mail catcher MAIL_URL.

Standard library only, so that it runs in any Python image (docker compose run --rm tests) and beside any stack. It stays
under nginx's limits per client: run it again after a minute.
"""
import base64
import http.client
import json
import os
import re
import ssl
import time
import unittest
import urllib.parse
import urllib.request
import uuid

OTP = urllib.parse.urlsplit(os.environ.get("OTP_URL", "https://localhost:8443"))
MAIL = os.environ.get("MAIL_URL", "http://localhost:8025")
MAIL_SECONDS = 30


def call(method, path, body=None, content_type="application/json"):
    """One request on a connection of its own: (status, headers, parsed body or None)."""
    connection = http.client.HTTPSConnection(
        OTP.hostname, OTP.port, timeout=15, context=ssl.create_default_context(cafile=os.environ.get("OTP_CA_FILE")))
    try:
        headers = {"Content-Type": content_type} if body is not None and content_type else {}
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        text = answer.read()
        return answer.status, answer.headers, json.loads(text) if text else None
    finally:
        connection.close()


def fetch(path):
    with urllib.request.urlopen(MAIL + path, timeout=10) as answer:
        return json.load(answer)


def mails_to(address):
    return fetch("/api/v1/search?" + urllib.parse.urlencode({"query": f'to:"{address}"', "limit": 50}))["messages"]


def mail_to(address):
    """The first mail to this address, waited for."""
    deadline = time.monotonic() + MAIL_SECONDS
    while time.monotonic() < deadline:
        found = mails_to(address)
        if found:
            return fetch("/api/v1/message/" + found[-1]["ID"])
        time.sleep(0.1)
    raise AssertionError(f"no mail to {address} within {MAIL_SECONDS} s")


def code_in(mail):
    """The code stands alone on a line of the text part."""
    return re.search(r"^\s*(\d{4,12})\s*$", mail["Text"], re.MULTILINE).group(1)


def new_address():
    return f"user-{uuid.uuid4().hex[:16]}@example.com"


class Acceptance(unittest.TestCase):
    def generate(self, address):
        status, headers, answer = call("POST", "/generate-password", {"email": address})
        self.assertEqual(status, 200, answer)
        self.check_headers(headers)
        return answer

    def validate(self, password, token):
        status, headers, answer = call("POST", "/validate-password", {"password": password, "token": token})
        self.check_headers(headers)
        return status, answer

    def check_headers(self, headers):
        self.assertEqual(headers["Cache-Control"], "no-store")
        self.assertEqual(headers["Content-Type"].split(";")[0], "application/json")
        self.assertTrue(headers["X-Request-Id"])
        self.assertEqual(headers["Access-Control-Allow-Origin"], "*")

    def check_error(self, answer, status, error):
        self.assertEqual((answer[0], answer[2]["error"]), (status, error), answer)
        self.assertTrue(answer[2]["message"].startswith("Error: "))
        self.check_headers(answer[1])

    def test_flow(self):
        """Generate, read the mail, validate: once and only once (A3)."""
        address = new_address()
        answer = self.generate(address)
        self.assertEqual(answer["message"], "Password generated successfully! Please check your email.")
        self.assertEqual(len(base64.urlsafe_b64decode(answer["token"] + "=" * (-len(answer["token"]) % 4))), 32)
        self.assertGreater(answer["expires_in"], 0)
        self.assertGreaterEqual(answer["resend_after"], 0)
        code = code_in(mail_to(address))
        self.assertNotIn(code, json.dumps(answer))
        status, right = self.validate(f" {code[:3]}-{code[3:]} ", answer["token"])
        self.assertEqual((status, right.pop("ticket") != ""), (200, True))
        self.assertEqual(right, {"message": "Password validated successfully! Enjoy your access.", "email": address, "mailbox": address})
        status, again = self.validate(code, answer["token"])
        self.assertEqual((status, again["error"]), (401, "used"))
        self.assertEqual(len(mails_to(address)), 1)

    def test_applications(self):
        """Each has its sender, its text and its terms, and knows nothing of another's token (A21)."""
        address = new_address()
        status, _, answer = call("POST", "/generate-password", {"email": address, "application": "bank", "purpose": "sign-in"})
        self.assertEqual(status, 200, answer)
        mail = mail_to(address)
        code = code_in(mail)
        self.assertEqual((mail["From"]["Name"], mail["From"]["Address"], len(code)), ("Bank", "otp@bank.example", 8))
        guess = {"password": code, "token": answer["token"], "purpose": "sign-in"}
        for fields, expected in (({}, "unknown_token"), ({"application": "shop"}, "unknown_token"),
                                 ({"application": "bank", "purpose": "confirm-action"}, "wrong_purpose")):
            status, _, refused = call("POST", "/validate-password", {**guess, **fields})
            self.assertEqual((status, refused["error"]), (401, expected))
        self.assertEqual(call("POST", "/validate-password", {**guess, "application": "bank"})[0], 200)

    def test_mail(self):
        """The mail goes to the one address asked for, in text and HTML, and loads nothing from elsewhere (A10)."""
        address = new_address()
        self.generate(address)
        mail = mail_to(address)
        self.assertEqual([to["Address"] for to in mail["To"]], [address])
        self.assertTrue(mail["Subject"])
        self.assertTrue(mail["From"]["Address"])
        self.assertIn(code_in(mail), mail["HTML"])
        self.assertIsNone(re.search(r"(src|href)\s*=", mail["HTML"], re.IGNORECASE))

    def test_wrong_codes(self):
        """Wrong guesses are counted, and after the last the right code is refused (A4)."""
        address = new_address()
        token = self.generate(address)["token"]
        code = code_in(mail_to(address))
        wrong = str((int(code) + 1) % 10 ** len(code)).zfill(len(code))
        status, answer = self.validate(wrong, token)
        self.assertEqual((status, answer["error"], answer["message"]), (401, "wrong_password", "Error: Invalid password."))
        for left in reversed(range(answer["attempts_left"])):
            status, answer = self.validate(wrong, token)
            self.assertEqual((status, answer["attempts_left"]), (401, left))
        status, answer = self.validate(code, token)
        self.assertEqual((status, answer["error"]), (401, "exhausted"))

    def test_code_of_another_token(self):
        """A code works only with its own token (A7)."""
        one, two = new_address(), new_address()
        self.generate(one)
        token = self.generate(two)["token"]
        first, second = code_in(mail_to(one)), code_in(mail_to(two))
        if first != second:
            self.assertEqual(self.validate(first, token)[0], 401)
        self.assertEqual(self.validate(second, token)[0], 200)

    def test_unknown_token(self):
        status, answer = self.validate("123456", base64.urlsafe_b64encode(os.urandom(32)).decode().rstrip("="))
        self.assertEqual((status, answer["error"]), (401, "unknown_token"))

    def test_bad_requests(self):
        """Strict JSON, strict types (A8)."""
        for body in (b"", b"{", b"[]", b"null", b'{"password":123456,"token":"x"}', b'{"password":"123456"}',
                     b'{"password":"","token":"x"}', b'{"password":"1","password":"2","token":"x"}'):
            self.check_error(call("POST", "/validate-password", body), 400, "bad_request")
        self.check_error(call("POST", "/generate-password", b'{"email":"not an address"}'), 422, "invalid_email")
        self.check_error(call("POST", "/generate-password", b"<a/>", "text/xml"), 415, "unsupported_media_type")

    def test_http(self):
        """Methods, paths and sizes are answered as HTTP says, in JSON."""
        answer = call("GET", "/generate-password")
        self.check_error(answer, 405, "method_not_allowed")
        self.assertIn("POST", answer[1]["Allow"])
        self.check_error(call("GET", "/no-such-path"), 404, "not_found")
        self.check_error(call("POST", "/validate-password", b" " * 20000), 413, "payload_too_large")
        status, headers, _ = call("OPTIONS", "/generate-password")
        self.assertEqual((status, headers["Access-Control-Allow-Origin"]), (204, "*"))

    def test_limit_per_address(self):
        """A second request for an address within a minute is refused and says when to come again."""
        address = new_address()
        wait = self.generate(address)["resend_after"]
        if wait == 0:
            self.skipTest("this stack has RESEND_SECONDS=0")
        status, headers, answer = call("POST", "/generate-password", {"email": address.upper()})
        self.assertEqual((status, answer["error"]), (429, "rate_limited"))
        self.assertEqual(int(headers["Retry-After"]), answer["retry_after"])
        self.assertLessEqual(answer["retry_after"], wait)

    def test_health(self):
        for path in ("/healthz", "/healthz/validate"):
            self.assertEqual(call("GET", path)[0], 200)
        self.assertEqual(call("GET", "/metrics")[0], 403)


if __name__ == "__main__":
    unittest.main()
