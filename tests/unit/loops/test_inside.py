"""What the daemon says to the HTTP layer of its history and of itself."""

from __future__ import annotations

import asyncio

import pytest

from sidecar.core.errors import StoreError
from sidecar.loops.inside import HISTORY_S, Inside
from sidecar.loops.orders import Orders
from sidecar.loops.report import Reporter
from tests.unit.loops.machine import MAX_STALE_S, Machine, World
from tests.unit.loops.virtual import now, virtual


def inside(machine: Machine) -> Inside:
    return Inside(
        machine.around,
        Reporter(machine.around, None),
        Orders(machine.around, machine.elector),
        version="1.2.3",
        kind="consul",
        role="auto",
    )


@virtual
async def test_the_history_is_the_stores() -> None:
    world = World()
    (first,) = await world.led()
    await world.report(fail=25)
    await world.settled("OPEN")
    told = await inside(first).history(first.cell)
    assert told == await world.history()
    assert [str(entry.to_state) for entry in told] == ["OPEN"]
    await first.die()


@virtual
async def test_a_store_that_hangs_is_not_waited_for_for_ever() -> None:
    first = World().add()

    async def hang(*_: object) -> None:
        await asyncio.Event().wait()

    first.link.hooks["read"] = hang
    asked = now()
    with pytest.raises(StoreError, match="did not answer in time"):
        await inside(first).history(first.cell)
    assert now() - asked == pytest.approx(HISTORY_S, abs=0.1)


@virtual
async def test_it_says_who_it_is_and_how_old_its_news_are() -> None:
    world = World()
    first = world.add()
    said = inside(first)
    assert said.describe() == {
        "instance": first.name,
        "version": "1.2.3",
        "role": "auto",
        "uptime_s": 0.0,
        "store": {
            "kind": "consul",
            "synced_s_ago": None,
            "on_loss": "keep",
            "max_stale_s": MAX_STALE_S,
        },
    }
    await asyncio.sleep(5)
    said.role = "follower"  # after a reload
    assert (said.describe()["role"], said.describe()["uptime_s"]) == ("follower", 5.0)
