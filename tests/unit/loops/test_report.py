"""Local reports on their way to the store: when they are written, and what a failure costs."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from sidecar.core import signal_settings
from sidecar.core.errors import StoreUnreachable
from sidecar.core.intake import Post
from sidecar.core.types import Report, State
from sidecar.loops.report import MAX_PARALLEL, Reporter
from tests.unit.loops.machine import POLICY, WIRE, Before, Machine, World
from tests.unit.loops.virtual import now, virtual

INTERVAL_S = POLICY.report_interval_s


class Local:
    """A machine that takes reports in, and a log of what it writes."""

    def __init__(self) -> None:
        self.world = World()
        self.machine: Machine = self.world.add()
        self.reporter = Reporter(self.machine.around, None)
        self.machine.tasks.start("report", self.reporter.run)
        self.writes: list[tuple[float, str, Report]] = []
        self.tries: list[float] = []
        self.machine.link.hooks["put"] = self._note

    async def _note(self, key: str, value: bytes) -> None:
        report = WIRE.decode_report(value)
        assert isinstance(report, Report)
        self.tries.append(now())
        if not (self.machine.link.faults["put"] or self.machine.link.always):
            self.writes.append((now(), key.rpartition("/")[2], report))

    async def post(self, instance: str = "c-1", **counts: Any) -> None:
        await self.reporter.post(self.machine.cell, Post(instance=instance, **counts))

    @property
    def counts(self) -> list[tuple[float, float]]:
        """(ok, failed) of each write."""
        return [(r.count_ok or 0, r.count_fail) for _, _, r in self.writes]


@virtual
async def test_the_first_failing_post_goes_out_at_once() -> None:
    """The others are added up and follow once an interval."""
    local = Local()
    began = now()
    await local.post(count_ok=5, count_fail=1)
    await asyncio.sleep(0.05)
    assert local.counts == [(5, 1)]
    for _ in range(48):
        await asyncio.sleep(0.1)
        await local.post(count_ok=10, count_fail=2)
    await asyncio.sleep(1.0)
    assert local.counts == [(5, 1), (480, 96)]
    assert local.writes[1][0] - began == pytest.approx(INTERVAL_S, abs=0.1)
    report = local.writes[1][2]
    assert report.interval_s == pytest.approx(INTERVAL_S, abs=0.1)
    assert report.rate_ok == pytest.approx(480 / INTERVAL_S, rel=0.03)
    await asyncio.sleep(60)
    assert len(local.writes) == 2, "who is silent writes nothing"


@virtual
async def test_failures_after_healthy_intervals_do_not_wait() -> None:
    """Urgent is what nobody has been told of yet."""
    local = Local()
    for _ in range(3):
        await local.post(count_ok=10)
        await asyncio.sleep(INTERVAL_S)
    before = len(local.writes)
    await local.post(count_ok=10)
    await asyncio.sleep(0.5)
    await local.post(count_fail=7)
    await asyncio.sleep(0.05)
    assert len(local.writes) > before
    assert local.counts[-1][1] == 7


@virtual
async def test_many_breakers_make_nobody_late() -> None:
    """One after the other their writes would take four seconds here, and be stale by the next."""
    local = Local()
    names = [POLICY.name, *(f"b{number}" for number in range(39))]
    await local.machine.reload(*names)

    async def far(key: str, value: bytes) -> None:
        await asyncio.sleep(0.1)
        await local._note(key, value)

    local.machine.link.hooks["put"] = far
    began = now()
    for cell in local.machine.board.cells.values():
        await local.reporter.post(cell, Post(instance="c-1", count_fail=1))
    await asyncio.sleep(1.0)
    assert len(local.writes) == len(names)
    assert max(at for at, _, _ in local.writes) - began < 0.1 * (len(names) / MAX_PARALLEL + 1)
    await local.machine.tasks.stop_all()


@virtual
async def test_posts_that_come_together_go_out_together() -> None:
    """Many instances at once: each once, no more than some at the same time."""
    local = Local()
    running = most = 0

    async def slow(*_: object) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.05)
        running -= 1

    local.machine.link.hooks["put"] = slow
    for n in range(100):
        await local.post(f"c-{n}", count_fail=1)
    await asyncio.sleep(2)
    assert local.machine.link.calls["put"] == 100
    assert most == MAX_PARALLEL


@virtual
async def test_what_waits_for_its_turn_is_written_as_it_is_then() -> None:
    """While the store hangs, only what is in flight is fixed; the rest goes on being added up."""
    local = Local()
    hangs = asyncio.Event()

    async def hang(key: str, value: bytes) -> None:
        await hangs.wait()
        await local._note(key, value)

    local.machine.link.hooks["put"] = hang
    count = 4 * MAX_PARALLEL
    for n in range(count):
        await local.post(f"c-{n:03}", count_ok=1)
    await asyncio.sleep(3)
    for n in range(count):
        await local.post(f"c-{n:03}", count_ok=1)
    hangs.set()
    await asyncio.sleep(0.1)
    assert [report.count_ok for _, _, report in local.writes] == [
        *[1] * MAX_PARALLEL,
        *[2] * (count - MAX_PARALLEL),
    ]


@virtual
async def test_posts_that_are_not_due_wake_nobody() -> None:
    """Ten thousand a second may come."""
    local = Local()
    await local.post(count_ok=1)
    await asyncio.sleep(0.1)
    looks, due = 0, local.reporter._next_due

    def counted() -> float:
        nonlocal looks
        looks += 1
        return due()

    local.reporter._next_due = counted  # type: ignore[method-assign]
    for _ in range(400):
        await local.post(count_ok=1)
        await asyncio.sleep(0.01)
    assert looks <= 1
    await asyncio.sleep(INTERVAL_S)
    assert local.counts == [(1, 0), (400, 0)]


@virtual
async def test_a_store_that_is_away_is_asked_less_and_nothing_is_lost() -> None:
    """Said once; what is not too old goes out as one sum when the store is back."""
    local = Local()
    local.machine.link.cut("put")
    await local.post(count_ok=3, count_fail=1)
    for _ in range(8):
        await asyncio.sleep(1.0)
        await local.post(count_ok=3, count_fail=1)
    assert len(local.machine.said("report_unwritten")) == 1
    assert 4 < len(local.tries) < 30
    gaps = [b - a for a, b in zip(local.tries, local.tries[1:], strict=False)]
    assert max(gaps) > 4 * min(gaps), "it backs off"
    local.machine.link.mend()
    await asyncio.sleep(10)
    assert local.counts == [(27, 9)]


@virtual
async def test_old_failures_are_no_burst_of_new_ones() -> None:
    """What couldn't be written for three intervals is dropped."""
    local = Local()
    local.machine.link.cut("put")
    for _ in range(60):
        await local.post(count_fail=1)
        await asyncio.sleep(1.0)
    local.machine.link.mend()
    await asyncio.sleep(10)
    assert local.counts
    assert sum(failed for _, failed in local.counts) <= 3 * INTERVAL_S + 1


@virtual
async def test_trouble_is_said_again_after_it_was_over() -> None:
    """Once each time it begins."""
    local = Local()
    for _ in range(2):
        local.machine.link.fail("put", *[Before(StoreUnreachable("away"))] * 3)
        await local.post(count_fail=1)
        await asyncio.sleep(20)
    assert len(local.machine.said("report_unwritten")) == 2


@virtual
async def test_goodbyes_delete_keys() -> None:
    """One instance by its own word, the rest with the sidecar; unknown ones are no fault."""
    local = Local()
    for n in range(3):
        await local.post(f"c-{n}", count_fail=1)
    await local.world.report("elsewhere", ok=1)
    await asyncio.sleep(0.1)
    assert await local.reporter.withdraw(local.machine.cell, "c-0")
    assert not await local.reporter.withdraw(local.machine.cell, "c-0")
    assert not await local.reporter.withdraw(local.machine.cell, "elsewhere")
    assert await local.world.entry(local.world.report_key("c-0")) is None
    await local.machine.tasks.stop_all()
    local.machine.link.fail("delete", Before(StoreUnreachable("away")))
    await local.reporter.say_goodbye()
    left = await local.world.store.watch(f"{POLICY.reports_prefix}/", 0, 0)
    assert len(left.entries) == 2, "the one whose deletion failed goes stale"
    assert local.world.report_key("elsewhere") in {entry.key for entry in left.entries}


@virtual
async def test_reports_for_a_breaker_that_is_gone_are_dropped() -> None:
    """A reload took it away."""
    local = Local()
    await local.post(count_ok=1)
    await asyncio.sleep(0.1)
    await local.post(count_ok=1)
    board = local.machine.board
    cell = local.machine.cell
    board.reconfigure([], None, board.contact, now=local.machine.clock.now())
    await local.reporter.post(cell, Post(instance="c-2", count_fail=1))
    await asyncio.sleep(2 * INTERVAL_S)
    assert len(local.writes) == 1
    await local.reporter.say_goodbye()


@virtual
async def test_a_goodbye_during_a_write_leaves_nothing_behind() -> None:
    """The deletion may reach the store first; the report would count for a while otherwise."""
    local = Local()
    deleted = asyncio.Event()

    async def late(_key: str, _value: bytes) -> None:
        await deleted.wait()

    local.machine.link.hooks["put"] = late
    await local.post("c-1", count_fail=1)
    await asyncio.sleep(0.05)
    assert await local.reporter.withdraw(local.machine.cell, "c-1")
    deleted.set()
    await asyncio.sleep(0.05)
    assert await local.world.entry(local.world.report_key("c-1")) is None


@virtual
@pytest.mark.parametrize("stopping", [False, True])
async def test_a_goodbye_that_failed_can_be_said_again(stopping: bool) -> None:
    """By its reporter, or at last by the sidecar when it stops."""
    local = Local()
    await local.post("c-1", count_fail=1)
    await asyncio.sleep(0.05)
    local.machine.link.fail("delete", Before(StoreUnreachable("away")))
    with pytest.raises(StoreUnreachable):
        await local.reporter.withdraw(local.machine.cell, "c-1")
    assert await local.world.entry(local.world.report_key("c-1")) is not None
    if stopping:
        await local.machine.tasks.stop_all()
        await local.reporter.say_goodbye()
    else:
        assert await local.reporter.withdraw(local.machine.cell, "c-1")
        assert not await local.reporter.withdraw(local.machine.cell, "c-1")
    assert await local.world.entry(local.world.report_key("c-1")) is None


@virtual
@pytest.mark.parametrize("stopping", [False, True])
@pytest.mark.parametrize("kept", [False, True])
async def test_keys_where_a_reload_no_longer_keeps_them_are_deleted(
    kept: bool, stopping: bool
) -> None:
    """The breaker is gone, or keeps its reports elsewhere."""
    local = Local()
    await local.post("c-1", count_fail=1)
    await asyncio.sleep(0.1)
    key = local.world.report_key("c-1")
    assert await local.world.entry(key) is not None
    board = local.machine.board
    policies = [replace(POLICY, consul_key_prefix="else/where")] if kept else []
    board.reconfigure(policies, None, board.contact, now=local.machine.clock.now())
    if stopping:
        await local.machine.tasks.stop_all()
        await local.reporter.say_goodbye()
    else:
        await asyncio.sleep(61.0)
    assert await local.world.entry(key) is None


@virtual
async def test_keys_stay_where_another_breaker_keeps_its_reports_after_a_reload() -> None:
    """The breaker has another name now; its reporters go on."""
    local = Local()
    await local.post("c-1", count_fail=1)
    await asyncio.sleep(0.1)
    board = local.machine.board
    board.reconfigure([replace(POLICY, name="new")], None, board.contact, now=now())
    await asyncio.sleep(61.0)
    assert await local.world.entry(local.world.report_key("c-1")) is not None


@virtual
async def test_a_store_in_this_process_judges_before_the_answer() -> None:
    """Every post goes out at once and is awaited until it counts."""
    world = World()
    (machine,) = await world.led()

    async def settle(_: str) -> None:
        assert machine.evaluator is not None
        await machine.evaluator.settle()

    reporter = Reporter(machine.around, settle)
    await reporter.post(machine.cell, Post(instance="c-1", count_fail=19))
    assert machine.state == "CLOSED"
    await reporter.post(machine.cell, Post(instance="c-1", count_fail=1))
    assert machine.state == "OPEN"


@virtual
async def test_our_own_producers_word_is_in_force_before_it_is_written() -> None:
    """A consumer's is not, and neither waits for the store."""
    local = Local()
    gate = signal_settings.Local(minimum=10)
    delivery = signal_settings.Delivery(local=gate)
    cell = local.machine.cell
    cell.policy = replace(cell.policy, signals=signal_settings.SignalSettings(delivery=delivery))
    local.machine.link.cut("put")
    assert local.reporter.take(cell, Post(instance="c", count_fail=50))
    assert cell.decision.admit_ratio == 1.0
    assert local.reporter.take(cell, Post(instance="p", count_fail=10, role="producer"))
    assert cell.decision.state is State.OPEN
    assert cell.decision.reason == "delivery_local"
