"""Contests for free locks, trust in one's own session, and what is done to the lock key."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from sidecar.core.errors import SessionLost, StoreDenied, StoreUnreachable
from sidecar.core.ports import Entry
from sidecar.loops.abreast import MOST
from tests.unit.loops.machine import WIRE, After, Before, Machine, World
from tests.unit.loops.virtual import now, until, virtual

LOCK = WIRE.leader("default")
TTL_S = 10.0
LOCK_DELAY_S = 1.0
AWAY = StoreUnreachable("away")


async def _holder(world: World) -> str | None:
    entry = await world.entry(LOCK)
    holder = WIRE.decode_holder(entry.value) if entry is not None and entry.session else None
    return holder.instance if holder is not None else None


def _sessions(world: World) -> int:
    return len(world.store._sessions)  # the port has no way to list them


@pytest.mark.parametrize("seed", range(3))
def test_a_free_lock_is_no_stampede(seed: int) -> None:
    """Of two hundred, a handful makes a session, one keeps it, and it takes under a second."""

    @virtual
    async def story() -> None:
        world = World(seed=seed)
        for _ in range(200):
            world.add().start()
        took_s = await until(lambda: any(m.leads for m in world.machines), 2, "one leads")
        assert took_s < 1.0
        await asyncio.sleep(1.0)
        assert sum(m.link.calls["create"] for m in world.machines) <= 20
        assert _sessions(world) == 1
        assert [m.leads for m in world.machines].count(True) == 1

    story()


@pytest.mark.parametrize("seed", range(3))
def test_a_graceful_stop_hands_over_in_under_a_second(seed: int) -> None:
    """Released, then destroyed: no lock-delay is waited for, with two as with fifty others."""

    @virtual
    async def story() -> None:
        for size in (2, 50):
            world = World(seed=seed)
            first, *others = await world.led(size)
            await first.stop()
            assert _sessions(world) == 0
            assert await until(lambda m=others: any(o.leads for o in m), 2, "another") < 1.0  # type: ignore[misc]
            assert (await world.settled("CLOSED")).seq == 1

    story()


@virtual
async def test_many_locks_are_given_back_as_quickly_as_one() -> None:
    """A stop waits for a second and a half; what is held by then is held for twice the ttl."""
    world = World()
    (first,) = await world.led()
    names = ("default", *(f"b{number}" for number in range(40)))
    await first.reload(*names)
    await until(lambda: all(map(first.evaluates, names)), 30, "all are evaluated")

    async def slow(*_: object) -> None:
        await asyncio.sleep(0.1)

    first.link.hooks["release"] = slow
    began = now()
    await first.stop()
    assert now() - began < 0.5
    assert _sessions(world) == 0


@virtual
async def test_giving_up_many_locks_keeps_the_session_of_the_others_alive() -> None:
    """One after the other they take longer here than the session lives."""
    world = World()
    (first,) = await world.led()
    names = ("default", *(f"b{number}" for number in range(30)))
    await first.reload(*names)
    await until(lambda: all(map(first.evaluates, names)), 30, "all are evaluated")

    async def slow(*_: object) -> None:
        await asyncio.sleep(TTL_S / 20)

    first.link.hooks["release"] = slow
    await first.reload("default")
    for _ in range(40):
        await asyncio.sleep(TTL_S / 20)
        assert first.leads
    assert first.link.calls["release"] == len(names) - 1


def _abreast(machine: Machine, answer_s: float) -> list[int]:
    """Slow its tries for locks down; how many are on their way as each of them begins."""
    counts: list[int] = []
    on_their_way = 0

    async def slow(*_: object) -> None:
        nonlocal on_their_way
        on_their_way += 1
        counts.append(on_their_way)
        try:
            await asyncio.sleep(answer_s)
        finally:
            on_their_way -= 1

    machine.link.hooks["acquire"] = slow
    return counts


async def _many(size: int, breakers: int) -> tuple[World, list[Machine], tuple[str, ...]]:
    """Machines that know many breakers, of which the first evaluates all."""
    world = World()
    (first,) = await world.led()
    names = ("default", *(f"b{number}" for number in range(breakers - 1)))
    await first.reload(*names)
    await until(lambda: all(map(first.evaluates, names)), 60, "all are evaluated")
    others = [world.add() for _ in range(size - 1)]
    for other in others:
        await other.start().reload(*names)
    await asyncio.sleep(1.0)
    return world, [first, *others], names


async def _die(world: World, machine: Machine, *names: str) -> None:
    """A kill -9, and its session ends now."""
    await machine.tasks.stop_all()
    for name in names:
        machine.terms.lost(name)
    (session,) = world.store._sessions
    await world.store.destroy_session(session)


@virtual
async def test_many_locks_of_a_dead_evaluator_are_taken_a_few_at_a_time() -> None:
    """With answers after 0.1 s, sixty one after the other would take six seconds."""
    world, (first, second), names = await _many(2, 60)
    counts = _abreast(second, 0.1)
    await _die(world, first, *names)
    await until(lambda: any(map(second.evaluates, names)), 5, "one is taken")
    took_s = await until(lambda: all(map(second.evaluates, names)), 10, "all are taken")
    assert took_s < 2.0
    assert counts[0] == 1
    assert max(counts) == MOST
    assert len(counts) == len(names), "each was asked for once"
    assert second.link.calls["create"] == _sessions(world) == 1


@virtual
async def test_where_many_stand_for_many_locks_few_are_asked_for_in_vain() -> None:
    """Who is refused goes on one by one: a fleet asks for no more than it did one by one."""
    world, (first, *others), names = await _many(20, 30)
    counts = [_abreast(other, 0.1) for other in others]
    await _die(world, first, *names)
    taken = lambda name: any(other.evaluates(name) for other in others)  # noqa: E731
    await until(lambda: all(map(taken, names)), 5, "all are taken")
    await asyncio.sleep(3.0)
    assert [sum(other.evaluates(name) for other in others) for name in names] == [1] * len(names)
    assert sum(map(len, counts)) < 5 * len(names)
    assert len({other.elector.may_write(name) for other in others for name in names} - {None}) == (
        _sessions(world)
    )


@virtual
async def test_a_session_that_ends_under_several_tries_is_replaced_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One hears of it first; what the others were granted under it is no term any more."""
    world, (first, second), names = await _many(2, 30)
    counts, ended = _abreast(second, 0.0), False
    acquire = second.link.acquire

    async def interrupted(key: str, value: bytes, session: str) -> Entry | None:
        nonlocal ended
        entry = await acquire(key, value, session)
        await asyncio.sleep(0.1)  # it is granted; now its answer is on its way
        if ended:
            await asyncio.sleep(0.1)
        elif max(counts) == MOST:
            ended = True
            await world.store.destroy_session(session)
            raise SessionLost("gone")
        return entry

    monkeypatch.setattr(second.link, "acquire", interrupted)
    await _die(world, first, *names)
    await until(lambda: ended, 10, "several are on their way")
    ended_at = now()
    await until(lambda: second.said("stood_down"), 1, "it knows")
    await until(lambda: all(map(second.evaluates, names)), 20, "all are taken in the end")
    assert now() - ended_at < 10
    assert {lost["why"] for lost in second.said("stood_down")} == {"the session is gone"}
    assert len(second.said("elected")) == len(names) + len(second.said("stood_down"))
    assert second.link.calls["create"] == 2
    assert _sessions(world) == 1


@virtual
async def test_a_session_is_renewed_between_tries_however_many_there_are() -> None:
    """All of them together take longer here than it lives."""
    world, (first, second), names = await _many(2, 100)
    _abreast(second, TTL_S / 8)
    await _die(world, first, *names)
    await until(lambda: any(map(second.evaluates, names)), 10, "one is taken")
    took_s = await until(lambda: all(map(second.evaluates, names)), 60, "all are taken")
    assert took_s > TTL_S
    assert not second.said("stood_down")
    assert second.link.calls["create"] == 1


@virtual
async def test_a_stop_in_the_middle_of_several_tries_leaves_no_lock_behind() -> None:
    """Those whose answer wasn't waited for come free with the session."""
    world, (first, second), names = await _many(2, 30)
    counts = _abreast(second, 0.1)
    await _die(world, first, *names)
    await until(lambda: counts and max(counts) == MOST, 10, "several are on their way")
    tasks = len(asyncio.all_tasks())
    await second.stop()
    assert len(asyncio.all_tasks()) < tasks
    assert _sessions(world) == 0
    locks = [await world.entry(WIRE.leader(name)) for name in names]
    assert not [lock for lock in locks if lock is not None and lock.session is not None]


@virtual
async def test_a_dead_holder_is_replaced_after_ttl_and_lock_delay() -> None:
    """Nobody is refused more than a few times meanwhile."""
    world = World()
    first, *others = await world.led(3)
    await first.die()
    took_s = await until(lambda: any(m.leads for m in others), 30, "another leads")
    assert took_s < TTL_S + LOCK_DELAY_S + 1.0
    assert sum(m.link.calls["acquire"] for m in others) <= 4
    assert _sessions(world) == 1


@virtual
async def test_it_stands_down_before_its_session_can_have_ended() -> None:
    """By its own clock, counted from when the last renewal was sent."""
    world = World()
    (first,) = await world.led()
    await asyncio.sleep(60)
    session = first.elector.may_write("default")
    assert session is not None
    sent: list[float] = []

    async def note(*_: object) -> None:
        sent.append(now())

    first.link.hooks["renew"] = note
    await until(lambda: sent, 5, "a renewal is sent")
    last = sent[0]
    first.link.cut("renew", "create", "destroy")
    await asyncio.sleep(last + TTL_S - 0.01 - now())
    assert first.elector.may_write("default") == session
    await asyncio.sleep(last + TTL_S - 0.0005 - now())  # it was sent a millisecond earlier
    assert first.elector.may_write("default") is None
    assert now() < world.store._sessions[session].ends, "the store still has it"
    assert len(sent) > 5, "it tried until its own deadline"
    await asyncio.sleep(0.1)
    assert not first.leads
    assert first.said("stood_down")[0]["why"] == "the session could not be renewed in time"
    first.link.mend()
    await until(lambda: first.leads, 30, "it comes back")


@virtual
async def test_some_failed_renewals_cost_nothing() -> None:
    """A renewal is due after a third of the time to live."""
    world = World()
    (first,) = await world.led()
    for _ in range(3):
        first.link.fail("renew", *[Before(AWAY)] * 3, After(AWAY))
        await asyncio.sleep(TTL_S)
        assert first.leads
    assert first.link.calls["create"] == 1
    assert not first.said("stood_down")


@virtual
async def test_a_larger_time_to_live_is_obeyed() -> None:
    """Asked for 10 s, the server gives a minute."""
    world = World()
    first = world.add()
    first.link.ttl_s = 60.0
    first.start()
    await until(lambda: first.leads, 5, "it leads")
    await asyncio.sleep(100)
    assert first.link.calls["renew"] in (4, 5)


@virtual
async def test_a_lost_session_is_noticed_by_the_renewal() -> None:
    """404: every lock is gone, now."""
    world = World()
    (first,) = await world.led()
    first.link.fail("renew", Before(SessionLost("gone")))
    await until(lambda: first.said("stood_down"), 5, "it knows")
    assert first.said("stood_down")[0]["why"] == "the session is gone"
    assert first.elector.may_write("default") is None
    await until(lambda: first.leads, 15, "it stands again")


@virtual
async def test_a_session_that_was_made_too_late_is_given_back() -> None:
    """Somebody else has the lock by then: it ends at once."""
    world = World(seed=3)
    (first,) = await world.led()
    second = world.add().start()
    await first.stop()
    await until(lambda: second.leads, 2, "the second leads")
    third = world.add(ttl_s=10.0).start()
    await asyncio.sleep(5)
    assert third.link.calls["create"] == 0
    assert _sessions(world) == 1


@virtual
async def test_a_lock_whose_acquisition_was_not_confirmed_is_taken_up() -> None:
    """The watch says whose it is."""
    world = World()
    first = world.add()
    first.link.fail("acquire", After(AWAY))
    first.start()
    assert await until(lambda: first.leads, 15, "it leads in the end") < 5
    assert _sessions(world) == 1


@virtual
async def test_an_unconfirmed_lock_is_taken_up_beside_others() -> None:
    """The session goes on for the other breaker, so this lock would never come free."""
    world = World()
    (first,) = await world.led()
    first.link.fail("acquire", After(AWAY))
    await first.reload("default", "other")
    assert await until(lambda: first.evaluates("other"), 10, "it is evaluated") < 5
    assert first.leads
    assert _sessions(world) == 1


@virtual
async def test_breakers_that_are_taken_out_and_put_back_go_on_being_evaluated() -> None:
    """The file was empty for a moment, while Consul was slow: no lock is ours without a term."""
    world = World()
    (first,) = await world.led()
    names = ("default", "a", "b", "c")
    await first.reload(*names)
    await until(lambda: all(map(first.evaluates, names)), 10, "all are evaluated")
    answered = asyncio.Event()

    async def slow(*_: object) -> None:
        await answered.wait()

    for how in ("release", "renew"):
        first.link.hooks[how] = slow
        answered.clear()
        await asyncio.sleep(TTL_S / 2)
        await first.reload("default")
        await asyncio.sleep(0.5)
        await first.reload(*names)
        await asyncio.sleep(0.5)
        answered.set()
        assert await until(lambda: all(map(first.evaluates, names)), 30, "all again") < 10
    assert _sessions(world) == 1


@virtual
async def test_a_follower_never_stands() -> None:
    """Not for a lock that was never held, nor for one that came free."""
    world = World()
    follower = world.add(follower=True).start()
    await asyncio.sleep(30)
    assert not {"create", "acquire", "commit", "list"} & follower.link.calls.keys()
    (first,) = await world.led()
    await first.die()
    await asyncio.sleep(60)
    assert await _holder(world) is None
    assert not {"create", "acquire", "commit", "list"} & follower.link.calls.keys()


@virtual
async def test_who_becomes_a_follower_hands_over_at_once() -> None:
    """A reload says so: without a lock-delay, and without a session that is left behind."""
    world = World()
    first, second = await world.led(2)
    first.elector.candidate = replace(first.elector.candidate, follower=True)
    first.elector.wake.set()
    assert await until(lambda: second.leads, 3, "the other leads") < 1.5
    assert not first.leads
    assert _sessions(world) == 1
    await second.die()
    await asyncio.sleep(60)
    assert await _holder(world) is None


@virtual
async def test_a_deleted_lock_is_contended_for_at_once() -> None:
    """By its old holder too."""
    world = World()
    (first,) = await world.led()
    await world.store.delete(LOCK)
    await until(lambda: not first.leads, 1, "its term has ended")
    assert await until(lambda: first.leads, 3, "it leads again") < 1.5
    assert _sessions(world) == 1
    assert first.said("stood_down")[0]["why"] == "somebody else took or deleted the lock"


@virtual
async def test_a_broken_lock_value_is_restored_once_a_second() -> None:
    """However often somebody writes there; the term goes on."""
    world = World()
    (first,) = await world.led()
    before = first.link.calls["acquire"]
    for _ in range(50):
        await world.store.put(LOCK, b"junk" + str(now()).encode())
        await asyncio.sleep(0.1)
    await asyncio.sleep(1.5)
    assert await _holder(world) == first.name
    assert 4 <= first.link.calls["acquire"] - before <= 7
    assert first.said("lock_broken")
    assert first.leads
    assert not first.said("stood_down")


@virtual
async def test_a_broken_value_is_restored_when_the_store_answers_again() -> None:
    """A correction that failed is tried again without any other news."""
    world = World()
    (first,) = await world.led()
    first.link.fail("acquire", Before(AWAY), Before(AWAY))
    await world.store.put(LOCK, b"junk")
    await asyncio.sleep(4)
    assert await _holder(world) == first.name


@virtual
async def test_who_lacks_the_right_says_so_once_and_asks_less() -> None:
    """Denied is no reason to ask four times a second."""
    world = World()
    first = world.add()
    first.link.always["acquire"] = Before(StoreDenied("no session:write"))
    first.start()
    await asyncio.sleep(120)
    assert len(first.said("store_denied")) == 1
    assert first.link.calls["acquire"] < 60
    assert first.link.calls["create"] < 60


@virtual
async def test_a_lock_given_up_is_left_to_others_for_a_while() -> None:
    """Whoever can't evaluate lets the others do it, and is back when its pause is over."""
    world = World()
    first, second = await world.led(2)
    await first.elector.give_up("default", 30.0, "for a test")
    await until(lambda: second.leads, 2, "the other leads")
    await second.die()
    began = now()
    await asyncio.sleep(15)
    assert not first.leads, "its pause isn't over"
    await until(lambda: first.leads, 30, "it stands again")
    assert now() - began > 25


@virtual
async def test_what_could_not_be_released_is_released_when_the_store_answers() -> None:
    """Otherwise nobody could take the lock before the old session's ttl is over."""
    world = World()
    first, second = await world.led(2)
    first.link.cut("release", "destroy")
    await first.elector.give_up("default", 60.0, "for a test")
    await asyncio.sleep(5.0)
    assert not second.leads
    assert await _holder(world) == first.name
    first.link.mend()
    assert await until(lambda: second.leads, 5, "the other leads") < 3.0
    assert _sessions(world) == 1


@virtual
async def test_a_session_not_trusted_any_more_is_ended_when_the_store_answers() -> None:
    """The store may keep it for twice its ttl, and it holds the lock as long."""
    world = World()
    first, second = await world.led(2)
    first.link.cut("renew", "release", "destroy")
    for live in world.store._sessions.values():  # the server may keep it for longer
        live.ends += 2 * TTL_S
    await until(lambda: not first.leads, TTL_S + 1, "it stands down")
    first.link.mend()
    began = now()
    await until(lambda: first.leads or second.leads, 5, "one of them leads")
    assert now() - began < 3.0
    await until(lambda: _sessions(world) == 1, 1, "the old session is gone")


@virtual
async def test_what_is_still_owed_does_no_harm_to_a_new_term() -> None:
    """The release went through, its answer got lost, and a new session has the lock by now."""
    world = World()
    (first,) = await world.led()
    first.link.fail("release", After(AWAY), *[Before(AWAY)] * 3)
    await first.elector.give_up("default", 0.1, "for a test")
    await until(lambda: first.leads, 5, "it leads again")
    await asyncio.sleep(30.0)
    assert first.leads
    assert first.link.calls["release"] == 5, "and then it was paid"
    assert _sessions(world) == 1


@virtual
async def test_a_pause_alone_ends_by_itself() -> None:
    """Nothing else happens then that would wake anybody."""
    world = World()
    (first,) = await world.led()
    await first.elector.give_up("default", 5.0, "for a test")
    assert not first.leads
    took_s = await until(lambda: first.leads, 10, "it stands again")
    assert 5.0 <= took_s < 6.0


@virtual
async def test_a_breaker_that_is_no_longer_configured_is_released() -> None:
    """And its session ends, as nothing is held any more."""
    world = World()
    first, second = await world.led(2)
    contact = first.board.contact
    first.board.reconfigure([], None, contact, now=first.clock.now())
    first.elector.wake.set()
    await until(lambda: second.leads, 2, "the other leads")
    await asyncio.sleep(0.1)
    assert first.link.calls["destroy"] == 1
    assert _sessions(world) == 1
