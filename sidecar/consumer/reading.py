"""Takes events from the source as there is room for them, and holds back what isn't due."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress

from sidecar.consumer.flow import Flow, Shard
from sidecar.consumer.headers import DUE_AT, number_of
from sidecar.consumer.retry import RetryPolicy, backoff_ceiling_s
from sidecar.consumer.source import Place, Record, Source, SourceError

POLL_S = 0.1
"""How long a poll waits for events; how late a partition may be resumed at most."""
ROOM_S = 1.0
"""Without room for so long the partitions are paused, so that polling keeps the membership."""
FIRST_PAUSE_S = 0.2
MOST_PAUSE_S = 10.0


class Reader:
    """The one task that polls a source.

    Args:
        topics: what the source has, each with the topic whose events they are, and the tier.
        kick: called when there is something to do.
        clock: monotonic seconds, the event loop's.
        wall: seconds since 1970.
    """

    def __init__(
        self,
        flow: Flow,
        source: Source,
        policy: RetryPolicy,
        topics: Mapping[str, tuple[str, int]],
        *,
        per_partition: int,
        kick: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._flow = flow
        self._source = source
        self._policy = policy
        self._per_partition = per_partition
        self._kick = kick
        self._clock = clock
        self._wall = wall
        self._of = topics

    @property
    def shards(self) -> list[Shard]:
        """The partitions that come by this reader."""
        return [shard for shard in self._flow.shards.values() if shard.place.topic in self._of]

    def begin(self, places: Collection[Place]) -> None:
        """These partitions are ours."""
        for place in places:
            topic, tier = self._of[place.topic]
            self._flow.shards[place] = Shard(place, tier, self._flow.counts_of(topic))

    async def run(self) -> None:
        """Read for ever. A source that fails is asked again, with growing pauses."""
        failed = 0
        while True:
            try:
                await self._turn()
            except SourceError as error:
                failed += 1
                self._flow.told.note("can't read", str(error))
                ceiling_s = backoff_ceiling_s(failed, FIRST_PAUSE_S, MOST_PAUSE_S)
                await asyncio.sleep(ceiling_s * random.random())  # noqa: S311 - spreads only
            else:
                failed = 0

    async def _turn(self) -> None:
        flow = self._flow
        # A trial needs an event: while the brake holds, one is read once none is in line any more.
        room = 1 - (flow.open - flow.moving) if flow.braked else flow.most - flow.open
        if room <= 0 or flow.stuck is not None:
            await self._hold()
            return
        self._switch()
        self._take(await self._source.poll(room, POLL_S))

    def _take(self, batch: Mapping[Place, Sequence[Record]]) -> None:
        flow = self._flow
        for place, records in batch.items():
            shard = flow.shards.get(place)
            if shard is None:
                continue
            if shard.tier:
                self._keep(shard, records)
            else:
                flow.line_up(shard, records)
        self._kick()

    async def _hold(self) -> None:
        """Wait for room; all partitions are paused where that takes long."""
        flow = self._flow
        flow.room.clear()
        if not (flow.braked or flow.stuck is not None):
            with suppress(TimeoutError):
                async with asyncio.timeout(ROOM_S):
                    await flow.room.wait()
                return
        paused = [shard for shard in self.shards if not shard.paused]
        for shard in paused:
            shard.paused = True
        self._source.pause([shard.place for shard in paused])
        # Shows the group that this member is alive. Brings nothing, unless partitions just came.
        self._take(await self._source.poll(1, 0))
        with suppress(TimeoutError):
            async with asyncio.timeout(ROOM_S):
                await flow.room.wait()

    def _switch(self) -> None:
        """Pause partitions that are full or wait for a time, and resume those that aren't any more.

        Only just before a poll: what was fetched of a paused one is thrown away and fetched again.
        """
        most, resumed, paused = self._per_partition, [], []
        for shard in self.shards:
            span = shard.line.span
            if shard.paused and not shard.held and span <= most // 2:
                shard.paused = False
                resumed.append(shard.place)
            elif not shard.paused and (shard.held or span >= most):
                shard.paused = True
                paused.append(shard.place)
        if resumed:
            self._source.resume(resumed)
        if paused:
            self._source.pause(paused)

    def _keep(self, shard: Shard, records: Sequence[Record]) -> None:
        """Of a retry topic: until each is due. All wait equally long, so the first is due first."""
        now, at = self._clock(), self._wall()
        delay_s = self._policy.delays_s[shard.tier - 1]
        for record in records:
            due_at_ms = number_of(record.headers, DUE_AT)
            due_at = record.timestamp / 1000 + delay_s if due_at_ms is None else due_at_ms / 1000
            # Whoever wrote it may have another clock; nobody waits longer than the delay.
            shard.held.append((now + min(max(due_at - at, 0.0), delay_s), record))
        if shard.timer is None:
            self._due(shard)

    def _due(self, shard: Shard) -> None:
        """Line up what is due, and come back for the next."""
        shard.timer = None
        now, due = self._clock(), []
        while shard.held and shard.held[0][0] <= now:
            due.append(shard.held.popleft()[1])
        if due:
            self._flow.line_up(shard, due)
            self._kick()
        if shard.held:
            loop = asyncio.get_running_loop()
            shard.timer = loop.call_later(shard.held[0][0] - now, self._due, shard)
