"""Who is at work on what, and who has to stop: too long at it, or the event is another's now."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection

from sidecar.consumer.flow import Shard
from sidecar.consumer.source import Record


class TookTooLong(Exception):
    """A handler was cancelled after `handler_s`; that may pass."""


class Seat:
    """One worker, and what it is at."""

    __slots__ = ("flag", "ordered", "record", "row", "seen", "shard", "since", "task")

    def __init__(self) -> None:
        self.task: asyncio.Task[None] | None = None
        self.shard: Shard | None = None
        """Of the event it is at; None: of none."""
        self.record: Record | None = None
        """The event it is at, where `shard` says there is one."""
        self.seen: Record | None = None
        """The event it was at when the watch last looked."""
        self.since = 0.0
        """When the watch first saw it at that (monotonic)."""
        self.flag = False
        """Somebody wants it to stop taking events in a row."""
        self.ordered: str | None = None
        """Why it was cancelled: `overdue` or `revoked`; None: nobody has."""
        self.row = 1
        """How many events it takes in a row: as many as it does within a turn."""

    def order(self, why: str) -> None:
        """Have its handler cancelled."""
        if self.ordered is None and self.task is not None:
            self.ordered, self.flag = why, True
            self.task.cancel()

    def countermand(self) -> None:
        """The order was carried out, or came too late."""
        self.ordered = None
        if self.task is not None:
            self.task.uncancel()


class Seats:
    """All workers' seats.

    Args:
        handler_s: how long a handler may take.
        clock: monotonic seconds.
    """

    def __init__(self, handler_s: float, clock: Callable[[], float]) -> None:
        self._handler_s = handler_s
        self._clock = clock
        self._all: list[Seat] = []

    def add(self) -> Seat:
        """One more."""
        seat = Seat()
        self._all.append(seat)
        return seat

    @property
    def busy(self) -> int:
        """How many handlers are at work."""
        return sum(seat.shard is not None for seat in self._all)

    def of(self, shards: Collection[Shard]) -> int:
        """How many handlers are at work on events of these."""
        return sum(seat.shard is not None and seat.shard in shards for seat in self._all)

    def cancel(self, shards: Collection[Shard]) -> None:
        """Stop the handlers of these; what they did not finish is somebody else's."""
        for seat in self._all:
            if seat.shard is not None and seat.shard in shards:
                seat.order("revoked")

    def watch(self) -> None:
        """Look at every handler, a few times a second: stop those that have taken too long.

        Looking from here spares each event a look at the clock.
        """
        now = self._clock()
        for seat in self._all:
            seat.flag = True
            if seat.shard is None or seat.record is not seat.seen:
                seat.seen = None if seat.shard is None else seat.record
                seat.since = now
            elif now - seat.since >= self._handler_s:
                seat.order("overdue")

    def fault(self, seat: Seat, error: BaseException) -> Exception | None:
        """What an event failed of; None: of nothing that is its own. Raises what isn't ours."""
        ordered = seat.ordered
        if ordered is not None:
            seat.countermand()
        if isinstance(error, Exception):
            return error
        if not isinstance(error, asyncio.CancelledError):
            raise error
        if ordered == "overdue":
            return TookTooLong(f"the handler took more than {self._handler_s:g} s")
        if ordered == "revoked":
            return None
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise error
        return RuntimeError("the handler awaited something that was cancelled")
