"""Taking from an aiokafka consumer what it has fetched, without losing any of it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any, Final

from aiokafka.consumer.fetcher import PartitionRecords
from aiokafka.errors import KafkaError, LeaderNotAvailableError, for_code
from aiokafka.protocol.fetch import FetchRequest

from sidecar.consumer.misnamed import Batches, is_misnamed
from sidecar.consumer.source import Place, Record
from sidecar.consumer.told import Told

FAULTS = (KafkaError, OSError, UnicodeDecodeError)
"""What taking may raise; the last one of a header's name that is no text."""
ASK_S: Final = 10.0
"""For an answer to a fetch of our own."""
ASK_MS: Final = 500
"""How long the broker may wait for records, which are known to be there."""
FIRST_WITH_ABORTED: Final = 4
FIRST_WITH_REPLICA: Final = 11
"""Versions of the answer: aborted transactions stand before the records, then with one between."""
ASK_BYTES: Final = 1024 * 1024
"""Of one such fetch; a batch that is larger comes all the same."""


class Taker:
    """Takes of one consumer."""

    def __init__(self, consumer: Any) -> None:
        self._consumer = consumer
        self._unread: Any = None
        """A partition whose next records aiokafka could not decode when there were others."""
        self._told = Told()
        self.misnamed = 0
        """Records with a header whose name is no UTF-8 text, which aiokafka can't read."""

    async def take(self, most: int, wait_s: float) -> Mapping[Place, Sequence[Record]]:
        """At most so many records, in one step after the wait.

        One partition at a time: where aiokafka takes from several and can't read one of them (a
        batch that is corrupt, or compressed in a way that it lacks the library for), it forgets
        what it has taken of the others, and goes on behind that.

        Raises:
            KafkaError, OSError, UnicodeDecodeError: nothing was taken.
        """
        self._told.tell()
        unread, self._unread = self._unread, None
        if unread is not None and (records := await self._decode(unread, most)):
            return {unread: records}
        consumer = self._consumer
        try:
            # With one record at most, no second partition is looked at once there is one.
            first = await consumer.getmany(timeout_ms=round(wait_s * 1000), max_records=1)
        except FAULTS as error:
            # aiokafka doesn't say which one it was; it is the first that it still has.
            at_fault = next(iter(consumer._fetcher._records), None) if is_misnamed(error) else None
            if at_fault is None or not (records := await self._decode(at_fault, most)):
                raise
            return {at_fault: records}
        return await self._more(dict(first), most)

    async def _more(self, batch: dict[Any, list[Record]], most: int) -> dict[Any, list[Record]]:
        """What there is besides the first record. Never yields."""
        left = most - len(batch)
        for tp in _begun_with(batch, self._consumer.assignment()) if batch else ():
            if not left:
                break
            try:
                # Without a wait, and with an assignment that was there a moment ago, it never
                # yields.
                more = await self._consumer.getmany(tp, timeout_ms=0, max_records=left)
            except FAULTS as error:
                # What it has not taken, it is asked for again.
                self._unread = tp if is_misnamed(error) else None
                break
            for records in more.values():
                batch[tp] = [*batch.get(tp, ()), *records]
                left -= len(records)
        return batch

    async def _decode(self, tp: Any, most: int) -> list[Record]:
        """The next records of a partition, fetched and decoded by ourselves; maybe none.

        Any partition can be read like this, so nothing depends on its being the right one.

        Raises:
            KafkaError, OSError: nothing was taken.
        """
        consumer, state = self._consumer, self._reading(tp)
        if state is None:
            return []
        position = state.position
        batches, aborted = await self._fetch(tp, position)
        # Only where it is still ours, and stands where it stood, are they the next ones.
        if self._reading(tp) is not state or state.position != position:
            return []
        fetcher = consumer._fetcher
        decoded = PartitionRecords(
            tp,
            batches,
            aborted,
            position,
            None,
            None,
            fetcher._check_crcs,
            fetcher._isolation_level,
        )
        records: list[Record] = []
        try:
            for record in islice(decoded, most):
                records.append(record)  # noqa: PERF402 - what came before an error is kept
        except KafkaError:
            if not records:
                raise
        if decoded.next_fetch_offset > position:
            consumer.seek(tp, decoded.next_fetch_offset)
        self._tell([record for record in records if record.offset in batches.names], batches.names)
        return records

    def _reading(self, tp: Any) -> Any:
        """aiokafka's state of a partition that it may read now; None: it may not."""
        subscriptions = self._consumer._subscription
        if subscriptions.reassignment_in_progress or not subscriptions.is_assigned(tp):
            return None
        state = subscriptions.subscription.assignment.state_value(tp)
        return state if state.has_valid_position and not state.paused else None

    async def _fetch(self, tp: Any, position: int) -> tuple[Batches, Any]:
        """What lies there, and which of it was aborted. Raises KafkaError, OSError."""
        client = self._consumer._client
        leader = client.cluster.leader_for_partition(tp)
        if leader is None or leader < 0:
            raise LeaderNotAvailableError(f"{tp.topic}[{tp.partition}]")
        asked = FetchRequest(
            ASK_MS,
            1,
            ASK_BYTES,
            self._consumer._fetcher._isolation_level,
            [(tp.topic, [(tp.partition, position, ASK_BYTES)])],
        )
        async with asyncio.timeout(ASK_S):
            answer = await client.send(leader, asked)
        ((_, ((_, code, _, *rest),)),) = answer.topics
        if code:
            raise for_code(code)(f"{tp.topic}[{tp.partition}]")
        aborted = None
        if answer.API_VERSION >= FIRST_WITH_ABORTED:
            aborted = rest[-3] if answer.API_VERSION >= FIRST_WITH_REPLICA else rest[-2]
        return Batches(rest[-1]), aborted

    def _tell(self, records: Sequence[Record], names: Mapping[int, str]) -> None:
        for record in records:
            self.misnamed += 1
            where = f"{record.topic}[{record.partition}]@{record.offset}"
            self._told.note(
                "a header's name is no text", f"{where}, read as {names[record.offset]}"
            )


def _begun_with(first: Mapping[Any, Any], assignment: Any) -> list[Any]:
    """The partitions in turn: first the one whose turn it is, as aiokafka has it."""
    parts = sorted(assignment)
    at = next((n for n, tp in enumerate(parts) if tp in first), 0)
    return parts[at:] + parts[:at]
