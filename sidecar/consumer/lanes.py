"""Order within a key, concurrency between keys. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

I = TypeVar("I")  # noqa: E741 - an item


class Lanes(Generic[I]):
    """Who has a key, and who waits for it, in the order they came.

    Items without a key (None) have no order to keep, and no lane.
    """

    __slots__ = ("busy", "next")

    def __init__(self) -> None:
        self.busy: dict[Hashable, deque[I] | None] = {}
        """Keys that somebody has, and what waits behind."""
        self.next: deque[tuple[Hashable | None, I]] = deque()
        """Items that have their key and may go on, from the left."""

    def enter(self, key: Hashable | None, item: I) -> bool:
        """Take the key, or wait for it. Whether it was taken; else the item comes by `next`."""
        if key is None:
            return True
        busy = self.busy
        if key not in busy:
            busy[key] = None
            return True
        waiting = busy[key]
        if waiting is None:
            busy[key] = deque((item,))
        else:
            waiting.append(item)
        return False

    def again(self, key: Hashable | None, item: I) -> None:
        """An item that still has its key goes on, before all that wait for it."""
        self.next.append((key, item))

    def leave(self, key: Hashable | None) -> None:
        """Give the key back: whoever waits for it first has it now, and comes by `next`."""
        if key is None:
            return
        waiting = self.busy[key]
        if waiting:
            self.next.append((key, waiting.popleft()))
        else:
            del self.busy[key]

    def drop(self, unwanted: Callable[[I], bool]) -> None:
        """Forget the unwanted among those that wait or may go on. Who is out keeps its key."""
        for waiting in self.busy.values():
            if waiting:
                kept = [item for item in waiting if not unwanted(item)]
                waiting.clear()
                waiting.extend(kept)
        going, self.next = self.next, deque()
        for key, item in going:
            if unwanted(item):
                self.leave(key)
            else:
                self.next.append((key, item))
