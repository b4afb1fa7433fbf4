"""A whole runner on a source in memory: what it is not begun with, and what ends it."""

from __future__ import annotations

import asyncio
import functools
import gc
import time
from collections.abc import Awaitable, Collection
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from sidecar.consumer import (
    Event,
    RetryPolicy,
    Runner,
    RunnerFailed,
    SourceError,
    SqliteStore,
    Store,
    StoreFailed,
)
from sidecar.consumer.source import Listener
from tests.servers import poll_until
from tests.unit.consumer.fake import PATIENCE_S, FakeSource
from tests.unit.consumer.records import Rec


def runner(handler: Any, source: FakeSource, *, store: Store | None = None) -> Runner[bytes]:
    def made(topics: Collection[str], group: str) -> FakeSource:
        return source

    return Runner(
        "orders",
        group="g",
        handler=handler,
        retry=RetryPolicy(delays_s=()),
        store=store,
        create_topics=False,
        source=made,
    )


@pytest.mark.parametrize(
    ("delays_s", "later"),
    [((), []), ((1.0, 2.0), ["a.retry.1", "a.retry.2", "b.retry.1", "b.retry.2"])],
)
def test_retry_topics_are_read_by_a_group_of_their_own(
    delays_s: tuple[float, ...], later: list[str]
) -> None:
    asked: list[tuple[list[str], str]] = []

    def made(topics: Collection[str], group: str) -> FakeSource:
        asked.append((list(topics), group))
        return FakeSource()

    retry = RetryPolicy(delays_s=delays_s)
    Runner(["a", "b"], group="g", handler=Handling(), retry=retry, source=made)
    assert asked == [(["a", "b"], "g"), *([(later, "g.retry")] if later else [])]


@pytest.mark.parametrize(
    ("topics", "why"), [([], "no topics"), (["a", "b", "a.retry.2"], "a.retry.2: a retry topic")]
)
def test_topics_that_make_no_sense_together_are_refused(topics: list[str], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        Runner(topics, group="g", handler=Handling())


async def test_a_handler_that_is_no_coroutine_function_is_given_one_event_and_no_more() -> None:
    handled: list[Event[bytes]] = []
    source = FakeSource()
    source.add(*(Rec(offset=n) for n in range(5)))
    with pytest.raises(RunnerFailed, match="async def"):
        async with asyncio.timeout(PATIENCE_S):
            await runner(handled.append, source).run(signals=False)
    assert len(handled) == 1
    assert not source.committed


class Handling:
    def __init__(self) -> None:
        self.handled: list[int] = []

    async def __call__(self, event: Event[bytes]) -> None:
        self.handled.append(event.record.offset)


def plain(handler: Handling) -> Any:
    def handle(event: Event[bytes]) -> Awaitable[None]:
        return handler(event)

    return handle


@pytest.mark.parametrize("around", [lambda c: c, functools.partial, plain])
async def test_whatever_gives_something_to_await_is_a_handler(around: Any) -> None:
    source, inner = FakeSource(), Handling()
    source.add(*(Rec(offset=n) for n in range(5)))
    running = runner(around(inner), source)
    task = asyncio.create_task(running.run(signals=False))
    await poll_until(lambda: inner.handled == [0, 1, 2, 3, 4], PATIENCE_S, "all are handled")
    running.stop()
    await asyncio.wait_for(task, PATIENCE_S)


async def test_a_handler_that_blocks_the_loop_is_told_of(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("sidecar.consumer.runner.STILL_S", 0.3)

    async def handle(event: Event[bytes]) -> None:
        time.sleep(1.0)  # noqa: ASYNC251 - which is what must not be done

    source = FakeSource()
    source.add(Rec())
    running = runner(handle, source)
    task = asyncio.create_task(running.run(signals=False))

    def told() -> bool:
        return any(one.getMessage().startswith("stood still: for ") for one in caplog.records)

    await poll_until(told, PATIENCE_S, "it is told")
    running.stop()
    await asyncio.wait_for(task, PATIENCE_S)


@pytest.mark.parametrize(("path", "schema"), [("no/such/folder.db", ""), ("it.db", "CREATE TABEL")])
async def test_it_does_not_begin_with_a_store_that_is_of_no_use(
    tmp_path: Path, path: str, schema: str
) -> None:
    source, handler = FakeSource(), Handling()
    source.add(Rec())
    store = SqliteStore(tmp_path / path, schema=schema)
    with pytest.raises(StoreFailed):
        await runner(handler, source, store=store).run(signals=False)
    assert handler.handled == []


class Joining(FakeSource):
    """A source whose group never agrees, or that fails at once."""

    def __init__(self, fault: SourceError | None) -> None:
        super().__init__()
        self.begun = asyncio.Event()
        self.left = False
        self._fault = fault

    async def start(self, listener: Listener) -> None:
        self.begun.set()
        try:
            if self._fault is not None:
                raise self._fault
            await asyncio.Event().wait()
        finally:
            self.left = True


@pytest.mark.parametrize("fault", [None, SourceError("away")], ids=["stopped", "failed"])
async def test_an_end_while_it_joins_leaves_nothing_behind(
    caplog: pytest.LogCaptureFixture, fault: SourceError | None
) -> None:
    sides: list[Joining] = []

    def made(topics: Collection[str], group: str) -> Joining:
        sides.append(Joining(None if sides else fault))
        return sides[-1]

    running = Runner("orders", group="g", handler=Handling(), create_topics=False, source=made)
    task = asyncio.create_task(running.run(signals=False))
    for side in sides:
        await side.begun.wait()
    if fault is None:
        running.stop()
    with suppress(SourceError) if fault is None else pytest.raises(SourceError, match="away"):
        await asyncio.wait_for(task, PATIENCE_S)
    assert [side.left for side in sides] == [True, True]
    del task
    gc.collect()
    assert not [record for record in caplog.records if record.name == "asyncio"]
