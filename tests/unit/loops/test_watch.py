"""The long poll: what a page does to the board, what a rewound store means, and when to ask."""

from __future__ import annotations

import asyncio

import pytest

from sidecar.core.errors import StoreDenied, StoreUnreachable
from sidecar.core.ports import Entry, Page
from sidecar.core.types import Record, State
from sidecar.loops.cursor import Cursor
from sidecar.loops.pace import BREATH_S, MAX_GAP_S, MIN_GAP_S, Pace
from tests.unit.loops.machine import WIRE, Before, Machine, World
from tests.unit.loops.virtual import now, until, virtual

STATE, LOCK = WIRE.state("default"), WIRE.leader("default")


class Scripted:
    """A machine whose long polls are answered by the test."""

    def __init__(self) -> None:
        self.machine: Machine = World().add()
        self.asked: list[int] = []
        self._given = 0
        self._answers: asyncio.Queue[Page | Exception] = asyncio.Queue()
        setattr(self.machine.link, "watch", self._watch)  # noqa: B010 - a method in its place
        self.machine.tasks.start("watch", self.machine.watch.run)

    async def _watch(self, _prefix: str, index: int, _wait_s: float) -> Page:
        self.asked.append(index)
        answer = await self._answers.get()
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def answer(self, page: Page | Exception) -> None:
        """One answer, and what the watch makes of it, up to its next question."""
        self._given += 1
        self._answers.put_nowait(page)
        await until(lambda: len(self.asked) > self._given, 60, "the next question")


def record(seq: int, state: State = State.CLOSED) -> Record:
    """A record of ours."""
    return Record(
        current_state=state,
        last_changed_at=float(seq),
        seq=seq,
        epoch=1,
        automaton=state,
        reason="failures",
        detail="",
        admit_ratio=0.0 if state is State.OPEN else 1.0,
        automaton_ratio=0.0 if state is State.OPEN else 1.0,
        open_for_s=30.0 if state is State.OPEN else 0.0,
        policy="one",
        evaluator="somebody",
    )


def page(index: int, *entries: Entry, known_leader: bool = True) -> Page:
    return Page(index, entries, known_leader)


def stored(index: int, value: Record | bytes) -> Entry:
    """The state key."""
    data = value if isinstance(value, bytes) else WIRE.encode_state(value)
    return Entry(key=STATE, value=data, modify_index=index)


@virtual
async def test_it_asks_from_where_it_is() -> None:
    """0 first, then the index of the last answer."""
    story = Scripted()
    await story.answer(page(7, stored(5, record(1))))
    await story.answer(page(9, stored(9, record(2, State.OPEN))))
    assert story.asked == [0, 7, 9]
    assert story.machine.state == "OPEN"
    assert story.machine.cell.seq == 2
    assert story.machine.board.contact.synced is not None


@virtual
async def test_a_store_set_back_is_said_and_believed() -> None:
    """A restored snapshot: the record with the lower index is the one that holds."""
    story = Scripted()
    await story.answer(page(100, stored(100, record(9, State.OPEN))))
    await story.answer(page(40, stored(30, record(4))))
    assert story.machine.state == "CLOSED"
    assert story.machine.said("store_rewound") == [{"before": 100, "now": 40}]
    assert story.asked[-1] == 0, "asked anew without waiting"
    await story.answer(page(40, stored(30, record(4))))
    assert story.asked[-1] == 40
    seen = story.machine.cell.seen
    assert seen is not None
    assert seen.high_seq == 9, "seq goes on from what was seen"
    await story.answer(page(39))
    assert seen.record is not None
    assert story.machine.cell.seen is not None
    assert story.machine.cell.seen.record == seen.record, "a missing key changes nothing"


@virtual
async def test_equal_indexes_after_a_rewind_are_other_values() -> None:
    """What was seen at an index before the store's clock went back isn't what is there now."""
    story = Scripted()
    await story.answer(page(100, stored(30, record(4))))
    await story.answer(page(40, stored(30, record(5, State.OPEN))))
    assert story.machine.state == "OPEN"
    assert story.machine.cell.seq == 5


@virtual
async def test_silence_is_said_when_it_begins_and_when_it_ends() -> None:
    """However many polls fail in between; each failure is waited out longer, and not too long."""
    story = Scripted()
    await story.answer(page(7, stored(5, record(1))))
    synced = story.machine.board.contact.synced
    began = now()
    for _ in range(10):
        await story.answer(StoreUnreachable("away"))
    assert 10 < now() - began < 60
    assert len(story.machine.said("store_lost")) == 1
    assert not story.machine.said("store_back")
    assert story.machine.board.contact.synced == synced
    await story.answer(page(8, stored(5, record(1))))
    assert len(story.machine.said("store_back")) == 1
    await story.answer(StoreDenied("no right"))
    assert len(story.machine.said("store_lost")) == 2


@virtual
async def test_a_server_without_a_leader_proves_nothing() -> None:
    """Its values are shown, and the contact isn't fresh by it."""
    story = Scripted()
    await story.answer(page(7, stored(5, record(1)), known_leader=False))
    assert story.machine.cell.seq == 1
    assert story.machine.board.contact.synced is None
    await story.answer(page(8, stored(5, record(1))))
    assert story.machine.board.contact.synced is not None


@virtual
async def test_junk_is_counted_once_while_it_stays() -> None:
    """Other keys move on, the junk doesn't: it isn't new."""
    story = Scripted()
    await story.answer(page(5, stored(5, record(3, State.OPEN))))
    for index in (6, 7, 8):
        await story.answer(page(index, stored(6, b"junk")))
    telemetry = story.machine.telemetry
    assert telemetry.counted("breaker_bad_records_total", kind="state") == 1
    assert len(story.machine.said("bad_state")) == 1
    assert story.machine.state == "OPEN"
    await story.answer(page(9, stored(9, b"other junk")))
    assert telemetry.counted("breaker_bad_records_total", kind="state") == 2


@virtual
async def test_an_answer_that_changes_nothing_is_looked_into_once() -> None:
    """A restored store ends waiting queries with the index they had: ask without waiting."""
    story = Scripted()
    await story.answer(page(7, stored(5, record(1))))
    await story.answer(page(7, stored(5, record(1))))
    assert story.asked == [0, 7, 0]
    await story.answer(page(7, stored(5, record(1))))
    assert story.asked == [0, 7, 0, 7]


@virtual
async def test_a_prefix_that_churns_does_not_spin() -> None:
    """News is read at once and then at most every 20 ms; no news less and less often."""
    world = World()
    machine = world.add(follower=True).start()
    await asyncio.sleep(1)
    before = machine.link.calls["watch"]
    for n in range(1000):
        await world.store.put("breaker/elsewhere", str(n).encode())
        await asyncio.sleep(0.001)
    assert 10 < machine.link.calls["watch"] - before <= 60


@virtual
async def test_a_look_again_reads_everything_anew() -> None:
    """For breakers that nobody looked for before."""
    world = World()
    machine = world.add(follower=True).start()
    await asyncio.sleep(1)
    await machine.tasks.stop("watch")
    machine.watch.look_again()
    machine.tasks.start("watch", machine.watch.run)
    before = machine.link.calls["watch"]
    await asyncio.sleep(0.5)
    assert machine.link.calls["watch"] > before, "it doesn't wait for a change"


@virtual
async def test_a_defect_in_a_poll_is_said_and_the_poll_goes_on() -> None:
    """What isn't a store's fault is ours: the guard says so."""
    world = World()
    machine = world.add()
    machine.link.fail("watch", Before(KeyError("a defect")))
    machine.start()
    await until(lambda: machine.leads, 10, "it goes on")
    assert machine.said("task_failed")[0]["task"] == "watch"


def test_cursor() -> None:
    """An index that falls is told; an early answer without news is doubted once."""
    cursor = Cursor()
    assert cursor.ask == 0
    assert cursor.took(10, early=False) is None
    assert cursor.ask == 10
    assert cursor.took(10, early=False) is None, "the wait was over"
    assert cursor.ask == 10
    assert cursor.took(10, early=True) is None
    assert cursor.ask == 0
    assert cursor.took(10, early=True) is None
    assert cursor.ask == 10
    assert cursor.took(12, early=True) is None
    assert cursor.ask == 12
    assert cursor.took(11, early=True) == 12
    assert (cursor.ask, cursor.index) == (0, 0)
    assert cursor.took(3, early=True) is None
    assert cursor.ask == 3


def test_pace() -> None:
    """Short after news, doubling while nothing is new, and a mere breath after a long wait."""
    pace = Pace()
    assert pace.after(news=True, waited_s=0.0) == MIN_GAP_S
    gaps = [pace.after(news=False, waited_s=0.0) for _ in range(10)]
    assert gaps == sorted(gaps)
    assert gaps[-1] == MAX_GAP_S
    assert pace.after(news=False, waited_s=12.0) == BREATH_S
    assert pace.after(news=False, waited_s=0.0) == pytest.approx(2 * MIN_GAP_S)
    assert pace.after(news=True, waited_s=0.015) == BREATH_S
