"""A service stays registered: whatever the agent forgets, and until we stop."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import AsyncIterator

import pytest

from sidecar.core.board import Board
from sidecar.core.decision import Contact, OnLoss
from sidecar.core.errors import StoreDenied, StoreError, StoreUnreachable
from sidecar.core.ports import Service
from sidecar.loops.around import Around
from sidecar.loops.register import LOOK_EVERY_S, REFUSED_PAUSE_S, Registrar
from sidecar.store.codec import JsonWire
from sidecar.store.memory import MemoryStore
from tests.telemetry import RecordedTelemetry
from tests.unit.loops.machine import MachineClock
from tests.unit.loops.virtual import now, until, virtual

SERVICE = Service(
    id="tasks-api-1",
    name="tasks-api",
    address="",
    port=8080,
    tags=("v1",),
    check="http://127.0.0.1:8080/livez",
    check_every_s=5.0,
)
AWAY = StoreUnreachable("away")


class Agent:
    """The port `Catalog`, in a set."""

    def __init__(self) -> None:
        self.known: set[str] = set()
        self.registered: list[float] = []
        self.looks = 0
        self.faults: deque[StoreError] = deque()

    async def has_service(self, id_: str) -> bool:
        self.looks += 1
        self._fail()
        return id_ in self.known

    async def register_service(self, service: Service) -> None:
        self._fail()
        self.registered.append(now())
        self.known.add(service.id)

    async def deregister_service(self, id_: str) -> None:
        self._fail()
        self.known.discard(id_)

    def _fail(self) -> None:
        if self.faults:
            raise self.faults.popleft()


@contextlib.asynccontextmanager
async def running(agent: Agent) -> AsyncIterator[tuple[Registrar, RecordedTelemetry]]:
    telemetry = RecordedTelemetry()
    contact = Contact(synced=None, stale_after_s=5.0, max_stale_s=30.0, on_loss=OnLoss.KEEP)
    around = Around(
        instance="1",
        store=MemoryStore(time.monotonic),
        wire=JsonWire("breaker"),
        board=Board("1", [], None, contact, now=0.0),
        telemetry=telemetry,
        clock=MachineClock(),
        draw=lambda: 0.5,
        changed=lambda: None,
    )
    registrar = Registrar(around, agent, SERVICE)
    task = asyncio.create_task(registrar.run())
    yield registrar, telemetry
    task.cancel()
    await asyncio.wait([task])


def said(telemetry: RecordedTelemetry) -> list[tuple[str, object]]:
    return [(name, fields.get("again")) for name, _, fields in telemetry.events]


@virtual
async def test_it_is_registered_once_and_looked_after() -> None:
    agent = Agent()
    async with running(agent) as (_, telemetry):
        await asyncio.sleep(10 * LOOK_EVERY_S)
        assert len(agent.registered) == 1
        assert 9 <= agent.looks <= 10
        assert said(telemetry) == [("service_registered", False)]


@virtual
async def test_what_the_agent_forgot_it_is_told_again() -> None:
    agent = Agent()
    async with running(agent) as (_, telemetry):
        await until(lambda: agent.known, 1, "it is registered")
        agent.known.clear()
        forgot = now()
        await until(lambda: agent.known, LOOK_EVERY_S + 1, "it is registered again")
        assert now() - forgot <= LOOK_EVERY_S + 0.1
        assert said(telemetry)[-1] == ("service_registered", True)


@virtual
async def test_an_agent_that_is_away_is_asked_with_growing_pauses_and_told_of_once() -> None:
    agent = Agent()
    agent.faults.extend([AWAY] * 8)
    async with running(agent) as (_, telemetry):
        began = now()
        await until(lambda: agent.known, 60, "it is registered")
        assert 20 < now() - began < 45
        names = [name for name, _ in said(telemetry)]
        assert names == ["service_unregistered", "service_registered"]


@virtual
async def test_a_refusal_is_not_tried_every_second() -> None:
    agent = Agent()
    agent.faults.append(StoreDenied("no right"))
    async with running(agent) as (_, telemetry):
        began = now()
        await until(lambda: agent.known, 2 * REFUSED_PAUSE_S, "it is registered")
        assert now() - began >= REFUSED_PAUSE_S
        assert said(telemetry)[0][0] == "service_unregistered"


@virtual
async def test_it_goes_with_the_daemon_and_only_if_it_ever_was_there() -> None:
    agent = Agent()
    async with running(agent) as (registrar, _):
        await until(lambda: agent.known, 1, "it is registered")
        await registrar.withdraw()
        assert not agent.known
    agent.faults.append(AWAY)
    async with running(agent) as (registrar, _):
        await asyncio.sleep(0.1)
        agent.faults.append(AWAY)
        with pytest.raises(StoreUnreachable):  # an answer may have been lost: it is tried
            await registrar.withdraw()
    never = Agent()
    async with running(never) as (registrar, _):
        await registrar.withdraw()  # before it began
