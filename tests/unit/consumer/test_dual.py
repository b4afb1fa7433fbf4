"""Two clusters as one source: what is handed over, and what each is told is done."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.consumer.cluster import Cluster, Kept
from sidecar.consumer.dual import Dual, DualSource
from sidecar.consumer.merge import SEQUENCE, Gap
from sidecar.consumer.source import Place, Record, SourceError
from sidecar.consumer.trail import Step, Trail
from tests.servers import poll_until
from tests.unit.consumer.records import Rec

HERE = Place("t", 0)
WAIT_S = 0.3
PATIENCE_S = 10.0


class PaperCluster:
    """A cluster whose partition is a list; `away`: it can't be reached."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.log: list[Rec] = []
        self.at = 0
        self.away = False
        self.connected = False
        self.kept: Kept | None = None

    def add(self, *counters: int) -> None:
        for counter in counters:
            stamp = ((SEQUENCE, b"p/1/%d" % counter),)
            value = b"%d" % counter
            self.log.append(Rec(offset=100 + len(self.log), value=value, headers=stamp))

    @property
    def committed(self) -> dict[Place, int]:
        return {} if self.kept is None else {HERE: self.kept.offset}

    async def connect(self, topics: Collection[str]) -> dict[Place, Kept | None]:
        if self.away:
            raise SourceError("away")
        self.connected = True
        self.at = 0 if self.kept is None else self.kept.offset - 100
        return {HERE: self.kept}

    def assign(self, places: Collection[Place]) -> None:
        assert list(places) == [HERE]

    async def poll(
        self, most: int, wait_s: float, full: set[Place]
    ) -> Mapping[Place, Sequence[Record]]:
        await asyncio.sleep(0.01)
        if self.away or HERE in full:
            return {}
        batch, self.at = self.log[self.at :], len(self.log)
        return {HERE: batch} if batch else {}

    async def commit(self, positions: Mapping[Place, Kept]) -> None:
        if self.away:
            raise SourceError("away")
        self.kept = positions.get(HERE, self.kept)

    async def unread(self, places: Collection[Place]) -> dict[Place, int]:
        if self.away:
            raise SourceError("away")
        return {HERE: len(self.log) - self.at}

    async def stop(self) -> None:
        self.connected = False


class Nobody:
    """A listener."""

    async def assigned(self, places: Collection[Place]) -> None:
        assert list(places) == [HERE]

    async def revoked(self, places: Collection[Place], *, lost: bool) -> None:
        raise AssertionError("nothing is ever revoked")


@asynccontextmanager
async def two(
    away: Collection[int] = (), before: Sequence[PaperCluster] | None = None, **how: Any
) -> AsyncIterator[tuple[Dual, DualSource, PaperCluster, PaperCluster]]:
    """A source and its clusters; `before`: as another one has left them."""
    dual = Dual("t", first="a", second="b", **{"wait_s": WAIT_S, **how})
    clusters = before or (PaperCluster("first"), PaperCluster("second"))
    for side in away:
        clusters[side].away = True
    source = DualSource(dual, ["t"], cast("Sequence[Cluster]", clusters))
    await source.start(Nobody())
    try:
        yield dual, source, clusters[0], clusters[1]
    finally:
        await source.stop()


async def read(source: DualSource, count: int) -> list[int]:
    """The values of the next so many records."""
    found: list[int] = []
    async with asyncio.timeout(PATIENCE_S):
        while len(found) < count:
            for records in (await source.poll(count - len(found), 0.2)).values():
                found += [int(record.value or b"") for record in records]
    return found


async def test_each_is_told_only_what_is_done() -> None:
    async with two() as (dual, source, first, second):
        first.add(1, 3, 4)
        second.add(1)
        assert await read(source, 1) == [1]
        await poll_until(lambda: dual.figures.withheld == 2, PATIENCE_S, "two wait for the gap")
        await source.commit({HERE: 1})
        assert (first.committed, second.committed) == ({HERE: 101}, {HERE: 101})
        second.add(2, 3, 4)
        assert await read(source, 3) == [2, 3, 4]
        await source.commit({HERE: 2})
        assert (first.committed, second.committed) == ({HERE: 101}, {HERE: 102})
        await poll_until(lambda: dual.figures.copies == 3, PATIENCE_S, "all copies came")
        await source.commit({HERE: 4})
        assert (first.committed, second.committed) == ({HERE: 103}, {HERE: 104})
        assert (await source.ends([HERE]), await source.positions([HERE])) == ({HERE: 4}, {HERE: 4})


async def test_one_that_is_away_is_told_when_it_is_back() -> None:
    async with two() as (dual, source, first, second):
        first.add(1, 2)
        second.add(1, 2)
        assert await read(source, 2) == [1, 2]
        await poll_until(lambda: dual.figures.copies == 2, PATIENCE_S, "all copies came")
        second.away = True
        await source.commit({HERE: 2})
        assert (first.committed, second.committed) == ({HERE: 102}, {})
        second.away = False
        first.add(3)
        assert await read(source, 1) == [3]
        await source.commit({HERE: 3})
        assert (first.committed, second.committed) == ({HERE: 103}, {HERE: 102})
        first.away = second.away = True
        first.add(4)
        with pytest.raises(SourceError):
            await source.ends([HERE])


async def test_what_was_done_before_a_restart_is_neither_missing_nor_given_again() -> None:
    async with two() as (_, source, first, second):
        first.add(1, 2, 3)  # the second lacks one, and lags behind
        second.add(1)
        assert await read(source, 3) == [1, 2, 3]
        await source.commit({HERE: 1})
        await source.commit({HERE: 3})
        assert (first.committed, second.committed) == ({HERE: 103}, {HERE: 101})
    second.add(3, 4)
    async with two(before=(first, second)) as (dual, source, *_):
        assert await read(source, 1) == [4]
        assert (dual.figures.copies, dual.figures.gaps) == (1, 0)
        await source.commit({HERE: 1})
        assert second.committed == {HERE: 103}


async def test_what_the_cluster_knows_that_comes_later_is_no_gap_either() -> None:
    async with two() as (_, source, first, second):
        first.add(1)
        second.add(1)
        assert await read(source, 1) == [1]
        await source.commit({HERE: 1})
        second.away = True
        first.add(2, 3)
        assert await read(source, 2) == [2, 3]
        await source.commit({HERE: 3})
    second.away = False
    second.add(3, 5)
    first.add(4, 5)
    first.away = True
    async with two(before=(first, second), wait_s=PATIENCE_S) as (dual, source, *_):
        await poll_until(lambda: dual.figures.withheld == 2, PATIENCE_S, "they wait for it")
        first.away = False
        assert await read(source, 2) == [4, 5]
        assert (dual.figures.gaps, dual.figures.late) == (0, 0)


async def test_a_gap_and_what_comes_after_it_are_told_and_counted() -> None:
    gaps: list[tuple[Place, Gap]] = []
    late: list[Record] = []

    def told(place: Place, gap: Gap) -> None:
        gaps.append((place, gap))

    async with two(away=[1], on_gap=told, on_late=late.append) as (dual, source, first, second):
        first.add(1, 3)
        assert await read(source, 2) == [1, 3]
        assert gaps == [(HERE, Gap("p", 1, 2, 2))]
        second.away = False
        second.add(1, 2, 3)
        await poll_until(lambda: len(late) == 1, PATIENCE_S, "the late one is told")
        await poll_until(lambda: dual.figures.copies == 2, PATIENCE_S, "the others are copies")
        assert late[0].value == b"2"
        assert (dual.figures.gaps, dual.figures.lost, dual.figures.late) == (1, 1, 1)
        await source.commit({HERE: 2})
        assert second.committed == {HERE: 103}


async def test_what_is_paused_stays_and_what_is_full_is_read_no_further() -> None:
    async with two(most_withheld=2) as (_, source, first, second):
        source.pause([HERE])
        first.add(1, 2)
        second.add(1, 2)
        assert await source.poll(10, 0.1) == {}
        first.add(3)
        assert await source.poll(10, 0.1) == {}
        source.resume([HERE])
        assert await read(source, 3) == [1, 2, 3]


async def test_a_hook_that_raises_is_no_silence() -> None:
    def told(place: Place, gap: Gap) -> None:
        raise RuntimeError("a defect")

    async with two(on_gap=told) as (_, source, first, second):
        first.add(1, 3)
        second.add(1, 3)
        with pytest.raises(RuntimeError, match="a defect"):
            await read(source, 2)


def test_a_trail_needs_one_step_for_many_copies() -> None:
    trail = Trail()
    for offset in range(1000):
        step = Step(Rec(offset=offset))
        trail.add(step)
        step.done(7)
        trail.squeeze()
    assert len(trail._steps) == 1
    assert trail.until(7) is None
    assert trail.until(8) == 1000


def test_a_trail_needs_one_step_for_many_that_follow_each_other() -> None:
    trail = Trail()
    for offset in range(1000):
        step = Step(Rec(offset=offset))
        trail.add(step)
        step.done(offset + 5)
        trail.squeeze()
    assert len(trail._steps) == 1
    assert [trail.until(position) for position in (5, 6, 7, 7, 105, 2000)] == [
        *(None, 1, 2, None, 100, 1000)
    ]


@given(
    st.lists(st.tuples(st.integers(1, 2), st.integers(0, 2)), max_size=60),
    st.lists(st.integers(0, 80), max_size=8),
)
def test_a_trail_says_what_one_with_a_step_for_each_record_would(
    records: list[tuple[int, int]], positions: list[int]
) -> None:
    """Whatever gaps there are in its offsets, and copies and others' records between them."""
    trail, plain = Trail(), []
    offset = at = 0
    for skip, on in records:
        offset, at = offset + skip, at + on
        step = Step(Rec(offset=offset))
        trail.add(step)
        step.done(at)
        trail.squeeze()
        plain.append((offset, at))
    for position in sorted(positions):
        before = [o for o, done in plain if done < position]
        plain = [(o, done) for o, done in plain if done >= position]
        assert trail.until(position) == (before[-1] + 1 if before else None)
