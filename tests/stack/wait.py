"""Waiting for what must come about: a probe is polled, nothing sleeps for a time that is hoped to suffice."""
import time


class NotReady(AssertionError):
    """Something did not come about in time."""


def wait_for(probe, timeout=15.0, what=None, interval=0.005):
    """Polls until probe() is true and returns its value; an exception of the probe counts as not yet."""
    end = time.monotonic() + timeout
    error = None
    while True:
        try:
            value = probe()
            error = None
            if value:
                return value
        except Exception as problem:  # not ready yet: the last reason is reported
            error = problem
        if time.monotonic() > end:
            reason = f" ({type(error).__name__}: {error})" if error else ""
            raise NotReady(f"waited {timeout} s in vain for {what or probe}{reason}")
        time.sleep(interval)
