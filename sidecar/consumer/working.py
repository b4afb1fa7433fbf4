"""The workers: they take events in line, run the handler, and say what becomes of each event."""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import Callable, Collection, Hashable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

from sidecar.consumer.brake import Brake
from sidecar.consumer.event import Event, Handler, Permanent
from sidecar.consumer.flow import Flow, Hooks, Item, Outcome, Shard
from sidecar.consumer.headers import ATTEMPTS, number_of
from sidecar.consumer.ledger import Ledger, Unidentified
from sidecar.consumer.moving import Mover
from sidecar.consumer.retry import PERMANENT, Again, Dead, Later, RetryPolicy
from sidecar.consumer.store import Known, Verdict

LONGEST_TURN_S = 0.01
"""A worker whose handlers never wait lets others run at least that often."""
_DROPPED = {Verdict.KNOWN: Outcome.KNOWN, Verdict.STALE: Outcome.STALE}


class TookTooLong(Exception):
    """A handler was cancelled after `handler_s`; that may pass."""


class Undecodable(Exception):
    """The value can't be decoded; that doesn't pass."""


@dataclass(slots=True, eq=False)
class Seat:
    """One worker, and what it is at."""

    task: asyncio.Task[None] | None = None
    item: Item | None = None
    since: float = 0.0
    """When the attempt began (monotonic)."""
    ordered: str | None = None
    """Why it was cancelled: `overdue` or `revoked`; None: nobody has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What workers need to know of an event's treatment."""

    handler: Handler[Any]
    decode: Callable[[bytes], Any] | None
    permanent: tuple[type[Exception], ...]
    policy: RetryPolicy
    ledger: Ledger | None
    hooks: Hooks
    handler_s: float


class Workers:
    """A fixed number of tasks that take events in line.

    Args:
        clock: monotonic seconds, the event loop's.
    """

    def __init__(
        self,
        flow: Flow,
        mover: Mover,
        brake: Brake,
        work: Work,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._flow = flow
        self._mover = mover
        self._brake = brake
        self._work = work
        self._clock = clock
        self._seats: list[Seat] = []
        self._sleepers: deque[asyncio.Future[None]] = deque()
        self._brake_timer: asyncio.TimerHandle | None = None
        plain = work.ledger is None and work.hooks.around is None
        self._handle: Handler[Any] = work.handler if plain else self._handle_fully

    def start(self, concurrency: int) -> list[asyncio.Task[None]]:
        """Begin; the tasks never end by themselves."""
        for number in range(concurrency):
            seat = Seat()
            seat.task = asyncio.create_task(self._run(seat), name=f"breaker-worker-{number}")
            self._seats.append(seat)
        return [seat.task for seat in self._seats if seat.task is not None]

    @property
    def busy(self) -> int:
        """How many handlers are at work."""
        return sum(seat.item is not None for seat in self._seats)

    def of(self, shards: Collection[Shard]) -> int:
        """How many handlers are at work on events of these."""
        return sum(seat.item is not None and seat.item.shard in shards for seat in self._seats)

    def kick(self) -> None:
        """There may be something to do: wake as many as could do it."""
        wait_s = self._brake.wait_s(self._clock())
        if wait_s is None:
            return
        if wait_s > 0:
            self._wake_in(wait_s)
            return
        most = 1 if self._brake.engaged else len(self._flow.lanes.ready)
        while self._sleepers and most:
            sleeper = self._sleepers.popleft()
            if not sleeper.done():
                sleeper.set_result(None)
                most -= 1

    def _wake_in(self, wait_s: float) -> None:
        if self._brake_timer is None:
            self._brake_timer = asyncio.get_running_loop().call_later(wait_s, self._brake_over)

    def _brake_over(self) -> None:
        self._brake_timer = None
        self.kick()

    def cancel(self, shards: Collection[Shard]) -> None:
        """Stop the handlers of these; what they did not finish is somebody else's."""
        for seat in self._seats:
            if seat.item is not None and seat.item.shard in shards and seat.task is not None:
                seat.ordered = seat.ordered or "revoked"
                seat.task.cancel()

    def cancel_overdue(self) -> None:
        """Stop the handlers that have taken longer than they may."""
        before = self._clock() - self._work.handler_s
        for seat in self._seats:
            overdue = seat.item is not None and seat.since < before
            if overdue and seat.ordered is None and seat.task is not None:
                seat.ordered = "overdue"
                seat.task.cancel()

    async def _run(self, seat: Seat) -> None:
        lanes, brake, clock = self._flow.lanes, self._brake, self._clock
        turn_ends = clock() + LONGEST_TURN_S
        while True:
            while not lanes.ready or (brake.engaged and brake.wait_s(clock()) != 0):
                self.kick()
                sleeper = asyncio.get_running_loop().create_future()
                self._sleepers.append(sleeper)
                await sleeper
                turn_ends = clock() + LONGEST_TURN_S
            key, item = lanes.ready.popleft()
            if not item.shard.live:
                lanes.free(key)
                continue
            if await self._attempt(seat, key, item) > turn_ends:
                await asyncio.sleep(0)
                turn_ends = clock() + LONGEST_TURN_S

    async def _attempt(self, seat: Seat, key: Hashable | None, item: Item) -> float:
        """Try it once. When that ended (monotonic)."""
        flow, brake = self._flow, self._brake
        trial = brake.engaged and brake.start()
        record, shard = item.record, item.shard
        tier = shard.tier
        before = number_of(record.headers, ATTEMPTS) or 0 if tier else 0
        seat.item = item
        seat.since = began = self._clock()
        try:
            value = self._value(record.value)
            await self._handle(Event(record, value, tier, before + item.failed + 1))
            if seat.ordered is not None:
                self._countermand(seat)
        except BaseException as error:  # noqa: BLE001 - what isn't the handler's is raised again
            seat.item = None
            ended = self._clock()
            fault = self._fault(seat, error)
            if fault is None:
                brake.unsaid(trial=trial)
                flow.lanes.free(key)
            else:
                self._failed(key, item, fault, ended - began, ended, trial=trial)
        else:
            seat.item = None
            ended = self._clock()
            flow.window.handled(ended - began)
            flow.time(ended - began)
            if flow.braked or trial:
                self._release()
            else:
                brake.succeeded()
            self._end(item, Outcome.HANDLED)
            flow.settle(item)
            flow.lanes.free(key)
        if not shard.live:
            flow.progress.set()
        if trial:
            self.kick()
        return ended

    def _value(self, value: bytes | None) -> Any:
        """What the handler is given. A tombstone has nothing to decode. Raises Undecodable."""
        decode = self._work.decode
        if decode is None or value is None:
            return value
        try:
            return decode(value)
        except Exception as error:
            raise Undecodable(f"{type(error).__name__}: {error}") from error

    async def _handle_fully(self, event: Event[Any]) -> None:
        """With the ledger and the hooks. Raises Known for an event that needs no handling."""
        work, ledger = self._work, self._work.ledger
        around = nullcontext() if work.hooks.around is None else work.hooks.around(event)
        if ledger is None:
            with around:
                await work.handler(event)
            return
        mark = ledger.mark(event)
        if (verdict := await ledger.look(mark)) is not Verdict.NEW:
            raise Known(verdict)
        event.begin_with(lambda: ledger.transaction(mark))
        with around:
            await work.handler(event)
        if not event.marked:
            ledger.note(mark)

    def _fault(self, seat: Seat, error: BaseException) -> Exception | None:
        """What the event failed of; None: of nothing that is its own. Raises what isn't ours."""
        ordered = seat.ordered
        if ordered is not None:
            self._countermand(seat)
        if isinstance(error, Exception):
            return error
        if not isinstance(error, asyncio.CancelledError):
            raise error
        if ordered == "overdue":
            return TookTooLong(f"the handler took more than {self._work.handler_s:g} s")
        if ordered == "revoked":
            return None
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise error
        return RuntimeError("the handler awaited something that was cancelled")

    @staticmethod
    def _countermand(seat: Seat) -> None:
        """The order was carried out, or came too late."""
        seat.ordered = None
        if seat.task is not None:
            seat.task.uncancel()

    def _failed(
        self,
        key: Hashable | None,
        item: Item,
        error: Exception,
        took_s: float,
        now: float,
        *,
        trial: bool,
    ) -> None:
        """Decide what becomes of an event that was not handled."""
        flow, brake, work = self._flow, self._brake, self._work
        if isinstance(error, Known):
            brake.unsaid(trial=trial)
            flow.window.settled()
            self._end(item, _DROPPED[error.verdict])
            flow.settle(item)
            flow.lanes.free(key)
            return
        item.failed += 1
        if isinstance(error, (Permanent, Undecodable, Unidentified, *work.permanent)):
            brake.unsaid(trial=trial)
            self._move(key, item, Dead(PERMANENT), error)
            return
        flow.window.missed(took_s)
        flow.time(took_s)
        brake.failed(now, random.random(), trial=trial)  # noqa: S311 - spreads, guards nothing
        flow.braked = brake.engaged
        step = work.policy.after_transient(
            failed=item.failed,
            tier=item.shard.tier,
            draw=random.random(),  # noqa: S311 - likewise
        )
        if not isinstance(step, Again):
            self._move(key, item, step, error)
            return
        self._end(item, Outcome.AGAIN, error)
        asyncio.get_running_loop().call_later(step.pause_s, self._again, key, item)

    def _move(self, key: Hashable | None, item: Item, step: Later | Dead, error: Exception) -> None:
        self._end(item, Outcome.DEAD if isinstance(step, Dead) else Outcome.LATER, error)
        if not item.shard.gone:
            self._mover.move(item, step, error)
        self._flow.lanes.free(key)

    def _again(self, key: Hashable | None, item: Item) -> None:
        """Its pause is over."""
        if item.shard.live:
            self._flow.lanes.again(key, item)
        else:
            self._flow.lanes.free(key)
        self.kick()

    def _release(self) -> None:
        """Something succeeded: everybody may go on."""
        self._brake.succeeded()
        self._flow.braked = False
        self._flow.room.set()
        self.kick()

    def _end(self, item: Item, outcome: Outcome, error: BaseException | None = None) -> None:
        item.shard.counts[outcome] += 1
        if self._work.hooks.ended is not None:
            self._work.hooks.ended(item.record, outcome, error)
