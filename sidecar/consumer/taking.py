"""Taking from an aiokafka consumer what it has fetched, without losing any of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from aiokafka.errors import KafkaError

from sidecar.consumer.source import Place, Record

FAULTS = (KafkaError, OSError, UnicodeDecodeError)
"""What taking may raise; the last one of a header's name that is no text."""


async def take(consumer: Any, most: int, wait_s: float) -> Mapping[Place, Sequence[Record]]:
    """At most so many records, in one step after the wait.

    One partition at a time: where aiokafka takes from several and can't read one of them (a batch
    that is corrupt, or compressed in a way that it lacks the library for), it forgets what it has
    taken of the others, and goes on behind that.

    Raises:
        KafkaError, OSError, UnicodeDecodeError: nothing was taken.
    """
    # With one record at most, no second partition is looked at once there is one.
    first = await consumer.getmany(timeout_ms=round(wait_s * 1000), max_records=1)
    batch: dict[Any, list[Record]] = dict(first)
    left = most - len(batch)
    for tp in _begun_with(batch, consumer.assignment()) if batch else ():
        if not left:
            break
        try:
            # Without a wait, and with an assignment that was there a moment ago, it never yields.
            more = await consumer.getmany(tp, timeout_ms=0, max_records=left)
        except FAULTS:
            break  # what it has not taken, it is asked for again
        for records in more.values():
            batch[tp] = [*batch.get(tp, ()), *records]
            left -= len(records)
    return batch


def _begun_with(first: Mapping[Any, Any], assignment: Any) -> list[Any]:
    """The partitions in turn: first the one whose turn it is, as aiokafka has it."""
    parts = sorted(assignment)
    at = next((n for n, tp in enumerate(parts) if tp in first), 0)
    return parts[at:] + parts[:at]
