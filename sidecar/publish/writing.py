"""From what a client hands over to records with their places: each with an id of its own."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from typing import Final

from sidecar.core.publishing import ID_HEADER, Draft, Refusal, Refused
from sidecar.core.spooling import Idempotency, NewRecord
from sidecar.publish.claims import Claims
from sidecar.publish.lane import OVERHEAD, PIECE
from sidecar.publish.ticket import Item, Ticket
from sidecar.publish.topic import Topic

PLACED: Final = 1_000
"""Of one request so many records are placed before others have a turn."""


class Writer:
    """Makes records. Their ids are a number of this process and one of the record."""

    def __init__(self) -> None:
        self._run = os.urandom(8).hex()
        self.count = 0
        """Records made so far."""

    def record(self, draft: Draft, wall: float, what: Idempotency | None = None) -> NewRecord:
        """One record, accepted at that time (epoch seconds)."""
        self.count += 1
        own = (ID_HEADER, f"{self._run}-{self.count:x}".encode())
        stamp = draft.timestamp_ms if draft.timestamp_ms is not None else int(wall * 1000)
        return NewRecord(draft.key, draft.value, (*draft.headers, own), stamp, wall, what)

    async def records(
        self, drafts: Sequence[Draft], wall: float, claims: Claims | None
    ) -> list[NewRecord]:
        """Those of a request; others have a turn in between."""
        made: list[NewRecord] = []
        for index, draft in enumerate(drafts):
            if index % PIECE == PIECE - 1:
                await asyncio.sleep(0)
            what = claims.of(index) if claims is not None else None
            made.append(self.record(draft, wall, what))
        return made


async def place(
    topic: Topic, drafts: Sequence[Draft], records: Sequence[NewRecord], ticket: Ticket
) -> None:
    """Hand the records of a request to their lanes.

    What has its place is in its lane before others have a turn, so that nothing that is placed
    meanwhile can be before it.
    """
    for first in range(0, len(drafts), PLACED):
        if first:
            await asyncio.sleep(0)
            if ticket.given_up:
                return
        _place(topic, drafts, records, ticket, range(first, min(first + PLACED, len(drafts))))


def _place(
    topic: Topic,
    drafts: Sequence[Draft],
    records: Sequence[NewRecord],
    ticket: Ticket,
    places: range,
) -> None:
    parts: dict[int, list[Item]] = {}
    for index in places:
        draft, record = drafts[index], records[index]
        if ticket.outcomes[index] is not None:
            continue  # its idempotency key has an answer
        if topic.lacks(draft.partition):
            said = f"{topic.name} has {topic.count} partitions: there is no {draft.partition}"
            topic.dead(Refusal.UNKNOWN_PARTITION, 1)
            ticket.settle(index, Refused(Refusal.UNKNOWN_PARTITION, said))
            continue
        at = topic.place(draft, size_of(record))
        part = parts.get(at)
        if part is None:
            part = parts[at] = []
        part.append((record, ticket, index))
        if record.idempotency is not None:
            ticket.under_way.add(index)
    for partition, items in parts.items():
        topic.lane(partition).put(items)


def size_of(record: NewRecord) -> int:
    """About how many bytes it takes on its way; what keyless ones are spread by."""
    return OVERHEAD + len(record.value or b"") + len(record.key or b"")
