"""The idempotency keys of one request: each of its records is accepted once.

A record has a key of its own, made of the client's and its number. So a request that was accepted
in part can be sent again as it was: only what is missing is tried again.
"""

from __future__ import annotations

import asyncio

from sidecar.core.idempotency import of_record
from sidecar.core.placing import UNPLACED
from sidecar.core.publishing import Delivered, Outcome, Refusal, Refused, Spooled
from sidecar.core.spooling import Accepted, Claim, Idempotency, Keys
from sidecar.publish.lane import PIECE
from sidecar.publish.ticket import Ticket
from sidecar.publish.topic import Topic


class Claims:
    """What one request holds.

    Args:
        given: the client's key, and a digest of what came with it.
    """

    def __init__(self, keys: Keys, topic: Topic, given: tuple[str, bytes], wall_at: float) -> None:
        self._keys = keys
        self._topic = topic
        self._given = given
        self._at = wall_at
        self._mine: dict[int, Idempotency] = {}

    def of(self, index: int) -> Idempotency | None:
        """The key to keep with a record."""
        return self._mine.get(index)

    @property
    def any(self) -> bool:
        """Whether any of its records is new."""
        return bool(self._mine)

    async def take(self, ticket: Ticket) -> None:
        """Claim a key for each record; those that have an answer already get it here, or wait
        for a better one where their sender does.

        Raises:
            SpoolFault: spooled keys can't be looked up now; nothing is held then.
        """
        key, fingerprint = self._given
        ticket.late = self._late
        try:
            for first in range(0, len(ticket.outcomes), PIECE):
                if first:
                    await asyncio.sleep(0)
                indexes = range(first, min(first + PIECE, len(ticket.outcomes)))
                whats = [of_record(key, fingerprint, index) for index in indexes]
                claims = await self._keys.claim(self._topic.name, whats, self._at)
                for index, what, claim in zip(indexes, whats, claims, strict=True):
                    self._claimed(index, what, claim, ticket)
        except BaseException:
            for what in self._mine.values():
                self._keys.abandon(self._topic.name, what.key)
            self._mine.clear()
            raise

    def _claimed(
        self, index: int, what: Idempotency, claim: Claim | Accepted, ticket: Ticket
    ) -> None:
        if claim is Claim.YOURS:
            self._mine[index] = what
        elif isinstance(claim, Accepted):
            self._accepted(claim, ticket, index)
        else:
            ticket.settle(index, _refused(claim))

    def _accepted(self, claim: Accepted, ticket: Ticket, index: int) -> None:
        """It was before. Who waits for Kafka's word waits for it as the first sender would."""
        outcome = _outcome(claim)
        ticket.note(index, outcome)
        if not (ticket.delivered and self._topic.await_delivery(claim, ticket, index)):
            ticket.settle(index, outcome)

    async def settle(self, ticket: Ticket) -> None:
        """The answers are there. What is still under way keeps its key until its end is known, or
        a second try could bring the record in twice."""
        for number, index in enumerate(list(self._mine)):
            if number % PIECE == PIECE - 1:
                await asyncio.sleep(0)
            outcome = ticket.outcomes[index]
            if outcome is not None and index not in ticket.under_way:
                self._late(index, outcome)

    def _late(self, index: int, outcome: Outcome) -> None:
        """The end of one of its records. The spool has settled what it holds by itself."""
        what = self._mine.pop(index, None)
        if what is None:
            return
        if isinstance(outcome, Delivered):
            partition, offset, cluster = outcome
            accepted = Accepted(partition=partition, offset=offset, cluster=cluster)
            self._keys.settle(self._topic.name, what, accepted, self._at)
        elif not isinstance(outcome, Spooled):
            self._keys.abandon(self._topic.name, what.key)


def _outcome(accepted: Accepted) -> Outcome:
    if accepted.spooled:
        known = None if accepted.partition == UNPLACED else accepted.partition
        return Spooled(known, accepted.seq)
    return Delivered(accepted.partition, accepted.offset, accepted.cluster)


def _refused(claim: Claim | Accepted) -> Refused:
    if claim is Claim.IN_PROGRESS:
        return Refused(
            Refusal.IN_PROGRESS, "a request with this Idempotency-Key is still on its way"
        )
    return Refused(
        Refusal.OTHER_CONTENT, "this Idempotency-Key came with other content before; take a new one"
    )
