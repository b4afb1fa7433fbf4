"""Loops that end are said and begun again; wake-ups are neither lost nor piled up."""

from __future__ import annotations

import asyncio
import itertools

import pytest

from sidecar.loops.guard import Signal, Tasks, unless
from tests.telemetry import RecordedTelemetry
from tests.unit.loops.virtual import now, virtual


@virtual
async def test_a_loop_that_fails_is_said_and_begun_again() -> None:
    """After a growing pause, for as long as it goes on failing."""
    telemetry, begun = RecordedTelemetry(), list[float]()
    tasks = Tasks(telemetry)

    async def loop() -> None:
        begun.append(now())
        if len(begun) == 2:
            return  # the end of a loop is as wrong
        raise KeyError("a defect")

    tasks.start("broken", loop)
    await asyncio.sleep(200)
    assert 8 < len(begun) < 40
    gaps = [later - earlier for earlier, later in itertools.pairwise(begun)]
    assert max(gaps[:2]) < 3 < max(gaps)
    assert max(gaps) <= 31
    said = [(level, fields["task"], fields["error"]) for _, level, fields in telemetry.events]
    assert said[0] == ("error", "broken", "KeyError: 'a defect'")
    assert said[1] == ("error", "broken", "RuntimeError: it ended by itself")
    assert {name for name, _, _ in telemetry.events} == {"task_failed"}
    await tasks.stop_all()
    count = len(begun)
    await asyncio.sleep(60)
    assert len(begun) == count


@virtual
async def test_tasks_are_named_and_end_youngest_first() -> None:
    """A name is used once at a time; stopping an unknown one is fine."""
    tasks, ended = Tasks(RecordedTelemetry()), list[str]()

    def loop(name: str) -> None:
        async def run() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                ended.append(name)

        tasks.start(name, run)

    for name in ("a", "b", "c"):
        loop(name)
    with pytest.raises(ValueError, match="a is running"):
        loop("a")
    assert {task.get_name() for task in asyncio.all_tasks()} >= {"a", "b", "c"}
    await asyncio.sleep(0.01)
    await tasks.stop("b")
    await tasks.stop("unknown")
    loop("b")
    await asyncio.sleep(0.01)
    await tasks.stop_all()
    assert ended == ["b", "b", "c", "a"]


@virtual
async def test_a_task_that_does_not_end_is_abandoned() -> None:
    """Two seconds are all that a stop waits for it."""
    tasks = Tasks(RecordedTelemetry())
    done = asyncio.Event()

    async def stubborn() -> None:
        while not done.is_set():
            try:
                await done.wait()
            except asyncio.CancelledError:
                continue

    tasks.start("stubborn", stubborn)
    await asyncio.sleep(0.01)
    began = now()
    await tasks.stop_all()
    assert now() - began == pytest.approx(2.0, abs=0.01)
    done.set()


@virtual
async def test_a_wake_up_before_the_wait_is_not_lost() -> None:
    """And three of them are one."""
    signal = Signal()
    for _ in range(3):
        signal.set()
    assert await signal.wait(5.0)
    began = now()
    assert not await signal.wait(5.0)
    assert now() - began == pytest.approx(5.0, abs=0.01)
    asyncio.get_running_loop().call_later(1.0, signal.set)
    assert await signal.wait(None)
    assert now() - began == pytest.approx(6.0, abs=0.01)


@virtual
async def test_a_wait_of_no_time_lets_others_run() -> None:
    """Else a loop with something always due would keep everybody out."""
    signal, ran = Signal(), list[int]()
    asyncio.get_running_loop().call_soon(ran.append, 1)
    assert not await signal.wait(0.0)
    assert ran == [1]
    assert not await signal.wait(-1.0)
    signal.set()
    assert await signal.wait(0.0)


@virtual
async def test_a_work_ends_with_a_stop_and_leaves_nothing_behind() -> None:
    """Or is done; or fails, which is for whoever asked for it."""
    stopping, said = asyncio.Event(), list[str]()
    before = asyncio.all_tasks()

    async def work(seconds: float) -> None:
        try:
            await asyncio.sleep(seconds)
            if seconds == 1.0:
                raise KeyError("a defect")
            said.append("done")
        finally:
            said.append("ended")

    assert await unless(stopping, work(2.0), "work")
    assert said == ["done", "ended"]
    with pytest.raises(KeyError):
        await unless(stopping, work(1.0), "work")
    asyncio.get_running_loop().call_later(0.5, stopping.set)
    began = now()
    assert not await unless(stopping, work(60.0), "work")
    assert now() - began == pytest.approx(0.5)
    assert said == ["done", *["ended"] * 3]
    assert not await unless(stopping, work(60.0), "work"), "it was to stop before"
    assert asyncio.all_tasks() == before
