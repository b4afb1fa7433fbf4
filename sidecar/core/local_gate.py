"""This sidecar's own gate: shut when only its own producers can't deliver to Kafka.

It lies over a decision of CLOSED and touches no record: the fleet goes on, and this machine holds
its own calls back. `shut`, then `trial` with a trickle, which finds out whether the path has
healed. The gate never outlives its evidence: once no producer has told of deliveries for `window`,
it passes everything again. Silence is not ill health here, it leaves the word to the fleet.
"""

from __future__ import annotations

import enum
import math
from collections import OrderedDict, deque
from dataclasses import dataclass, field

from sidecar.core.intake import Post
from sidecar.core.reports import MAX_COUNT
from sidecar.core.rules import count, plain
from sidecar.core.signal_settings import Local
from sidecar.core.types import Evidence

PARTS = 10
"""The window is kept in so many parts: what is held doesn't grow with the rate of the reports."""


class Stand(enum.StrEnum):
    """What the gate does."""

    PASSING = "passing"
    SHUT = "shut"
    TRIAL = "trial"


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """What the gate does to a decision of CLOSED."""

    stand: Stand
    ratio: float
    """The share it lets pass."""
    detail: str
    retry_from: float | None
    """When it lets more pass (monotonic); None where no time is known."""
    shut_s: float
    changes_at: float
    """When time alone moves it (monotonic)."""


@dataclass(slots=True)
class LocalGate:
    """One breaker's gate on this machine. Times are monotonic seconds."""

    stand: Stand = Stand.PASSING
    since: float = -math.inf
    """When the present stand began."""
    closures: int = 0
    """How often it has shut, relapses of a trial included."""
    detail: str = ""
    evidence: Evidence = field(default_factory=dict)
    """What it was shut on."""
    _heard: float = -math.inf
    """When deliveries, done or outstanding, were told of last."""
    _parts: deque[list[float]] = field(default_factory=deque)
    """(begin, delivered, errored) of each part of the window."""
    _waiting: OrderedDict[str, tuple[float, float]] = field(default_factory=OrderedDict)
    """What each producer has outstanding and when it said so, the longest silent first."""

    def take(self, post: Post, settings: Local, *, now: float) -> bool:
        """Take in what a producer says. True when the gate moved."""
        before = self.stand
        self.look(settings, now=now)
        self._note(post, settings, now)
        fault, evidence = self._judge(settings)
        if self.stand is not Stand.SHUT and fault is not None:
            self.closures += 1
            self.detail, self.evidence = fault, evidence
            self._move(Stand.SHUT, now)
        elif self.stand is Stand.TRIAL and self._total() >= self._minimum(settings):
            self._move(Stand.PASSING, now)
        return self.stand is not before

    def look(self, settings: Local, *, now: float) -> None:
        """Let time pass: shut ends in a trial, and both end with their evidence."""
        if self.stand is Stand.PASSING:
            return
        if now >= self._heard + settings.window_s:
            self._move(Stand.PASSING, now)
        elif self.stand is Stand.SHUT and now >= self.since + settings.shut_s:
            self._move(Stand.TRIAL, now)

    def held(self, settings: Local) -> Held | None:
        """What it does now; None: it passes everything."""
        if self.stand is Stand.PASSING:
            return None
        shut = self.stand is Stand.SHUT
        ends = self._heard + settings.window_s
        opens = self.since + settings.shut_s
        return Held(
            stand=self.stand,
            ratio=0.0 if shut else settings.trial,
            detail=f"this sidecar's own producers: {self.detail}",
            retry_from=min(opens, ends) if shut else None,
            shut_s=settings.shut_s,
            changes_at=min(opens, ends) if shut else ends,
        )

    def _move(self, stand: Stand, now: float) -> None:
        """Evidence is used once: each stand begins without any."""
        self.stand, self.since = stand, now
        self._parts.clear()

    def _note(self, post: Post, settings: Local, now: float) -> None:
        told = post.count_ok + post.count_fail
        if told > 0 or (settings.max_outstanding is not None and (post.in_flight or 0) > 0):
            self._heard = now
        part_s = settings.window_s / PARTS
        if told > 0:
            if not self._parts or now >= self._parts[-1][0] + part_s:
                self._parts.append([now, 0.0, 0.0])
            part = self._parts[-1]
            part[1] = min(MAX_COUNT, part[1] + post.count_ok)
            part[2] = min(MAX_COUNT, part[2] + post.count_fail)
        # A trial counts from its beginning: a trickle may need longer than the window.
        while self.stand is Stand.PASSING and self._parts:
            if now < self._parts[0][0] + settings.window_s:
                break
            self._parts.popleft()
        while len(self._parts) > PARTS + 1:
            _, delivered, errored = self._parts.popleft()
            self._parts[0][1] += delivered
            self._parts[0][2] += errored
        self._wait_for(post, settings, now)

    def _wait_for(self, post: Post, settings: Local, now: float) -> None:
        if settings.max_outstanding is None:
            self._waiting.clear()
            return
        self._waiting[post.instance] = (post.in_flight or 0.0, now)
        self._waiting.move_to_end(post.instance)
        while now >= next(iter(self._waiting.values()))[1] + settings.window_s:
            self._waiting.popitem(last=False)

    def _judge(self, settings: Local) -> tuple[str | None, Evidence]:
        """What is wrong by what producers told in this stand, None where nothing is."""
        errored, total = sum(part[2] for part in self._parts), self._total()
        share = errored / total if total else 0.0
        minimum, most = self._minimum(settings), settings.max_outstanding
        outstanding = 0.0 if most is None else sum(n for n, _ in self._waiting.values())
        evidence: Evidence = {
            "errored": plain(min(errored, MAX_COUNT)),
            "messages": plain(round(min(total, MAX_COUNT), 3)),
            "ratio": round(share, 4),
            "threshold": settings.ratio,
            "minimum": minimum,
            "outstanding": plain(min(outstanding, MAX_COUNT)) if most is not None else None,
            "max_outstanding": most,
        }
        if most is not None and outstanding >= most:
            return f"{count(outstanding)} messages are outstanding, at most {most}", evidence
        if total >= minimum and share >= settings.ratio:
            said = f"{share:.1%} of {count(total)} deliveries failed"
            return f"{said}, threshold {settings.ratio:.1%}", evidence
        return None, evidence

    def _total(self) -> float:
        return sum(part[1] + part[2] for part in self._parts)

    def _minimum(self, settings: Local) -> int:
        """A trickle can't bring as many deliveries as all of the traffic."""
        if self.stand is not Stand.TRIAL:
            return settings.minimum
        return max(1, round(settings.minimum * settings.trial))
