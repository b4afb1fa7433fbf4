"""What a daemon needs before it is imported: its streams, and somebody who hears signals."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable

HEARD = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""What the daemon has handlers for."""
STOPPING = (signal.SIGTERM, signal.SIGINT)
"""Those that end it."""
LOOK_S = 0.1
"""How soon after a start the one who listened meanwhile is gone."""
STUCK_S = 2.0
"""How long an event loop may take to hear that it is to stop; beyond, it hangs."""
LINGER_S = 2.0
"""How long threads may go on when all else has ended."""


class Listener:
    """Hears of a stop during the start, in a thread of its own, whatever the start hangs in.

    A name being looked up, or a disk that doesn't answer, lets no handler run: those wait for the
    main thread.
    """

    def __init__(self) -> None:
        self.started = self.running = False
        self.say: Callable[[str, float], object] = lambda _part, _seconds: None
        """Told of what is left behind, and after how many seconds."""
        self._soon: Callable[..., object] | None = None
        self._stop: Callable[[str], object] = lambda _why: None
        self._heard = threading.Event()

    def start(self) -> None:
        """Listen until `running` is false. The signals have to be blocked."""
        self.started = self.running = True
        threading.Thread(target=self._listen, name="early signals", daemon=True).start()

    def pass_on(self, soon: Callable[..., object], stop: Callable[[str], object]) -> None:
        """From now on there is an event loop to end, and not just a process."""
        self._stop, self._soon = stop, soon

    def _listen(self) -> None:
        while self.running:
            told = signal.sigtimedwait(STOPPING, LOOK_S)
            if told is not None:
                self._told(signal.Signals(told.si_signo))
                return

    def _told(self, number: signal.Signals) -> None:
        if not self.running:  # the handlers are there by now
            os.kill(os.getpid(), number)
        elif self._soon is None:  # nothing has begun that would have to be ended
            os._exit(0)
        else:
            with contextlib.suppress(RuntimeError):  # the loop has just ended
                self._soon(self._hear, number.name)
            if not self._heard.wait(STUCK_S):
                leave("event loop", STUCK_S, 0)

    def _hear(self, why: str) -> None:
        self._heard.set()
        self._stop(why)


LISTENER = Listener()
"""This process's."""


def begin() -> None:
    """Prepare the start: a stop ends it, SIGHUP waits, and no file takes the number of a stream.

    Importing the daemon takes a third of a second. A scheduler that stops it meanwhile is to see
    exit status 0, and one that has just written the file anew must not end it by SIGHUP.
    """
    hold()
    LISTENER.start()
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


def starting(soon: Callable[..., object], stop: Callable[[str], object]) -> None:
    """The handlers are there, and the start goes on in an event loop: SIGHUP is heard by that.

    Args:
        soon: the loop's `call_soon_threadsafe`, which a stop is handed to.
        stop: begins an orderly end; called in the loop with the signal's name.
    """
    LISTENER.pass_on(soon, stop)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGHUP] if LISTENER.running else HEARD)


def hear() -> None:
    """The start is over: what has waited comes now, to the handlers."""
    LISTENER.running = False
    signal.pthread_sigmask(signal.SIG_UNBLOCK, HEARD)


def ended(code: int) -> None:
    """All has ended in order: threads that hang keep the process for a moment, and no longer.

    A second stop changes nothing. In a process that didn't `begin` so, its owner sees to them.
    """
    hold()
    LISTENER.running = False
    if LISTENER.started:
        threading.Thread(target=_linger, args=(code,), name="last", daemon=True).start()


def _linger(code: int) -> None:
    time.sleep(LINGER_S)
    leave("threads", LINGER_S, code)


def leave(part: str, seconds: float, code: int) -> None:
    """End the process as it is, and say what keeps it."""
    with contextlib.suppress(Exception):
        LISTENER.say(part, seconds)
    os._exit(code)
