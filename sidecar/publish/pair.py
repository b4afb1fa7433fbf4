"""Two clusters that get a copy of each record: it is accepted as soon as one of them has it.

Each cluster takes the copies of a partition one batch after the other, so the order is the same in
both. One that is slow or away gets the others' copies later, or misses them: nothing is resent to a
cluster for what the other one has, since readers of both find it there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Final, TypeVar

from sidecar.core.absence import Presence, in_both
from sidecar.core.ports import Telemetry
from sidecar.core.publishing import (
    SEQUENCE_HEADER,
    Carrier,
    Confirmed,
    DeliveryFault,
    NeverDelivered,
    NotListed,
    Refusal,
)
from sidecar.core.spooling import CLUSTERS, NewRecord
from sidecar.telemetry import names

BEHIND_BYTES: Final = 16 * 1024 * 1024
"""Of the copies that wait for a slow cluster; what comes beyond misses it."""
PARTING_S: Final = 0.5
"""How long a stop waits for copies whose records the other cluster has."""


T = TypeVar("T")


class _Cluster:
    """One of the two."""

    def __init__(self, name: str, carrier: Carrier) -> None:
        self.name = name
        self.carrier = carrier
        self._behind = 0
        self._turns: dict[tuple[str, int], asyncio.Lock] = {}

    async def send(
        self, topic: str, partition: int, records: Sequence[NewRecord], within_s: float
    ) -> int | None:
        """As `Carrier.send`, in the order of the calls; at most twice `within_s`."""
        size = sum(len(record.key or b"") + len(record.value or b"") for record in records)
        if self._behind and self._behind + size > BEHIND_BYTES:
            raise DeliveryFault("too many copies wait for it", unsent=True)
        turn = self._turns.setdefault((topic, partition), asyncio.Lock())
        self._behind += size
        try:
            try:
                async with asyncio.timeout(within_s):
                    await turn.acquire()
            except TimeoutError as error:
                raise DeliveryFault("the copies before took too long", unsent=True) from error
            try:
                return await self.carrier.send(topic, partition, records, within_s)
            finally:
                turn.release()
        finally:
            self._behind -= size


class Pair:
    """Both clusters.

    Args:
        producer: what readers know this process by, over its restarts.
    """

    def __init__(
        self, first: Carrier, second: Carrier, *, producer: str, telemetry: Telemetry
    ) -> None:
        here, there = CLUSTERS
        self._clusters = (_Cluster(here, first), _Cluster(there, second))
        self._producer = producer
        self._telemetry = telemetry
        self._copies: set[asyncio.Task[int | None]] = set()
        self.incarnation = 0
        """Of this start; higher than that of each before."""

    def stamped(self, record: NewRecord, counter: int) -> NewRecord:
        """The record with the header by which readers tell its copies, and what is missing."""
        own = f"{self._producer}/{self.incarnation}/{counter}".encode()
        return record._replace(headers=(*record.headers, (SEQUENCE_HEADER, own)))

    def partitions(self, topic: str) -> int | None:
        """How many the topic has in both, by what Kafka said last; None: neither said."""
        told = [cluster.carrier.partitions(topic) for cluster in self._clusters]
        return min((number for number in told if number is not None), default=None)

    async def look(self, topic: str, within_s: float) -> int:
        """Ask both how many partitions the topic has; the first answer counts.

        Raises:
            NeverDelivered: there is no such topic in either.
            DeliveryFault: no answer came in time.
        """
        asked = [
            asyncio.create_task(each.carrier.look(topic, within_s), name=f"look in the {each.name}")
            for each in self._clusters
        ]
        try:
            number, _ = await _first(asked)
        finally:
            for task in asked:
                task.cancel()
        return number

    async def presence(self, topic: str, within_s: float) -> Presence:
        """What both say of whether there is such a topic; each is asked at most so long."""
        here, there = self._clusters
        return in_both(
            *await asyncio.gather(
                here.carrier.presence(topic, within_s), there.carrier.presence(topic, within_s)
            )
        )

    async def send(
        self,
        topic: str,
        label: str,
        partition: int,
        records: Sequence[NewRecord],
        within_s: float,
    ) -> Confirmed:
        """Send a batch to both, and return when the first has confirmed it.

        Raises:
            NeverDelivered: neither will ever take it.
            NotListed: neither lists the topic; nothing was sent.
            DeliveryFault: neither has confirmed it.
        """
        copies = []
        for cluster in self._clusters:
            copy = asyncio.create_task(
                cluster.send(topic, partition, records, within_s),
                name=f"copy to the {cluster.name}",
            )
            self._copies.add(copy)
            copy.add_done_callback(
                partial(self._ended, label=label, cluster=cluster.name, records=len(records))
            )
            copies.append(copy)
        offset, at = await _first(copies)
        return Confirmed(offset, self._clusters[at].name)

    def _ended(
        self, copy: asyncio.Task[int | None], *, label: str, cluster: str, records: int
    ) -> None:
        self._copies.discard(copy)
        missed = copy.cancelled() or copy.exception() is not None
        self._telemetry.count(
            names.PUBLISH_COPIES,
            records,
            topic=label,
            cluster=cluster,
            outcome="missed" if missed else "confirmed",
        )

    async def close(self) -> None:
        """Let the last copies go, for a moment, and go of the second cluster."""
        if self._copies:
            await asyncio.wait(set(self._copies), timeout=PARTING_S)
        for copy in list(self._copies):
            copy.cancel()
        await self._clusters[1].carrier.close()


async def _first(tasks: Sequence[asyncio.Task[T]]) -> tuple[T, int]:
    """What the first one brings that succeeds, and which that is; a later one goes on.

    Raises:
        NeverDelivered, DeliveryFault: all have failed. Cancelled, it cancels them.
    """
    left = set(tasks)
    try:
        while left:
            _, left = await asyncio.wait(left, return_when=asyncio.FIRST_COMPLETED)
            for at, task in enumerate(tasks):
                if task.done() and not task.cancelled() and task.exception() is None:
                    return task.result(), at
    except asyncio.CancelledError:
        for task in left:
            task.cancel()
        raise
    raise _both([_fault(task) for task in tasks])


def _fault(task: asyncio.Task[T]) -> DeliveryFault:
    error = None if task.cancelled() else task.exception()
    if error is None:
        return DeliveryFault("given up")
    if not isinstance(error, DeliveryFault):
        raise error
    return error


def _unlisted(fault: DeliveryFault) -> bool:
    never = isinstance(fault, NeverDelivered) and fault.why is Refusal.UNKNOWN_TOPIC
    return never or isinstance(fault, NotListed)


def _both(faults: Sequence[DeliveryFault]) -> DeliveryFault:
    """Neither took them: for good only if both say so; a batch that is too large may be halved.
    That there is no such topic isn't for good while one only doesn't list it."""
    never = [fault for fault in faults if isinstance(fault, NeverDelivered)]
    if len(never) == len(faults):
        return min(never, key=lambda fault: fault.why is not Refusal.TOO_LARGE)
    if all(map(_unlisted, faults)):
        return next(fault for fault in faults if isinstance(fault, NotListed))
    said = "; ".join(dict.fromkeys(str(fault) for fault in faults))
    return DeliveryFault(said, unsent=all(fault.unsent for fault in faults))
