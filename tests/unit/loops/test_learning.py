"""What `auto` has learned survives its evaluator, and is written rarely and behind the fence."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sidecar.core.errors import StoreDenied, StoreUnreachable
from sidecar.core.normal import NEEDED, Kept, Sample
from sidecar.core.signal_settings import AutoThreshold
from sidecar.loops.learning import SAVE_GAP_S
from tests.unit.loops.machine import POLICY, WALL_AT, WIRE, Before, Machine, World
from tests.unit.loops.virtual import until, virtual

LEARNS = replace(POLICY, auto=AutoThreshold(floor=5, history_s=600.0))
KEY = WIRE.normal("default")


async def stored(world: World) -> Kept | None:
    entry = await world.entry(KEY)
    return WIRE.decode_normal(entry.value) if entry is not None else None


def evidence(machine: Machine, name: str) -> object:
    judgement = machine.cell.judgement
    return judgement.evidence.get(name) if judgement is not None else None


@virtual
async def test_it_learns_and_trips_on_what_is_not_normal() -> None:
    world = World(LEARNS)
    (machine,) = await world.led()
    await world.reporting(NEEDED * 5 + 10, ok=100, fail=0)
    assert evidence(machine, "normal") == 0
    assert evidence(machine, "threshold") == 9  # the initial one is 20
    await world.report(ok=100, fail=12)
    record = await world.settled("OPEN")
    assert record.reason == "failures"
    assert record.evidence["normal_samples"] == pytest.approx(NEEDED, abs=3)
    assert "normal are 0.0 of" in record.detail


@virtual
async def test_the_next_evaluator_knows_it() -> None:
    world = World(LEARNS)
    first, second = await world.led(2)
    await world.reporting(NEEDED * 5 + 2 * SAVE_GAP_S, ok=100, fail=1)
    before = evidence(first, "normal_samples")
    assert isinstance(before, int)
    await first.die()
    await until(lambda: second.leads, 60, "another takes over")
    await until(lambda: second.cell.judgement is not None, 5, "it has judged")
    after, age_s = evidence(second, "normal_samples"), evidence(second, "normal_age")
    assert isinstance(after, int)
    assert isinstance(age_s, int)
    assert after >= before - SAVE_GAP_S / 5
    assert age_s < 60 + SAVE_GAP_S


@virtual
async def test_it_is_written_once_a_minute_at_most_and_never_without_a_lesson() -> None:
    world = World(LEARNS)
    (machine,) = await world.led()
    before = machine.link.calls["commit"]
    await world.reporting(600, ok=100)
    written = machine.link.calls["commit"] - before
    assert 5 <= written <= 600 / SAVE_GAP_S
    await world.pass_time(SAVE_GAP_S + 10)
    before = machine.link.calls["commit"]
    await world.pass_time(600)  # nobody reports
    assert machine.link.calls["commit"] == before


@virtual
async def test_the_first_that_is_known_is_written_at_once() -> None:
    world = World(LEARNS)
    await world.led()
    await world.reporting(NEEDED * 5 + 10, ok=100)
    kept = await stored(world)
    assert kept is not None
    assert len(kept.samples) >= NEEDED


@virtual
async def test_a_breaker_without_auto_has_no_such_key() -> None:
    world = World()
    await world.led()
    await world.reporting(300, ok=100)
    assert await world.entry(KEY) is None


@virtual
async def test_junk_is_counted_and_replaced() -> None:
    world = World(LEARNS)
    await world.store.put(KEY, b"{")
    (machine,) = await world.led()
    assert machine.telemetry.counted("breaker_bad_records_total", kind="normal") == 1
    await world.reporting(2 * SAVE_GAP_S, ok=100)
    assert await stored(world) is not None


@virtual
async def test_a_token_that_may_not_touch_it_learns_all_the_same() -> None:
    """It says so once, and neither the term nor the judgement depends on it."""
    world = World(LEARNS)
    (machine,) = await world.led()
    machine.link.always["commit"] = Before(StoreDenied("key:write on breaker-normal/default"))
    await world.reporting(4 * SAVE_GAP_S, ok=100)
    assert len(machine.said("normal_unsaved")) == 1
    assert machine.leads
    assert evidence(machine, "normal") == 0


@virtual
async def test_a_store_that_is_away_is_asked_again() -> None:
    world = World(LEARNS)
    (machine,) = await world.led()
    machine.link.always["commit"] = Before(StoreUnreachable("away"))
    await world.reporting(2 * SAVE_GAP_S, ok=100)
    assert await stored(world) is None
    machine.link.mend()
    await world.reporting(2 * SAVE_GAP_S, ok=100)
    assert await stored(world) is not None
    assert machine.said("normal_unsaved") == []


@virtual
async def test_auto_that_comes_by_a_reload_takes_up_what_was_known() -> None:
    world = World()
    kept = Kept(WALL_AT, 5.0, tuple(Sample(-30.0 * i, 500.0, 3.0) for i in range(60, -1, -1)))
    await world.store.put(KEY, WIRE.encode_normal(kept))
    (machine,) = await world.led()
    await world.reporting(10, ok=100)
    assert evidence(machine, "normal") is None
    board = machine.board
    board.reconfigure([LEARNS], "default", board.contact, now=machine.clock.now())
    await world.reporting(20, ok=100)
    samples = evidence(machine, "normal_samples")
    assert isinstance(samples, int)
    assert samples >= 61
