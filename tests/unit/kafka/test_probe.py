"""The prober: for whom it sends, how often, what it tells, and that it lets go."""

from __future__ import annotations

import asyncio
from typing import Any

from sidecar.core.board import Board
from sidecar.core.probe import Canary, ProbeBook, Round
from sidecar.core.signal_settings import Probe, SignalSettings
from sidecar.core.types import Policy
from sidecar.kafka.connection import Connection
from sidecar.kafka.probe import Prober
from sidecar.telemetry import names
from tests.telemetry import RecordedTelemetry
from tests.unit.core.kit import CONTACT
from tests.unit.loops.virtual import now, virtual

AT = Connection(bootstrap_servers=("kafka:9092",))


class Sent:
    """Canaries that never left: each round ends as it is told to."""

    def __init__(self, world: World, topic: str, create: bool, interval_s: float) -> None:
        self.world = world
        self.subject = (topic, create, interval_s)

    async def round(self) -> Round:
        self.world.rounds.append(now())
        await asyncio.sleep(self.world.takes_s)
        return Round(at=now(), canaries=self.world.canaries, fault=self.world.fault)

    async def close(self) -> None:
        self.world.closed += 1


class World:
    """A board with breakers, and what the prober did."""

    def __init__(self, *policies: Policy) -> None:
        self.board = Board("i-1", policies, None, CONTACT, now=now())
        self.telemetry = RecordedTelemetry()
        self.rounds: list[float] = []
        self.canaries: list[Canary] = [Canary(broker=1, latency_s=0.02)]
        self.fault: str | None = None
        self.takes_s = 0.0
        self.made: list[Sent] = []
        self.closed = 0
        self.heard: list[str] = []
        self.prober = Prober(
            self.board,
            AT,
            self.telemetry,
            news=self.heard.append,
            now=now,
            draw=lambda: 0.5,
            make=self._make,
        )
        self.task = asyncio.create_task(self.prober.run())

    def _make(self, _: Connection, topic: str, __: object, **more: Any) -> Any:
        self.made.append(Sent(self, topic, more["create"], more["interval_s"]))
        return self.made[-1]

    def evaluate(self, *breakers: str) -> None:
        for name, cell in self.board.cells.items():
            cell.evaluating = name in breakers

    def book(self, breaker: str) -> ProbeBook | None:
        return self.board.cells[breaker].probe

    async def end(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)

    def said(self, event: str) -> list[dict[str, Any]]:
        return [dict(fields) for name, _, fields in self.telemetry.events if name == event]


def breaker(name: str, **probe: Any) -> Policy:
    return Policy(name=name, signals=SignalSettings(probe=Probe(**probe)))


@virtual
async def test_nobody_is_probed_for_whom_another_sidecar_evaluates() -> None:
    world = World(breaker("a"), Policy(name="b"))
    await asyncio.sleep(60)
    world.evaluate("b")
    await asyncio.sleep(60)
    assert world.made == []
    assert world.book("b") is None
    await world.end()


@virtual
async def test_one_prober_serves_all_breakers_as_often_as_the_most_eager_asks() -> None:
    world = World(breaker("a", interval_s=10.0), breaker("b", interval_s=4.0))
    world.evaluate("a", "b")
    await asyncio.sleep(40.5)
    assert len(world.made) == 1
    assert 10 <= len(world.rounds) <= 11
    assert world.book("a") is world.book("b") is not None
    assert set(world.heard) == {"a", "b"}
    world.evaluate("a")
    await asyncio.sleep(30)
    assert world.book("b") is None
    assert world.made[-1].subject[2] == 10.0
    await world.end()


@virtual
async def test_a_round_that_takes_long_is_not_followed_at_once() -> None:
    world = World(breaker("a", interval_s=10.0))
    world.takes_s = 12.0
    world.evaluate("a")
    await asyncio.sleep(60)
    gaps = [b - a for a, b in zip(world.rounds, world.rounds[1:], strict=False)]
    assert min(gaps) >= 13.0
    await world.end()


@virtual
async def test_it_lets_go_of_kafka_when_the_lock_is_lost_and_when_it_ends() -> None:
    world = World(breaker("a"))
    world.evaluate("a")
    await asyncio.sleep(5)
    book = world.book("a")
    world.evaluate()
    await asyncio.sleep(15)
    assert world.closed == 1
    assert world.book("a") is None
    world.evaluate("a")
    await asyncio.sleep(5)
    assert world.book("a") is not book, "what another term has seen is old"
    await world.end()
    assert world.closed == 2


@virtual
async def test_a_broker_that_fails_is_told_once_and_counted_each_time() -> None:
    world = World(breaker("a", interval_s=10.0))
    world.evaluate("a")
    await asyncio.sleep(15)
    world.canaries = [Canary(broker=1, fault="no answer within 5 s")]
    await asyncio.sleep(30)
    world.canaries = [Canary(broker=1, latency_s=0.02)]
    await asyncio.sleep(30)
    assert world.said(names.PROBE_FAILED) == [{"broker": "1", "error": "no answer within 5 s"}]
    assert world.said(names.PROBE_BACK) == [{"broker": "1"}]
    assert world.telemetry.counted(names.PROBE_FAILURES, broker="1") == 3
    durations = [seconds for name, seconds, _ in world.telemetry.observed]
    assert len(durations) >= 4
    assert set(durations) == {0.02}
    world.fault = "the topic x does not exist"
    await asyncio.sleep(30)
    assert world.said(names.PROBE_UNKNOWN) == [{"error": "the topic x does not exist"}]
    await world.end()
