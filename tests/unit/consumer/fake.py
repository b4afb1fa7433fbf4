"""The parts of a runner put together on a source and a sink in memory, and real time."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from sidecar.consumer import Limits, RetryPolicy, SinkFailed, Store
from sidecar.consumer.flow import Hooks
from sidecar.consumer.headers import Header
from sidecar.consumer.identity import Identify, Versioned, by_content
from sidecar.consumer.ledger import Ledger
from sidecar.consumer.parts import Parts
from sidecar.consumer.source import Listener, Place, Record, SourceError
from sidecar.consumer.working import Work
from tests.servers import poll_until
from tests.unit.consumer.records import Rec

PATIENCE_S = 10.0


class FakeSource:
    """Partitions in memory. What was committed is in `positions_`; `fault` makes commits fail."""

    def __init__(self) -> None:
        self.logs: dict[Place, list[Rec]] = defaultdict(list)
        self.at: dict[Place, int] = {}
        self.paused: set[Place] = set()
        self.ever_paused: set[Place] = set()
        self.committed: dict[Place, int] = {}
        self.commits = 0
        self.fault: SourceError | None = None
        self.came = asyncio.Event()
        self.misnamed = 0

    def add(self, *records: Rec) -> None:
        """They lie on their partitions."""
        for record in records:
            self.logs[Place(record.topic, record.partition)].append(record)
        self.came.set()

    async def start(self, listener: Listener) -> None:
        """All partitions are ours, from what was committed on."""
        self.at = {place: self.committed.get(place, 0) for place in self.logs}
        await listener.assigned(list(self.logs))

    async def poll(self, most: int, wait_s: float) -> Mapping[Place, Sequence[Record]]:
        """What lies there."""
        batch: dict[Place, Sequence[Record]] = {}
        for place, log in self.logs.items():
            if place in self.paused or place not in self.at or most <= 0:
                continue
            found = [record for record in log if record.offset >= self.at[place]][:most]
            if found:
                batch[place], self.at[place] = found, found[-1].offset + 1
                most -= len(found)
        if not batch:
            self.came.clear()
            await asyncio.wait([asyncio.create_task(self.came.wait())], timeout=min(wait_s, 0.02))
        return batch

    def pause(self, places: Collection[Place]) -> None:
        """No more of these."""
        self.paused |= set(places)
        self.ever_paused |= set(places)

    def resume(self, places: Collection[Place]) -> None:
        """They come again."""
        self.paused -= set(places)
        self.came.set()

    async def commit(self, positions: Mapping[Place, int]) -> None:
        """Kept, unless there is a fault."""
        if self.fault is not None:
            raise self.fault
        for place, position in positions.items():
            assert position >= self.committed.get(place, 0), "a position never falls"
            self.committed[place] = position
        self.commits += 1

    async def ends(self, places: Collection[Place]) -> Mapping[Place, int]:
        """Where the partitions end."""
        return {p: self.logs[p][-1].offset + 1 if self.logs[p] else 0 for p in places}

    async def positions(self, places: Collection[Place]) -> Mapping[Place, int]:
        """What comes next."""
        return {place: self.at[place] for place in places}

    def reached(self, places: Collection[Place]) -> Mapping[Place, int]:
        """The same, of those that began."""
        return {place: self.at[place] for place in places if place in self.at}

    async def stop(self) -> None:
        """Nothing to give back."""


class FakeSink:
    """Keeps what it is sent; fails while `broken`."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, bytes | None, list[Header]]] = []
        self.broken = False
        self.tried = 0

    async def send(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        headers: Sequence[Header],
        partition: int | None = None,
    ) -> None:
        """Keep it, or fail."""
        self.tried += 1
        if self.broken:
            raise SinkFailed(f"{topic}: away")
        self.sent.append((topic, value, list(headers)))

    async def stop(self) -> None:
        """Nothing to give back."""


class Kit:
    """A runner's parts around a handler. `source` and `sink` are there to look at and to break."""

    def __init__(
        self,
        handler: Any,
        *,
        limits: Limits | None = None,
        policy: RetryPolicy | None = None,
        store: Store | None = None,
        identity: Identify = by_content,
        version: Versioned | None = None,
        decode: Any = None,
        permanent: tuple[type[Exception], ...] = (),
        hooks: Hooks | None = None,
    ) -> None:
        self.limits = limits or Limits(commit_every_s=0.02, drain_s=2.0)
        policy = policy or RetryPolicy(in_place=1, first_s=0.01, most_s=0.02, delays_s=(0.1,))
        self.source, self.sink = FakeSource(), FakeSink()
        work = Work(
            handler=handler,
            decode=decode,
            permanent=permanent,
            policy=policy,
            ledger=None if store is None else Ledger(store, "billing", identity, version),
            hooks=hooks or Hooks(),
            handler_s=self.limits.handler_s,
        )
        parts = Parts("billing", work, self.limits, self.sink)
        self.flow, self.mover, self.workers = parts.flow, parts.mover, parts.workers
        later = enumerate(policy.topics("orders"), start=1)
        side = parts.add(
            self.source, {"orders": ("orders", 0)} | {name: ("orders", n) for n, name in later}
        )
        self.reader, self.keeper = side.reader, side.keeper

    @property
    def counts(self) -> dict[str, int]:
        """Attempts by outcome, those that there were."""
        return {str(name): n for name, n in self.flow.counts["orders"].items() if n}

    def committed(self, partition: int = 0, topic: str = "orders") -> int | None:
        """What is committed of a partition."""
        return self.source.committed.get(Place(topic, partition))

    async def until_committed(self, position: int, partition: int = 0) -> None:
        """Wait for it."""
        await poll_until(
            lambda: self.committed(partition) == position, PATIENCE_S, f"{position} is committed"
        )

    async def _watch(self) -> None:
        while True:
            self.workers.seats.watch()
            await asyncio.sleep(0.02)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Kit]:
        """All its tasks, and a stop that gives partitions back."""
        tasks = self.workers.start(self.limits.concurrency)
        tasks.append(asyncio.create_task(self._watch()))
        await self.source.start(self.keeper)
        own = [asyncio.create_task(self.reader.run()), asyncio.create_task(self.keeper.run())]
        try:
            yield self
            for task in [*tasks, *own]:
                assert not task.done(), task
        finally:
            for task in own:
                task.cancel()
            await asyncio.wait(own)
            await self.keeper.give_back()
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
