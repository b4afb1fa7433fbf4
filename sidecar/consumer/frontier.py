"""How far each producer's records of a partition are done, noted with what is committed. Pure.

An offset says only what of one cluster is done. Where the other one had a record alone, and lags
behind, a reader that starts anew couldn't tell it from one that is missing.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterator
from typing import Final

from sidecar.consumer.merge import At, Stamp

MOST_BYTES: Final = 3_000
"""Of a note; Kafka takes 4,096 by default (`offset.metadata.max.bytes`)."""
MOST_PRODUCERS: Final = 500
"""More never fit into a note."""


class _Run:
    """Records of one producer that were given one after the other."""

    __slots__ = ("count", "first", "offset")

    def __init__(self, offset: int, first: Stamp) -> None:
        self.offset = offset
        """The merged one of the first."""
        self.first = first
        self.count = 1

    def takes(self, offset: int, stamp: Stamp) -> bool:
        """Whether that one is the next of the run; then it is in it."""
        producer, incarnation, counter = self.first
        if (
            offset != self.offset + self.count
            or stamp.counter != counter + self.count
            or stamp.incarnation != incarnation
            or stamp.producer != producer
        ):
            return False
        self.count += 1
        return True


class Frontier:
    """One partition. Producers that were done with longest ago are forgotten first."""

    def __init__(self) -> None:
        self._given: deque[_Run] = deque()
        self._next: OrderedDict[str, At] = OrderedDict()

    def add(self, offset: int, stamp: Stamp) -> None:
        """The merged record with that offset was given."""
        if not (self._given and self._given[-1].takes(offset, stamp)):
            self._given.append(_Run(offset, stamp))

    def until(self, position: int) -> None:
        """All merged records before the position are done."""
        while self._given and (run := self._given[0]).offset < position:
            done = min(run.count, position - run.offset)
            producer, incarnation, counter = run.first
            self._next[producer] = (incarnation, counter + done)
            self._next.move_to_end(producer)
            if done < run.count:
                run.offset, run.count = position, run.count - done
                run.first = Stamp(producer, incarnation, counter + done)
                break
            self._given.popleft()
        while len(self._next) > MOST_PRODUCERS:
            self._next.popitem(last=False)

    def resume(self, producer: str, at: At) -> None:
        """All before that one were done when the reader last ran."""
        self._next[producer] = max(at, self._next.get(producer, at))

    @property
    def note(self) -> str:
        """The next one of each producer, as many as fit; `read` reads it."""
        found: list[str] = []
        left = MOST_BYTES
        for producer, (incarnation, counter) in reversed(self._next.items()):
            one = f"{producer}/{incarnation}/{counter}"
            left -= len(one) + 1
            if left < 0:
                break
            if "," not in producer:  # a header may say anything
                found.append(one)
        return ",".join(reversed(found))


def read(note: str) -> Iterator[tuple[str, At]]:
    """What a note says; nothing of what isn't one."""
    for one in note.split(","):
        try:
            producer, incarnation, counter = one.rsplit("/", 2)
            yield producer, (int(incarnation), int(counter))
        except ValueError:
            continue
