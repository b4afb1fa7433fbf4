"""What a daemon needs before it is imported: its streams, and signals that wait for it."""

from __future__ import annotations

import contextlib
import os
import signal

HEARD = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""What the daemon has handlers for."""


def begin() -> None:
    """Prepare the start: signals wait until `hear`, and no file takes the number of a stream.

    Importing the daemon takes a third of a second. A scheduler that stops it meanwhile is to see
    exit status 0, and one that has just written the file anew must not end it by SIGHUP.
    """
    hold()
    for stream in range(3):
        with contextlib.suppress(OSError):
            os.fstat(stream)
            continue
        # The lowest free number is taken: without this one, the log would be written into whatever
        # was opened first.
        os.open(os.devnull, os.O_RDWR)


def hold() -> None:
    """Signals wait."""
    signal.pthread_sigmask(signal.SIG_BLOCK, HEARD)


def hear() -> None:
    """The handlers are there: what has waited comes now."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, HEARD)
