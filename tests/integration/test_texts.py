"""Whose name, sender and texts a mail has, and how the worker takes new ones while it works."""
import json
import re
import signal
from collections import Counter
from contextlib import contextmanager

import pytest
from outbox import queue, wait_state
from stack.process import give_to_service
from stack.relay import Relay
from stack import ROOT, wait_for
from test_mail import worker
from test_worker import children


class File:
    """The file of the applications, and folders of texts beside it."""

    def __init__(self, folder):
        folder.chmod(0o755)
        self.folder = folder
        self.path = folder / "applications.json"

    def write(self, text):
        """As an editor does it: the new file takes the place of the old one."""
        fresh = self.path.with_suffix(".new")
        fresh.write_text(text if isinstance(text, str) else json.dumps(text))
        give_to_service(fresh)
        fresh.rename(self.path)

    def texts(self, name, files):
        for file, text in files.items():
            path = self.folder / name / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        give_to_service(self.folder / name)
        return str(self.folder / name)


@pytest.fixture(name="file")
def the_file(tmp_path):
    for parent in tmp_path.parents[:2]:
        parent.chmod(0o755)
    return File(tmp_path)


@contextmanager
def at_work(stack, file, **settings):
    """A relay, and a worker that has the file."""
    with Relay() as relay, worker(stack, relay, APPLICATIONS=file.path, EMAIL_FROM="otp@example.org", **settings) as process:
        yield relay, process


def reload(process):
    """Asks for the file to be read anew; returns what the worker said of it."""
    before = len(process.events())
    process.send(signal.SIGHUP)
    said = wait_for(lambda: [event for event in process.events()[before:]
                             if event["event"] in ("applications_loaded", "configuration_refused")], 10)
    return said[0]


def ask(stack, relay, number, **fields):
    """Queues a mail for a new mailbox and waits for it."""
    queue(stack, f"person{number}@example.com", **fields)
    return relay.wait(f"person{number}@example.com")


def test_the_worker_takes_a_new_file(database, file):
    """SIGHUP: sender, answers, name, subject and texts of the next mail are the new ones; the delivery processes are others."""
    file.write({"default": {"app_name": "One", "email_from": "First <one@one.example>"}})
    with at_work(database, file) as (relay, process):
        first = ask(database, relay, 1)
        delivering = children(process)
        own = file.texts("own", {"en/mail.txt": "Own: {{code}} {{heading}}\n"})
        file.write({"default": {"app_name": "Two", "email_from": "two@two.example", "reply_to": "Help <help@two.example>",
                                "subject": "{{reference}}: {{code}}", "templates": own}})
        loaded = reload(process)
        second = ask(database, relay, 2, code="424242")
        wait_for(lambda: children(process) and not set(children(process)) & set(delivering), 10)
        events = process.events()
        assert "424242" not in process.output()
    assert (loaded["event"], loaded["applications"], loaded["level"]) == ("applications_loaded", 1, "info")
    assert first.sender == "one@one.example" and first.message["From"] == "First <one@one.example>"
    assert first.message["Subject"] == "Your One code" and "Reply-To" not in first.message
    assert second.sender == second.message["From"] == "two@two.example" and second.message["Message-ID"].endswith("@two.example>")
    assert second.message["Reply-To"] == "Help <help@two.example>"
    assert second.message["Subject"][3:] == ": 424242"
    assert second.message.get_body(("plain",)).get_content() == "Own: 424242 Your Two code"
    assert "<h1" in second.message.get_body(("html",)).get_content()
    assert not [event for event in events if event["level"] == "error"]


GOOD = '{"default": {"app_name": "Good"}}'
WRONG = {
    "half-written": (GOOD[:20], "must be an object"),
    "empty": ("", "must be an object"),
    "vanished": (None, "No such file"),
    "a member that is unknown": ('{"default": {"app_nam": "Bad"}}', "is unknown"),
    "a subject": ('{"default": {"app_name": "Bad", "subject": "{{minutes}}"}}', "placeholder has no value here"),
    "a folder that is missing": ('{"default": {"app_name": "Bad", "templates": "/nonexistent"}}', "No such file"),
    "a language that is missing": ('{"default": {"app_name": "Bad", "locale": "sv"}}', "no folder for the locale sv"),
    "texts of another application": ('{"default": {"app_name": "Bad"}, "shop": {"templates": "%s"}}', "unknown placeholder"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_file_changes_nothing(database, file, case):
    """It is complained of in the log, the former one stays in force, and a right one is taken afterwards."""
    text, complaint = WRONG[case]
    file.write(GOOD)
    with at_work(database, file) as (relay, process):
        delivering = children(process)
        if text is None:
            file.path.unlink()
        else:
            file.write(text.replace("%s", file.texts("bad", {"en/mail.txt": "{{code}} {{nonsense}}"})))
        said = reload(process)
        mail = ask(database, relay, 1)
        assert children(process) == delivering
        file.write(GOOD.replace("Good", "Better"))
        assert reload(process)["event"] == "applications_loaded"
        better = ask(database, relay, 2)
    assert said["event"] == "configuration_refused" and said["level"] == "error" and complaint in said["reason"], said
    assert mail.message["Subject"] == "Your Good code" and better.message["Subject"] == "Your Better code"


def test_files_change_under_load(database, file):
    """SIGHUP again and again while mails go out: each is sent once, and nothing ends in trouble."""
    file.write(GOOD)
    with at_work(database, file, WORKER_SESSIONS=2) as (relay, process):
        for number in range(10):
            queue(database, f"round{number}@example.com", count=60)
            file.write('{"default": {"app_name": "Round%d"}}' % number if number % 3 else GOOD[:10])
            said = reload(process)
            assert said["event"] == ("applications_loaded" if number % 3 else "configuration_refused")
        wait_for(lambda: len(relay.mails) >= 600, 60)
        wait_for(lambda: database.query("select count(*) from otp.mail where state = 'queued'")[0][0] == 0, 20)
        ended = process.events("delivery_process_ended")
    assert set(Counter(mail.message["Message-ID"] for mail in relay.mails).values()) == {1}
    assert len(relay.mails) == 600 and ended == []


def markup(folder):
    """The tags of a page, but for what makes it one of its language."""
    page = (folder / "mail.html").read_text()
    return re.sub(r' (lang="[\w-]+"|dir="\w+")', "", "".join(re.findall(r"<[^>]*>", page)))


def test_languages_differ_in_words_alone():
    """Each has the same files and the same markup, so that what is mended in one is mended in all."""
    shipped = {folder.name: folder for folder in (ROOT / "templates").iterdir()}
    files = {name: sorted(str(path.relative_to(folder)) for path in folder.rglob("*.*")) for name, folder in shipped.items()}
    for name, folder in shipped.items():
        assert files[name] == [file for file in files["de"] if (name, file) != ("en", "subject.txt")]
        assert markup(folder) == markup(shipped["de"]), name


# --- Applications ---

def two(file):
    """Two applications beside the default one, each with its own name, sender and texts."""
    return {
        "shop": {"app_name": "Shop & Co", "email_from": "Shop <otp@shop.example>", "reply_to": "help@shop.example", "locale": "de",
                 "public": True},
        "bank": {"app_name": "Bank", "email_from": "otp@bank.example", "subject": "{{code}} ({{purpose}})", "public": True,
                 "templates": file.texts("bank", {"en/mail.txt": "Bank: {{code}}\n", "en/pay/mail.txt": "To pay: {{code}}\n",
                                                  "en/pay/mail.html": "<b>\n{{code}}\n</b>\n", "sv/mail.txt": "Banken: {{code}}\n",
                                                  "sv/mail.html": "<i>\n{{code}}\n</i>\n"})},
    }


def words_of(mail, kind="plain"):
    return mail.message.get_body((kind,)).get_content().split()


def test_each_application_speaks_for_itself(database, file):
    """Name, sender, answers, language and texts by application, language and purpose; what is not its own is the shared one."""
    cases = [  # application, purpose, locale -> From, Subject, words of the text
        (None, None, None, "otp@example.org", "Your OTP code", "Your OTP code Your code:"),
        (None, "sign-in", "fr", "otp@example.org", "Votre code OTP", "Connexion à OTP"),
        ("shop", None, None, "Shop <otp@shop.example>", "Ihr Code für Shop & Co", "Ihr Code für Shop & Co"),
        ("shop", "sign-in", "xx", "Shop <otp@shop.example>", "Ihr Code für Shop & Co", "Anmeldung bei Shop & Co"),
        ("shop", "verify-email", "en", "Shop <otp@shop.example>", "Your Shop & Co code", "Confirm your email address for Shop & Co"),
        ("bank", None, "en", "otp@bank.example", "123456 ()", "Bank: 123456"),
        ("bank", "sign-in", "en", "otp@bank.example", "123456 (sign-in)", "Bank: 123456"),
        ("bank", "pay", "en-GB", "otp@bank.example", "123456 (pay)", "To pay: 123456"),
        ("bank", "pay", "sv", "otp@bank.example", "123456 (pay)", "Banken: 123456"),
        ("bank", "sign-in", "es", "otp@bank.example", "Su código de Bank", "Iniciar sesión en Bank"),
    ]
    file.write(two(file))
    with at_work(database, file) as (relay, process):
        mails = [ask(database, relay, number, application=application, purpose=purpose, locale=locale)
                 for number, (application, purpose, locale, *_) in enumerate(cases)]
        assert "123456" not in process.output()
    for (application, _, _, sender, subject, words), mail in zip(cases, mails):
        assert (mail.message["From"], mail.message["Subject"]) == (sender, subject)
        assert mail.sender in sender and mail.message["Message-ID"].endswith(mail.sender.partition("@")[2] + ">")
        assert mail.message["Reply-To"] == ("help@shop.example" if application == "shop" else None)
        assert " ".join(words_of(mail)).startswith(words)
        assert "123456" in words_of(mail, "html")


def test_mail_of_an_application_that_has_vanished(database, file):
    """It fails with the reason, its code is erased, and those of the others go."""
    file.write(two(file))
    with at_work(database, file) as (relay, process):
        ask(database, relay, 1, application="bank")
        file.write({"shop": two(file)["shop"]})
        assert reload(process)["event"] == "applications_loaded"
        [lost] = queue(database, "lost@example.com", application="bank")
        [strange] = queue(database, "strange@example.com", application="no application " * 9)
        ask(database, relay, 2, application="shop")
        rows = [wait_state(database, row_id, "failed") for row_id in (lost, strange)]
        assert [event["reason"] for event in process.events("mail_not_sendable")] == [rows[0]["last_reply"]] * 2
    assert all(row["last_reply"] == "its application is not in the file any more" and row["sealed"] is None for row in rows)
    assert relay.rcpts == ["person1@example.com", "person2@example.com"]


def test_the_mail_shows_the_reference_of_its_answer(stack, file):
    """The letters of the answer are the mail's, also after another code for the same token; so is the purpose."""
    address = "reference@example.com"
    file.write(two(file))
    stack.stop_worker(0)
    stack.stop_responder("generate", 0)
    stack.start_responder("generate", 0, RESEND_SECONDS=0, APPLICATIONS=file.path)
    with at_work(stack, file) as (relay, _):
        first = stack.generate(address, purpose="confirm-action", application="shop")
        assert first.status == 200, first
        relay.wait(address)
        again = stack.resend(first.json["token"], application="shop")
        assert again.status == 200, again
        mails = [relay.wait(address), relay.wait(address, 2)]
    assert first.json["reference"] == again.json["reference"]
    for mail in mails:
        assert words_of(mail)[-2:] == ["Referenz", first.json["reference"]]
        assert words_of(mail)[:5] == ["Vorgang", "bei", "Shop", "&", "Co"]
    assert len({mail.message["X-Entity-Ref-ID"] for mail in mails}) == 2
