"""Named tasks with an owner who hears of their end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any

import stamina
from stamina.instrumentation import set_on_retry_hooks

from sidecar.core.ports import Telemetry
from sidecar.telemetry import names

set_on_retry_hooks([])  # its default hooks would log and count every poll of an absent server


class Tasks:
    """Runs loops that are meant to run for ever; the end of one is an error.

    A loop that ends or raises is reported and started again after a growing, jittered pause: the
    daemon goes on answering with what it last knew, and says so.
    """

    def __init__(self, telemetry: Telemetry) -> None:
        self._telemetry = telemetry
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def start(self, name: str, loop: Callable[[], Awaitable[None]]) -> None:
        """Start a loop under a name that is not in use."""
        if name in self._tasks:
            raise ValueError(f"a task named {name} is running already")
        self._tasks[name] = asyncio.create_task(self._guard(name, loop), name=name)

    async def _guard(self, name: str, loop: Callable[[], Awaitable[None]]) -> None:
        async for attempt in stamina.retry_context(
            on=Exception, attempts=None, timeout=None, wait_initial=0.2, wait_max=30.0
        ):
            with attempt:
                try:
                    await loop()
                    raise RuntimeError("it ended by itself")
                except Exception as fault:
                    self._telemetry.event(
                        names.TASK_FAILED,
                        level="error",
                        task=name,
                        error=f"{type(fault).__name__}: {fault}",
                        attempt=attempt.num,
                    )
                    raise

    async def stop(self, name: str) -> None:
        """Cancel one task and wait for it; unknown names are fine."""
        task = self._tasks.pop(name, None)
        if task is not None:
            await _cancelled([task])

    async def stop_all(self) -> None:
        """Cancel every task, the youngest first, and wait for them."""
        tasks = list(reversed(self._tasks.values()))
        self._tasks.clear()
        await _cancelled(tasks)


async def _cancelled(tasks: Sequence[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks, timeout=2.0)


async def unless(stopping: asyncio.Event, work: Coroutine[object, object, None], name: str) -> bool:
    """Do a work, or as much of it as is done by a stop; True: all of it.

    Raises:
        Exception: what the work raises.
    """
    doing = asyncio.create_task(work, name=name)
    stopped = asyncio.create_task(stopping.wait(), name=f"stop of the {name}")
    try:
        await asyncio.wait((doing, stopped), return_when=asyncio.FIRST_COMPLETED)
        if doing.done():
            doing.result()
            return True
        return False
    finally:
        await _cancelled([doing, stopped])


class Signal:
    """A wake-up that is never lost and never piles up, with a deadline for waiting."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def set(self) -> None:
        """Wake whoever waits, or whoever waits next."""
        self._event.set()

    async def wait(self, timeout_s: float | None) -> bool:
        """Wait to be woken, at most so long; True when woken. Clears the wake-up."""
        try:
            if not self._event.is_set():
                if timeout_s is not None and timeout_s <= 0:
                    await asyncio.sleep(0)
                    return False
                async with asyncio.timeout(timeout_s):
                    await self._event.wait()
        except TimeoutError:
            return False
        self._event.clear()
        return True
