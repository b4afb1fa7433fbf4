"""Fast takeover: the check at the local agent, and whom to trust until when."""

from __future__ import annotations

import asyncio

import pytest

from sidecar.core.errors import CheckLost, StoreDenied, StoreRejected, StoreUnreachable
from sidecar.loops.pulse import PATIENCE, TRY_AGAIN_S
from tests.unit.loops.machine import After, Before, Machine, World
from tests.unit.loops.virtual import now, until, virtual

FAST_S = 2.0
LOCK_DELAY_S = 1.0
AWAY = StoreUnreachable("away")


def check_of(machine: Machine) -> str:
    return f"breaker-sidecar-{machine.name}"


def bound(world: World) -> list[str | None]:
    """What the live sessions are bound to."""
    return [live.check for live in world.store._sessions.values()]


@pytest.mark.parametrize("seed", range(3))
def test_a_dead_holder_is_replaced_within_the_checks_life(seed: int) -> None:
    @virtual
    async def story() -> None:
        world = World(seed=seed)
        first, *others = await world.led(3, fast_s=FAST_S)
        await asyncio.sleep(60)
        assert first.leads
        assert first.link.calls["create"] == 1
        await first.die()
        took_s = await until(lambda: any(m.leads for m in others), 30, "another leads")
        assert took_s < FAST_S + LOCK_DELAY_S + 1.0

    story()


@virtual
async def test_it_stands_down_before_its_check_can_be_critical() -> None:
    """By its own clock, counted from when the last pass was sent; the session is renewed still."""
    world = World()
    (first,) = await world.led(fast_s=FAST_S)
    await asyncio.sleep(60)
    session = first.elector.may_write("default")
    assert session is not None
    sent: list[float] = []

    async def note(*_: object) -> None:
        sent.append(now())

    first.link.hooks["check_pass"] = note
    await until(lambda: sent, 5, "a pass is sent")
    last = sent[0]
    first.link.cut("check_pass", "check_register", "create", "destroy", "release")
    await asyncio.sleep(last + FAST_S - 0.01 - now())
    assert first.elector.may_write("default") == session
    await asyncio.sleep(last + FAST_S - 0.0005 - now())  # it was sent a millisecond earlier
    assert first.elector.may_write("default") is None
    assert now() < world.store._checks[check_of(first)].ends, "the store still has it"
    assert len(sent) > 3, "it tried until its own deadline"
    await asyncio.sleep(0.1)
    assert not first.leads
    assert "local agent" in first.said("stood_down")[0]["why"]
    first.link.mend()
    await until(lambda: first.leads, 30, "it comes back")
    await until(lambda: bound(world) == [check_of(first)], 5, "bound again")


@virtual
async def test_some_failed_passes_cost_nothing() -> None:
    world = World()
    (first,) = await world.led(fast_s=FAST_S)
    for _ in range(5):
        first.link.fail("check_pass", Before(AWAY), After(AWAY))
        await asyncio.sleep(FAST_S)
        assert first.leads
    assert first.link.calls["create"] == 1
    assert not first.said("stood_down")


@virtual
async def test_a_pass_that_came_too_late_brings_no_trust_back() -> None:
    """It was sent in time and arrived when the check had been critical: the session is dead."""
    world = World()
    (first,) = await world.led(fast_s=FAST_S)
    await asyncio.sleep(60)
    sent: list[float] = []
    hangs: list[float] = []

    async def delay(*_: object) -> None:
        sent.append(now())
        if len(sent) > 1:
            await asyncio.sleep(max(0.0, sent[0] + FAST_S + 0.002 - now()))

    async def hang(*_: object) -> None:
        hangs.append(now())
        await asyncio.sleep(3600)

    first.link.hooks["renew"] = hang  # so that nobody looks while the check turns critical
    await until(lambda: hangs, 10, "a renewal hangs")
    first.link.hooks["check_pass"] = delay
    await until(lambda: sent, 5, "a pass is sent in time")
    await asyncio.sleep(sent[0] + FAST_S - 0.1 - now())
    assert first.elector.may_write("default") is not None
    await asyncio.sleep(0.2)
    assert bound(world) == [], "the store has ended it"
    assert world.store._checks[check_of(first)].ends > now(), "and was told of a pass after that"
    while not first.said("stood_down"):
        assert first.elector.may_write("default") is None
        await asyncio.sleep(0.01)


@virtual
async def test_a_check_the_agent_has_forgotten_ends_the_term_at_once() -> None:
    """An agent that came back without its checks. An old one is begun anew."""
    world = World()
    (first,) = await world.led(fast_s=FAST_S)
    await asyncio.sleep(120)
    await world.store.deregister_check(check_of(first))
    await until(lambda: first.said("stood_down"), FAST_S, "it knows")
    await until(lambda: first.leads, 10, "it leads again")
    assert bound(world) == [check_of(first)]
    assert not first.said("fast_takeover_off")


@virtual
async def test_agents_in_turn_are_given_up_as_no_local_agent() -> None:
    """Another agent answers each time: after one lost term it does without."""
    world = World()
    first = world.add(fast_s=FAST_S)
    first.link.always["check_pass"] = Before(CheckLost("unknown check"))
    first.start()
    await until(lambda: first.said("stood_down"), 10, "the first term is lost")
    await until(lambda: first.leads, 10, "it leads again")
    await asyncio.sleep(TRY_AGAIN_S / 2)
    assert bound(world) == [None]
    assert len(first.said("stood_down")) == 1
    assert len(first.said("fast_takeover_off")) == 1


@pytest.mark.parametrize("error", [StoreDenied("no right"), StoreRejected("405, no such call")])
def test_without_the_right_it_does_without(error: Exception) -> None:
    """Said once, and not asked again at each term."""

    @virtual
    async def story() -> None:
        world = World()
        first = world.add(fast_s=FAST_S)
        first.link.always["check_register"] = Before(error)
        first.start()
        await until(lambda: first.leads, 5, "it leads")
        for _ in range(3):
            await first.elector.give_up("default", 1.0, "for a moment")
            await asyncio.sleep(5)
            await until(lambda: first.leads, 5, "it leads again")
        assert bound(world) == [None]
        assert first.link.calls["check_register"] == 1
        assert len(first.said("fast_takeover_off")) == 1

        first.link.mend()  # the right was given
        await asyncio.sleep(TRY_AGAIN_S)
        await first.elector.give_up("default", 1.0, "for a moment")
        await until(lambda: first.leads, 5, "it leads again")
        assert bound(world) == [check_of(first)]

    story()


@virtual
async def test_an_agent_that_answers_everything_else_is_not_asked_for_ever() -> None:
    world = World()
    first = world.add(fast_s=FAST_S)
    first.link.cut("check_register")
    first.start()
    await until(lambda: first.leads, 20, "it leads")
    assert bound(world) == [None]
    assert first.link.calls["check_register"] == PATIENCE


@virtual
async def test_the_servers_may_take_a_moment_to_hear_of_the_check() -> None:
    world = World()
    first = world.add(fast_s=FAST_S)
    first.link.fail("create", *[Before(CheckLost("missing check"))] * 5)
    first.start()
    await until(lambda: first.leads, 5, "it leads")
    assert bound(world) == [check_of(first)]
    assert not first.said("fast_takeover_off")


@virtual
async def test_a_check_the_servers_never_hear_of_is_given_up() -> None:
    world = World()
    first = world.add(fast_s=FAST_S)
    plain = world.store.create_session

    async def deaf(name: str, ttl_s: float, lock_delay_s: float, check: str | None = None):  # type: ignore[no-untyped-def]
        if check is not None:
            raise CheckLost("missing check")
        return await plain(name, ttl_s, lock_delay_s)

    world.store.create_session = deaf  # type: ignore[method-assign]
    first.start()
    await until(lambda: first.leads, 5, "it leads")
    assert bound(world) == [None]
    assert not world.store._checks
    assert len(first.said("fast_takeover_off")) == 1


@pytest.mark.parametrize("stop", [True, False])
def test_it_leaves_no_check_behind(stop: bool) -> None:
    """At a stop and when it has nothing to hold; the locks get no lock-delay by it."""

    @virtual
    async def story() -> None:
        world = World()
        first, other = await world.led(2, fast_s=FAST_S)
        if stop:
            await first.stop()
        else:
            await first.elector.give_up("default", 60.0, "for a while")
        took_s = await until(lambda: other.leads, 5, "the other leads")
        assert took_s < LOCK_DELAY_S
        await asyncio.sleep(1.0)
        assert set(world.store._checks) == {check_of(other)}

    story()


@virtual
async def test_who_does_not_want_it_registers_nothing() -> None:
    world = World()
    (first,) = await world.led()
    await asyncio.sleep(60)
    assert not {op for op in first.link.calls if op.startswith("check")}
    assert bound(world) == [None]
