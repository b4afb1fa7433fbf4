"""A consumer group's offsets over time: the readings that matter, by columns, and what they show.

One book a breaker, kept by who reads Kafka for its evaluator. Memory is bounded, whatever the
window: a reading is three integers a partition, and at most `MOST_COLUMNS` of them are kept.
"""

from __future__ import annotations

import math
from array import array
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from sidecar.core.ages import Ages
from sidecar.core.lag import (
    ABSENT,
    NO_ANSWER,
    SEVERITY,
    TREND_WINDOWS,
    Backlog,
    PartitionState,
    Sample,
    classify,
    sample,
)

MOST_COLUMNS = 60
"""Readings kept for a window; longer ones are sampled more coarsely."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What one round found of one flow; a list has a place for each partition of the topic."""

    at: float
    """When the round began (monotonic): every number in it is from after that."""
    committed: Sequence[int] = ()
    """The group's offsets, ABSENT where it has none, NO_ANSWER where Kafka didn't say."""
    ends: Sequence[int] = ()
    begins: Mapping[int, int] = field(default_factory=dict)
    """The oldest offset that still exists, of those partitions where it was asked for."""
    members: bool = False
    rebalancing: bool = False
    fault: str | None = None
    """Why nothing was found; then nothing else is set."""


@dataclass(frozen=True, slots=True)
class _Column:
    at: float
    committed: array[int]
    ends: array[int]
    lags: array[int]
    rebalancing: bool

    def sample(self, partition: int) -> Sample | None:
        if partition >= len(self.ends):
            return None
        return Sample(
            self.at,
            self.committed[partition],
            self.ends[partition],
            self.lags[partition],
            self.rebalancing,
        )

    @property
    def total(self) -> int | None:
        """Messages behind; None while one that has an offset has no lag."""
        if any(
            lag < 0 and committed != ABSENT
            for lag, committed in zip(self.lags, self.committed, strict=True)
        ):
            return None
        return sum(lag for lag in self.lags if lag > 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What the readings show at one moment."""

    backlog: Backlog
    states: Mapping[PartitionState, int]
    """How many partitions are in each."""
    worst: PartitionState
    partition: int
    """The one that is worst: in the worst state, and furthest behind in it."""
    partition_lag: int
    expired: int
    """Partitions where retention took messages away before the group read them."""
    falling: bool
    """The whole lag is lower than at the window's beginning."""
    spans: bool
    """The window is long enough to say that it isn't."""

    @property
    def partitions(self) -> int:
        """All of them."""
        return sum(self.states.values())

    def count(self, state: PartitionState) -> int:
        """How many partitions are in that state."""
        return self.states.get(state, 0)


class LagBook:
    """The readings of one flow. Not thread-safe; no clock, no I/O.

    Args:
        window_s: how far back the classification looks.
        subject: what it is a book of, to whoever keeps it.
    """

    def __init__(self, window_s: float, subject: object = None) -> None:
        self.window_s = window_s
        self.subject = subject
        self.fault: str | None = "Kafka has not been asked yet"
        """Why the last round found nothing; None when it did."""
        self.heard: float | None = None
        """When the last round that found something began (monotonic)."""
        self._good_for_s = math.inf
        self._members = False
        self._expired = 0
        self._columns: deque[_Column] = deque()
        self._latest: _Column | None = None
        self._ages = Ages()
        self._troughs: deque[tuple[float, array[int]]] = deque(maxlen=TREND_WINDOWS)
        self._low: array[int] = array("q")
        self._low_began = -math.inf
        self._looked: tuple[tuple[float, float, float, int], Look | None] | None = None

    def take(self, reading: Reading, good_for_s: float) -> None:
        """Note what a round found, and how long it may be judged by."""
        self.fault = reading.fault
        if reading.fault is not None:
            return
        before, column = self._latest, _column(reading)
        self._latest = column
        self.heard, self._good_for_s = reading.at, good_for_s
        self._members = reading.members
        self._expired = sum(
            1 for p, begin in reading.begins.items() if 0 <= reading.committed[p] < begin
        )
        self._ages.take(column.at, column.ends, column.lags)
        self._note_trough(column, before)
        if not self._columns or column.at - self._columns[-1].at >= self.window_s / MOST_COLUMNS:
            self._columns.append(column)
        while self._columns[0].at < column.at - self.window_s:
            self._columns.popleft()

    def readable(self, now: float) -> bool:
        """True while the last round found something, lately enough to judge by."""
        return self.fault is None and self.heard is not None and now - self.heard < self._good_for_s

    def backlog(self, now: float) -> Backlog | None:
        """How far the group is behind; None while it isn't known."""
        column = self._latest
        if column is None or not self.readable(now) or column.total is None:
            return None
        if all(committed == ABSENT for committed in column.committed):
            return None
        return Backlog(float(column.total), self._ages.worst(column.at))

    def look(self, *, since: float, need_s: float, floor: int) -> Look | None:
        """What the readings since then show; None where there are none.

        Args:
            since: what is older is spent (monotonic).
            need_s: how much time must be seen before anything is said of movement.
        """
        latest = self._latest
        if latest is None or latest.at < since:
            return None
        asked = (latest.at, since, need_s, floor)
        if self._looked is None or self._looked[0] != asked:
            self._looked = (asked, self._judge(latest, since, need_s, floor))
        return self._looked[1]

    def _judge(self, latest: _Column, since: float, need_s: float, floor: int) -> Look | None:
        columns = [column for column in self._columns if since <= column.at < latest.at]
        columns.append(latest)
        states: Counter[PartitionState] = Counter()
        worst: tuple[int, int, int] | None = None
        for partition, lag in enumerate(latest.lags):
            if 0 <= lag <= floor:
                state = PartitionState.OK  # by far the most of them: nothing to be looked up
            else:
                state = self._classify(partition, columns, since, need_s, floor)
            states[state] += 1
            rank = (-SEVERITY[state], lag, -partition)
            if worst is None or rank > worst:
                worst = rank
        if worst is None:
            return None
        totals = [(c.at, total) for c in columns if (total := c.total) is not None]
        return Look(
            backlog=Backlog(
                float(sum(lag for lag in latest.lags if lag > 0)), self._ages.worst(latest.at)
            ),
            states=dict(states),
            worst=list(PartitionState)[-worst[0]],
            partition=-worst[2],
            partition_lag=max(0, worst[1]),
            expired=self._expired,
            falling=bool(totals) and totals[-1][1] < totals[0][1],
            spans=bool(totals) and totals[-1][0] - totals[0][0] >= need_s,
        )

    def _classify(
        self, partition: int, columns: Sequence[_Column], since: float, need_s: float, floor: int
    ) -> PartitionState:
        found = [s for column in columns if (s := column.sample(partition)) is not None]
        return classify(
            found,
            floor=floor,
            need_s=need_s,
            members=self._members,
            troughs=tuple(self._lows(partition, since)),
        )

    def _lows(self, partition: int, since: float) -> Iterator[int]:
        for began, lows in self._troughs:
            if began >= since:
                yield lows[partition] if partition < len(lows) else 0

    def _note_trough(self, column: _Column, before: _Column | None) -> None:
        """Keep the lowest lag of each window, for the trend over many of them."""
        if column.at - self._low_began >= self.window_s:
            if self._low:
                self._troughs.append((self._low_began, self._low))
            self._low, self._low_began = array("q"), column.at
        for partition, lag in enumerate(column.lags):
            if partition >= len(self._low):
                self._low.append(max(0, lag))
                continue
            # An unknown lag, or another topic of the same name, is no trend.
            again = (
                before is not None
                and partition < len(before.ends)
                and column.ends[partition] < before.ends[partition]
            )
            known = 0 if lag < 0 or again else lag
            self._low[partition] = min(self._low[partition], known)


def _column(reading: Reading) -> _Column:
    """A reading as it is kept."""
    samples = [
        sample(reading.at, committed, end, reading.begins.get(partition, 0))
        for partition, (committed, end) in enumerate(
            zip(reading.committed, reading.ends, strict=True)
        )
    ]
    return _Column(
        reading.at,
        array("q", reading.committed),
        array("q", reading.ends),
        array("q", [max(s.lag, NO_ANSWER) for s in samples]),
        reading.rebalancing,
    )
