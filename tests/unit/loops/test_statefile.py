"""The state file: what it says, how it is replaced, and what happens where it can't be."""

# ruff: noqa: ASYNC110, ASYNC240
# A file has no event to wait for, and reading a small one takes no time.

from __future__ import annotations

import asyncio
import json
import os
import stat
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import pytest

from sidecar.core.board import Board
from sidecar.core.ports import Store, Wire
from sidecar.core.types import Policy, State
from sidecar.loops import statefile
from sidecar.loops.around import Around
from sidecar.loops.statefile import StateFile
from tests.unit.http.support import WALL_AT, Clock, Log, enter, make_board, make_record


class Both:
    """The loops' clock, moved by hand."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def now(self) -> float:
        return self._clock.now

    def wall_at(self) -> float:
        return WALL_AT + self._clock.now - 1000.0


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def board(clock: Clock) -> Board:
    return make_board(
        clock, Policy(name="default", fingerprint="f1"), Policy(name="b", fingerprint="f1")
    )


@pytest.fixture
def log() -> Log:
    return Log()


@pytest.fixture
def around(board: Board, clock: Clock, log: Log) -> Around:
    return Around(
        instance="alloc-1",
        store=cast("Store", None),
        wire=cast("Wire", None),
        board=board,
        telemetry=log,
        clock=cast("Any", Both(clock)),
        draw=lambda: 0.5,
        changed=lambda: None,
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "breakers.json"


@pytest.fixture
async def writer(around: Around, path: Path) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(StateFile(around, str(path)).run(), name="state file")
    yield task
    await ended(task)


async def ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task], timeout=10)


async def until(path: Path, **wanted: object) -> dict[str, Any]:
    async with asyncio.timeout(10):
        while True:
            try:
                said: dict[str, Any] = json.loads(path.read_bytes())
            except FileNotFoundError:
                await asyncio.sleep(0.01)
                continue
            if wanted.items() <= said["breakers"]["default"].items():
                return said
            await asyncio.sleep(0.01)


async def test_it_says_what_is_decided(
    writer: asyncio.Task[None], path: Path, board: Board, clock: Clock
) -> None:
    enter(board, clock, "default", make_record(State.CLOSED, 3))
    said = await until(path, seq=3)
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert said["schema"] == 1
    assert said["instance"] == "alloc-1"
    assert said["default"] == "default"
    assert said["written_at"].endswith("Z")
    assert said["breakers"].keys() == {"default", "b"}
    assert said["breakers"]["default"] == {
        "allowed": True,
        "state": "CLOSED",
        "reason": "failures",
        "detail": "25 failures in the last interval, threshold 20",
        "seq": 3,
        "admit_ratio": 1.0,
        "stale": False,
        "override": None,
        "retry_at": None,
    }
    enter(board, clock, "default", make_record(State.OPEN, 4))
    now_open = (await until(path, seq=4))["breakers"]["default"]
    assert (now_open["allowed"], now_open["admit_ratio"]) == (False, 0.0)
    assert now_open["retry_at"] > said["written_at"]
    enter(board, clock, "default", make_record(State.HALF_OPEN, 5))
    assert (await until(path, seq=5))["breakers"]["default"]["allowed"] is True
    enter(board, clock, "default", make_record(State.CLOSED, 6, ratio=0.4, reason="shed"))
    sheds = (await until(path, seq=6))["breakers"]["default"]
    assert (sheds["allowed"], sheds["state"], sheds["admit_ratio"]) == (True, "CLOSED", 0.4)
    assert sheds["retry_at"] > said["written_at"]


async def test_readers_never_see_half_of_it_and_it_is_not_written_without_end(
    writer: asyncio.Task[None], path: Path, board: Board, clock: Clock
) -> None:
    await until(path)
    seen, done = set(), threading.Event()

    def read() -> None:
        while not done.is_set():
            json.loads(path.read_bytes())
            seen.add(path.stat().st_ino)

    reading = asyncio.create_task(asyncio.to_thread(read), name="read")
    began = asyncio.get_running_loop().time()
    seq = 10
    while asyncio.get_running_loop().time() < began + 0.5:
        seq += 1
        enter(board, clock, "default", make_record(State.OPEN, seq))
        await asyncio.sleep(0.001)
    await until(path, seq=seq)
    done.set()
    await reading
    assert len(seen) <= 10
    assert list(path.parent.iterdir()) == [path]


async def test_its_age_shows_that_its_writer_lives(
    around: Around, path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statefile, "EVERY_S", 0.15)
    task = asyncio.create_task(StateFile(around, str(path)).run(), name="state file")
    before = (await until(path))["written_at"]
    clock.now += 5.0
    async with asyncio.timeout(10):
        while (await until(path))["written_at"] == before:
            await asyncio.sleep(0.01)
    await ended(task)


async def test_it_goes_with_its_writer_but_not_a_successors(around: Around, path: Path) -> None:
    first = asyncio.create_task(StateFile(around, str(path)).run(), name="first")
    await until(path)
    await ended(first)
    assert not path.exists()
    again = asyncio.create_task(StateFile(around, str(path)).run(), name="again")
    await until(path)
    successor = path.with_name("successor")
    successor.write_text("{}")
    successor.replace(path)
    await ended(again)
    assert path.read_text() == "{}"


@pytest.mark.parametrize("what", ["symlink", "dangling", "folder", "no folder"])
async def test_what_is_in_the_way_is_said_once_and_left_alone(
    around: Around, path: Path, log: Log, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statefile, "EVERY_S", 0.11)
    target = path.with_name("precious")
    if what == "symlink":
        target.write_text("precious")
    if what == "folder":
        path.mkdir()
    elif what == "no folder":
        path = path.parent / "missing" / path.name
    else:
        path.symlink_to(target)
    attempts: list[bytes] = []

    class Counted(StateFile):
        def render(self) -> bytes:
            attempts.append(super().render())
            return attempts[-1]

    task = asyncio.create_task(Counted(around, str(path)).run(), name="state file")
    async with asyncio.timeout(10):
        while len(attempts) < 4:
            await asyncio.sleep(0.01)
    assert [name for name, _ in log.events] == ["state_file_failed"]
    assert log.events[0][1]["path"] == str(path)
    if what == "no folder":
        path.parent.mkdir()
    elif what == "folder":
        path.rmdir()
    else:
        assert path.is_symlink()
        assert what == "dangling" or target.read_text() == "precious"
        path.unlink()
    assert (await until(path))["schema"] == 1  # it goes on by itself
    await ended(task)


async def test_a_leftover_of_the_same_process_id_is_no_hindrance(
    around: Around, path: Path
) -> None:
    path.with_name(f".{path.name}.{os.getpid()}.tmp").write_text("half of")
    task = asyncio.create_task(StateFile(around, str(path)).run(), name="state file")
    await until(path)
    await ended(task)
    assert list(path.parent.iterdir()) == []
