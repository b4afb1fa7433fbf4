"""Which offset of one cluster's partition may be committed, where two are read as one. Pure."""

from __future__ import annotations

from collections import deque

from sidecar.consumer.merge import Stamp
from sidecar.consumer.source import Record


class Step:
    """A record as one cluster has it."""

    __slots__ = ("at", "offset", "record", "run", "stamp", "twin")

    def __init__(self, record: Record, stamp: Stamp | None = None) -> None:
        self.record = record
        self.stamp = stamp
        self.offset = record.offset
        self.run = 1
        """It stands for so many: those before it, in the cluster and merged."""
        self.at: int | None = None
        """It is done when the merged record with this offset and all before are; None: it is
        withheld."""
        self.twin: Step | None = None
        """The other cluster's copy, which is withheld, and speaks for both."""

    def done(self, at: int) -> Record:
        """It is when that is; the record, which is forgotten here. Once for a step."""
        record, self.at = self.record, at
        del self.record  # it may be large, and what isn't committed yet is much
        return record

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
        """Two at the end that are done with together, or in turn, need one step only."""
        if len(self._steps) < 2:
            return
        last, before = self._steps[-1], self._steps[-2]
        if last.twin is not None or last.at is None:
            return
        if before.run == 1 and before.done_with == last.at:
            del self._steps[-2]
        elif before.twin is None and before.at == last.at - 1 and before.offset == last.offset - 1:
            last.run = before.run + 1
            del self._steps[-2]

    def until(self, position: int) -> int | None:
        """The offset to commit when all merged records before the position are done; None: none
        that is new. What lies before it is forgotten."""
        offset = None
        while self._steps:
            step = self._steps[0]
            at = step.done_with
            if at is None or at - step.run + 1 >= position:
                break
            left = max(0, at + 1 - position)
            offset = step.offset - left + 1
            if left:
                step.run = left
                break
            self._steps.popleft()
        return offset
