"""The runner: a consumer group's member that hands each event to a handler, and sees it through."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from typing import Any, Generic, TypeVar

from sidecar.consumer.event import Handler, awaitable
from sidecar.consumer.flow import Hooks
from sidecar.consumer.identity import Identify, Versioned, by_content
from sidecar.consumer.ledger import Ledger
from sidecar.consumer.parts import Clients, Parts
from sidecar.consumer.report import Report, Reporter
from sidecar.consumer.retry import RetryPolicy, dead_topic
from sidecar.consumer.settings import Limits
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
        limits = Limits() if limits is None else limits
        work = Work(
            handler=awaitable(handler),
            decode=decode,
            permanent=permanent,
            policy=RetryPolicy() if retry is None else retry,
            ledger=_ledger(store, group, identity, version),
            hooks=Hooks() if hooks is None else hooks,
            handler_s=limits.handler_s,
        )
        self._topics = [topics] if isinstance(topics, str) else list(topics)
        self._create_topics = create_topics
        self._clients = clients = Clients(bootstrap_servers, dict(client or {}), limits.kafka_s)
        if source is None:
            source = partial(clients.source, consumer or {}, limits.drain_s)
        self._parts = Parts(group, work, limits, clients.sink())
        self._parts.read(self._topics, source)
        self.flow = self._parts.flow
        """What is under way; for metrics and tests."""
        self._reporter = _reporter(report, self._parts)
        self._stopping = asyncio.Event()

    @property
    def workers(self) -> Workers:
        """Who is at work; for metrics."""
        return self._parts.workers

    @property
    def misnamed(self) -> int:
        """Records with a header whose name is no UTF-8 text; for metrics."""
        return sum(side.source.misnamed for side in self._parts.sides)

    async def joined(self) -> None:
        """Wait until the first partitions are assigned."""
        for side in self._parts.sides:
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
        if (ledger := self._parts.work.ledger) is not None:
            await ledger.try_out()
        if self._create_topics:
            await self._make_topics()
        tasks += self._parts.workers.start(self._parts.limits.concurrency)
        tasks.append(asyncio.create_task(self._watch(), name="breaker-watch"))
        if self._reporter is not None:
            tasks.append(asyncio.create_task(self._reporter.run(), name="breaker-report"))
        await self._join()
        if self._stopping.is_set():
            return
        for side in self._parts.sides:
            tasks.append(asyncio.create_task(side.reader.run(), name="breaker-read"))
            tasks.append(asyncio.create_task(side.keeper.run(), name="breaker-commit"))

    async def _join(self) -> None:
        """Until all sides have joined, or it is stopped. Raises SourceError."""
        sides = self._parts.sides
        joining = [
            asyncio.create_task(side.source.start(side.keeper), name="breaker-join")
            for side in sides
        ]
        stopping = asyncio.create_task(self._stopping.wait(), name="breaker-stopping")
        try:
            while not stopping.done() and not all(task.done() for task in joining):
                left = [task for task in (stopping, *joining) if not task.done()]
                await asyncio.wait(left, return_when=asyncio.FIRST_COMPLETED)
                for task in joining:
                    if task.done():
                        task.result()
        finally:
            await _cancel([stopping, *joining], within_s=None)

    async def _make_topics(self) -> None:
        policy = self._parts.work.policy
        wanted = {topic: [*policy.topics(topic), dead_topic(topic)] for topic in self._topics}
        made = await self._clients.ensure_topics(wanted)
        if made:
            log.info("made topics: %s", ", ".join(made))

    async def _watch(self) -> None:
        """Cancel what takes too long, and end with what must not have happened."""
        clock = asyncio.get_running_loop().time
        while self._parts.mover.fault is None:
            self._parts.workers.seats.watch()
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
        raise RunnerFailed("an event could not be moved") from self._parts.mover.fault

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
        await asyncio.gather(*(side.keeper.give_back() for side in self._parts.sides))
        self.flow.told.tell(at_once=True)
        await _cancel(tasks)
        if self._reporter is not None:
            await self._reporter.leave()
        await asyncio.gather(*(side.source.stop() for side in self._parts.sides))
        await self._parts.sink.stop()
        if (ledger := self._parts.work.ledger) is not None:
            await ledger.close()


def _ledger(
    store: Store | None, group: str, identity: Identify, version: Versioned | None
) -> Ledger | None:
    if store is not None:
        return Ledger(store, group, identity, version)
    if version is not None:
        raise ValueError("a version gate needs a store: what is the newest is kept there")
    if identity is not by_content:
        raise ValueError("an identity needs a store: what was handled is kept there")
    return None


def _reporter(report: Report | None, parts: Parts) -> Reporter | None:
    return None if report is None else Reporter(parts.flow, parts.sides[0].source, report)


async def _cancel(tasks: Collection[asyncio.Task[Any]], within_s: float | None = 5.0) -> None:
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks, timeout=within_s)
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
