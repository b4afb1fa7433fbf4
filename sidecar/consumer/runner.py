"""The runner: a consumer group's member that hands each event to a handler, and sees it through."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

from sidecar.consumer.brake import Brake
from sidecar.consumer.event import Handler, awaitable
from sidecar.consumer.flow import Flow, Hooks
from sidecar.consumer.giving import Keeper
from sidecar.consumer.identity import Identify, Versioned, by_content
from sidecar.consumer.kafka import KafkaSource
from sidecar.consumer.ledger import Ledger
from sidecar.consumer.moving import Mover
from sidecar.consumer.reading import Reader
from sidecar.consumer.report import Report, Reporter
from sidecar.consumer.retry import RetryPolicy, dead_topic, retry_topic
from sidecar.consumer.settings import Limits
from sidecar.consumer.sink import KafkaSink, ensure_topics
from sidecar.consumer.source import Source
from sidecar.consumer.store import Store
from sidecar.consumer.told import words
from sidecar.consumer.working import Work, Workers

log = logging.getLogger(__name__)

T = TypeVar("T")

WATCH_S = 0.25
"""How often handlers are looked at that may have taken too long."""
STILL_S = 2.0
"""An event loop that stands still for so long is told of: Kafka drops members that don't answer."""


class RunnerFailed(Exception):
    """A part of the runner ended that must not. What was not committed comes again."""


@dataclass(frozen=True, slots=True)
class _Side:
    """A source, with who reads and commits it."""

    source: Source
    reader: Reader
    keeper: Keeper


class Runner(Generic[T]):
    """Reads topics as a member of a consumer group, and runs a handler for each event.

    At least once: an event is committed when it and all before it on its partition are done with:
    handled, recognised as a duplicate or as stale, or written to a retry or dead-letter topic. In
    order: of one key, one event after the other, as long as none fails. Many keys at a time.

        async def handle(event: Event[Order]) -> None:
            await save(event.value)

        await Runner("orders", group="billing", handler=handle, decode=Decoder(Order).decode).run()

    `Permanent`, an error of `permanent` and a value that can't be decoded send the event to
    `<topic>.dlq` at once. Any other error is taken to pass: see `RetryPolicy`. While nothing
    succeeds, handlers are held back and partitions paused: see `Limits.brake_after`.

    Args:
        topics: one or more; each has retry and dead-letter topics of its own.
        group: the consumer group. Retry topics are read by `<group>.retry`.
        handler: called for each event; never for two events of one key at a time.
        bootstrap_servers: of Kafka.
        decode: makes a handler's value of bytes, for example `msgspec.json.Decoder(T).decode`.
            Without one, the value is the bytes. A tombstone's value is always None.
        permanent: errors that never pass, besides `Permanent`.
        retry: how often, and when, a failed event is tried again.
        limits: how much at once, and how long at most.
        store: where handled events are marked; None: duplicates are handled again. The runner
            closes it.
        identity: by what an event is recognised (`by_header`, `by_field`, `by_content`).
        version: by what an event is old or new (`version_header`, `version_field`); None: no gate.
        report: reports health to the breaker's sidecar or to Consul; None: nowhere.
        hooks: for tracing.
        create_topics: make the retry and dead-letter topics that are missing. If False, they must
            be there.
        client: how to connect, for all clients of Kafka (aiokafka's `security_protocol`,
            `ssl_context`, `sasl_…`).
        consumer: more of AIOKafkaConsumer's settings.
        source: makes what is read instead of Kafka, of topics and a consumer group; called for the
            topics themselves, and again for their retry topics.

    Raises:
        ValueError: settings that make no sense together.
    """

    def __init__(
        self,
        topics: str | Sequence[str],
        *,
        group: str,
        handler: Handler[T],
        bootstrap_servers: str | Sequence[str] = "localhost:9092",
        decode: Callable[[bytes], T] | None = None,
        permanent: tuple[type[Exception], ...] = (),
        retry: RetryPolicy | None = None,
        limits: Limits | None = None,
        store: Store | None = None,
        identity: Identify = by_content,
        version: Versioned | None = None,
        report: Report | None = None,
        hooks: Hooks | None = None,
        create_topics: bool = True,
        client: Mapping[str, Any] | None = None,
        consumer: Mapping[str, Any] | None = None,
        source: Callable[[Collection[str], str], Source] | None = None,
    ) -> None:
        if version is not None and store is None:
            raise ValueError("a version gate needs a store: what is the newest is kept there")
        if identity is not by_content and store is None:
            raise ValueError("an identity needs a store: what was handled is kept there")
        self._topics = [topics] if isinstance(topics, str) else list(topics)
        self._policy = RetryPolicy() if retry is None else retry
        self._limits = limits = Limits() if limits is None else limits
        self._servers, self._client = bootstrap_servers, dict(client or {})
        self._create_topics = create_topics
        self._ledger = None if store is None else Ledger(store, group, identity, version)
        self.flow = Flow(limits.in_flight)
        """What is under way; for metrics and tests."""
        self._sink = KafkaSink(
            bootstrap_servers=bootstrap_servers, client=self._client, timeout_s=limits.kafka_s
        )
        self._mover = Mover(self.flow, self._sink, group)
        self._workers = self._made_workers(
            Work(
                handler=awaitable(handler),
                decode=decode,
                permanent=permanent,
                policy=self._policy,
                ledger=self._ledger,
                hooks=Hooks() if hooks is None else hooks,
                handler_s=limits.handler_s,
            )
        )
        make = partial(self._from_kafka, consumer or {}) if source is None else source
        self._sides = self._made_sides(make, group)
        self._reporter = (
            None if report is None else Reporter(self.flow, self._sides[0].source, report)
        )
        self._stopping = asyncio.Event()

    def _made_workers(self, work: Work) -> Workers:
        limits = self._limits
        brake = Brake(limits.brake_after, limits.brake_first_s, limits.brake_most_s)
        return Workers(self.flow, self._mover, brake, work)

    def _from_kafka(
        self, consumer: Mapping[str, Any], topics: Collection[str], group: str
    ) -> Source:
        return KafkaSource(
            bootstrap_servers=self._servers,
            topics=topics,
            group=group,
            client=self._client,
            consumer=consumer,
            drain_s=self._limits.drain_s,
            timeout_s=self._limits.kafka_s,
        )

    def _made_sides(
        self, make: Callable[[Collection[str], str], Source], group: str
    ) -> list[_Side]:
        sides = [self._side(make, {topic: (topic, 0) for topic in self._topics}, group)]
        if later := self._retry_topics():
            # With a consumer of their own: one that waits for events of retry topics, of which
            # there are few, would keep those of the topics themselves waiting.
            sides.append(self._side(make, later, f"{group}.retry"))
        return sides

    def _side(
        self,
        make: Callable[[Collection[str], str], Source],
        topics: Mapping[str, tuple[str, int]],
        group: str,
    ) -> _Side:
        source = make(list(topics), group)
        reader = Reader(
            self.flow,
            source,
            self._policy,
            topics,
            per_partition=self._limits.per_partition,
            kick=self._workers.kick,
        )
        keeper = Keeper(
            self.flow,
            source,
            reader=reader,
            workers=self._workers,
            mover=self._mover,
            ledger=self._ledger,
            limits=self._limits,
        )
        return _Side(source, reader, keeper)

    def _retry_topics(self) -> dict[str, tuple[str, int]]:
        tiers = range(1, self._policy.tiers + 1)
        return {retry_topic(topic, tier): (topic, tier) for topic in self._topics for tier in tiers}

    @property
    def workers(self) -> Workers:
        """Who is at work; for metrics."""
        return self._workers

    async def joined(self) -> None:
        """Wait until the first partitions are assigned."""
        for side in self._sides:
            await side.keeper.joined.wait()

    def stop(self) -> None:
        """End in good order: `run` drains, commits, says goodbye and returns."""
        self._stopping.set()

    async def run(self, *, signals: bool = True) -> None:
        """Work until `stop`, or SIGTERM or SIGINT. Can be called once.

        Args:
            signals: whether the two stop it.

        Raises:
            SourceError, SinkFailed, StoreFailed: it could not begin.
            RunnerFailed: it could not go on.
        """
        with ExitStack() as stack:
            if signals:
                stack.enter_context(_on_signals(self.stop))
            tasks: list[asyncio.Task[None]] = []
            try:
                await self._begin(tasks)
                await self._until_stopped(tasks)
            finally:
                await self._end(tasks)

    async def _begin(self, tasks: list[asyncio.Task[None]]) -> None:
        if self._ledger is not None:
            await self._ledger.try_out()
        if self._create_topics:
            await self._make_topics()
        tasks += self._workers.start(self._limits.concurrency)
        tasks.append(asyncio.create_task(self._watch(), name="breaker-watch"))
        if self._reporter is not None:
            tasks.append(asyncio.create_task(self._reporter.run(), name="breaker-report"))
        joining = asyncio.gather(*(side.source.start(side.keeper) for side in self._sides))
        stopping = asyncio.create_task(self._stopping.wait(), name="breaker-stopping")
        both: list[asyncio.Future[Any]] = [joining, stopping]
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            if joining.done():
                joining.result()
        finally:
            joining.cancel()
            stopping.cancel()
            await asyncio.wait(both)
        if self._stopping.is_set():
            return
        for side in self._sides:
            tasks.append(asyncio.create_task(side.reader.run(), name="breaker-read"))
            tasks.append(asyncio.create_task(side.keeper.run(), name="breaker-commit"))

    async def _make_topics(self) -> None:
        tiers = range(1, self._policy.tiers + 1)
        wanted = {
            topic: [*(retry_topic(topic, tier) for tier in tiers), dead_topic(topic)]
            for topic in self._topics
        }
        made = await ensure_topics(
            wanted,
            bootstrap_servers=self._servers,
            client=self._client,
            timeout_s=self._limits.kafka_s,
        )
        if made:
            log.info("made topics: %s", ", ".join(made))

    async def _watch(self) -> None:
        """Cancel what takes too long, and end with what must not have happened."""
        clock = asyncio.get_running_loop().time
        while self._mover.fault is None:
            self._workers.seats.watch()
            self.flow.told.tell()
            began = clock()
            await asyncio.sleep(WATCH_S)
            still_s = clock() - began - WATCH_S
            if still_s > STILL_S:
                self.flow.told.note(
                    "stood still",
                    f"for {still_s:.1f} s: a handler that blocks the event loop (run it in a "
                    "thread), or a machine that slept; Kafka hears nothing from here meanwhile",
                )
        raise RunnerFailed("an event could not be moved") from self._mover.fault

    async def _until_stopped(self, tasks: list[asyncio.Task[None]]) -> None:
        stopping = asyncio.create_task(self._stopping.wait(), name="breaker-stopping")
        try:
            await asyncio.wait({stopping, *tasks}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopping.cancel()
        for task in tasks:
            if task.done():
                fault = None if task.cancelled() else task.exception()
                why = "" if fault is None else f": {words(fault)}"
                raise RunnerFailed(f"{task.get_name()} ended{why}") from fault

    async def _end(self, tasks: list[asyncio.Task[None]]) -> None:
        """In order: read no more, finish what is begun, commit, say goodbye, give all back."""
        await _cancel([t for t in tasks if t.get_name() in {"breaker-read", "breaker-commit"}])
        await asyncio.gather(*(side.keeper.give_back() for side in self._sides))
        self.flow.told.tell(at_once=True)
        await _cancel(tasks)
        if self._reporter is not None:
            await self._reporter.leave()
        await asyncio.gather(*(side.source.stop() for side in self._sides))
        await self._sink.stop()
        if self._ledger is not None:
            await self._ledger.close()


async def _cancel(tasks: Collection[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks, timeout=5.0)
    for task in tasks:
        if task.done() and not task.cancelled():
            task.exception()  # told already, or of no interest any more


@contextmanager
def _on_signals(stop: Callable[[], None]) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    taken = []
    for number in (signal.SIGTERM, signal.SIGINT):
        # Only the main thread's loop can; elsewhere whoever runs it calls `stop`.
        with suppress(RuntimeError, ValueError):
            loop.add_signal_handler(number, stop)
            taken.append(number)
    try:
        yield
    finally:
        for number in taken:
            loop.remove_signal_handler(number)
