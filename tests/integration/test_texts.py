"""Whose name, sender and texts a mail has, and how the worker takes new ones while it works."""
import json
import re
import signal
from collections import Counter
from contextlib import contextmanager

import pytest
from outbox import queue
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
