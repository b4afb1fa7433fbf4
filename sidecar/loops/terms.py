"""The evaluators of those breakers whose locks this sidecar holds: one a term."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection

from sidecar.loops.evaluate import Evaluator
from sidecar.loops.guard import Tasks

SETTLE_S = 2.0
"""How long a report waits to be judged where the store is in this process."""


class Terms:
    """Begins an evaluator when a lock is gained, and ends it when that is lost.

    Args:
        made: makes the evaluator of a breaker, with the index of its lock.
    """

    def __init__(self, tasks: Tasks, made: Callable[[str, int], Evaluator]) -> None:
        self._tasks = tasks
        self._made = made
        self._running: dict[str, tuple[str, Evaluator]] = {}
        """By breaker: its task's name, and who runs in it."""
        self._count = 0
        self._news = asyncio.Event()
        """Set, and replaced, when a breaker gets an evaluator here."""
        self._ending: set[asyncio.Task[None]] = set()

    def gained(self, name: str, lock_index: int) -> None:
        """The breaker is evaluated here from now on."""
        evaluator = self._made(name, lock_index)
        self._count += 1
        task = f"evaluate {name} in term {self._count}"
        self._running[name] = (task, evaluator)
        self._tasks.start(task, evaluator.run)
        self._news.set()
        self._news = asyncio.Event()

    def lost(self, name: str) -> None:
        """It is evaluated here no more."""
        task, _ = self._running.pop(name, ("", None))
        ending = asyncio.get_running_loop().create_task(self._tasks.stop(task), name=f"end {task}")
        self._ending.add(ending)
        ending.add_done_callback(self._ending.discard)

    def of(self, name: str) -> Evaluator | None:
        """Who evaluates this breaker here; None: nobody does."""
        return self._running.get(name, ("", None))[1]

    def wake(self, name: str) -> None:
        """There is news of this breaker: judge it anew, where it is evaluated here."""
        if (evaluator := self.of(name)) is not None:
            evaluator.wake.set()

    def wake_all(self) -> None:
        """Judge every breaker that is evaluated here anew."""
        for name in self._running:
            self.wake(name)

    async def all_ready(self, names: Collection[str]) -> None:
        """Wait until each of these breakers is evaluated here, and has been judged once."""
        while self._running.keys() != set(names):
            await self._news.wait()
        for _, evaluator in list(self._running.values()):
            await evaluator.ready.wait()

    async def settle(self, name: str) -> None:
        """Have a local report judged before its sender has an answer (a store in this process)."""
        try:
            async with asyncio.timeout(SETTLE_S):
                while name not in self._running:
                    await self._news.wait()
                evaluator = self._running[name][1]
                await evaluator.ready.wait()
                await evaluator.settle()
        except TimeoutError:
            return  # it is stored, and counts at the next round
