"""Taking turns: of many connections that want something, some have it between two looks at the
network, so that nobody who asks for a decision waits for all of them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final, Generic, Protocol, TypeVar

T = TypeVar("T")

BATCH: Final = 4
"""How many have their turn within one turn of the event loop."""
MORE: Final = b""
"""A lane's answer to a request whose body is still to come."""


class Later:
    """A lane's answer to a request that it has taken: what is told comes by `Waiting.answer`."""


LATER: Final = Later()


class Waiting(Protocol):
    """A connection that may have sent something for a lane."""

    def resume(self, take: Callable[[bytes], bytes | Later | None]) -> None:
        """It has its turn: `take` is the lane's. Does nothing where the time has passed."""

    def answer(self, reply: bytes) -> None:
        """What was taken has its answer. Does nothing where nobody is there any more."""


class Turns(Generic[T]):
    """Those that wait for their turn, first come, first served.

    Args:
        serve: whoever has its turn.
    """

    __slots__ = ("_line", "_serve")

    def __init__(self, serve: Callable[[T], None]) -> None:
        self._serve = serve
        self._line: deque[T] = deque()

    def add(self, one: T) -> None:
        """Let it have its turn soon."""
        if not self._line:
            asyncio.get_running_loop().call_soon(self._turn)
        self._line.append(one)

    def _turn(self) -> None:
        line = self._line
        now = [line.popleft() for _ in range(min(BATCH, len(line)))]
        if line:
            asyncio.get_running_loop().call_soon(self._turn)
        for one in now:
            self._serve(one)
