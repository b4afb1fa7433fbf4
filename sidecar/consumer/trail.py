"""Which offset of one cluster's partition may be committed, where two are read as one. Pure."""

from __future__ import annotations

from collections import deque

from sidecar.consumer.merge import Stamp
from sidecar.consumer.source import Record


class Step:
    """A record as one cluster has it."""

    __slots__ = ("at", "record", "stamp", "twin")

    def __init__(self, record: Record, stamp: Stamp | None = None) -> None:
        self.record = record
        self.stamp = stamp
        self.at: int | None = None
        """It is done when the merged record with this offset and all before are; None: it is
        withheld."""
        self.twin: Step | None = None
        """The other cluster's copy, which is withheld, and speaks for both."""

    @property
    def done_with(self) -> int | None:
        """See `at`."""
        return self.at if self.twin is None else self.twin.at


class Trail:
    """What came from one cluster's partition and is not committed, in its order."""

    __slots__ = ("_steps",)

    def __init__(self) -> None:
        self._steps: deque[Step] = deque()

    def add(self, step: Step) -> None:
        """It came, and nothing is known of it yet."""
        self._steps.append(step)

    def squeeze(self) -> None:
        """Two at the end that are done with together need one step only."""
        if len(self._steps) > 1:
            last, before = self._steps[-1], self._steps[-2]
            if last.twin is None and last.at is not None and last.at == before.done_with:
                del self._steps[-2]

    def until(self, position: int) -> int | None:
        """The offset to commit when all merged records before the position are done; None: none
        that is new. What lies before it is forgotten."""
        offset = None
        while self._steps:
            at = self._steps[0].done_with
            if at is None or at >= position:
                break
            offset = self._steps.popleft().record.offset + 1
        return offset
