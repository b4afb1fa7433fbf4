"""Two copies of one partition, from two clusters, made one again. Pure.

Each record carries its producer, the producer's incarnation and a counter without gaps. A cluster
brings a producer's records in their order, but may lack some. So what follows the record before is
given at once; before anything else both clusters have to be there, or a time has to be over.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator
from heapq import heappop, heappush
from typing import Final, Generic, NamedTuple, TypeVar

from sidecar.consumer.headers import value_of

T = TypeVar("T")

SEQUENCE: Final = "breaker-sequence"
"""The header: `producer/incarnation/counter`, counted by partition from 1."""
MOST_PRODUCERS: Final = 10_000
"""Of a partition; the one that was silent for longest is forgotten, as if it had never been."""
MOST_PASSED: Final = 1_000
"""Gaps of one producer that are remembered, to tell what comes late from a second copy."""
SIDES: Final = 2

At = tuple[int, int]
"""Incarnation and counter."""


class Stamp(NamedTuple):
    """Who wrote a record, and as which."""

    producer: str
    incarnation: int
    counter: int


class Gap(NamedTuple):
    """These counters came from neither cluster in time."""

    producer: str
    incarnation: int
    first: int
    last: int


class Given(NamedTuple, Generic[T]):
    """The next record."""

    item: T


class Copy(NamedTuple, Generic[T]):
    """Another copy of a record that was given, or (`twin`) of one that is withheld."""

    item: T
    twin: T | None


class Late(NamedTuple, Generic[T]):
    """A record whose place is past; it was not given."""

    item: T


Outcome = Given[T] | Copy[T] | Late[T] | Gap


def stamp_of(headers: Iterable[tuple[str, bytes]]) -> Stamp | None:
    """What the header says; None where there is none that can be read."""
    value = value_of(headers, SEQUENCE)
    if value is None:
        return None
    try:
        producer, incarnation, counter = value.decode("ascii").rsplit("/", 2)
        return Stamp(producer, int(incarnation), int(counter))
    except ValueError:
        return None


class _Held(NamedTuple, Generic[T]):
    item: T
    side: int
    until: float


class _Stream(Generic[T]):
    """One producer's records in one partition."""

    __slots__ = ("held", "next", "order", "passed", "seen", "start")

    def __init__(self) -> None:
        self.next: At | None = None
        """The one that may be given at once; None: nothing was given yet."""
        self.start: At = (0, 0)
        """The first that was given."""
        self.held: dict[At, _Held[T]] = {}
        self.order: list[At] = []
        """The same, as a heap."""
        self.seen: list[At] = [(-1, 0)] * SIDES
        """The latest that each cluster has brought."""
        self.passed: deque[tuple[At, At]] = deque(maxlen=MOST_PASSED)
        """From where until before where nothing was waited for any more; that may be whole
        incarnations."""

    def is_late(self, at: At) -> bool:
        """Of one whose place is past: whether it was never given."""
        if not self.passed:
            return at < self.start
        return at < self.start or any(first <= at < end for first, end in self.passed)


class Merge(Generic[T]):
    """One partition. `now` is monotonic seconds.

    Args:
        wait_s: a record waits at most so long for those before it.
    """

    def __init__(self, wait_s: float) -> None:
        self._wait_s = wait_s
        self._streams: OrderedDict[str, _Stream[T]] = OrderedDict()
        self._waiting: dict[str, _Stream[T]] = {}
        self.withheld = [0] * SIDES
        """Records that wait, by the cluster that brought them."""

    @property
    def due_at(self) -> float | None:
        """When `tick` has something to do; None: not before another record comes."""
        heads = (stream.held[stream.order[0]].until for stream in self._waiting.values())
        return min(heads, default=None)

    def take(self, side: int, stamp: Stamp | None, item: T, now: float) -> Iterator[Outcome[T]]:
        """A record has come from a cluster; what becomes of it, and of others by it.

        One without a stamp was published in another way, and is given as it is.
        """
        if stamp is None:
            yield Given(item)
            return
        stream = self._stream(stamp.producer)
        at = (stamp.incarnation, stamp.counter)
        stream.seen[side] = max(stream.seen[side], at)
        if at == stream.next and not stream.order:
            stream.next = (at[0], at[1] + 1)
            yield Given(item)
            return
        if stream.next is not None and at < stream.next:
            yield Late(item) if stream.is_late(at) else Copy(item, None)
        elif (first := stream.held.get(at)) is not None:
            yield Copy(item, first.item)
        else:
            stream.held[at] = _Held(item, side, now + self._wait_s)
            heappush(stream.order, at)
            self.withheld[side] += 1
        if stream.order:
            # Also after a copy: that a cluster has come so far may be what others wait for.
            yield from self._advance(stamp.producer, stream, now)

    def resume(self, producer: str, at: At, now: float) -> Iterator[Outcome[T]]:
        """All of a producer's records before that one were done when the reader last ran."""
        stream = self._stream(producer)
        if stream.next is not None and at <= stream.next:
            return
        stream.next = at
        while stream.order and stream.order[0] < at:
            held = stream.held.pop(heappop(stream.order))
            self.withheld[held.side] -= 1
            yield Copy(held.item, None)
        yield from self._advance(producer, stream, now)

    def tick(self, now: float) -> Iterator[Outcome[T]]:
        """Time has passed."""
        for producer, stream in list(self._waiting.items()):
            yield from self._advance(producer, stream, now)

    def _stream(self, producer: str) -> _Stream[T]:
        stream = self._streams.get(producer)
        if stream is None:
            stream = self._streams[producer] = _Stream()
            if len(self._streams) > MOST_PRODUCERS:
                idle = next((p for p in self._streams if p not in self._waiting), producer)
                if idle != producer:
                    del self._streams[idle]
        self._streams.move_to_end(producer)
        return stream

    def _advance(self, producer: str, stream: _Stream[T], now: float) -> Iterator[Outcome[T]]:
        while stream.order:
            at = stream.order[0]
            held = stream.held[at]
            if at != stream.next:
                if min(stream.seen) < at and now < held.until:
                    break
                yield from self._passed(producer, stream, at)
            heappop(stream.order)
            del stream.held[at]
            self.withheld[held.side] -= 1
            stream.next = (at[0], at[1] + 1)
            yield Given(held.item)
        if stream.order:
            self._waiting[producer] = stream
        else:
            self._waiting.pop(producer, None)

    @staticmethod
    def _passed(producer: str, stream: _Stream[T], at: At) -> Iterator[Gap]:
        """What lies before a record is not waited for any more."""
        if stream.next is None:
            stream.start = at
            return
        stream.passed.append((stream.next, at))
        # How many a former incarnation has written nobody knows.
        first = stream.next[1] if stream.next[0] == at[0] else 1
        if first < at[1]:
            yield Gap(producer, at[0], first, at[1] - 1)
