"""The evaluator's care for the override's key, while calls to the store may fail."""

from __future__ import annotations

import pytest

from sidecar.core.errors import StoreDenied, StoreUnreachable
from sidecar.core.override import Mode, Override
from tests.unit.loops.machine import WIRE, Before, World
from tests.unit.loops.virtual import now, until, virtual

KEY = WIRE.override("default")


async def _put(world: World, text: str) -> None:
    await world.store.put(KEY, text.encode())


async def _there(world: World) -> Override | None:
    entry = await world.store.read(KEY)
    found = WIRE.decode_override(entry.value) if entry is not None else None
    assert found is None or isinstance(found, Override)
    return found


@virtual
async def test_times_are_filled_in_and_the_key_goes_when_it_is_over() -> None:
    world = World()
    first, second = await world.led(2)
    await _put(world, '{"mode": "open", "ttl_s": 60}')
    began = now()
    await until(lambda: second.state == "OPEN", 1, "in force on a follower")
    await world.settled("OPEN")
    await world.pass_time(10)
    whole = await _there(world)
    assert whole is not None
    assert whole.set_at is not None
    assert whole.expires_at == pytest.approx(whole.set_at + 60, abs=1)
    await until(lambda: first.state == "CLOSED", 60, "it ends")
    await until(lambda: second.state == "CLOSED", 0.1, "on both")
    assert now() - began == pytest.approx(60, abs=0.5)
    await world.settled("CLOSED")
    await world.pass_time(1)
    assert await _there(world) is None


@virtual
async def test_a_key_that_cannot_be_deleted_does_no_harm_and_is_tried_again() -> None:
    world = World()
    (first,) = await world.led()
    first.link.always["delete"] = Before(StoreUnreachable("away"))
    await _put(world, '{"mode": "open", "ttl_s": 5}')
    await until(lambda: first.state == "OPEN", 1, "in force")
    await until(lambda: first.state == "CLOSED", 6, "over")
    await world.pass_time(60)
    assert first.state == "CLOSED"
    assert first.leads
    first.link.mend()
    await world.pass_time(10)
    assert await _there(world) is None
    assert first.said("override_kept") == []


@virtual
async def test_a_lacking_right_is_told_of_once() -> None:
    world = World()
    (first,) = await world.led()
    first.link.always["delete"] = Before(StoreDenied("no key:write on override"))
    await _put(world, '{"mode": "shadow", "ttl_s": 5}')
    await world.pass_time(120)
    assert len(first.said("override_kept")) == 1
    assert first.cell.decision.override is None


@virtual
async def test_a_new_order_in_its_place_is_not_deleted() -> None:
    """The old one is over just when somebody writes another."""
    world = World()
    (first,) = await world.led()
    await _put(world, '{"mode": "open", "ttl_s": 5}')
    await until(lambda: first.state == "OPEN", 1, "in force")

    async def meanwhile(*_: object) -> None:
        first.link.hooks.clear()
        await _put(world, '{"mode": "closed", "ttl_s": 600}')

    first.link.hooks["delete"] = meanwhile
    await world.pass_time(30)
    found = await _there(world)
    assert found is not None
    assert found.mode is Mode.CLOSED
    assert first.cell.decision.override is not None
