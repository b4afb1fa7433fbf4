"""How many connections there may be, so that a flood of them takes nothing away from the rest.

Every descriptor that a client holds is one less for the store, the log and the state file. Each
listener has a share of what the process may open. In a full house those that are idle longest go
first: they wait for a request, or hold one back half-sent, and a client that lives opens another.
"""

from __future__ import annotations

import logging
import resource
from collections.abc import Callable, Iterable
from time import monotonic
from typing import Protocol

MOST = 8192
"""Connections of one listener: its watchers and waiters, and twice as many callers."""
LEAST = 16
KEPT_BACK = 128
"""Descriptors for the store, the files and the listeners themselves."""
_AT_ONCE = 16
"""One in so many goes at a time: looking for the idle ones isn't free."""
_TELL_EVERY_S = 60.0
_log = logging.getLogger(__name__)


class Guest(Protocol):
    """A connection."""

    def idle_since(self) -> float | None:
        """A time that orders connections by when they were last answered; None while busy."""

    def let_go(self) -> None:
        """Close it."""


class Crowd:
    """The connections of one listener.

    Args:
        most: how many there may be.
        name: what the log calls the listener.
    """

    def __init__(self, most: int, name: str, now: Callable[[], float] = monotonic) -> None:
        self.most = most
        self._name = name
        self._now = now
        self._guests: dict[Guest, None] = {}
        self._tell_at = now()

    def __len__(self) -> int:
        return len(self._guests)

    def enter(self, guest: Guest) -> bool:
        """Take a connection in. False: there is no room, since all the others are busy."""
        if len(self._guests) >= self.most and not self._make_room():
            return False
        self._guests[guest] = None
        return True

    def leave(self, guest: Guest) -> None:
        """It has been closed; fine for one that never got in."""
        self._guests.pop(guest, None)

    def _make_room(self) -> bool:
        idle = longest_idle(self._guests, max(1, self.most // _AT_ONCE))
        if self._now() >= self._tell_at:
            self._tell_at = self._now() + _TELL_EVERY_S
            _log.warning(
                "%s: %d connections are all there may be; %s",
                self._name,
                self.most,
                f"the {len(idle)} longest idle are closed" if idle else "new ones are refused",
            )
        for guest in idle:
            self.leave(guest)
            guest.let_go()
        return bool(idle)


def longest_idle(guests: Iterable[Guest], count: int) -> list[Guest]:
    """Those of the idle ones that were answered longest ago, at most so many."""
    idle = [(since, guest) for guest in guests if (since := guest.idle_since()) is not None]
    idle.sort(key=lambda pair: pair[0])
    return [guest for _, guest in idle[:count]]


def share(listeners: int) -> int:
    """How many connections each of the listeners may hold, by what this process may open.

    Asks for as much as the hard limit allows first: the usual soft limit of 1024 is for programs
    that use `select`.
    """
    wanted = listeners * MOST + KEPT_BACK
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if _below(soft, wanted):
        raised = wanted if hard == resource.RLIM_INFINITY else min(hard, wanted)
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (raised, hard))
            soft = raised
        except (ValueError, OSError):
            pass  # what there is has to do
    if not _below(soft, wanted):
        return MOST
    return max(LEAST, (soft - KEPT_BACK) // max(1, listeners))


def _below(limit: int, wanted: int) -> bool:
    return limit != resource.RLIM_INFINITY and limit < wanted
