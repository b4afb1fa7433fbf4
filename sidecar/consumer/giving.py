"""Commits what is done, and gives partitions back in good order."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection
from contextlib import suppress

from sidecar.consumer.flow import Flow, Shard
from sidecar.consumer.ledger import Ledger
from sidecar.consumer.moving import Mover
from sidecar.consumer.reading import Reader
from sidecar.consumer.settings import Limits
from sidecar.consumer.source import NotOurs, Place, Source, SourceError
from sidecar.consumer.store import StoreFailed
from sidecar.consumer.working import Workers

log = logging.getLogger(__name__)

CANCELLED_S = 1.0
"""How long a handler that was cancelled may take to end."""


class Keeper:
    """What the source tells of partitions, and what is told to the source of them.

    Marks are written before what they mark is committed: a store that can't be written stops both
    committing and reading.
    """

    def __init__(
        self,
        flow: Flow,
        source: Source,
        *,
        reader: Reader,
        workers: Workers,
        mover: Mover,
        ledger: Ledger | None,
        limits: Limits,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._flow = flow
        self._source = source
        self._reader = reader
        self._workers = workers
        self._mover = mover
        self._ledger = ledger
        self._limits = limits
        self._clock = clock
        self._turn = asyncio.Lock()
        self.joined = asyncio.Event()
        """Set once partitions were assigned for the first time."""

    async def run(self) -> None:
        """Commit what is done, every so often, for ever."""
        while True:
            await asyncio.sleep(self._limits.commit_every_s)
            await self._commit(self._reader.shards)

    async def assigned(self, places: Collection[Place]) -> None:
        """These are ours from now on."""
        log.info("assigned: %s", _named(places))
        self._reader.begin(places)
        self.joined.set()

    async def revoked(self, places: Collection[Place], *, lost: bool) -> None:
        """These are no longer ours: finish what is begun and commit it, unless they are lost."""
        log.log(
            logging.WARNING if lost else logging.INFO,
            "%s: %s",
            "lost" if lost else "revoked",
            _named(places),
        )
        await self._give([s for p in places if (s := self._flow.shards.get(p))], lost=lost)

    async def give_back(self) -> None:
        """All of them, because this member stops."""
        await self._give(self._reader.shards, lost=False)

    async def _give(self, shards: list[Shard], *, lost: bool) -> None:
        self._flow.close(shards)
        if lost:
            for shard in shards:
                shard.gone = True
        else:
            await self._drain(shards, self._limits.drain_s)
        self._workers.seats.cancel(shards)
        await self._drain(shards, CANCELLED_S)
        await self._mover.abandon(shards)
        if not lost:
            await self._commit(shards)
        for shard in shards:
            shard.gone = True

    async def _drain(self, shards: list[Shard], for_s: float) -> None:
        """Until nothing of these is at work or on its way, or the time is over."""
        ends = self._clock() + for_s
        progress = self._flow.progress
        while self._workers.seats.of(shards) or self._mover.of(shards):
            progress.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(ends - self._clock()):
                    await progress.wait()
            if self._clock() >= ends:
                return

    async def _commit(self, shards: Collection[Shard]) -> None:
        flow = self._flow
        async with self._turn:
            self._pass_over(shards)
            positions = {
                shard.place: position
                for shard in shards
                if not shard.gone and (position := shard.line.to_commit) is not None
            }
            if not positions and self._ledger is None:
                return
            try:
                if self._ledger is not None:
                    # A store has deadlines of its own, or should have.
                    async with asyncio.timeout(self._limits.kafka_s):
                        await self._ledger.flush()
                    flow.stuck = None
                if positions:
                    await self._source.commit(positions)
            except (StoreFailed, TimeoutError) as error:
                why = str(error) or "the store took too long"
                log.log(_once(flow.stuck is None), "marks not written: %s", why)
                flow.stuck = f"marks can't be written: {why}"
            except NotOurs as error:
                log.info("not committed: %s", error)
            except SourceError as error:
                flow.uncommitted += 1
                log.log(_once(flow.uncommitted == 1), "%s; trying again", error)
            else:
                flow.uncommitted = 0
                for shard in shards:
                    if shard.place in positions:
                        shard.line.committed(positions[shard.place])

    def _pass_over(self, shards: Collection[Shard]) -> None:
        """Where all events are done, what lies behind them and is none is done with as well.

        Else a topic that is written by transactions would never be without lag.
        """
        idle = [s for s in shards if s.live and not s.held and not s.line.unfinished]
        reached = self._source.reached([shard.place for shard in idle])
        for shard in idle:
            if shard.place in reached:
                shard.line.passed(reached[shard.place])


def _once(first: bool) -> int:
    return logging.WARNING if first else logging.DEBUG


def _named(places: Collection[Place]) -> str:
    return ", ".join(f"{p.topic}[{p.partition}]" for p in sorted(places)) or "nothing"
