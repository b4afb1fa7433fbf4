"""How far a reader of the store is, and whether the store's clock went back under it."""

from __future__ import annotations


class Cursor:
    """The index to ask a blocking query with.

    A restored snapshot sets the store's index back. The query that waits meanwhile is ended early
    with the index it had, and the next one would wait in vain: nothing gets past an index that is
    ahead of its time before the wait is over. So an answer that came early and without anything
    new is looked into by a query that doesn't wait.
    """

    def __init__(self) -> None:
        self.index = 0
        """Of the last answer; 0 before the first."""
        self._doubted = False

    @property
    def ask(self) -> int:
        """The index for the next query; 0 answers at once."""
        return 0 if self._doubted else self.index

    def reset(self) -> None:
        """Ask anew, without waiting."""
        self.index = 0
        self._doubted = False

    def took(self, index: int, *, early: bool) -> int | None:
        """Note an answer's index; where it went back, returns what it was before.

        Args:
            early: the query was to wait, and came back long before it had to.
        """
        before = self.index
        if index < before:
            self.reset()
            return before
        self._doubted = early and not self._doubted and index == before
        self.index = index
        return None
