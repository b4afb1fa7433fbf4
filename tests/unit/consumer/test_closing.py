"""However a consumer ends, its owner gets an end in time and nobody else's cancellation."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import pytest

from sidecar.consumer.closing import close

WITHIN_S = 0.05


@dataclass
class Part:
    closed: bool = False
    hangs: bool = False

    async def close(self) -> None:
        if self.hangs:
            await asyncio.Event().wait()
        self.closed = True


@dataclass
class Consumer:
    stop: Callable[[], Awaitable[None]]
    _fetcher: Part = field(default_factory=Part)
    _client: Part = field(default_factory=Part)


async def in_good_order() -> None:
    pass


async def with_a_cancelled_fetch() -> None:
    fetch = asyncio.create_task(asyncio.sleep(3600))
    await asyncio.sleep(0)
    fetch.cancel()
    await fetch


async def with_an_error() -> None:
    raise OSError("no route")


async def for_ever() -> None:
    await asyncio.Event().wait()


async def test_what_leaves_in_good_order_is_left_alone() -> None:
    consumer = Consumer(in_good_order)
    assert not await close(consumer, 60.0)
    assert not consumer._client.closed


@pytest.mark.parametrize(
    ("stop", "why"),
    [
        (with_a_cancelled_fetch, "a fetch of it had to be cancelled"),
        (with_an_error, "OSError: no route"),
        (for_ever, "it took too long"),
    ],
)
async def test_what_does_not_is_closed_by_its_parts(
    stop: Callable[[], Awaitable[None]], why: str
) -> None:
    consumer = Consumer(stop)
    assert await close(consumer, WITHIN_S) == why
    assert consumer._fetcher.closed
    assert consumer._client.closed


async def test_a_part_that_hangs_keeps_the_next_from_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sidecar.consumer.closing.CLOSE_S", WITHIN_S)
    consumer = Consumer(for_ever, Part(hangs=True))
    assert await close(consumer, WITHIN_S)
    assert consumer._client.closed


async def test_the_callers_own_cancellation_is_the_callers() -> None:
    ended: list[bool] = []

    async def stop() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(True)

    closing = asyncio.create_task(close(Consumer(stop), 60.0))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    await asyncio.sleep(0)
    assert ended
