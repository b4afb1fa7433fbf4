"""One topic and partition: its records, one batch after the other, straight to Kafka or the spool.

Only one batch is on its way at any time. So when one isn't confirmed, nothing that came later has
been sent yet, and all of it goes to the spool in the order it was accepted in.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Final

from sidecar.core.errors import SpoolDiskFull, SpoolFault, SpoolFull
from sidecar.core.outage import HOLD_S, Fate, Gate, Route, fate, route
from sidecar.core.placing import UNPLACED
from sidecar.core.publishing import (
    SEQUENCE_HEADER,
    Confirmed,
    Delivered,
    DeliveryFault,
    Dropped,
    NeverDelivered,
    NotListed,
    Outcome,
    Refusal,
    Refused,
    Spooled,
)
from sidecar.publish.ticket import Item, Ticket, settle_all
from sidecar.publish.waiters import Waiters

if TYPE_CHECKING:
    from sidecar.publish.topic import Topic

BATCH_RECORDS: Final = 5_000
APPEND_BYTES: Final = 8 * 1024 * 1024
APPEND_RECORDS: Final = 2_000
PIECE: Final = 200
"""Of many records so many are seen to before others have a turn."""
GIVEN_UP: Final = Refused(Refusal.UNAVAILABLE, "its time was over before it was begun")
OVERHEAD: Final = 64
"""Bytes of a record beside its key and value, generously."""


class Lane:
    """What is on its way for one partition.

    `UNPLACED` is a lane too: of records whose partition nobody can know yet. It leads to the
    spool alone.
    """

    def __init__(self, topic: Topic, partition: int) -> None:
        self.topic = topic
        self.partition = partition
        self._around = topic.around
        self.gate = Gate(waiting=self._backlog() > 0)
        self.appending = False
        """Records are being handed to the spool."""
        self.arrived = asyncio.Event()
        """The spool has got something for the replay."""
        self.moved = asyncio.Event()
        """The gate did, and who waits at it should look again."""
        self.waiters = Waiters()
        self._queue: deque[Item] = deque()
        self._wake = asyncio.Event()
        self._limit: asyncio.Timeout | None = None
        self._counted = 0
        """Records for two clusters that were sent or spooled since the start: the last one's
        counter."""

    def _backlog(self) -> int:
        spool = self._around.spool
        return spool.backlog(self.topic.name, self.partition).records if spool else 0

    @property
    def occupied(self) -> bool:
        """Whether anything that came before would be overtaken by a record that goes elsewhere."""
        return self.gate.shut or self.appending or bool(self._queue)

    def put(self, items: Iterable[Item]) -> None:
        """Take records in; they keep the order of the calls."""
        self._queue.extend(items)
        self._wake.set()

    def hurry(self) -> None:
        """Wait only a moment longer for what is on its way."""
        if self._limit is not None and not self._limit.expired():
            soon = asyncio.get_running_loop().time() + HOLD_S
            when = self._limit.when()
            if when is None or soon < when:
                self._limit.reschedule(soon)

    async def run(self) -> None:
        """The lane's task."""
        while True:
            if not self._queue:
                self._wake.clear()
                await self._wake.wait()
            await self._step()

    async def _step(self) -> None:
        now = self._around.now()
        taken = route(self.topic.policy.outage, self.gate, self.topic.circuit, now)
        if taken is Route.DIRECT and self.partition == UNPLACED:
            taken = Route.SPOOL
        match taken:
            case Route.HOLD:
                await self._held(self.gate.held_for(now))
            case Route.DIRECT:
                await self._whole(self._direct, self.topic.batch_bytes, BATCH_RECORDS)
            case Route.SPOOL:
                await self._whole(self._spool, APPEND_BYTES, APPEND_RECORDS)
            case Route.DROP:
                settle_all(self._take(APPEND_BYTES, APPEND_RECORDS), Dropped("Kafka is away"))
            case Route.REFUSE:
                settle_all(
                    self._take(APPEND_BYTES, APPEND_RECORDS),
                    Refused(Refusal.UNAVAILABLE, "Kafka does not take records now"),
                )

    async def _whole(
        self, handle: Callable[[list[Item]], Awaitable[None]], max_bytes: int, max_records: int
    ) -> None:
        """Handle the next batch; whatever ends that early, each of its records has an answer."""
        items = self._take(max_bytes, max_records)
        try:
            await handle(items)
        except BaseException:
            settle_all(items, Refused(Refusal.UNKNOWN_OUTCOME, "the sidecar was interrupted"))
            raise

    async def _held(self, for_s: float) -> None:
        self.moved.clear()
        try:
            async with asyncio.timeout(for_s):
                await self.moved.wait()
        except TimeoutError:
            return

    def _take(self, max_bytes: int, max_records: int) -> list[Item]:
        """The oldest records, at least one where there is any; nobody waits for those given up."""
        taken: list[Item] = []
        size = 0
        while self._queue and len(taken) < max_records:
            item = self._queue[0]
            if item[1].given_up:
                item[1].settle(item[2], GIVEN_UP)
            else:
                size += size_of(item)
                if size > max_bytes and taken:
                    break
                taken.append(item)
            self._queue.popleft()
        return taken

    # --- straight to Kafka -----------------------------------------------------------------

    async def _direct(self, items: list[Item]) -> None:
        if not items:
            return
        within_s = self._around.policy.delivery_timeout_s
        counted = self._counted_in(items)
        began = self._around.now()
        try:
            confirmed = await self._sent(counted, within_s)
        except NeverDelivered as fault:
            self._uncount(counted)
            await self._never(items, fault)
        except TimeoutError:
            took_s = self._around.now() - began  # less than within_s where there is a hurry
            await self._failed(counted, DeliveryFault(f"not confirmed within {took_s:.2g} s"))
        except DeliveryFault as fault:
            await self._failed(counted, fault)
        else:
            self.topic.delivered()
            for at, (_, ticket, index) in enumerate(items):
                ticket.settle(index, delivered(confirmed, self.partition, at))

    def _counted_in(self, items: list[Item]) -> list[Item]:
        """The same records, each with its counter where there are two clusters.

        Whoever finds that none of them is anywhere takes the counters back, so that readers miss
        none.
        """
        pair = self.topic.pair
        if pair is None or self.partition == UNPLACED:
            return items
        first = self._counted + 1
        self._counted += len(items)
        return [
            (pair.stamped(record, first + at), ticket, index)
            for at, (record, ticket, index) in enumerate(items)
        ]

    def _uncount(self, items: list[Item]) -> None:
        """None of these is anywhere. The last header is a counter, where they have one."""
        if items and items[0][0].headers[-1][0] == SEQUENCE_HEADER:
            self._counted -= len(items)

    async def _sent(self, items: list[Item], within_s: float) -> Confirmed:
        """Raises TimeoutError after `within_s`, or earlier where there is a hurry."""
        try:
            async with asyncio.timeout(within_s) as self._limit:
                return await self.topic.send(
                    self.partition, [item[0] for item in items], within_s + 1.0
                )
        finally:
            self._limit = None

    async def _never(self, items: list[Item], fault: NeverDelivered) -> None:
        """One of them, or each, can't ever be delivered: find out which."""
        if len(items) == 1 or fault.why in {Refusal.UNKNOWN_TOPIC, Refusal.UNKNOWN_PARTITION}:
            self.topic.dead(fault.why, len(items))
            settle_all(items, Refused(fault.why, str(fault)))
            return
        if fault.why is Refusal.TOO_LARGE:
            self.topic.too_large(sum(map(size_of, items)))
        half = len(items) // 2
        for part in (items[:half], items[half:]):
            if self.gate.shut:
                await self._spool(part)
            else:
                await self._direct(part)

    async def _failed(self, items: list[Item], fault: DeliveryFault) -> None:
        self.topic.failed(str(fault))
        if isinstance(fault, NotListed):
            self.topic.wonder()
        match fate(self.topic.policy.outage, permanent=False):
            case Fate.SPOOL:
                await self._append(items, perhaps=not fault.unsent)
            case Fate.DROP:
                settle_all(items, Dropped(str(fault)))
            case _:
                why = Refusal.UNAVAILABLE if fault.unsent else Refusal.UNKNOWN_OUTCOME
                settle_all(items, Refused(why, str(fault)))

    # --- into the spool --------------------------------------------------------------------

    async def _spool(self, items: list[Item]) -> None:
        """Hand records to the spool that were not sent."""
        await self._append(self._counted_in(items), perhaps=False)

    async def _append(self, items: list[Item], *, perhaps: bool) -> None:
        """Hand counted records to the spool, the gate shut behind them.

        Args:
            perhaps: Kafka may have them already, so that a refusal would be a lie.
        """
        spool = self._around.spool
        if not items or spool is None:
            if not perhaps:
                self._uncount(items)
            settle_all(items, Refused(Refusal.UNAVAILABLE, "there is no spool"))
            return
        self.gate.unresolved()
        self.appending = True
        try:
            records = [item[0] for item in items]
            seqs = await spool.append(self.topic.name, self.partition, records)
        except (SpoolFault, ValueError) as fault:
            if not perhaps:
                self._uncount(items)
            settle_all(items, _refusal(fault, perhaps))
        else:
            self._around.pace.inflow.add(len(items), self._around.now())
            await self._spooled(items, seqs)
        finally:
            self.appending = False
            self.arrived.set()

    async def _spooled(self, items: Sequence[Item], seqs: Sequence[int]) -> None:
        told = None if self.partition == UNPLACED else self.partition
        for (_, ticket, index), seq in zip(items, seqs, strict=True):
            # All of them at once: the replay may be at these records already.
            if ticket.delivered and not ticket.given_up and isinstance(ticket, Ticket):
                ticket.note(index, Spooled(told, seq))
                self.waiters.add(seq, ticket, index)
        for at, ((_, ticket, index), seq) in enumerate(zip(items, seqs, strict=True)):
            if at % PIECE == PIECE - 1:
                await asyncio.sleep(0)
            if not ticket.delivered or ticket.given_up:
                ticket.settle(index, Spooled(told, seq))

    def undelivered(self, seq: int) -> bool:
        """Whether a spooled record is still to be delivered."""
        spool = self._around.spool
        return (
            spool is not None
            and seq > self.waiters.told
            and seq > spool.backlog(self.topic.name, self.partition).done_seq
        )


def delivered(confirmed: Confirmed, partition: int, at: int) -> Delivered:
    """Where the record at a place of a confirmed batch is."""
    offset = None if confirmed.offset is None else confirmed.offset + at
    return Delivered(partition, offset, confirmed.cluster)


def size_of(item: Item) -> int:
    """About how many bytes a record takes on its way."""
    record = item[0]
    size = OVERHEAD + len(record.value or b"") + len(record.key or b"")
    for name, value in record.headers:
        size += len(name) + len(value or b"") + 2
    return size


def _refusal(fault: Exception, perhaps: bool) -> Outcome:
    if perhaps:
        return Refused(
            Refusal.UNKNOWN_OUTCOME, f"Kafka didn't confirm it, and the spool took nothing: {fault}"
        )
    if isinstance(fault, SpoolDiskFull):
        return Refused(Refusal.DISK_FULL, str(fault))
    if isinstance(fault, SpoolFull):
        return Refused(Refusal.SPOOL_FULL, str(fault))
    if isinstance(fault, SpoolFault):
        return Refused(Refusal.SPOOL_FAILED, str(fault))
    return Refused(Refusal.INVALID, str(fault))
