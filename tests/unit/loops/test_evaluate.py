"""What becomes of a write, when one is made, and when an evaluator had better let go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import msgspec
import pytest

from sidecar.core.errors import StoreDenied, StoreUnreachable
from sidecar.core.ports import Fence, Put
from sidecar.core.types import Record
from sidecar.loops.evaluate import DENIED_PAUSE_S
from tests.unit.loops.machine import POLICY, WALL_AT, WIRE, After, Before, Machine, World
from tests.unit.loops.virtual import now, stand_still, until, virtual

STATE, HISTORY, LOCK = WIRE.state("default"), WIRE.history("default"), WIRE.leader("default")
AWAY = StoreUnreachable("away")


def _transitions(machine: Machine) -> int:
    counts = machine.telemetry.counts.items()
    return sum(n for (name, _), n in counts if name == "breaker_transitions_total")


def _evaluations(machine: Machine, result: str) -> int:
    return machine.telemetry.counted("breaker_evaluations_total", breaker="default", result=result)


# --- when -------------------------------------------------------------------------------------


@virtual
async def test_a_report_trips_at_once_and_once() -> None:
    """In the round that its arrival starts, as one transaction."""
    world = World()
    first, second = await world.led(2)
    before = first.link.calls["commit"]
    await world.report(fail=25)
    assert await until(lambda: second.state == "OPEN", 1, "the other knows") < 0.05
    record = await world.settled("OPEN")
    await world.pass_time(5)
    assert await world.record() == record
    assert first.link.calls["commit"] == before + 1
    assert second.link.calls["commit"] == 0
    assert await world.edges() == [("CLOSED", "OPEN")]
    (said,) = first.said("transition")
    assert said["evidence_failures"] == 25


@virtual
async def test_open_ends_by_time_alone() -> None:
    """Nobody reports and nobody asks: HALF_OPEN comes when `open_for` is over."""
    world = World()
    await world.led(3)
    await world.report(fail=25)
    await world.settled("OPEN")
    opened = now()
    await world.settled("HALF_OPEN", 60)
    assert now() - opened == pytest.approx(30.0, abs=0.1)


@virtual
async def test_healthy_reports_walk_the_ramp_and_silence_does_not() -> None:
    """Eight steps over `ramp`; then a pause in the reports holds the ratio where it is."""
    world = World()
    await world.led(2)
    await world.report(fail=25)
    await world.settled("HALF_OPEN", 60)
    await world.pass_time(90)
    held = await world.record()
    assert held is not None
    assert (held.current_state, held.admit_ratio) == ("HALF_OPEN", 0.05)
    began = now()
    await world.reporting(12)
    assert 0.1 < (await world.settled("HALF_OPEN")).admit_ratio < 0.6
    await world.reporting(25)
    assert (await world.settled("CLOSED")).reason == "recovered"
    assert now() - began < 45


@virtual
async def test_a_flood_of_reports_is_read_in_bounds() -> None:
    """A change each millisecond is a round each 20 ms, and no round is missed at the end."""
    world = World()
    (first,) = await world.led()
    before = first.link.calls["list"]
    for n in range(1000):
        await world.report(f"c-{n % 7}", ok=1)
        await world.pass_time(0.001)
    assert first.link.calls["list"] - before <= 60
    await world.report("c-8", fail=25)
    assert await until(lambda: first.state == "OPEN", 1, "it trips") < 0.06


@virtual
async def test_a_looser_foreign_state_is_corrected_once_a_second() -> None:
    """Whatever the rhythm of the other; the last word is ours."""
    policy = replace(POLICY, reassert=True)
    world = World(policy)
    await world.led(2)
    await world.report(fail=25)
    opened = await world.settled("OPEN")
    for _ in range(100):
        await world.foreign("CLOSED")
        await world.pass_time(0.1)
    await world.pass_time(1.1)
    last = await world.settled("OPEN")
    assert last.reason == "reasserted"
    assert 9 <= last.seq - opened.seq <= 12
    assert await world.edges() == [("CLOSED", "OPEN")]


# --- what becomes of a write ------------------------------------------------------------------


@virtual
async def test_a_refused_write_is_dropped_and_judged_anew() -> None:
    """Somebody else wrote between the look and the write: his word is taken in first."""
    world = World()
    (first,) = await world.led()

    async def meddle(_: Fence, writes: Sequence[Put]) -> None:
        first.link.hooks.clear()
        await world.foreign("CLOSED")

    first.link.hooks["commit"] = meddle
    await world.report(fail=25)
    opened = await world.settled("OPEN")
    assert await world.edges() == [("CLOSED", "OPEN")]
    assert opened.seq == 3
    assert _evaluations(first, "refused") == 1
    assert first.telemetry.counted("breaker_cas_conflicts_total") == 1
    assert len(first.said("write_refused")) == 1


@virtual
async def test_who_has_lost_the_lock_writes_nothing() -> None:
    """The transaction says so, though the session lives on and the watch is yet to tell."""
    world = World()
    first, second = await world.led(2)
    session = first.elector.may_write("default")
    assert session is not None
    thief: list[str] = []

    async def steal(*_: object) -> None:
        first.link.hooks.clear()
        await world.store.release(LOCK, b"", session)
        thief.append((await world.store.create_session("thief", 60, 0)).id)
        assert await world.store.acquire(LOCK, b"", thief[0])

    first.link.hooks["commit"] = steal
    await world.report(fail=25)
    await until(lambda: first.said("stood_down"), 5, "it knows")
    assert _evaluations(first, "refused") == 1
    assert (await world.settled("CLOSED")).seq == 1
    assert await world.edges() == []
    await world.store.destroy_session(thief[0])
    opened = await world.settled("OPEN")
    assert opened.seq == 2
    assert _transitions(first) + _transitions(second) == 1


@virtual
async def test_a_lost_answer_of_an_applied_write() -> None:
    """Read again, found, told and counted once."""
    world = World()
    first, second = await world.led(2)
    first.link.fail("commit", After(AWAY))
    await world.report(fail=25)
    opened = await world.settled("OPEN")
    await until(lambda: _transitions(first) == 1, 6, "it knows")
    await world.pass_time(20)
    assert await world.record() == opened
    assert opened.seq == 2
    assert await world.edges() == [("CLOSED", "OPEN")]
    assert (_transitions(first), _transitions(second)) == (1, 0)
    assert len(first.said("transition")) == 1
    assert _evaluations(first, "failed") == 1


@virtual
async def test_a_lost_answer_of_a_write_that_was_never_applied() -> None:
    """Judged and written anew, with the same number."""
    world = World()
    (first,) = await world.led()
    first.link.fail("commit", Before(AWAY), Before(AWAY))
    await world.report(fail=25)
    opened = await world.settled("OPEN")
    await world.pass_time(1)
    assert opened.seq == 2
    assert await world.edges() == [("CLOSED", "OPEN")]
    assert _transitions(first) == 1
    assert len(first.said("evaluation_failed")) == 1


@virtual
async def test_a_write_in_doubt_is_not_repeated_while_nobody_can_read() -> None:
    """The store is away for a while right after it: the key comes first, then any other write."""
    world = World()
    (first,) = await world.led()
    first.link.fail("commit", After(AWAY))
    first.link.cut("read", "watch")
    await world.report(fail=25)
    await world.settled("OPEN")
    await world.pass_time(8)
    assert first.link.calls["commit"] == 2  # one made the record, one opened it
    first.link.mend()
    await until(lambda: _transitions(first) == 1, 10, "it knows")
    assert await world.edges() == [("CLOSED", "OPEN")]


@virtual
async def test_a_write_in_doubt_that_was_written_over_stays_in_the_history() -> None:
    """Applied, unconfirmed, and replaced by a foreign one before anybody looked."""
    world = World()
    (first,) = await world.led()
    first.link.fail("commit", After(AWAY))
    first.link.cut("read", "watch")
    await world.report(fail=25)
    await world.settled("OPEN")
    await world.foreign("CLOSED")
    first.link.mend()
    closed = await world.settled("CLOSED")
    assert closed.reason == "foreign"
    assert closed.seq == 3
    assert await world.edges() == [("CLOSED", "OPEN")]
    assert (await world.history())[0].seq == 2
    assert _transitions(first) == 1


@virtual
async def test_a_token_that_may_not_write_lets_others() -> None:
    """Denied: the lock is released, and not stood for again for a while."""
    world = World()
    first = world.add()
    first.link.always["commit"] = Before(StoreDenied("no key:write"))
    first.start()
    await until(lambda: first.said("stood_down"), 10, "it lets go")
    second = world.add().start()
    await until(lambda: second.leads, 5, "another leads")
    assert (await world.settled("CLOSED")).evaluator == second.name
    first.link.mend()
    await second.die()
    await until(lambda: first.leads, DENIED_PAUSE_S + 15, "it stands again")


@virtual
async def test_a_token_that_may_not_read_the_history_lets_others() -> None:
    """It can't know how far seq and epoch have come."""
    world = World()
    first = world.add()
    first.link.always["read"] = Before(StoreDenied("no key:read"))
    first.start()
    await until(lambda: first.said("stood_down"), 10, "it lets go")
    await world.pass_time(5)
    assert await world.record() is None
    second = world.add().start()
    await until(lambda: second.leads, 5, "another leads")


# --- what can't be read -----------------------------------------------------------------------


@virtual
async def test_who_cannot_read_the_reports_lets_go() -> None:
    """After three intervals; what it can't read is unknown and never healthy."""
    world = World()
    first, second = await world.led(2)
    await world.report(fail=25)
    await world.settled("HALF_OPEN", 60)
    first.link.cut("list")
    began = now()
    await world.reporting(8)
    await until(lambda: second.leads, 20, "the other leads")
    assert now() - began < 30
    assert first.said("stood_down")[-1]["why"] == "the reports can't be read"
    half = await world.settled("HALF_OPEN")
    await world.reporting(10)
    after = await world.settled("HALF_OPEN")
    assert after.seq > half.seq
    assert after.evaluator == second.name
    assert after.open_count == half.open_count == 1


@virtual
@pytest.mark.parametrize("busy", [False, True])
async def test_who_stood_still_has_not_failed_to_read(busy: bool) -> None:
    """A machine that slept, waiting or in the gap behind a round, is back with its next session."""
    world = World()
    (first,) = await world.led()
    await world.pass_time(10.0)
    if busy:
        await world.report(fail=1)
        await world.pass_time(0.01)
    stand_still(60.0)
    await until(lambda: first.said("stood_down"), 5, "its session is over")
    assert await until(lambda: first.leads, 30, "it leads again") < 3.0
    assert {one["why"] for one in first.said("stood_down")} == {
        "the session could not be renewed in time"
    }


@virtual
async def test_reports_that_vanish_are_said_and_mean_nothing() -> None:
    """A token that lost its right sees an empty list: the verdict is unknown."""
    world = World()
    (first,) = await world.led()
    await world.report(ok=5)
    await until(lambda: first.cell.judgement and first.cell.judgement.verdict == "healthy", 5, "ok")
    await world.store.delete(world.report_key())
    await until(lambda: first.said("reports_empty"), 5, "it is said")
    assert first.cell.judgement is not None
    assert first.cell.judgement.verdict == "unknown"
    await world.pass_time(30)
    assert len(first.said("reports_empty")) == 1


@virtual
async def test_the_term_goes_on_from_the_history() -> None:
    """Seq, epoch and what was read at the last transition: old failures don't trip again."""
    world = World()
    (first,) = await world.led()
    await world.report(fail=25)
    opened = await world.settled("OPEN")
    await first.stop()
    await world.store.delete(STATE)
    second = world.add().start()
    created = await world.settled("CLOSED")
    assert (created.seq, created.reason) == (opened.seq + 1, "created")
    assert created.epoch > opened.epoch
    await world.pass_time(5)
    assert second.state == "CLOSED"
    await world.report(fail=25)
    assert (await world.settled("OPEN")).seq == opened.seq + 2


@pytest.mark.parametrize("junk", [b"", b"junk", b"{}", b'[1, {"seq": "x"}, null]'])
def test_junk_in_the_history_blocks_nothing(junk: bytes) -> None:
    """It is counted, said, and replaced by the next transition."""

    @virtual
    async def story() -> None:
        world = World()
        await world.store.put(HISTORY, junk)
        (first,) = await world.led()
        await world.report(fail=25)
        await world.settled("OPEN")
        assert await world.edges() == [("CLOSED", "OPEN")]
        assert first.telemetry.counted("breaker_bad_records_total", kind="history") == 1
        assert len(first.said("bad_history")) == 1

    story()


# --- dead reporters ---------------------------------------------------------------------------


@virtual
async def test_dead_reporters_are_deleted_in_bounds() -> None:
    """After `report_gc`, some at each tick, never one that is touched meanwhile."""
    world = World(replace(POLICY, report_gc_s=60.0))
    first, second = await world.led(2)
    for n in range(100):
        await world.report(f"c-{n}", ok=1)
    await world.pass_time(55)
    await world.report("c-0", ok=2)

    async def touch(key: str, cas: int | None) -> None:
        assert cas is not None
        if key == world.report_key("c-1"):
            first.link.hooks.clear()
            await world.report("c-1", ok=2)

    first.link.hooks["delete"] = touch
    await world.pass_time(30)
    page = await world.store.watch(f"{POLICY.reports_prefix}/", 0, 0)
    assert [entry.key for entry in page.entries] == [
        world.report_key("c-0"),
        world.report_key("c-1"),
    ]
    assert len(first.said("reporter_dropped")) == 98
    assert second.link.calls["delete"] == 0


@virtual
async def test_no_reporter_is_deleted_with_report_gc_0() -> None:
    """0 is never."""
    world = World(replace(POLICY, report_gc_s=0.0))
    (first,) = await world.led()
    await world.report(ok=1)
    await world.pass_time(3600)
    assert first.link.calls["delete"] == 0
    assert first.leads


# --- clocks -----------------------------------------------------------------------------------


@pytest.mark.parametrize("jump_s", [3600.0, -3600.0])
@pytest.mark.parametrize("state", ["CLOSED", "OPEN", "HALF_OPEN"])
def test_a_wall_clock_that_jumps_an_hour_causes_no_transition(state: str, jump_s: float) -> None:
    """Of the evaluator's machine and of a follower's; reports go on with the right time."""

    @virtual
    async def story() -> None:
        policy = replace(POLICY, open_duration_s=120.0, ramp_s=3000.0, half_open_max_s=5000.0)
        world = World(policy)
        first, second = await world.led(2)
        if state != "CLOSED":
            await world.report(fail=25)
        await world.settled(state, 200)
        await world.reporting(5)
        before = await world.settled(state)
        for machine in (first, second):
            machine.clock.jump[0] += jump_s
            await world.reporting(30)
            assert await world.settled(state) == before
            assert machine.state == state
            assert not machine.cell.decision.stale
        assert first.leads
        assert not first.said("stood_down")

    story()


@virtual
async def test_open_lasts_as_long_though_the_clock_jumps() -> None:
    """An hour ahead in the middle of it, and nothing ends early."""
    world = World()
    (first,) = await world.led()
    await world.report(fail=25)
    await world.settled("OPEN")
    opened = now()
    await world.pass_time(10)
    first.clock.jump[0] += 3600
    half = await world.settled("HALF_OPEN", 60)
    assert now() - opened == pytest.approx(30, abs=0.1)
    assert half.last_changed_at == pytest.approx(WALL_AT + now() + 3600, abs=1)


# --- who may not write ------------------------------------------------------------------------


@virtual
async def test_a_newer_schema_is_released_and_left_alone() -> None:
    """Neither this evaluator nor the next writes it."""
    world = World()
    machines = await world.led(3)
    record = await world.record()
    assert isinstance(record, Record)
    newer = msgspec.json.decode(WIRE.encode_state(record))
    newer |= {"schema": 2, "seq": 50, "current_state": "OPEN", "admit_ratio": 0.0}
    value = msgspec.json.encode(newer)
    await world.store.put(STATE, value)
    await world.report(fail=1000)
    await world.pass_time(120)
    entry = await world.entry(STATE)
    assert entry is not None
    assert entry.value == value
    assert not any(machine.leads for machine in machines)
    assert not world.store._sessions


@virtual
async def test_a_paused_machine_writes_nothing_when_it_wakes() -> None:
    """Its clock says that the session is over before anything else is asked."""
    world = World()
    (first,) = await world.led()
    await world.report(fail=25)
    await world.settled("OPEN")
    commits = first.link.calls["commit"]
    lease = first.elector._lease
    first.elector._lease = replace(lease, sent=lease.sent - 3600)  # an hour went by unseen
    assert first.evaluator is not None
    await first.evaluator.round()
    assert first.link.calls["commit"] == commits
    await until(lambda: first.said("stood_down"), 5, "it stands down")
