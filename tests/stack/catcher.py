"""The mail catcher of the local stack: a relay that keeps every mail as a file in a Maildir folder, and nothing in memory.

Usage: python3 -m stack.catcher PORT FOLDER
"""
import mailbox
import sys
import threading

from .relay import Relay


def keep_in(folder):
    """A relay's script that writes a mail, with this machine's line ends, before it is accepted."""
    box, lock = mailbox.Maildir(folder), threading.Lock()

    def script(connection, verb, value):
        if verb == "DOT":
            with lock:
                box.add(value.raw.replace(b"\r\n", b"\n"))
            connection.relay.forget()
    return script


if __name__ == "__main__":
    Relay(keep_in(sys.argv[2]), port=int(sys.argv[1])).start()
    threading.Event().wait()
