"""Brings one lane's backlog to Kafka: oldest first, and the first failure stops it for a while."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from sidecar.core.absence import Presence
from sidecar.core.errors import SpoolFault
from sidecar.core.outage import Outage
from sidecar.core.placing import UNPLACED, partition_of
from sidecar.core.publishing import Confirmed, DeliveryFault, NeverDelivered, NotListed, Refusal
from sidecar.core.spooling import NewRecord, Spool, Stored
from sidecar.publish.lane import Lane, delivered
from sidecar.publish.letters import Letter
from sidecar.publish.underway import UnderWay
from sidecar.telemetry import names

BATCH_RECORDS: Final = 2_000
TRIAL_RECORDS: Final = 50
"""What is tried with after a failure. Each trial in an outage is read and packed in vain, and
thousands at a time would take the loop from those who hand records over."""
BACKOFF_S: Final = 0.25
MAX_BACKOFF_S: Final = 5.0
WITHIN_S: Final = 5.0
"""One batch to Kafka; a backlog has no client that waits, and slow is better than twice."""
LOOK_S: Final = 0.5
"""How often a replay that stands still looks whether it may go on."""


class Replay:
    """The replay of one lane."""

    def __init__(self, lane: Lane, spool: Spool) -> None:
        self._lane = lane
        self._topic = lane.topic
        self._around = lane.topic.around
        self._spool = spool
        self._name = lane.topic.name
        self._partition = lane.partition
        self._failures = 0
        self._sent = 0
        """Everything up to this sequence is in Kafka …"""
        self._noted = 0
        """… and up to this one the spool knows that."""
        self._noting: asyncio.Task[None] | None = None
        self._ahead: asyncio.Task[Sequence[Stored]] | None = None
        self._most = BATCH_RECORDS
        self._apart: set[int] = set()
        """Sequences of the present batch that are in Kafka though others of it aren't."""
        self._fate = UnderWay(self._apart, self._lose)

    async def run(self) -> None:
        """The replay's task."""
        self._spool.hear(self._name, self._partition, self._fate.given_up)
        try:
            while True:
                await self._step()
        finally:
            self._spool.hear(self._name, self._partition, None)
            for task in (self._noting, self._ahead):
                if task is not None:
                    task.cancel()
            self._noting = self._ahead = None

    async def _step(self) -> None:
        waiting = self._spool.backlog(self._name, self._partition)
        if waiting.records == 0:
            self._failures = 0
            await self._rest()
            return
        if self._spool.paused(self._name):
            self._lane.gate.hold_no_more()
            self._lane.moved.set()
            await asyncio.sleep(LOOK_S)
            return
        now = self._around.now()
        if (wait_s := self._around.pace.wait_s(now)) > 0:
            await asyncio.sleep(wait_s)
            return
        try:
            await self._go_on(max(self._sent, waiting.done_seq))
        except (SpoolFault, OSError) as fault:
            self._tell(names.REPLAY_STOPPED, str(fault), "error")
            await self._failed(str(fault))

    async def _go_on(self, after: int) -> None:
        try:
            batch = self._left_of(await self._next(after))
            if batch:
                await self._deliver(batch)
            else:
                await self._note_all()
        except DeliveryFault as fault:
            await self._undelivered(fault, after)

    async def _rest(self) -> None:
        """Nothing waits: open the gate, then sleep until something does."""
        self._lane.arrived.clear()
        if self._lane.gate.shut and not self._lane.appending:
            self._lane.gate.emptied()
            self._lane.moved.set()
        await self._lane.arrived.wait()

    async def _next(self, after: int) -> Sequence[Stored]:
        """The next batch, read while the one before was on its way."""
        ahead, self._ahead = self._ahead, None
        if ahead is not None:
            batch = await ahead
            if batch and batch[0].seq > after and len(batch) <= self._most:
                return batch
        return await self._read(after)

    def _left_of(self, batch: Sequence[Stored]) -> Sequence[Stored]:
        """Without those that were given up since they were read: they are counted, so none goes."""
        done = self._spool.backlog(self._name, self._partition).done_seq
        if not batch or batch[0].seq > done:
            return batch
        return [stored for stored in batch if stored.seq > done]

    async def _read(self, after: int) -> Sequence[Stored]:
        return await self._spool.read(
            self._name,
            self._partition,
            after=after,
            max_records=self._most,
            max_bytes=self._topic.batch_bytes,
        )

    async def _deliver(self, batch: Sequence[Stored]) -> None:
        last = batch[-1].seq
        waiting = self._spool.backlog(self._name, self._partition)
        ends = waiting.last_seq <= last
        if ends and self._failures == 0 and self._topic.policy.outage is not Outage.SPOOL_ALL:
            self._lane.gate.hold(self._around.now())
        self._around.pace.sent(len(batch), self._around.now())
        if not ends and not self._failures:
            self._ahead = asyncio.get_running_loop().create_task(
                self._read(last), name=f"read ahead {self._name}/{self._partition}"
            )
        with self._fate.of(batch):
            await self._send(batch)
        self._failures = 0
        self._most = min(BATCH_RECORDS, self._most * 2)
        self._topic.delivered()
        await self._note(last, whole=ends)

    async def _send(self, batch: Sequence[Stored]) -> None:
        if self._partition == UNPLACED:
            await self._unplaced(batch)
        else:
            records = [stored.record for stored in batch]
            confirmed = await self._topic.send(self._partition, records, WITHIN_S)
            self._delivered(batch, self._partition, confirmed)

    def _delivered(self, batch: Sequence[Stored], partition: int, confirmed: Confirmed) -> None:
        self._around.telemetry.count(names.SPOOL_REPLAYED, len(batch), topic=self._name)
        self._around.pace.outflow.add(len(batch), self._around.now())
        if self._lane.waiters:
            for at, stored in enumerate(batch):
                self._lane.waiters.tell(stored.seq, delivered(confirmed, partition, at))

    async def _unplaced(self, batch: Sequence[Stored]) -> None:
        """Place what nobody could place before, and send it partition by partition."""
        count = self._topic.placement.partitions
        if count is None:
            count = await self._around.carrier.look(self._name, WITHIN_S)
            self._topic.placement.learn(count, waiting=False)
        parts: dict[int, list[Stored]] = {}
        for stored in batch:
            if stored.seq not in self._apart:
                key = stored.record.key
                # Keyless ones go by their sequence, so that a second try finds the same place.
                at = stored.seq % count if key is None else partition_of(key, count)
                parts.setdefault(at, []).append(stored)
        for partition, part in parts.items():
            records: list[NewRecord] = [stored.record for stored in part]
            confirmed = await self._topic.send(partition, records, WITHIN_S)
            self._delivered(part, partition, confirmed)
            self._apart.update(stored.seq for stored in part)
        self._apart.difference_update(stored.seq for stored in batch)

    # --- progress --------------------------------------------------------------------------

    async def _note(self, seq: int, *, whole: bool) -> None:
        """Let the spool know, aside while there is more to send."""
        self._sent = self._lane.waiters.told = max(self._sent, seq)
        if self._noting is None or self._noting.done():
            self._noting = asyncio.get_running_loop().create_task(
                self._note_on(), name=f"note {self._name}/{self._partition}"
            )
        if whole:
            await self._note_all()

    async def _note_all(self) -> None:
        if self._noting is not None:
            await asyncio.wait({self._noting})
        # A read that brought nothing though something waits: all of it was damaged or too old.
        waiting = self._spool.backlog(self._name, self._partition)
        if waiting.records and waiting.last_seq <= self._sent:
            await asyncio.sleep(LOOK_S)

    async def _note_on(self) -> None:
        try:
            while self._noted < self._sent:
                seq = self._sent
                await self._spool.done(self._name, self._partition, seq)
                self._noted = seq
        except SpoolFault as fault:
            self._noted = self._sent
            self._tell(names.REPLAY_UNNOTED, str(fault), "error")

    # --- what goes wrong -------------------------------------------------------------------

    async def _undelivered(self, fault: DeliveryFault, after: int) -> None:
        never = fault if isinstance(fault, NeverDelivered) else None
        if isinstance(fault, NotListed) or (never and never.why is Refusal.UNKNOWN_TOPIC):
            # It may be made again, and the records are safe until it is certain that it won't.
            never = self._topic.no_topic() if await self._topic.gone() else None
        elif never is None:
            self._topic.heard(Presence.UNREACHABLE)
        if never is None:
            await self._failed(str(fault))
            return
        self._drop_ahead()
        await self._never(never, after)

    async def _never(self, fault: NeverDelivered, after: int) -> None:
        """Some record of the batch won't do, or the topic is gone and none will."""
        batch = self._left_of(await self._read(after))
        if len(batch) > 1 and fault.why is not Refusal.UNKNOWN_TOPIC:
            self._most = max(1, len(batch) // 2)
            return
        with self._fate.of(batch):
            await self._set_aside([one for one in batch if one.seq not in self._apart], fault)
        self._apart.difference_update(one.seq for one in batch)
        if batch:
            await self._note(batch[-1].seq, whole=True)

    async def _set_aside(self, batch: Sequence[Stored], fault: NeverDelivered) -> None:
        why, said, at = str(fault.why), str(fault), self._around.wall()
        if self._around.letters is not None:
            await self._around.letters.add(
                [Letter(self._name, self._partition, one.record, why, said, at) for one in batch]
            )
        self._topic.dead(fault.why, len(batch))
        self._tell(names.DEAD_LETTER, said, "error", records=len(batch))
        for one in batch:
            self._lane.waiters.forget(one.seq)

    def _lose(self, records: int, reason: str) -> None:
        """So many were given up, and Kafka hasn't confirmed them."""
        self._around.telemetry.count(names.SPOOL_DROPPED, records, topic=self._name, reason=reason)

    async def _failed(self, why: str) -> None:
        """Stand still for a while, longer each time."""
        self._drop_ahead()
        self._lane.gate.hold_no_more()
        self._lane.moved.set()
        if self._failures == 0:
            self._tell(names.REPLAY_WAITS, why, "warning")
        pause_s = min(MAX_BACKOFF_S, BACKOFF_S * 2.0 ** min(self._failures, 16))
        self._failures += 1
        self._most = min(self._most, TRIAL_RECORDS)
        await asyncio.sleep(pause_s * (0.5 + 0.5 * self._around.draw()))

    def _drop_ahead(self) -> None:
        ahead, self._ahead = self._ahead, None
        if ahead is not None and not ahead.cancel() and not ahead.cancelled():
            ahead.exception()  # it is read again, and fails again if it has to

    def _tell(self, event: str, why: str, level: str, **more: int) -> None:
        partition = None if self._partition == UNPLACED else self._partition
        self._around.telemetry.event(
            event, level=level, topic=self._name, partition=partition, error=why, **more
        )
