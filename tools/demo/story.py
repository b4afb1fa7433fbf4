"""The story of one run: healthy, the database down, the database back, recovered."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Coroutine
from typing import Any, TypeVar

import aiohttp

from examples.services.discovery import Discovery
from tools.demo import numbers, script
from tools.demo.lag import Lag
from tools.demo.load import Load
from tools.demo.numbers import Column, Marks, Sample
from tools.demo.scene import Scene
from tools.demo.stage import API, Failed, Stage
from tools.demo.view import View

T = TypeVar("T")

LOOK_EVERY_S = 0.2
WARM_WITHIN_S = 60.0
WHAT = {
    "curtain": "workers join their group, first requests",
    "healthy": "requests go through the API to Kafka, and from there to the database",
    "down": "the database is down: handlers fail, workers report it",
    "back": "the database is back: what waits is worked off, the breaker lets traffic in again",
    "end": "no more requests; what was accepted is handled",
}


class Story:
    """One run.

    Args:
        breaker: whether the API asks and the workers report.
        steered: acts end when the person says so, not by the clock.
    """

    def __init__(
        self,
        stage: Stage,
        view: View,
        session: aiohttp.ClientSession,
        *,
        breaker: bool,
        steered: bool,
    ) -> None:
        self._stage = stage
        self._view = view
        self._session = session
        self._breaker = breaker
        self._steered = steered
        self._run = "with breaker" if breaker else "without breaker"
        self._topic = "tasks-with" if breaker else "tasks-without"
        self._load = Load(session, Discovery(stage.consul.address, session), API)
        self._lag = Lag(stage.kafka.bootstrap, self._topic)
        self._partitions = [(self._topic, n) for n in range(script.PARTITIONS)]
        self._samples: list[Sample] = []
        self._began = 0.0
        self._act = "curtain"
        self._act_ends: float | None = None
        self._database: dict[str, Any] = {}
        self._record: dict[str, Any] = {}
        self.next_act = asyncio.Event()
        """Set by the person at the terminal."""

    def _at(self) -> float:
        return time.monotonic() - self._began

    async def play(self) -> Column:
        """From the curtain to the numbers. Raises Failed."""
        await asyncio.to_thread(self._stage.enter, self._topic, breaker=self._breaker)
        try:
            await self._reset()
            await self._lag.start()
            marks = await self._beside(self._acts(), self._load.run(), self._look())
            await self._load.answered()
            waited_s = await self._drain()
            return self._column(marks, waited_s)
        except asyncio.CancelledError:
            self._stage.hurry = True
            raise
        finally:
            await self._lag.close()
            await asyncio.to_thread(self._stage.leave)

    @staticmethod
    async def _beside(acts: Coroutine[Any, Any, T], *loops: Coroutine[Any, Any, None]) -> T:
        """The acts, with loops beside them that end with them and must not end before."""
        acting = asyncio.create_task(acts)
        tasks = [asyncio.create_task(loop) for loop in loops]
        try:
            await asyncio.wait({acting, *tasks}, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                if task.done():
                    fault = task.exception()
                    if isinstance(fault, Failed):
                        raise fault
                    raise Failed(f"a part of the demo ended: {fault!r}") from fault
            return acting.result()
        finally:
            for each in (acting, *tasks):
                each.cancel()
            await asyncio.wait({acting, *tasks})

    async def _reset(self) -> None:
        async with self._session.delete(f"{self._stage.database}/tasks"):
            pass
        await self._mode("healthy")

    async def _mode(self, mode: str) -> None:
        async with self._session.put(f"{self._stage.database}/mode/{mode}"):
            pass

    async def _warm_up(self) -> None:
        """Until every worker's first events are handled: the story begins with a healthy flow."""
        deadline = time.monotonic() + WARM_WITHIN_S
        while self._database.get("rows", 0) < script.RATE or self._calm_s() < 1.0:
            if time.monotonic() > deadline:
                raise Failed(f"no healthy flow within {WARM_WITHIN_S:g} s")
            await asyncio.sleep(LOOK_EVERY_S)

    def _calm_s(self) -> float:
        """For how long lag has been less than a second's requests."""
        since = self._at()
        for sample in reversed(self._samples):
            if sample.lag > script.RATE or sample.refused:
                break
            since = sample.at
        return self._at() - since

    async def _acts(self) -> Marks:
        self._began = time.monotonic()
        await self._warm_up()
        self._samples.clear()
        self._load.begin()
        self._began = time.monotonic()
        await self._during("healthy", script.HEALTHY_S)
        await self._mode("down")
        down = self._at()
        await self._during("down", script.DOWN_S)
        await self._mode("healthy")
        marks = Marks(down=down, back=self._at())
        self._act, self._act_ends = "back", None
        self.next_act.clear()
        while self._at() < marks.back + script.RECOVER_WITHIN_S + script.SETTLED_S:
            found = numbers.recovered(self._samples, marks)
            settled = found is not None and self._at() - marks.back - found >= script.SETTLED_S
            if self.next_act.is_set() or (settled and not self._steered):
                break
            await asyncio.sleep(LOOK_EVERY_S)
        self._act = "end"
        return marks

    async def _during(self, act: str, seconds: float) -> None:
        self._act = act
        self.next_act.clear()
        self._act_ends = None if self._steered else time.monotonic() + seconds
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(None if self._steered else seconds):
                await self.next_act.wait()

    async def _drain(self) -> dict[str, float]:
        """Wait until all that was accepted is handled; how long each id that was has waited."""
        deadline = self._act_ends = time.monotonic() + script.DRAIN_WITHIN_S
        everything = self._load.accepted | self._load.before
        while True:
            async with self._session.get(f"{self._stage.database}/tasks") as answer:
                lines = (await answer.text()).splitlines()
            waited_s = {
                name: float(seconds) for name, _, seconds in (s.partition(" ") for s in lines)
            }
            await self._glance()
            self._view.show(self._scene(self._samples[-1].lag))
            if everything <= waited_s.keys() or time.monotonic() > deadline:
                return waited_s
            await asyncio.sleep(LOOK_EVERY_S)

    async def _look(self) -> None:
        """Look at everything, for ever, and show it."""
        before = 0
        while True:
            await self._glance()
            lag = await self._lag.look(self._partitions)
            self._stage.check()
            if lag is not None:
                others = self._load.refused + self._load.failed
                state = self._record.get("state") if self._breaker else None
                self._samples.append(Sample(self._at(), lag, state, max(0, others - before)))
                before = others
                self._view.show(self._scene(lag))
            await asyncio.sleep(LOOK_EVERY_S)

    async def _glance(self) -> None:
        """The breaker as the API's sidecar has it, then the database."""
        if self._breaker:
            place = f"http://127.0.0.1:{self._stage.sidecar_ports[0]}"
            async with self._session.get(f"{place}/v1/breakers/{script.BREAKER}") as answer:
                self._record = await answer.json()
        async with self._session.get(f"{self._stage.database}/stats") as answer:
            self._database = await answer.json()

    def _scene(self, lag: int) -> Scene:
        accepted, others, answers_s = self._load.now()
        ends = self._act_ends
        return Scene(
            run=self._run,
            act=self._act,
            what=WHAT[self._act],
            at=self._at(),
            left_s=None if ends is None else ends - time.monotonic(),
            database=self._database["mode"],
            state=self._record.get("state") if self._breaker else None,
            admit_ratio=float(self._record.get("admit_ratio", 1.0)),
            accepted_rate=accepted,
            other_rate=others,
            p99_ms=numbers.p99(answers_s) * 1000,
            lag=lag,
            lags=[sample.lag for sample in self._samples],
            handled=self._database["rows"],
            accepted=len(self._load.before) + len(self._load.accepted),
        )

    def _column(self, marks: Marks, waited_s: dict[str, float]) -> Column:
        load = self._load
        handled = [waited_s[name] for name in load.accepted & waited_s.keys()]
        lost = (load.accepted | load.before) - waited_s.keys()
        return numbers.column(
            self._samples,
            marks,
            answers=(len(load.accepted), load.refused, load.failed),
            answers_s=load.answers_s,
            lost=lost,
            longest_wait_s=max(handled, default=0.0),
        )
