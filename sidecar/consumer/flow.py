"""What a runner has under way: its partitions, the events in line, and how things are going."""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from sidecar.consumer.event import Event
from sidecar.consumer.lanes import Lanes
from sidecar.consumer.line import Line
from sidecar.consumer.source import Place, Record
from sidecar.consumer.told import Told
from sidecar.consumer.window import Window

BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Of how long handlers take."""


class Outcome(StrEnum):
    """How an attempt ended."""

    HANDLED = "handled"
    KNOWN = "known"
    """Dropped: it was handled before."""
    STALE = "stale"
    """Dropped: a newer one of its key was handled before."""
    AGAIN = "again"
    """Failed, and will be tried again in place."""
    LATER = "later"
    """Failed, and goes to a retry topic."""
    DEAD = "dead"
    """Failed for good, and goes to the dead-letter topic."""


@dataclass(frozen=True, slots=True)
class Hooks:
    """What is called around events, for tracing. They must be quick, and must not fail.

    Args:
        around: a context manager for each attempt, entered in the task that runs the handler.
        ended: told how each attempt ended: the record, the outcome, and the error if there is one.
    """

    around: Callable[[Event[Any]], AbstractContextManager[object]] | None = None
    ended: Callable[[Record, Outcome, BaseException | None], None] | None = None


class Shard:
    """One partition, for as long as it is ours.

    Args:
        tier: 0, or n where it is of retry topic n.
        counts: attempts by outcome, shared by all partitions of one topic.
    """

    __slots__ = ("counts", "gone", "held", "line", "live", "paused", "place", "tier", "timer")

    def __init__(self, place: Place, tier: int, counts: dict[str, int]) -> None:
        self.place = place
        self.tier = tier
        self.counts = counts
        self.line = Line()
        self.held: deque[tuple[float, Record]] = deque()
        """Of a retry topic: not yet due, with when they are. Not in the line yet."""
        self.timer: asyncio.TimerHandle | None = None
        self.paused = False
        self.live = True
        """False once it is being given back: nothing more of it is begun."""
        self.gone = False
        """True once it is somebody else's: nothing of it counts any more."""


class Item:
    """An event that is not at the head of its line any more: it waits for its key, or failed."""

    __slots__ = ("failed", "record", "shard")

    def __init__(self, shard: Shard, record: Record, failed: int = 0) -> None:
        self.shard = shard
        self.record = record
        self.failed = failed
        """Attempts that failed on this visit."""


@dataclass(slots=True)
class Flow:
    """The state that reading, working, moving and committing share.

    Args:
        most: events in line or at work, over all partitions.
    """

    most: int
    shards: dict[Place, Shard] = field(default_factory=dict)
    ready: deque[Shard] = field(default_factory=deque)
    """Partitions with events in line, those first that were not served for longest."""
    lanes: Lanes[Item] = field(default_factory=Lanes)
    window: Window = field(default_factory=Window)
    counts: dict[str, dict[str, int]] = field(default_factory=dict)
    """Attempts by topic and outcome, since the start."""
    moving: int = 0
    """Events on their way to another topic."""
    room: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when readers that wait for room may go on."""
    progress: asyncio.Event = field(default_factory=asyncio.Event)
    """Set whenever something ends, for who drains."""
    braked: bool = False
    """Whether handlers are held back because nothing succeeds."""
    stuck: str | None = None
    """Why nothing more is read, where the reason isn't a lack of room."""
    uncommitted: int = 0
    """Commits that failed in a row."""
    lag: int | None = None
    """Events of the topics themselves that are not done with; None: unknown."""
    durations: list[int] | None = None
    """How many handlers took up to each of BUCKETS_S, and longer; None: nobody asks."""
    durations_s: float = 0.0
    told: Told = field(default_factory=Told)

    @property
    def open(self) -> int:
        """Events that were taken, are due, and are not done with."""
        return sum(shard.line.unfinished for shard in self.shards.values())

    @property
    def roomy(self) -> bool:
        """Whether enough is done to read on."""
        return self.open <= self.most // 2

    def counts_of(self, topic: str) -> dict[str, int]:
        """The counts of a topic's events."""
        return self.counts.setdefault(topic, dict.fromkeys(Outcome, 0))

    def line_up(self, shard: Shard, records: Sequence[Record]) -> None:
        """Events may be begun."""
        if records and not shard.line.waiting:
            self.ready.append(shard)
        shard.line.take(records)

    def settle(self, shard: Shard, offset: int) -> None:
        """An event is done with: it may be committed."""
        if not shard.gone:
            shard.line.done(offset)

    def tell_room(self) -> None:
        """Something was done with: let readers go on if that makes enough room."""
        if not self.room.is_set() and self.roomy:
            self.room.set()

    def time(self, took_s: float) -> None:
        """A handler ended, for those who ask how long they take."""
        if self.durations is not None:
            self.durations[bisect_left(BUCKETS_S, took_s)] += 1
            self.durations_s += took_s

    def close(self, shards: Iterable[Shard]) -> None:
        """These are being given back: what is in line of them is dropped, what is out goes on."""
        for shard in shards:
            shard.live = False
            shard.line.drop()
            shard.held.clear()
            if shard.timer is not None:
                shard.timer.cancel()
            self.shards.pop(shard.place, None)
            if shard in self.ready:
                self.ready.remove(shard)
        self.lanes.drop(lambda item: not item.shard.live)
        self.room.set()
