"""Which offset of a partition may be committed. Pure.

The invariant: the position is never beyond an event that was taken and is not done, however the
events end among each other; and it never falls.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable


class CommitTracker:
    """One partition's events, for as long as it is assigned. One who comes anew begins anew."""

    __slots__ = ("_committed", "_done", "_open", "position")

    def __init__(self) -> None:
        self.position: int | None = None
        """The offset to commit: everything before it is done. None: nothing is, yet."""
        self._open: deque[int] = deque()
        """Taken, in their order, from the first that is not done."""
        self._done: set[int] = set()
        """Of those, the ones that are done behind one that is not."""
        self._committed: int | None = None

    def __len__(self) -> int:
        """How many events from the first that is not done on; what a crash would bring again."""
        return len(self._open)

    @property
    def unfinished(self) -> int:
        """How many events that were taken are not done."""
        return len(self._open) - len(self._done)

    @property
    def next(self) -> int | None:
        """The first offset that is not done with, as far as it was ever taken."""
        return self._open[0] if self._open else self.position

    def take(self, offsets: Iterable[int]) -> None:
        """Events came from the source. Offsets grow; gaps (compaction, markers) are as they are.

        Raises:
            ValueError: an offset does not follow those before it; nothing more was taken.
        """
        last = self._open[-1] if self._open else (self.position or 0) - 1
        for offset in offsets:
            if offset <= last:
                raise ValueError(f"offset {offset} after {last}")
            self._open.append(offset)
            last = offset

    def done(self, offset: int) -> None:
        """An event that was taken is done with: handled, dropped or moved."""
        waiting = self._open
        if waiting[0] != offset:
            self._done.add(offset)
            return
        waiting.popleft()
        done = self._done
        while done and waiting and waiting[0] in done:
            offset = waiting.popleft()
            done.remove(offset)
        self.position = offset + 1

    @property
    def to_commit(self) -> int | None:
        """The position, if it has moved since it was last committed."""
        return self.position if self.position != self._committed else None

    def committed(self, position: int) -> None:
        """The broker has this position."""
        if self._committed is None or position > self._committed:
            self._committed = position
