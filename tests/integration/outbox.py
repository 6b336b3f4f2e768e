"""Queues mails as otp.generate does, without a responder, and tells what became of them."""
import ctypes
import secrets
import uuid

from stack import NotReady, address_of, code_mac, make_token, sodium, token_id, wait_for

SODIUM = sodium()


class Sealer:
    """Seals codes to the worker's key as otp-generate does."""

    def __init__(self, public_key):
        self.public = ctypes.create_string_buffer(32)
        private = ctypes.create_string_buffer(32)
        self.shared = ctypes.create_string_buffer(32)
        assert SODIUM.crypto_box_keypair(self.public, private) == 0
        assert SODIUM.crypto_box_beforenm(self.shared, public_key, private) == 0

    def seal(self, row_id, code):
        box = ctypes.create_string_buffer(32)
        padded = code.encode().ljust(16, b"\0")
        assert SODIUM.crypto_box_easy_afternm(box, padded, ctypes.c_ulonglong(16), row_id.bytes.ljust(24, b"\0"), self.shared) == 0
        return self.public.raw + box.raw


def recipient_of(email):
    """Where otp-generate says that the mail goes; None: as typed."""
    local, _, domain = email.partition("@")
    try:
        recipient = f"{local}@{domain.lower().encode('idna').decode()}"
    except UnicodeError:
        return None
    return recipient if recipient != email else None


def queue(stack, email=None, code="123456", locale=None, lifetime=600.0, key=1, sealed=None, count=1, application=None, purpose=None):
    """Stores count challenges with their mails; returns their ids."""
    sealer = Sealer((stack.keys / "generate" / f"mail-{key}.pub").read_bytes())
    ids = []
    rows = []
    for _ in range(count):
        token = make_token()
        row_id = token_id(token)
        ids.append(row_id)
        address = address_of("mail") if email is None else email
        rows.append((row_id, address, recipient_of(address), code_mac(stack.pepper(), token, code), application, purpose,
                     lifetime, sealer.seal(row_id, code) if sealed is None else sealed, key, locale))
    with stack.postgres.connect() as connection, connection.transaction():
        cursor = connection.cursor()
        cursor.executemany(
            "with challenge as (insert into otp.challenge (id, email, recipient, code_mac, mac_key, application, purpose,"
            " max_attempts, created_at, expires_at)"
            " values (%s, %s, %s, %s, 1, %s, %s, 5, clock_timestamp(), clock_timestamp() + make_interval(secs => %s)) returning *)"
            " insert into otp.mail (id, sealed, mail_key, locale, next_attempt_at, give_up_at)"
            " select id, %s, %s, %s, created_at, expires_at - least(interval '1 minute', (expires_at - created_at) / 4)"
            " from challenge", rows)
        cursor.execute("notify otp_mail")
    return ids


def mail_row(stack, row_id):
    """The mail's row as a dict."""
    columns = "state attempts last_reply sealed sent_at lease next_attempt_at"
    row = stack.query("select state::text, attempts, last_reply, sealed, sent_at, lease, next_attempt_at from otp.mail where id = %s",
                      row_id)[0]
    return dict(zip(columns.split(), row))


def wait_state(stack, row_id, state, timeout=20.0):
    try:
        wait_for(lambda: mail_row(stack, row_id)["state"] == state, timeout)
    except NotReady:
        raise NotReady(f"not {state} after {timeout} s: {mail_row(stack, row_id)}") from None
    return mail_row(stack, row_id)


def wait_reply(stack, row_id, timeout=20.0):
    """Waits for an attempt that ended in a retry, and returns the row."""
    wait_for(lambda: mail_row(stack, row_id)["last_reply"], timeout, f"a reply for {row_id}")
    return mail_row(stack, row_id)


def due_now(stack, row_id):
    """Spares a test the backoff."""
    stack.query("update otp.mail set next_attempt_at = clock_timestamp() where id = %s and state = 'queued'", row_id)
    stack.query("notify otp_mail")


def message_id(row_id, domain="example.org"):
    return f"<{uuid.UUID(str(row_id))}@{domain}>"


def random_code():
    return f"{secrets.randbelow(10**6):06d}"
