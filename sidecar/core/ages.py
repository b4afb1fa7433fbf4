"""Lag in seconds: when the end of each partition passed the offset that the group stands at.

The ends seen over time are a curve of offset by time; the message at the group's offset was written
when the curve passed that offset, which is read off between two points. This is how Lightbend's
kafka-lag-exporter estimates it (Sean Glover, "Monitor Kafka Consumer Group Latency with Kafka Lag
Exporter"), and like there the curve is continued backwards where it doesn't reach far enough. One
point more is kept here: where a group has stood is a point of the curve, so that a group that
stands still grows older by the second, however long ago its offset was passed.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterator, Sequence

MOST_POINTS = 32
"""Points of the curve; when there are more, every second one of the older ones goes."""


class Ages:
    """The curve of each partition's end, and when it passed the group's offset. No clock, no I/O.

    Times are monotonic seconds, offsets whole numbers; a negative offset or lag is unknown.
    """

    def __init__(self) -> None:
        self._points: list[tuple[float, array[int]]] = []
        self._position: array[int] = array("q")
        self._passed: array[float] = array("d")

    def take(self, at: float, ends: Sequence[int], lags: Sequence[int]) -> None:
        """Note the ends at a time, and how far behind each the group is."""
        self._points.append((at, array("q", ends)))
        if len(self._points) > MOST_POINTS:
            del self._points[1 : MOST_POINTS // 2 : 2]
        position = array(
            "q", [e - lag if lag >= 0 else -1 for e, lag in zip(ends, lags, strict=True)]
        )
        passed = array(
            "d",
            [
                self._passed_at(partition, where, lag, at)
                for partition, (where, lag) in enumerate(zip(position, lags, strict=True))
            ],
        )
        self._position, self._passed = position, passed

    def worst(self, at: float) -> float | None:
        """The age of the oldest unread message in seconds; 0 without lag, None if not known."""
        known = [passed for passed in self._passed if not math.isinf(passed)]
        if not known or any(math.isnan(passed) for passed in known):
            return None
        return max(0.0, at - min(known))

    def _passed_at(self, partition: int, where: int, lag: int, at: float) -> float:
        """When the end passed an offset: NaN where it isn't known, inf where no lag is."""
        if lag < 0:
            return math.inf
        if lag == 0:
            return at
        anchor = self._anchor(partition, where)
        if anchor is not None and anchor[1] == where:
            return anchor[0]
        return self._on_curve(partition, where, anchor)

    def _on_curve(self, partition: int, where: int, anchor: tuple[float, int] | None) -> float:
        newer: tuple[float, int] | None = None
        newest: tuple[float, int] | None = None
        for point in self._back(partition):
            if point[1] <= where:
                return _between(point, newer, where) if newer is not None else point[0]
            newer, newest = point, newest or point
        if newer is None or newest is None:
            return math.nan
        return _between(anchor, newer, where) if anchor else _before(newer, newest, where)

    def _anchor(self, partition: int, where: int) -> tuple[float, int] | None:
        """Where the group stood before, if that is a point of the curve at or below `where`."""
        if partition >= len(self._passed) or not 0 <= self._position[partition] <= where:
            return None
        passed = self._passed[partition]
        return (passed, self._position[partition]) if math.isfinite(passed) else None

    def _back(self, partition: int) -> Iterator[tuple[float, int]]:
        """The curve from its newest point backwards, as far as the topic is the same."""
        last: int | None = None
        for at, ends in reversed(self._points):
            end = ends[partition] if partition < len(ends) else -1
            if end < 0:
                continue
            if last is not None and end > last:
                return
            last = end
            yield at, end


def _between(older: tuple[float, int], newer: tuple[float, int], where: int) -> float:
    """The time at an offset between two points of the curve."""
    (t0, e0), (t1, e1) = older, newer
    return t0 if e1 <= e0 else t0 + (t1 - t0) * (where - e0) / (e1 - e0)


def _before(oldest: tuple[float, int], newest: tuple[float, int], where: int) -> float:
    """The time at an offset older than the curve, at the rate that the curve shows."""
    (t0, e0), (t1, e1) = oldest, newest
    if t1 <= t0:
        return math.nan  # one point is no curve
    rate = (e1 - e0) / (t1 - t0)
    return t0 - (e0 - where) / rate if rate > 0 else t0
