"""One topic: its strategy, its circuit, and where its records are placed."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final

from sidecar.core.absence import Absence, Presence
from sidecar.core.outage import Circuit, Outage
from sidecar.core.placing import UNPLACED, Placement, Spread, partition_of
from sidecar.core.publishing import (
    Carrier,
    Confirmed,
    Delivered,
    DeliveryFault,
    Draft,
    Dropped,
    NeverDelivered,
    Outcome,
    Refusal,
    Refused,
    Spooled,
    TopicPolicy,
)
from sidecar.core.spooling import Accepted, NewRecord
from sidecar.publish.around import Around
from sidecar.publish.lane import Lane
from sidecar.publish.pair import Pair
from sidecar.publish.ticket import Ticket
from sidecar.telemetry import names

PRESENCE_S: Final = 5.0
"""Asking several brokers for one topic, all together."""
BATCH_BYTES: Final = 512 * 1024
"""One batch to Kafka; halved where a topic takes less."""
LEAST_BATCH_BYTES: Final = 1024
_TOLD: Final[dict[type[Outcome], str]] = {
    Delivered: "delivered",
    Spooled: "spooled",
    Dropped: "dropped",
    Refused: "refused",
}
TELL_EVERY_S: Final = 10.0
"""Dropped and refused records of one topic are told so often at most, with their number."""


class Topic:
    """What is known of one topic.

    Args:
        label: its entry in the configuration; what metrics call it, so that `*` stays one series.
        begin: starts a lane's tasks.
    """

    def __init__(
        self,
        around: Around,
        name: str,
        *,
        label: str,
        policy: TopicPolicy,
        known: int | None,
        begin: Callable[[Lane], None],
    ) -> None:
        self.around = around
        self.name = name
        self.label = label
        self.policy = policy
        self.circuit = Circuit()
        self.placement = Placement(known)
        self.absence = Absence()
        self.lanes: dict[int, Lane] = {}
        self.batch_bytes = BATCH_BYTES
        self.outstanding = 0
        self._spread = Spread(int(around.draw() * (known or 1)))
        self._begin = begin
        self._looking: asyncio.Task[int] | None = None
        self._asking: asyncio.Task[None] | None = None
        self._untold: dict[str, int] = {}
        self._uncounted: dict[type[Outcome], int] = {}
        self._tell_at = float("-inf")

    # --- how records get there -------------------------------------------------------------

    @property
    def pair(self) -> Pair | None:
        """The two clusters that its records go to; None: one has to do."""
        return self.around.pair if self.policy.outage is Outage.DUAL else None

    @property
    def _asked(self) -> Carrier | Pair:
        """Who says how many partitions there are, and whether there is such a topic."""
        return self.pair or self.around.carrier

    async def send(
        self, partition: int, records: Sequence[NewRecord], within_s: float
    ) -> Confirmed:
        """Send a batch to Kafka. Raises as `Carrier.send` does."""
        if (pair := self.pair) is not None:
            return await pair.send(self.name, self.label, partition, records, within_s)
        return Confirmed(await self.around.carrier.send(self.name, partition, records, within_s))

    # --- where records go ------------------------------------------------------------------

    def lane(self, partition: int) -> Lane:
        """The lane of a partition, begun where it wasn't there."""
        lane = self.lanes.get(partition)
        if lane is None:
            lane = self.lanes[partition] = Lane(self, partition)
            self._begin(lane)
        return lane

    @property
    def waiting(self) -> bool:
        """Whether the spool holds anything of this topic."""
        return any(lane.gate.shut for lane in self.lanes.values())

    @property
    def known(self) -> bool:
        """Whether it is known how many partitions there are."""
        told = self._asked.partitions(self.name)
        if told is not None:
            self._learn(told)
        return self.placement.partitions is not None

    @property
    def unplaced(self) -> bool:
        """Where that isn't known: whether records go to the spool without a place of their own."""
        broken = self.circuit.broken_since is not None
        return broken and self.policy.outage.spools and self.policy.outage is not Outage.DUAL

    async def know(self) -> None:
        """Learn how many partitions there are, where nobody knows yet and asking may help.

        Raises:
            NeverDelivered: there is no such topic.
            DeliveryFault: it stays unknown.
        """
        if self.absence.certain and await self.gone():
            raise self.no_topic()
        if self.known:
            return
        broken = self.circuit.broken_since is not None
        if self.unplaced or (broken and not self.circuit.trial(self.around.now())):
            raise DeliveryFault("Kafka has not said yet how many partitions there are", unsent=True)
        if self._looking is None:
            self._looking = asyncio.get_running_loop().create_task(
                self._look(), name=f"look for {self.name}"
            )
        self._learn(await asyncio.shield(self._looking))
        if broken and not self.policy.outage.spools:
            self.delivered()  # the trial was this question

    async def _look(self) -> int:
        try:
            return await self._asked.look(self.name, self.around.policy.delivery_timeout_s)
        except NeverDelivered:
            raise
        except DeliveryFault as fault:
            self.failed(str(fault))
            raise
        finally:
            self._looking = None

    async def gone(self) -> bool:
        """Whether it is certain that there is no such topic any more; it is asked anew, and of two
        clusters each has to say so."""
        if (asking := self.wonder()) is None:
            return False
        await asyncio.shield(asking)
        return self.absence.certain

    def wonder(self) -> asyncio.Task[None] | None:
        """Ask the cluster aside whether there is such a topic; None: nobody wants to know."""
        if self.around.policy.missing_topic_after_s <= 0:
            return None
        if self._asking is None:
            self._asking = asyncio.get_running_loop().create_task(
                self._ask(), name=f"ask for {self.name}"
            )
        return self._asking

    async def _ask(self) -> None:
        try:
            self.heard(await self._asked.presence(self.name, PRESENCE_S))
        finally:
            self._asking = None

    def heard(self, presence: Presence) -> None:
        """A word of whether there is such a topic."""
        was, now = self.absence.certain, self.around.now()
        after_s = self.around.policy.missing_topic_after_s
        if self.absence.heard(presence, now, after_s) and not was:
            for_s = round(self.absence.for_s(now) or 0.0, 1)
            self.around.telemetry.event(
                names.TOPIC_GONE, level="error", topic=self.name, for_s=for_s
            )

    def no_topic(self) -> NeverDelivered:
        """What becomes of records while the topic is gone for certain."""
        for_s = self.absence.for_s(self.around.now()) or 0.0
        return NeverDelivered(
            Refusal.UNKNOWN_TOPIC, f"Kafka has had no topic {self.name} for {for_s:.0f} s"
        )

    def _learn(self, told: int) -> None:
        if told != self.placement.partitions and self.placement.learn(told, waiting=self.waiting):
            self.around.telemetry.event(names.PUBLISH_PARTITIONS, topic=self.name, partitions=told)

    @property
    def count(self) -> int | None:
        """How many partitions there are, by all that was heard; None: nobody has said."""
        told = self._asked.partitions(self.name) or 0
        return max(told, self.placement.partitions or 0) or None

    def lacks(self, partition: int | None) -> bool:
        """Whether that partition isn't among those that are there."""
        if partition is None or partition < (self.placement.partitions or 0):
            return False
        there = self.count
        return there is not None and partition >= there

    def place(self, draft: Draft, size: int) -> int:
        """The partition of a record, chosen now and for good."""
        if draft.partition is not None:
            return draft.partition
        unplaced = self.lanes.get(UNPLACED)
        count = self.placement.partitions
        if count is None or (unplaced is not None and unplaced.occupied):
            return UNPLACED
        if draft.key is not None:
            return partition_of(draft.key, count)
        return self._spread.next(size, count, self._reachable)

    def _reachable(self, partition: int) -> bool:
        lane = self.lanes.get(partition)
        return lane is None or not lane.gate.shut

    # --- how it goes -----------------------------------------------------------------------

    def failed(self, why: str) -> None:
        """A delivery failed, or the probe did."""
        self.around.telemetry.count(names.PUBLISH_FAILURES, topic=self.label)
        if not self.circuit.failed(self.around.now()):
            return
        self.around.telemetry.event(
            names.PUBLISH_BROKEN,
            level="warning",
            topic=self.name,
            outage=str(self.policy.outage),
            error=why,
        )
        if self.policy.outage in {Outage.BREAKER, Outage.DUAL}:
            self.hurry()

    def await_delivery(self, accepted: Accepted, ticket: Ticket, index: int) -> bool:
        """Have a record of a request wait for one that is in the spool; False: it is there no more,
        or nobody knows where."""
        lane = self.lanes.get(accepted.partition)
        if lane is None or accepted.seq is None or not lane.undelivered(accepted.seq):
            return False
        lane.waiters.add(accepted.seq, ticket, index)
        return True

    def hurry(self) -> None:
        """Let nothing that is on its way be waited for much longer."""
        for lane in self.lanes.values():
            lane.hurry()

    def delivered(self) -> None:
        """A delivery succeeded."""
        self.heard(Presence.PRESENT)
        if self.circuit.delivered():
            self.around.telemetry.event(names.PUBLISH_MENDED, topic=self.name)

    def too_large(self, size: int) -> None:
        """A batch of that many bytes was refused for its size: make smaller ones from now on."""
        self.batch_bytes = max(LEAST_BATCH_BYTES, min(self.batch_bytes, size) // 2)

    def dead(self, why: Refusal, records: int) -> None:
        """Records can't ever be delivered: count them."""
        self.around.telemetry.count(names.PUBLISH_DEAD, records, topic=self.label, reason=str(why))

    def settled(self, outcomes: Sequence[Outcome]) -> None:
        """A request has its outcomes: count them, and tell a sample of what was lost."""
        self.outstanding -= len(outcomes)
        # Most requests have one record, and there are many of them.
        kinds = Counter(map(type, outcomes)) if len(outcomes) > 1 else {type(outcomes[0]): 1}
        for kind, records in kinds.items():
            self._count(kind, records)
            if kind is Dropped or kind is Refused:
                last = next(one for one in reversed(outcomes) if type(one) is kind)
                if isinstance(last, Dropped):
                    self._sample(names.PUBLISH_DROPPED, records, last.reason)
                elif last.why is not Refusal.OVERLOADED:
                    self._sample(names.PUBLISH_REFUSED, records, f"{last.why}: {last.detail}")

    def settled_one(self, outcome: Outcome) -> None:
        """The same of a record that came by itself. There are many of them, and they are counted
        together: a turn of the event loop later."""
        kind = type(outcome)
        if kind is not Spooled and kind is not Delivered:
            self.settled((outcome,))
            return
        self.outstanding -= 1
        if not self._uncounted:
            asyncio.get_running_loop().call_soon(self._count_single)
        self._uncounted[kind] = self._uncounted.get(kind, 0) + 1

    def _count_single(self) -> None:
        for kind, records in self._uncounted.items():
            self._count(kind, records)
        self._uncounted.clear()

    def _count(self, kind: type[Outcome], records: int) -> None:
        self.around.telemetry.count(
            names.PUBLISH_RECORDS, records, topic=self.label, outcome=_TOLD[kind]
        )

    def _sample(self, event: str, records: int, why: str) -> None:
        self._untold[event] = self._untold.get(event, 0) + records
        now = self.around.now()
        if now < self._tell_at:
            return
        self._tell_at = now + TELL_EVERY_S
        for name, untold in self._untold.items():
            said = why if name == event else "told before"
            self.around.telemetry.event(
                name, level="warning", topic=self.name, records=untold, why=said
            )
        self._untold.clear()
