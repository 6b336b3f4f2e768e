"""The worker and a real Postfix, set up as operators do, rightly and wrongly: docs/RELAYS.md says what happens in each case."""
import re

import pytest
from outbox import due_now, mail_row, queue, wait_state
from postfix import Postfix, is_there
from stack import ROOT, wait_for
from stack.certificates import make_tls
from stack.relay import Relay
from test_mail import authority, tls_settings, worker  # noqa: F401
from test_relays import TROUBLE

pytestmark = pytest.mark.skipif(not is_there(), reason="postfix is not installed, or this is not root")
DENY = ["mynetworks=", "smtpd_relay_restrictions=reject_unauth_destination"]
# The case as the document has it, settings of smtpd, settings of the worker; the scheme in front of the port.
CASES = {
    "plaintext on this machine": (["smtpd_tls_security_level=none"], {"SMTP_TLS": "off"}),
    "STARTTLS": (["smtpd_tls_security_level=encrypt"], {}),
    "TLS from the first byte (465)": (["smtpd_tls_wrappermode=yes"], {"scheme": "smtps://"}),
    "TLS 1.3 only": (["smtpd_tls_mandatory_protocols=>=TLSv1.3", "smtpd_tls_security_level=encrypt"], {}),
    "TLS 1.1 only": (["smtpd_tls_mandatory_protocols=TLSv1.1", "smtpd_tls_security_level=encrypt"], {}),
    "no STARTTLS": (["smtpd_tls_security_level=none"], {}),
    "`smtps://` to a port that is not": ([], {"scheme": "smtps://"}),
    "STARTTLS wanted, `SMTP_TLS=off`": (["smtpd_tls_security_level=encrypt"], {"SMTP_TLS": "off"}),
    "login wanted, none given": (["smtpd_client_restrictions=permit_sasl_authenticated,reject", "access_map_reject_code=554"], {}),
    "relaying denied": (DENY, {}),
    "relaying denied, by default": (["mynetworks="], {}),
    "sender refused": (["smtpd_sender_restrictions=check_sender_access static:REJECT"], {}),
    "sender's domain refused": (["smtpd_sender_restrictions=check_sender_access static:{550 5.1.8 Domain not found}"], {}),
    "unknown recipient": ([], {"recipient": "jane@relayed.example"}),
    "recipient refused without a code": (["smtpd_recipient_restrictions=check_recipient_access static:{550 5.1.0 no}"], {}),
    "greylisting": (["smtpd_recipient_restrictions=check_recipient_access static:{DEFER_IF_PERMIT greylisted}"], {}),
    "relay too busy": (["smtpd_client_connection_rate_limit=1"], {"before": 1}),
    "too many mails for its taste": (["smtpd_client_message_rate_limit=1"], {"before": 1}),
    "mail too large": (["message_size_limit=500"], {}),
    "mail refused for its content": (["cleanup_service_name=strict"], {}),
    "EHLO refused": (["smtpd_delay_reject=no", "smtpd_helo_restrictions=check_helo_access static:REJECT", "smtpd_helo_required=yes"], {}),
    "client refused": (["smtpd_delay_reject=no", "smtpd_client_restrictions=reject"], {}),
}


@pytest.fixture(scope="module")
def postfix(authority):  # noqa: F811
    make_tls(authority, "DNS:localhost")
    stem = authority / "dns-localhost2true"
    with Postfix(stem.with_suffix(".pem"), stem.with_suffix(".key"), {case: settings for case, (settings, _) in CASES.items()}) as server:
        yield server


def summary(text):
    """A reply without what differs from time to time."""
    return re.sub(r"queued as \w+", "queued as ...", re.sub(r"<.*?>", "<...>", text)).replace("|", "/")


def attempts(stack, row_id, most=3):
    """The mail's row when it is settled, or after some attempts, or when it waits for a relay."""
    for number in range(1, most + 1):
        row = wait_for(lambda: (found := mail_row(stack, row_id))["lease"] is None and found["last_reply"]
                       and (found["attempts"] in (0, number) or found["state"] != "queued") and found)
        if row["state"] != "queued" or row["attempts"] in (0, most):
            return row
        due_now(stack, row_id)
    return row


@pytest.mark.parametrize("case", CASES)
def test_what_happens(database, authority, postfix, case):  # noqa: F811
    """The row of docs/RELAYS.md for a case: what Postfix says, what becomes of the mail, what is logged; a healthy relay beside it
    gets the mail."""
    _, told = CASES[case]
    scheme, before = told.get("scheme", ""), told.get("before", 0)
    settings = {**tls_settings(authority), **{k: v for k, v in told.items() if k.startswith("SMTP")}}
    name = f"{scheme}localhost:{postfix.ports[case]}"
    with worker(database, SMTP_RELAYS=name, **settings) as process:
        for number in range(before):
            [first] = queue(database, f"first{number}@example.com")
            wait_state(database, first, "sent")
        [row_id] = queue(database, told.get("recipient", "jane@example.com"))
        row = attempts(database, row_id)
        events = [event for event in (*TROUBLE, "mail") for _ in process.events(event)]
        levels = {e["level"] for event in TROUBLE for e in process.events(event)}
    state = {"sent": "sent", "failed": f"failed after {row['attempts']}"}.get(row["state"], "tried again" if row["attempts"]
                                                                             else "waits for the relay")
    logged = ", ".join(f"`{event}`" for event in TROUBLE if event in events) or "-"
    line = f"| {case} | `{summary(row['last_reply'])}` | {state} | {logged}{' (error)' if 'error' in levels else ''} |"
    assert line in (ROOT / "docs" / "RELAYS.md").read_text().splitlines(), line


@pytest.mark.parametrize("case", ["relaying denied", "client refused", "greylisting", "mail refused for its content"])
def test_a_healthy_relay_beside_it(database, postfix, case):
    """Gets what Postfix refuses, at once."""
    with Relay() as good, worker(database, SMTP_RELAYS=f"localhost:{postfix.ports[case]}, {good.name}"):
        [row_id] = queue(database, "jane@example.com")
        good.wait("jane@example.com", timeout=5)
        assert wait_state(database, row_id, "sent")["attempts"] == 1


def test_many_mails_through_postfix(database, authority, postfix):  # noqa: F811
    """Ten in a session under TLS, each once."""
    with worker(database, SMTP_RELAYS=f"localhost:{postfix.ports['STARTTLS']}", WORKER_SESSIONS=2, **tls_settings(authority)):
        queue(database, "many@example.com", count=200)
        wait_for(lambda: database.query("select count(*) from otp.mail where state = 'sent'") == [(200,)], 30)
    postfix.wait_taken("many@example.com", 200)
    assert postfix.taken("many@example.com") == 200
