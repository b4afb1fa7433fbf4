"""A handler is stopped for taking too long or for losing its partition, and for nothing else."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from sidecar.consumer.flow import Shard
from sidecar.consumer.seats import Seat, Seats, TookTooLong
from sidecar.consumer.source import Place
from tests.unit.consumer.records import Rec


class Desk:
    """One seat, whose handler never ends by itself."""

    def __init__(self) -> None:
        self.now = 0.0
        self.seats = Seats(5.0, lambda: self.now)
        self.seat: Seat = self.seats.add()
        self.shard = Shard(Place("orders", 0), 0, {})
        self.fault: Exception | None = None

    async def _handle(self) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError as error:
            self.fault = self.seats.fault(self.seat, error)

    async def at(self, record: Rec) -> None:
        self.seat.shard, self.seat.record = self.shard, record
        self.seat.task = asyncio.create_task(self._handle())
        await asyncio.sleep(0)

    async def ended(self) -> Exception | None:
        assert self.seat.task is not None
        await self.seat.task
        assert not self.seat.task.cancelling(), "the worker goes on"
        assert self.seat.ordered is None
        return self.fault


async def test_one_event_may_take_so_long_and_the_next_again() -> None:
    desk = Desk()
    await desk.at(Rec(1))
    for desk.now in (0.0, 4.9):
        desk.seats.watch()
    desk.seat.record = Rec(2)
    for desk.now in (6.0, 10.9):
        desk.seats.watch()
    assert desk.seat.ordered is None
    assert desk.seat.flag, "it looks up now and then"
    desk.now = 11.0
    desk.seats.watch()
    desk.seats.watch()  # one order is enough
    fault = await desk.ended()
    assert isinstance(fault, TookTooLong)
    assert str(fault) == "the handler took more than 5 s"


async def test_whose_partition_is_gone_fails_of_nothing_of_its_own() -> None:
    desk = Desk()
    await desk.at(Rec(1))
    other = Shard(Place("orders", 1), 0, {})
    desk.seats.cancel([other])
    assert (desk.seats.busy, desk.seats.of([other]), desk.seats.of([desk.shard])) == (1, 0, 1)
    assert desk.seat.ordered is None
    desk.seats.cancel([desk.shard])
    assert await desk.ended() is None


async def test_a_cancellation_that_nobody_ordered_is_the_workers_own_or_the_handlers_defect() -> (
    None
):
    desk = Desk()
    await desk.at(Rec(1))
    assert desk.seat.task is not None
    desk.seat.task.cancel()
    with suppress(asyncio.CancelledError):
        await desk.seat.task
    assert desk.seat.task.cancelled(), "somebody ends the worker"
    inside = desk.seats.fault(Seat(), asyncio.CancelledError())
    assert isinstance(inside, RuntimeError)
    with pytest.raises(KeyboardInterrupt):
        desk.seats.fault(Seat(), KeyboardInterrupt())
