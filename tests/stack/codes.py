"""Tokens, codes and addresses as the programs compute them, for planting challenges and for looking inside."""
import base64
import ctypes
import ctypes.util
import hashlib
import secrets
import time
import uuid

CODE_CONTEXT = b"otpd code 1"


def make_token(when_ms=None):
    raw = int(when_ms if when_ms is not None else time.time() * 1000).to_bytes(6, "big") + secrets.token_bytes(26)
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def token_raw(token):
    return base64.urlsafe_b64decode(token + "=")


def token_id(token):
    raw = token_raw(token)
    return uuid.UUID(bytes=raw[:6] + hashlib.blake2b(raw, digest_size=32).digest()[:10])


def code_mac(pepper, token, code):
    return hashlib.blake2b(CODE_CONTEXT + token_raw(token) + code.encode(), key=pepper, digest_size=32).digest()


def address_of(prefix="user"):
    """An address that no other test uses."""
    return f"{prefix}-{secrets.token_hex(6)}@example.com"


def sodium():
    return ctypes.CDLL(ctypes.util.find_library("sodium"))
