"""Python's collector rests while large batches are worked on.

What a batch of 10,000 records is made of lives for a moment, and goes without the collector. Its
passes over all of that would be the longest that decisions wait, 3 to 10 ms each.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import Iterator
from typing import Final

LARGE_BYTES: Final = 128 * 1024
"""Requests of that size are large."""
REST_S: Final = 1.0
"""At most so long at a time, however many follow each other."""


class Rest:
    """The rest of one process."""

    def __init__(self) -> None:
        self._working = 0
        self._until: asyncio.TimerHandle | None = None
        """When it ends at latest; None: it doesn't rest."""

    @contextlib.contextmanager
    def during(self, size: int) -> Iterator[None]:
        """Let it rest while a request of so many bytes is worked on, where that is large."""
        if size < LARGE_BYTES:
            yield
            return
        self._working += 1
        if self._until is None and gc.isenabled():  # who has disabled it is to enable it
            self._until = asyncio.get_running_loop().call_later(REST_S, self._end)
            gc.disable()
        try:
            yield
        finally:
            self._working -= 1
            if not self._working:
                self._end()

    def _end(self) -> None:
        if self._until is not None:
            self._until.cancel()
            self._until = None
            gc.enable()
