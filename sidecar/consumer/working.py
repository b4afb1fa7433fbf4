"""The workers: they take events in line, run the handler, and say what becomes of each event."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import deque
from collections.abc import Callable, Iterator
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
from sidecar.consumer.seats import Seat, Seats
from sidecar.consumer.source import Record
from sidecar.consumer.store import Known, Verdict
from sidecar.consumer.told import words

log = logging.getLogger(__name__)

LONGEST_TURN_S = 0.01
"""A worker whose handlers never wait lets others run at least that often."""
MOST_IN_A_ROW = 256
"""Events of one partition that a worker takes before it looks what else there is."""
_DROPPED = {Verdict.KNOWN: Outcome.KNOWN, Verdict.STALE: Outcome.STALE}


class Undecodable(Exception):
    """The value can't be decoded; that doesn't pass."""


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
        self.seats = Seats(work.handler_s, clock)
        """Who is at work on what."""
        self._sleepers: deque[asyncio.Future[None]] = deque()
        self._brake_timer: asyncio.TimerHandle | None = None
        plain = work.ledger is None and work.hooks.around is None
        self._handle: Handler[Any] = work.handler if plain else self._handle_fully
        self._permanent: tuple[type[Exception], ...] = (
            Permanent,
            Undecodable,
            Unidentified,
            *work.permanent,
        )

    @property
    def _watched(self) -> bool:
        """Whether somebody is told of each event."""
        return self._work.hooks.ended is not None or self._flow.durations is not None

    def start(self, concurrency: int) -> list[asyncio.Task[None]]:
        """Begin; the tasks never end by themselves."""
        tasks = []
        for number in range(concurrency):
            seat = self.seats.add()
            seat.task = asyncio.create_task(self._run(seat), name=f"breaker-worker-{number}")
            tasks.append(seat.task)
        return tasks

    # Waiting for something to do.

    def kick(self) -> None:
        """There may be something to do: wake as many as could do it."""
        flow = self._flow
        most = len(flow.lanes.next) + sum(len(shard.line.waiting) for shard in flow.ready)
        if self._brake.engaged:
            wait_s = self._brake.wait_s(self._clock())
            if wait_s is None:
                return
            if wait_s > 0:
                self._wake_in(wait_s)
                return
            most = min(most, 1)
        while self._sleepers and most > 0:
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

    def _idle(self) -> bool:
        """Whether there is nothing that may be begun."""
        flow, brake = self._flow, self._brake
        if not flow.lanes.next and not flow.ready:
            return True
        return brake.engaged and brake.wait_s(self._clock()) != 0

    async def _sleep(self) -> None:
        self.kick()
        sleeper = asyncio.get_running_loop().create_future()
        self._sleepers.append(sleeper)
        await sleeper

    # Working.

    async def _run(self, seat: Seat) -> None:
        lanes, ready = self._flow.lanes, self._flow.ready
        turn_ends = self._clock() + LONGEST_TURN_S
        while True:
            while self._idle():
                await self._sleep()
                turn_ends = self._clock() + LONGEST_TURN_S
            if lanes.next:
                key, item = lanes.next.popleft()
                if item.shard.live:
                    await self._attempt(seat, item)
                else:
                    lanes.leave(key)
            elif self._brake.row:
                await self._single(seat, ready[0])
            else:
                await self._several(seat, ready[0])
            self._flow.tell_room()
            if self._clock() > turn_ends:
                await asyncio.sleep(0)
                turn_ends = self._clock() + LONGEST_TURN_S

    async def _single(self, seat: Seat, shard: Shard) -> None:
        """The next event of a partition, if its key is free; else it waits for it."""
        item = Item(shard, shard.line.begin())
        if not shard.line.waiting:
            self._flow.ready.remove(shard)
        if self._flow.lanes.enter(item.record.key, item):
            await self._attempt(seat, item)

    async def _several(self, seat: Seat, shard: Shard) -> None:
        """Some events of one partition in a row: as `_attempt`, for the usual case, which is most.

        What `_attempt` does for each event is done here once for all that went well, so that the
        kit costs little more than a bare loop.
        """
        handle, ok, began = self._handle, 0, self._clock()
        seat.shard, seat.flag = shard, False
        plain = self._work.decode is None and shard.tier == 0
        try:
            for record in self._row(seat, shard):
                await handle(
                    Event(record, record.value, 0, 1) if plain else self._event(shard, record, 0)
                )
                ok += 1
        except BaseException as error:
            if seat.record is None:
                raise
            took_s = (self._clock() - began) / (ok + 1)
            self._ended_well(shard, None, ok, took_s * ok)
            self._ended_badly(seat, Item(shard, seat.record), error, took_s, trial=False)
        else:
            seat.shard = None
            if seat.ordered is not None:
                seat.countermand()
            took_s = self._clock() - began
            # Of one, whoever watches is told; where nobody does, rows are as long as a turn.
            self._ended_well(shard, seat.record if self._watched else None, ok, took_s)
            fits = ok * LONGEST_TURN_S / (took_s + 1e-9)
            seat.row = 1 if self._watched else max(1, min(MOST_IN_A_ROW, int(fits)))
        if self._flow.ready and self._flow.ready[0] is shard:
            self._flow.ready.rotate(-1)

    def _row(self, seat: Seat, shard: Shard) -> Iterator[Record]:
        """The next events of a partition whose keys are free.

        Asking for the next one says that the one before went well.
        """
        seat.record = None
        flow, waiting, begun = self._flow, shard.line.waiting, shard.line.begun
        busy = flow.lanes.busy
        for _ in range(seat.row):
            if seat.flag or not waiting:
                return
            record = waiting.popleft()
            if not waiting:
                flow.ready.remove(shard)
            begun.add(record.offset)
            key = record.key
            if key is not None:
                if key in busy:
                    flow.lanes.enter(key, Item(shard, record))
                    continue
                busy[key] = None
            seat.record = record
            yield record
            begun.discard(record.offset)
            if key is not None and (behind := busy.pop(key)) is not None:
                busy[key] = behind
                flow.lanes.leave(key)

    async def _attempt(self, seat: Seat, item: Item) -> None:
        """Try one event once; its key is its own."""
        brake, shard, record = self._brake, item.shard, item.record
        trial = brake.engaged and brake.start()
        seat.shard, seat.record = shard, record
        began = self._clock()
        try:
            await self._handle(self._event(shard, record, item.failed))
        except BaseException as error:  # noqa: BLE001 - what isn't the handler's is raised again
            self._ended_badly(seat, item, error, self._clock() - began, trial=trial)
        else:
            seat.shard = None
            if seat.ordered is not None:
                seat.countermand()
            self._flow.settle(shard, record.offset)
            self._flow.lanes.leave(record.key)
            self._ended_well(shard, record, 1, self._clock() - began)
        if trial:
            self.kick()

    def _event(self, shard: Shard, record: Record, failed: int) -> Event[Any]:
        """What the handler is given. Raises Undecodable."""
        value: Any = record.value
        decode = self._work.decode
        if decode is not None and value is not None:
            try:
                value = decode(value)
            except Exception as error:
                raise Undecodable(f"{type(error).__name__}: {error}") from error
        before = number_of(record.headers, ATTEMPTS) or 0 if shard.tier else 0
        return Event(record, value, shard.tier, before + failed + 1)

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
        event.begin_with(mark.identity, lambda: ledger.transaction(mark))
        with around:
            await work.handler(event)
        if not event.marked:
            ledger.note(mark)

    # What becomes of an event.

    def _ended_well(self, shard: Shard, record: Record | None, count: int, took_s: float) -> None:
        """So many events of a partition were handled, the last of them this one."""
        flow = self._flow
        if not shard.live:
            flow.progress.set()
        if not count:
            return
        flow.window.handled(count, took_s)
        shard.counts[Outcome.HANDLED] += count
        if self._brake.row:
            self._release()
        if record is not None:
            flow.time(took_s)
            if self._work.hooks.ended is not None:
                self._work.hooks.ended(record, Outcome.HANDLED, None)

    def _ended_badly(
        self, seat: Seat, item: Item, error: BaseException, took_s: float, *, trial: bool
    ) -> None:
        """An event was not handled. Raises what is not the handler's."""
        flow = self._flow
        seat.shard = None
        if not item.shard.live:
            flow.progress.set()
        fault = self.seats.fault(seat, error)
        if fault is None:
            self._brake.unsaid(trial=trial)
            flow.lanes.leave(item.record.key)
        elif isinstance(fault, Known):
            self._brake.unsaid(trial=trial)
            flow.window.settled()
            flow.settle(item.shard, item.record.offset)
            flow.lanes.leave(item.record.key)
            self._tell(item, _DROPPED[fault.verdict], None)
        elif isinstance(fault, self._permanent):
            item.failed += 1
            self._brake.unsaid(trial=trial)
            self._move(item, Dead(PERMANENT), fault)
        else:
            item.failed += 1
            self._missed(item, fault, took_s, trial=trial)

    def _missed(self, item: Item, error: Exception, took_s: float, *, trial: bool) -> None:
        """It failed in a way that may pass."""
        flow, brake = self._flow, self._brake
        flow.window.missed(took_s)
        flow.time(took_s)
        draw = random.random()  # noqa: S311 - spreads, guards nothing
        brake.failed(self._clock(), draw, trial=trial)
        if brake.engaged and not flow.braked:
            said = f"{brake.row} failures in a row, the last of them {words(error)}"
            flow.told.note("held back", f"{said}; events are tried one by one until one succeeds")
        flow.braked = brake.engaged
        step = self._work.policy.after_transient(
            failed=item.failed,
            tier=item.shard.tier,
            draw=random.random(),  # noqa: S311 - likewise
        )
        if isinstance(step, Again):
            self._tell(item, Outcome.AGAIN, error)
            asyncio.get_running_loop().call_later(step.pause_s, self._again, item)
        else:
            self._move(item, step, error)

    def _move(self, item: Item, step: Later | Dead, error: Exception) -> None:
        self._tell(item, Outcome.DEAD if isinstance(step, Dead) else Outcome.LATER, error)
        if not item.shard.gone:
            self._mover.move(item, step, error)
        self._flow.lanes.leave(item.record.key)

    def _again(self, item: Item) -> None:
        """Its pause is over."""
        if item.shard.live:
            self._flow.lanes.again(item.record.key, item)
        else:
            self._flow.lanes.leave(item.record.key)
        self.kick()

    def _release(self) -> None:
        """Something succeeded: everybody may go on."""
        self._brake.succeeded()
        if self._flow.braked:
            log.info("an event succeeded: no longer held back")
            self._flow.braked = False
            self._flow.room.set()
            self.kick()

    def _tell(self, item: Item, outcome: Outcome, error: BaseException | None) -> None:
        item.shard.counts[outcome] += 1
        if self._work.hooks.ended is not None:
            self._work.hooks.ended(item.record, outcome, error)
