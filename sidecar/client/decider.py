"""The decision itself, and what it is based on. No I/O: the clients feed it and time it."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from enum import StrEnum

from sidecar.client.known import (
    Known,
    NoSuchBreaker,
    NotASidecar,
    choose,
    decoded,
    listed,
    name_in,
    read,
)
from sidecar.client.share import UNIT, Share
from sidecar.client.sse import Event

FIRST_PAUSE_S = 0.05
EVENTS = frozenset({"snapshot", "transition", "change"})
"""What the stream tells of breakers; `change` is news that no record was written for."""
LONGEST_PAUSE_S = 1.0
"""Between two attempts to reach a sidecar that isn't there. It is on this machine: cheap to ask."""


class Source(StrEnum):
    """What decisions come from."""

    WATCH = "watch"
    """The stream: every change arrives as it happens."""
    ASKED = "asked"
    """No stream to be had: `/allowed` is asked about once a second."""
    KEPT = "kept"
    """Nobody has answered for less than `keep_s`: the last word holds."""
    DEFAULT = "default"
    """Nobody answers: `on_no_answer` holds."""


def _admit() -> bool:
    return True


def _reject() -> bool:
    return False


def own_share() -> Share:
    """A share with a phase of this process's own."""
    return Share(UNIT, random.randrange(UNIT))  # noqa: S311 - spreads, guards nothing


class Decider:
    """Answers from what was last heard; the base of both clients.

    Args:
        name: the breaker; None: the sidecar's default one.
        on_no_answer: what to decide while no sidecar answers.
        keep_s: how long its last word holds after it was lost (seconds), so that a restart of
            the sidecar decides nothing; 0: not at all.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        name: str | None,
        *,
        on_no_answer: bool,
        keep_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if keep_s < 0:
            raise ValueError("keep_s is negative")
        self.on_no_answer = on_no_answer
        self._wanted = name
        self._keep_s = keep_s
        self._clock = clock
        self._share = own_share()
        self._known: Known | None = None
        self._source = Source.DEFAULT
        self._fault: str | None = "not started"
        self._lost: float | None = None
        self._attempts = 0
        self._followed: float | None = None
        self._decide: Callable[[], bool] = _admit if on_no_answer else _reject

    def allowed(self) -> bool:
        """Whether to send now. No request, no waiting, no lock; spends one of a half-open share."""
        return self._decide()

    @property
    def source(self) -> Source:
        """What decisions come from now."""
        return self._source

    @property
    def known(self) -> Known | None:
        """The breaker as last heard of, however long ago; None: never."""
        return self._known

    @property
    def name(self) -> str | None:
        """The breaker's name; None while the sidecar's default one was not heard of."""
        return self._known.name if self._known is not None else self._wanted

    @property
    def state(self) -> str | None:
        """CLOSED, OPEN or HALF_OPEN while decisions follow the sidecar; None by default."""
        follows = self._source is not Source.DEFAULT and self._known is not None
        return self._known.state if follows and self._known is not None else None

    @property
    def stale(self) -> bool:
        """Whether what decides may be out of date: here, or already at the sidecar."""
        fresh = self._source in (Source.WATCH, Source.ASKED)
        return not fresh or self._known is None or self._known.stale

    @property
    def fault(self) -> str | None:
        """Why the stream is not followed; None while it is."""
        return self._fault

    def retry_after(self) -> int:
        """Whole seconds to tell a rejected caller, at least 1."""
        if self._source is Source.DEFAULT or self._known is None:
            return 1
        return self._known.retry_after(self._clock())

    # What the clients tell it.

    def _hear(self, event: Event) -> None:
        """An event of the stream. Raises NotASidecar, NoSuchBreaker."""
        if event.kind not in EVENTS:
            return
        by_name = {name_in(entry): entry for entry in listed(event.data)}
        if event.kind == "snapshot":
            name = choose(list(by_name), self._wanted)
        elif self._known is not None and self._known.name in by_name:
            name = self._known.name
        else:
            return
        self._learn(read(by_name[name], self._clock()), Source.WATCH)

    def _answered(self, status: int, body: bytes) -> None:
        """An answer of `/allowed`. Raises NotASidecar, NoSuchBreaker."""
        said = decoded(body)
        if status == 404 and isinstance(said.get("type"), str):
            raise NoSuchBreaker(str(said.get("detail")))
        if not isinstance(said.get("allowed"), bool):
            raise NotASidecar(f"{status} without a decision")
        self._learn(read(said, self._clock()), Source.ASKED)

    def _learn(self, known: Known, source: Source) -> None:
        self._known, self._source, self._lost = known, source, None
        if source is Source.WATCH:
            self._fault = None
            if self._followed is None:
                self._followed = self._clock()
        self._decide = self._decision(round(known.admit_ratio * UNIT))

    def _decision(self, millionths: int) -> Callable[[], bool]:
        if millionths >= UNIT:
            return _admit
        if millionths <= 0:
            return _reject
        if self._share.millionths != millionths:
            self._share = self._share.at(millionths)
        return self._share.spend

    def _missed(self, fault: Exception, *, since: float | None = None) -> None:
        """The stream ended or did not begin.

        Args:
            since: since when nothing was heard (monotonic); None: only now.
        """
        self._fault = f"{type(fault).__name__}: {fault}".removesuffix(": ")
        now = self._clock()
        # A stream that ends as soon as it began is as bad as none: only a longer one counts.
        if self._followed is not None and now - self._followed > LONGEST_PAUSE_S:
            self._attempts = 0
        self._followed = None
        self._attempts += 1
        if self._lost is None:
            self._lost = now if since is None else since
        if self._source is Source.WATCH:
            self._unanswered()  # until somebody is asked, which may take as long as a timeout

    def _unanswered(self) -> None:
        """Nobody answered either: the last word holds for `keep_s`, then the default."""
        now = self._clock()
        lost = self._lost = now if self._lost is None else self._lost
        if self._source is not Source.DEFAULT and now - lost < self._keep_s:
            self._source = Source.KEPT
            return
        self._default()

    def _default(self) -> None:
        self._source = Source.DEFAULT
        self._decide = _admit if self.on_no_answer else _reject

    def _pause_s(self) -> float:
        """Seconds to the next attempt: backoff with jitter, in time for the default."""
        ceiling = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(self._attempts, 10))
        pause_s = ceiling * random.uniform(0.5, 1.0)  # noqa: S311 - spreads, guards nothing
        if self._source is Source.KEPT and self._lost is not None:
            pause_s = min(pause_s, max(0.0, self._lost + self._keep_s - self._clock()))
        return pause_s
