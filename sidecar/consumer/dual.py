"""The source that reads one topic from two clusters, as `outage: dual` has written it.

Runner("orders", group="billing", handler=handle, bootstrap_servers="a:9092",
       source=Dual("orders", first="a:9092", second="b:9092"))
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sidecar.consumer.cluster import Cluster, Kept
from sidecar.consumer.frontier import Frontier, read
from sidecar.consumer.kafka import KafkaSource
from sidecar.consumer.merge import SIDES, Copy, Gap, Given, Merge, Outcome, stamp_of
from sidecar.consumer.source import Listener, Place, Record, Source, SourceError
from sidecar.consumer.trail import Step, Trail

log = logging.getLogger(__name__)

POLL_S = 0.5
POLL_RECORDS = 500
AGAIN_S = 1.0
"""Between two attempts to reach a cluster."""
START_S = 30.0
"""For the first of them."""


class Merged(NamedTuple):
    """A record of both clusters. Its offset is this reader's own count since its start."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]]


@dataclass(slots=True)
class Figures:
    """What was seen since the start."""

    given: int = 0
    copies: int = 0
    """Second copies, which are dropped."""
    gaps: int = 0
    lost: int = 0
    """Counters in these gaps."""
    late: int = 0
    withheld: int = 0
    """Records that wait now for those before them."""


class Dual:
    """Makes a runner's source: `topics` from both clusters, its retry topics from the first.

    The partitions aren't shared among a group's members: each process reads those that it is told,
    or all of them.

    Args:
        topics: one or more, which both clusters have, with the same partitions.
        first: bootstrap servers; those of the runner, since its retry and dead-letter topics
            lie there.
        second: bootstrap servers of the other cluster.
        partitions: which this process reads; None: all.
        wait_s: how long a record waits at most for those before it.
        most_withheld: when so many records of a partition wait, the cluster that brought them does.
        on_gap: (neither hook may raise) told of records that came from neither cluster in time.
        on_late: told of a record that came after its gap was reported; it is not handled, since
            that would break the order.
        client: how to connect to the first, as the runner's.
        second_client: how to connect to the second; None: as to the first.
        timeout_s: for each call to a cluster.
    """

    def __init__(
        self,
        topics: str | Sequence[str],
        *,
        first: str | Sequence[str],
        second: str | Sequence[str],
        partitions: Collection[int] | None = None,
        wait_s: float = 5.0,
        most_withheld: int = 5_000,
        on_gap: Callable[[Place, Gap], None] | None = None,
        on_late: Callable[[Record], None] | None = None,
        client: Mapping[str, Any] | None = None,
        second_client: Mapping[str, Any] | None = None,
        timeout_s: float = 10.0,
    ) -> None:
        if wait_s <= 0 or most_withheld < 1 or timeout_s <= 0:
            raise ValueError("wait_s, most_withheld and timeout_s must be positive")
        self.topics = [topics] if isinstance(topics, str) else list(topics)
        self.partitions = None if partitions is None else frozenset(partitions)
        self.wait_s = wait_s
        self.most_withheld = most_withheld
        self.on_gap = on_gap
        self.on_late = on_late
        self.timeout_s = timeout_s
        self.figures = Figures()
        self._client = dict(client or {})
        self._servers = (first, second)
        self._clients = (self._client, self._client if second_client is None else second_client)

    def __call__(self, topics: Collection[str], group: str) -> Source:
        """The source of these topics, for a runner."""
        if set(topics) <= set(self.topics):
            clusters = [
                Cluster(
                    name, {**client, "bootstrap_servers": servers}, group, timeout_s=self.timeout_s
                )
                for name, servers, client in zip(
                    ("first", "second"), self._servers, self._clients, strict=True
                )
            ]
            return DualSource(self, topics, clusters)
        return KafkaSource(
            bootstrap_servers=self._servers[0],
            topics=topics,
            group=group,
            client=self._client,
            consumer={},
            drain_s=30.0,
            timeout_s=self.timeout_s,
        )


class _Part:
    """One partition of both clusters."""

    def __init__(self, wait_s: float) -> None:
        self.merge: Merge[Step] = Merge(wait_s)
        self.ready: deque[Merged] = deque()
        self.withheld = 0
        """Records that wait, as last counted."""
        self.given = 0
        """How many are or were ready: the next one's offset."""
        self.trails = [Trail() for _ in range(SIDES)]
        self.frontier = Frontier()
        self.committed: list[int | None] = [None] * SIDES
        """What each cluster was told last, or before the start."""

    @property
    def handed(self) -> int:
        """The offset that `poll` goes on from."""
        return self.ready[0].offset if self.ready else self.given


class DualSource:
    """The port `Source`."""

    def __init__(self, how: Dual, topics: Collection[str], clusters: Sequence[Cluster]) -> None:
        self._how = how
        self._topics = sorted(topics)
        self._clusters = clusters
        self._parts: dict[Place, _Part] = {}
        self._paused: set[Place] = set()
        self._owed: list[dict[Place, Kept]] = [{} for _ in clusters]
        """What each cluster has not taken of what is committed."""
        self._tasks: list[asyncio.Task[None]] = []
        self._there = asyncio.Event()
        self._news = asyncio.Event()

    @property
    def misnamed(self) -> int:
        """In both clusters together."""
        return sum(cluster.misnamed for cluster in self._clusters)

    async def start(self, listener: Listener) -> None:
        """Read from whichever cluster is there. Raises SourceError."""
        for side, cluster in enumerate(self._clusters):
            self._tasks.append(asyncio.create_task(self._read(side), name=f"read {cluster.name}"))
        try:
            async with asyncio.timeout(START_S):
                await self._there.wait()
            await listener.assigned(list(self._parts))
        except TimeoutError as error:
            await self.stop()
            raise SourceError("neither cluster can be reached") from error
        except BaseException:
            await self.stop()
            raise

    async def _read(self, side: int) -> None:
        """One cluster's task."""
        cluster, told = self._clusters[side], False
        while True:
            try:
                if not cluster.connected:
                    self._begin(side, await cluster.connect(self._topics))
                    told = False
                batch = await cluster.poll(POLL_RECORDS, POLL_S, self._full(side))
            except SourceError as error:
                if not told:
                    log.warning("%s; it is tried again", error)
                told = True
                await asyncio.sleep(AGAIN_S)
                continue
            for place, records in batch.items():
                self._take(side, Place(*place), records)

    def _begin(self, side: int, places: Mapping[Place, Kept | None]) -> None:
        """A cluster is there; the first one says which partitions there are."""
        cluster = self._clusters[side]
        if not self._parts:
            wanted = self._how.partitions
            self._parts = {
                place: _Part(self._how.wait_s)
                for place in places
                if wanted is None or place.partition in wanted
            }
        if missing := set(self._parts) - set(places):
            log.warning("the %s cluster lacks %s", cluster.name, min(missing))
        if not self._parts:
            raise SourceError("the topics have none of the partitions that were asked for")
        for place, part in self._parts.items():
            if (kept := places.get(place)) is not None:
                self._resume(side, place, part, kept)
        cluster.assign([place for place in places if place in self._parts])
        self._there.set()

    def _resume(self, side: int, place: Place, part: _Part, kept: Kept) -> None:
        """Go on from what is noted there, where the other cluster hasn't told more."""
        part.committed[side] = kept.offset
        for producer, at in read(kept.note):
            part.frontier.resume(producer, at)
            self._settle(place, part, part.merge.resume(producer, at, time.monotonic()))
        self._count(part)

    def _full(self, side: int) -> set[Place]:
        most = self._how.most_withheld
        return {
            place
            for place, part in self._parts.items()
            if part.merge.withheld[side] >= most or len(part.ready) >= most
        }

    def _take(self, side: int, place: Place, records: Sequence[Record]) -> None:
        part, now = self._parts[place], time.monotonic()
        trail = part.trails[side]
        for record in records:
            step = Step(record, stamp_of(record.headers))
            trail.add(step)
            self._settle(place, part, part.merge.take(side, step.stamp, step, now))
            trail.squeeze()
        self._count(part)
        self._news.set()

    def _settle(self, place: Place, part: _Part, outcomes: Iterator[Outcome[Step]]) -> None:
        figures = self._how.figures
        for outcome in outcomes:
            if isinstance(outcome, Given):
                self._give(part, outcome.item)
            elif isinstance(outcome, Gap):
                self._tell(place, outcome)
            elif isinstance(outcome, Copy):
                figures.copies += 1
                outcome.item.twin = outcome.twin
                outcome.item.done(part.given - 1)
            else:
                figures.late += 1
                record = outcome.item.done(part.given - 1)
                if self._how.on_late is not None:
                    self._how.on_late(record)

    def _count(self, part: _Part) -> None:
        """How many wait has changed."""
        withheld = sum(part.merge.withheld)
        self._how.figures.withheld += withheld - part.withheld
        part.withheld = withheld

    def _give(self, part: _Part, step: Step) -> None:
        if step.stamp is not None:
            part.frontier.add(part.given, step.stamp)
        of = step.done(part.given)
        part.ready.append(
            Merged(of.topic, of.partition, part.given, of.timestamp, of.key, of.value, of.headers)
        )
        part.given += 1
        self._how.figures.given += 1

    def _tell(self, place: Place, gap: Gap) -> None:
        self._how.figures.gaps += 1
        self._how.figures.lost += gap.last - gap.first + 1
        log.warning("%s[%d]: neither cluster has brought %s", *place, gap)
        if self._how.on_gap is not None:
            self._how.on_gap(place, gap)

    async def poll(self, most: int, wait_s: float) -> Mapping[Place, Sequence[Record]]:
        """What is in order by now."""
        until = time.monotonic() + wait_s
        while True:
            for task in self._tasks:
                if task.done():
                    task.result()  # a defect, or a hook's
            now = time.monotonic()
            for place, part in self._parts.items():
                if (at := part.merge.due_at) is not None and at <= now:
                    self._settle(place, part, part.merge.tick(now))
                    self._count(part)
            batch = self._batch(most)
            if batch or now >= until:
                return batch
            due = (part.merge.due_at for part in self._parts.values())
            next_s = min((at for at in due if at is not None), default=until)
            self._news.clear()
            try:
                async with asyncio.timeout(max(0.0, min(until, next_s) - now)):
                    await self._news.wait()
            except TimeoutError:
                continue

    def _batch(self, most: int) -> dict[Place, Sequence[Record]]:
        batch: dict[Place, Sequence[Record]] = {}
        for place, part in self._parts.items():
            count = 0 if place in self._paused else min(most, len(part.ready))
            if count:
                batch[place] = [part.ready.popleft() for _ in range(count)]
                most -= count
        return batch

    def pause(self, places: Collection[Place]) -> None:
        """`poll` brings nothing of these until they are resumed."""
        self._paused.update(places)

    def resume(self, places: Collection[Place]) -> None:
        """They come again."""
        self._paused.difference_update(places)
        self._news.set()

    async def commit(self, positions: Mapping[Place, int]) -> None:
        """In both clusters, what is done there; one that is away is told later.

        Raises:
            SourceError: neither has taken it.
        """
        for place, position in positions.items():
            part = self._parts[place]
            part.frontier.until(position)
            note = part.frontier.note
            for side, owed in enumerate(self._owed):
                offset = part.committed[side] = (
                    part.trails[side].until(position) or part.committed[side]
                )
                if offset is not None:  # also of one that brought nothing new: the note is
                    owed[place] = Kept(offset, note)
        asked = [side for side, owed in enumerate(self._owed) if owed]
        faults = [f for f in await asyncio.gather(*map(self._commit, asked)) if f is not None]
        if faults and len(faults) == len(asked):
            raise faults[0]

    async def _commit(self, side: int) -> SourceError | None:
        offsets = dict(self._owed[side])
        try:
            await self._clusters[side].commit(offsets)
        except SourceError as error:
            return error
        owed = self._owed[side]
        self._owed[side] = {p: at for p, at in owed.items() if offsets.get(p) != at}
        return None

    async def ends(self, places: Collection[Place]) -> Mapping[Place, int]:
        """What is ready and as much as the cluster that is further behind has yet to bring.

        Raises:
            SourceError: neither cluster says.
        """
        asked = (cluster.unread(places) for cluster in self._clusters)
        told = await asyncio.gather(*asked, return_exceptions=True)
        found = [each for each in told if not isinstance(each, BaseException)]
        if not found:
            raise SourceError("neither cluster says where it ends")
        return {
            place: self._parts[place].given
            + max(each[place] for each in found)
            + sum(self._parts[place].merge.withheld)
            for place in places
        }

    async def positions(self, places: Collection[Place]) -> Mapping[Place, int]:
        """The offsets that `poll` goes on from."""
        return self.reached(places)

    def reached(self, places: Collection[Place]) -> Mapping[Place, int]:
        """The same. This count has no gaps, whatever the clusters' own have."""
        return {place: self._parts[place].handed for place in places}

    async def stop(self) -> None:
        """Let go of both."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        self._tasks = []
        await asyncio.gather(*(cluster.stop() for cluster in self._clusters))
