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


class Frontier:
    """One partition. Producers that were done with longest ago are forgotten first."""

    def __init__(self) -> None:
        self._given: deque[tuple[int, Stamp]] = deque()
        self._next: OrderedDict[str, At] = OrderedDict()

    def add(self, offset: int, stamp: Stamp) -> None:
        """The merged record with that offset was given."""
        self._given.append((offset, stamp))

    def until(self, position: int) -> None:
        """All merged records before the position are done."""
        while self._given and self._given[0][0] < position:
            _, (producer, incarnation, counter) = self._given.popleft()
            self._next[producer] = (incarnation, counter + 1)
            self._next.move_to_end(producer)
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
