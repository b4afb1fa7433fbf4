"""Single records that were handed over: who is told of each, and by when at latest.

Tens of thousands of them come in a second. So each is less than a request's `Ticket`, and all of
them share one timer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, Protocol

from sidecar.core.publishing import Outcome


class Counted(Protocol):
    """A topic: it counts its records and their outcomes."""

    def settled_one(self, outcome: Outcome) -> None:
        """One record has its outcome."""


class Handed:
    """One record that was handed over; to a lane it is what a `Ticket` is."""

    __slots__ = ("_answered", "_open", "_topic", "given_up", "until")

    delivered: Final = False
    """Its sender waits for Kafka only where it goes straight there."""

    def __init__(
        self,
        topic: Counted,
        answered: Callable[[Outcome], None],
        until: float,
        others: dict[Handed, None],
    ) -> None:
        self.until = until
        """Monotonic seconds: when it has an answer at latest."""
        self.given_up = False
        """Its time is over: what isn't begun need not be begun."""
        self._topic = topic
        self._answered: Callable[[Outcome], None] | None = answered
        self._open = others
        others[self] = None

    def settle(self, _index: int, outcome: Outcome) -> None:
        """The record's final outcome; what comes later is not heard."""
        answered = self._answered
        if answered is None:
            return
        self._answered = None
        del self._open[self]
        self._topic.settled_one(outcome)
        answered(outcome)

    def finish(self, otherwise: Outcome) -> None:
        """Its time is over."""
        self.given_up = True
        self.settle(0, otherwise)


class Handing:
    """All that have no outcome yet.

    Args:
        now: monotonic seconds.
        otherwise: what is told where there is no word of a record in time.
    """

    def __init__(self, now: Callable[[], float], otherwise: Outcome) -> None:
        self._now = now
        self._otherwise = otherwise
        self._open: dict[Handed, None] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0
        """When the timer fires: not after the first of them is due."""

    def take(self, topic: Counted, answered: Callable[[Outcome], None], within_s: float) -> Handed:
        """One more, which has its answer within that time."""
        until = self._now() + within_s
        if self._timer is None or until < self._due:
            self._expect(until)
        return Handed(topic, answered, until, self._open)

    def _expect(self, until: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._due = until
        wait_s = max(0.0, until - self._now())
        self._timer = asyncio.get_running_loop().call_later(wait_s, self._look)

    def _look(self) -> None:
        self._timer = None
        now = self._now()
        for one in [one for one in self._open if one.until <= now]:
            one.finish(self._otherwise)
        if self._open:
            self._expect(min(one.until for one in self._open))

    def close(self) -> None:
        """Nobody goes without an answer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for one in list(self._open):
            one.finish(self._otherwise)
