"""An idempotency store in this process: for tests, and for duplicates that come soon."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from sidecar.consumer.store import Known, Mark, Verdict, judged


class MemoryStore:
    """Forgets everything with the process, and the oldest beyond `most`.

    Its transaction is the mark alone; it hands out nothing to write effects to.

    Args:
        most: marks, and keys with a version, that are kept.
    """

    def __init__(self, most: int = 100_000) -> None:
        if most < 1:
            raise ValueError("most must be at least 1")
        self._most = most
        self._marks: OrderedDict[tuple[str, bytes], None] = OrderedDict()
        self._newest: OrderedDict[tuple[str, bytes], int] = OrderedDict()

    def __len__(self) -> int:
        """How many marks it has."""
        return len(self._marks)

    async def look(self, mark: Mark) -> Verdict:
        """What this event is."""
        return self.verdict(mark)

    def verdict(self, mark: Mark) -> Verdict:
        """The same, at once."""
        return judged(
            known=(mark.scope, mark.identity) in self._marks,
            version=mark.version,
            newest=None if mark.key is None else self._newest.get((mark.scope, mark.key)),
        )

    async def remember(self, marks: Sequence[Mark]) -> None:
        """These were handled."""
        for mark in marks:
            self.note(mark)

    def note(self, mark: Mark) -> None:
        """This one was handled."""
        self._marks[mark.scope, mark.identity] = None
        self._marks.move_to_end((mark.scope, mark.identity))
        if len(self._marks) > self._most:
            self._marks.popitem(last=False)
        if mark.key is None or mark.version is None:
            return
        at = (mark.scope, mark.key)
        self._newest[at] = max(mark.version, self._newest.get(at, mark.version))
        self._newest.move_to_end(at)
        if len(self._newest) > self._most:
            self._newest.popitem(last=False)

    @asynccontextmanager
    async def transaction(self, mark: Mark) -> AsyncIterator[None]:
        """The mark, unless the block fails."""
        if (verdict := self.verdict(mark)) is not Verdict.NEW:
            raise Known(verdict)
        yield
        self.note(mark)

    async def close(self) -> None:
        """Nothing to give back."""
