"""An event loop whose time passes only while everybody waits: hours of a story in milliseconds."""

from __future__ import annotations

import asyncio
import functools
import selectors
from collections.abc import Callable, Coroutine
from typing import Any

LIMIT_S = 86400.0
"""A story that takes longer hangs."""


class _Instant(selectors.SelectSelector):
    """Waiting for a timer is setting the clock."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready:
            if timeout is None:
                raise RuntimeError("everybody waits for ever")
            self.now += max(0.0, timeout)
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """The loop. Nothing on it may wait for another thread or process."""

    def __init__(self) -> None:
        self._instant = _Instant()
        super().__init__(self._instant)

    def time(self) -> float:
        """Seconds of the story."""
        return self._instant.now

    def stand_still(self, seconds: float) -> None:
        """So much of it passes at once."""
        self._instant.now += seconds


def virtual(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run a test on such a loop."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            runner.run(asyncio.wait_for(test(*args, **kwargs), LIMIT_S))

    return run


def now() -> float:
    """Seconds of the story."""
    return asyncio.get_running_loop().time()


def stand_still(seconds: float) -> None:
    """Time goes on, and nobody does: every timer until then is late, as after a suspend."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    loop.stand_still(seconds)


def pause_s(waited_s: float) -> float:
    """Between two looks: what takes long isn't looked at each millisecond."""
    return 0.001 if waited_s < 2.0 else 0.05


async def until(fn: Callable[[], object], within_s: float, what: str) -> float:
    """Wait until `fn` is true; returns how long that took."""
    began = now()
    while not fn():
        assert now() - began < within_s, f"not within {within_s} s: {what}"
        await asyncio.sleep(pause_s(now() - began))
    return now() - began
