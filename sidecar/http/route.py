"""One way to ask about one breaker, with its answers as they go over the wire.

Here lies what a request in the fast lane is worth: as long as a route holds, a connection that
sends the same bytes again is answered from it without a look at a clock. So a route ends by itself:
a new decision is another object, and time ends it by a timer that only requests wind up.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import time
from typing import Protocol

from sidecar.core.admission import UNIT, Spread
from sidecar.core.board import Board, Cell
from sidecar.core.decision import Decision
from sidecar.http import framing
from sidecar.http.allowed import Answer, Answers, Page, admit

IDLE_S = 75.0
"""How long a kept connection may be idle: a little longer than gateways keep theirs. One that was
answered from a route may be so a second longer: nobody reads a clock for it."""

_TICK_S = 0.001
"""What is due sooner uvloop calls at once: by a handle that has no time."""


class Timer(Protocol):
    """Something that will be called."""

    def when(self) -> float:
        """At which time of the event loop's."""

    def cancel(self) -> None:
        """Don't."""


CallLater = Callable[[float, Callable[[], None]], Timer]
"""Calls back after so many seconds."""


def on_the_loop(after_s: float, callback: Callable[[], None]) -> Timer:
    """`CallLater` as the running event loop does it, in no less than `_TICK_S`."""
    return asyncio.get_running_loop().call_later(max(after_s, _TICK_S), callback)


class Route:
    """Answers for as long as they say the same.

    They hold while `cell.decision is route.decision`, and whoever sees that needs no other look.
    """

    __slots__ = (
        "_answers",
        "_bare",
        "_deny_status",
        "_later",
        "_name",
        "_timer",
        "admission",
        "cell",
        "decision",
        "idle_until",
        "millionths",
        "page",
        "rejection",
        "spread",
        "watched",
    )

    cell: Cell
    page: Page
    spread: Spread | None
    """What a request spends; None: everything is admitted."""
    millionths: int
    """How much of it."""
    watched: bool
    """What would be rejected without shadow is counted, too: each is for `answer` to decide."""
    admission: bytes
    idle_until: float
    """Until when a connection that is answered now may be idle (the event loop's time)."""

    def __init__(
        self,
        answers: Answers,
        later: CallLater,
        *,
        name: str | None,
        deny_status: int | None,
        bare: bool,
    ) -> None:
        self._answers = answers
        self._later = later
        self._name = name
        self._deny_status = deny_status
        self._bare = bare
        self._timer: Timer | None = None
        self.decision: Decision | None = None
        """What the answers were written for; None once their time is over."""
        self.rejection = b""
        """Empty where nothing is rejected."""

    def refresh(self, board: Board, now: float) -> bool:
        """Write the answers down, for as long as they say the same. False: no such breaker."""
        self.lapse()
        cell = board.find(self._name) if self._name is not None else None
        if cell is None and self._name in {None, "default"}:
            cell = board.find(None)
        if cell is None:
            return False
        page = self._answers.page(cell)
        self.cell, self.page, self.millionths = cell, page, page.millionths
        self.spread = cell.spread if page.millionths < UNIT else None
        self.watched = page.shadow_millionths < UNIT
        # The end of the second in `Date`. Should somebody set the clock meanwhile, it shows then.
        until = now + 1.0 - time() % 1.0
        self.admission = _on_the_wire(page.admission, bare=self._bare)
        if page.millionths < UNIT:
            chosen = self._deny_status
            status = cell.policy.deny_status if chosen is None else chosen
            self.rejection = _on_the_wire(page.rejection(status, now), bare=self._bare)
            until = min(until, page.decision.retry_until(now))
        self._timer = self._later(until - now, self.lapse)
        self.idle_until = self._timer.when() + IDLE_S
        self.decision = page.decision
        return True

    def answer(self) -> bytes:
        """Decide one call, count it, and say what it gets."""
        return self.admission if admit(self.cell, self.page) else self.rejection

    def lapse(self) -> None:
        """The answers' time is over. Nothing is awake for a route that nobody asks by."""
        self.decision = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _on_the_wire(answer: Answer, *, bare: bool) -> bytes:
    """The answer as it is sent; without its body for HEAD."""
    head = framing.head(answer.status, answer.headers, len(answer.body))
    return head if bare else head + answer.body
