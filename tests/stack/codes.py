"""Tokens, codes and addresses as the programs compute them, for planting challenges and for looking inside."""
import base64
import ctypes
import ctypes.util
import hashlib
import secrets
import time
import uuid

CODE_LABEL = b"otpd code 1"
BOUND_LABEL = b"otpd code 2"


def make_token(when_ms=None):
    raw = int(when_ms if when_ms is not None else time.time() * 1000).to_bytes(6, "big") + secrets.token_bytes(26)
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def token_raw(token):
    return base64.urlsafe_b64decode(token + "=")


def token_id(token):
    raw = token_raw(token)
    return uuid.UUID(bytes=raw[:6] + hashlib.blake2b(raw, digest_size=32).digest()[:10])


def code_context(token, context):
    """What stands for a context in the database."""
    return context and hashlib.blake2b(context.encode(), key=token_raw(token), digest_size=32).digest()


def code_mac(pepper, token, code, application=None, purpose=None, context=None):
    message = token_raw(token)
    if application or purpose or context:
        message = BOUND_LABEL + message + f"{application or ''}\0{purpose or ''}\0".encode() + (code_context(token, context) or b"")
    else:
        message = CODE_LABEL + message
    return hashlib.blake2b(message + code.encode(), key=pepper, digest_size=32).digest()


def address_of(prefix="user"):
    """An address that no other test uses."""
    return f"{prefix}-{secrets.token_hex(6)}@example.com"


def sodium():
    return ctypes.CDLL(ctypes.util.find_library("sodium"))
