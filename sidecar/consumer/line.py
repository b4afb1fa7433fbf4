"""One partition's events in their order, and which offset may be committed. Pure.

The invariant: the position is never beyond an event that was taken and is not done, however the
events end among each other; and it never falls.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from sidecar.consumer.source import Record


class Line:
    """The events of one partition, for as long as it is assigned; assigned anew it begins anew."""

    __slots__ = ("_committed", "_taken", "begun", "end", "waiting")

    def __init__(self) -> None:
        self.waiting: deque[Record] = deque()
        """Taken and not begun, from the left."""
        self.begun: set[int] = set()
        """Offsets begun, in the order of the line, and not done."""
        self.end: int | None = None
        """The offset after the last one taken or passed; None: there was none."""
        self._taken = False
        self._committed: int | None = None

    @property
    def unfinished(self) -> int:
        """Events that were taken and are not done."""
        return len(self.waiting) + len(self.begun)

    @property
    def position(self) -> int | None:
        """The first offset that is not done; None: nothing was taken or passed."""
        if self.begun:
            return min(self.begun)
        return self.waiting[0].offset if self.waiting else self.end

    @property
    def span(self) -> int:
        """How many offsets a crash would bring again, at most."""
        if self.end is None:
            return 0
        position = self.position
        return self.end - position if position is not None else 0

    @property
    def to_commit(self) -> int | None:
        """The position, if it has moved since it was last committed and anything is done."""
        position = self.position
        return position if position != self._committed else None

    def take(self, records: Sequence[Record]) -> None:
        """Events came from the source. Offsets grow; gaps (compaction, markers) are as they are.

        Raises:
            ValueError: they do not follow those before; nothing was taken.
        """
        if not records:
            return
        if self.end is None or not self._taken:
            # What lies before the first was committed by whoever had the partition.
            self._committed = records[0].offset
        elif records[0].offset < self.end:
            raise ValueError(f"offset {records[0].offset} after {self.end - 1}")
        self._taken = True
        self.waiting.extend(records)
        self.end = records[-1].offset + 1

    def passed(self, position: int) -> None:
        """All before this offset that was an event is done with; the rest of it was none.

        Only for a line with nothing unfinished.
        """
        if self.end is None:
            self.end = position
            self._committed = None if position else 0
        else:
            self.end = max(self.end, position)

    def begin(self) -> Record:
        """The first that waits; it is not done until `done` says so. Raises IndexError."""
        record = self.waiting.popleft()
        self.begun.add(record.offset)
        return record

    def drop(self) -> None:
        """Forget what waits: it is as if it had never been taken."""
        if self.waiting:
            self.end = self.waiting[0].offset
            self.waiting.clear()

    def done(self, offset: int) -> None:
        """An event that was begun is done with: handled, dropped or moved."""
        self.begun.discard(offset)

    def committed(self, position: int) -> None:
        """The broker has this position."""
        if self._committed is None or position > self._committed:
            self._committed = position
