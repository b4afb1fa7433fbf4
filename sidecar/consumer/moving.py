"""Events on their way to a retry or dead-letter topic. Until one is there, it isn't committed."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import deque
from collections.abc import Callable, Collection

from sidecar.consumer.flow import Flow, Item, Shard
from sidecar.consumer.headers import Header, origin_of, written
from sidecar.consumer.retry import Dead, Later, backoff_ceiling_s, dead_topic, retry_topic
from sidecar.consumer.sink import Sink, SinkFailed
from sidecar.consumer.stack import stack_of
from sidecar.consumer.told import words

log = logging.getLogger(__name__)

AT_ONCE = 256
"""Events that are written at a time. aiokafka wakes all that wait for a full batch at each one."""
FIRST_PAUSE_S = 0.2
MOST_PAUSE_S = 10.0


class Mover:
    """Writes events elsewhere, each again until it is written, by tasks of its own.

    They hold no worker up. Those that can't be written count as in flight, so that reading stops
    when there are too many.

    Args:
        group: told in the headers.
        wall: seconds since 1970.
    """

    def __init__(
        self, flow: Flow, sink: Sink, group: str, *, wall: Callable[[], float] = time.time
    ) -> None:
        self._flow = flow
        self._sink = sink
        self._group = group
        self._wall = wall
        self._line: deque[tuple[Item, str, list[Header]]] = deque()
        self._tasks: dict[asyncio.Task[None], Shard | None] = {}
        """Each with the partition whose event it writes."""
        self._failing = False
        self.fault: BaseException | None = None
        """What ended a move that must not have; the event stays uncommitted."""

    def move(self, item: Item, step: Later | Dead, error: BaseException) -> None:
        """Begin to. The event is done with as soon as it is written."""
        at = self._wall()
        origin = origin_of(item.record, moved=item.shard.tier > 0)
        if isinstance(step, Later):
            topic = retry_topic(origin.topic, step.tier)
            reason, due_at_ms = None, round((at + step.delay_s) * 1000)
        else:
            topic, reason, due_at_ms = dead_topic(origin.topic), step.reason, None
        headers = written(
            item.record,
            origin,
            group=self._group,
            attempts=origin.attempts + item.failed,
            error=words(error),
            stack=stack_of(error),
            at_ms=round(at * 1000),
            reason=reason,
            due_at_ms=due_at_ms,
        )
        where = f"{item.record.topic}[{item.record.partition}]@{item.record.offset}"
        self._flow.told.note(f"to {topic}", f"{where}, {words(error)}")
        self._line.append((item, topic, headers))
        self._flow.moving += 1
        if len(self._tasks) < AT_ONCE:
            self._begin()

    def _begin(self) -> None:
        task = asyncio.create_task(self._run(), name="breaker-move")
        self._tasks[task] = None
        task.add_done_callback(self._ended)

    async def _run(self) -> None:
        """Write what is in line, until nothing is."""
        task = asyncio.current_task()
        while self._line and task is not None:
            item, topic, headers = self._line.popleft()
            self._tasks[task] = item.shard
            try:
                await self._write(item, topic, headers)
            finally:
                self._tasks[task] = None
                self._flow.moving -= 1
                self._flow.progress.set()

    async def _write(self, item: Item, topic: str, headers: list[Header]) -> None:
        record, failed = item.record, 0
        while not item.shard.gone:
            try:
                await self._sink.send(topic, record.key, record.value, headers)
            except SinkFailed as error:
                failed += 1
                self._say(error)
                ceiling_s = backoff_ceiling_s(failed, FIRST_PAUSE_S, MOST_PAUSE_S)
                # Full jitter: what failed together is not tried again together.
                await asyncio.sleep(ceiling_s * random.random())  # noqa: S311 - guards nothing
                continue
            self._failing = False
            self._flow.window.settled()
            self._flow.settle(item.shard, record.offset)
            self._flow.tell_room()
            return

    def _say(self, error: SinkFailed) -> None:
        log.log(
            logging.DEBUG if self._failing else logging.ERROR,
            "not written, so not committed; trying again: %s",
            error,
        )
        self._failing = True

    def _ended(self, task: asyncio.Task[None]) -> None:
        del self._tasks[task]
        if not task.cancelled() and (error := task.exception()) is not None:
            self.fault = error
        elif self._line and len(self._tasks) < AT_ONCE:
            self._begin()

    def of(self, shards: Collection[Shard]) -> int:
        """How many events of these are on their way."""
        written = sum(shard is not None and shard in shards for shard in self._tasks.values())
        return written + sum(item.shard in shards for item, *_ in self._line)

    async def abandon(self, shards: Collection[Shard]) -> None:
        """Stop trying for these; they will be read again by whoever is next."""
        kept = [each for each in self._line if each[0].shard not in shards]
        self._flow.moving -= len(self._line) - len(kept)
        self._line.clear()
        self._line.extend(kept)
        tasks = [task for task, shard in self._tasks.items() if shard in shards]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
