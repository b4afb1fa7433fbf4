"""Order within a key, concurrency between keys. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

I = TypeVar("I")  # noqa: E741 - an item


class Lanes(Generic[I]):
    """Items in line, at most one of a key out at a time, in the order they came.

    Items without a key (None) have no order to keep.
    """

    __slots__ = ("_lanes", "ready")

    def __init__(self) -> None:
        self.ready: deque[tuple[Hashable | None, I]] = deque()
        """What may be taken now, from the left; each must be given back by `free`."""
        self._lanes: dict[Hashable, deque[I] | None] = {}
        """Keys with an item ready or out, and what waits behind it."""

    def put(self, key: Hashable | None, item: I) -> None:
        """Stand in line."""
        if key is None:
            self.ready.append((None, item))
            return
        lanes = self._lanes
        if key not in lanes:
            lanes[key] = None
            self.ready.append((key, item))
            return
        waiting = lanes[key]
        if waiting is None:
            lanes[key] = deque((item,))
        else:
            waiting.append(item)

    def again(self, key: Hashable | None, item: I) -> None:
        """An item that was taken, and not freed, may be taken once more before its successors."""
        self.ready.append((key, item))

    def free(self, key: Hashable | None) -> None:
        """The item of that key that was out is done with: its successor is ready."""
        if key is None:
            return
        waiting = self._lanes[key]
        if not waiting:
            del self._lanes[key]
        else:
            self.ready.append((key, waiting.popleft()))

    def drop(self, unwanted: Callable[[I], bool]) -> int:
        """Forget what is in line and unwanted; how many that were. What is out is left alone."""
        dropped = 0
        for waiting in self._lanes.values():
            if waiting:
                kept = [item for item in waiting if not unwanted(item)]
                dropped += len(waiting) - len(kept)
                waiting.clear()
                waiting.extend(kept)
        ready, self.ready = self.ready, deque()
        for key, item in ready:
            if not unwanted(item):
                self.ready.append((key, item))
                continue
            dropped += 1
            self.free(key)
        return dropped
