"""What a request waits for: one outcome for each of its records."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from sidecar.core.publishing import Outcome
from sidecar.core.spooling import NewRecord
from sidecar.publish.handed import Handed


class Ticket:
    """The outcomes of one request, as they come in.

    Args:
        records: how many the request has.
        settled: called once, with all the final outcomes.
        delivered: its sender waits for Kafka, also where a record went to the spool.
    """

    __slots__ = (
        "_left",
        "_open",
        "_settled",
        "delivered",
        "done",
        "given_up",
        "late",
        "outcomes",
        "under_way",
    )

    def __init__(
        self, records: int, settled: Callable[[Sequence[Outcome]], None], delivered: bool
    ) -> None:
        self.outcomes: list[Outcome | None] = [None] * records
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.delivered = delivered
        self.given_up = False
        """Its time is over: what isn't begun need not be begun."""
        self.under_way: set[int] = set()
        """Records with an idempotency key that were handed on and have no outcome of their own."""
        self.late: Callable[[int, Outcome], None] | None = None
        """Told what became of one of those when the request had its answer already."""
        self._open = bytearray(b"\x01" * records)
        self._left = records
        self._settled = settled

    def note(self, index: int, outcome: Outcome) -> None:
        """What is true so far, if nothing better comes in time."""
        if self._open[index]:
            self.outcomes[index] = outcome

    def settle(self, index: int, outcome: Outcome) -> None:
        """A record's final outcome; what comes later its sender doesn't hear."""
        under_way = index in self.under_way
        self.under_way.discard(index)
        if self._open[index]:
            self._close(index, outcome)
        elif under_way and self.late is not None:
            self.late(index, outcome)

    def _close(self, index: int, outcome: Outcome) -> None:
        self._open[index] = 0
        self.outcomes[index] = outcome
        self._left -= 1
        if self._left == 0:
            self._settled([one for one in self.outcomes if one is not None])
            if not self.done.done():
                self.done.set_result(None)

    def be_content(self) -> None:
        """Its sender waits for Kafka no longer: what was noted is final, what comes is at once."""
        self.delivered = False
        for index, still in enumerate(self._open):
            noted = self.outcomes[index]
            if still and noted is not None:
                self.settle(index, noted)

    def finish(self, otherwise: Outcome) -> list[Outcome]:
        """Its time is over: what was noted holds, and `otherwise` where nothing was."""
        self.given_up = True
        for index, still in enumerate(self._open):
            if still:
                self._close(index, self.outcomes[index] or otherwise)  # it stays under way
        return [outcome or otherwise for outcome in self.outcomes]


Item = tuple[NewRecord, Ticket | Handed, int]
"""A record on its way: itself, its request, its place there."""


def settle_all(items: Sequence[Item], outcome: Outcome) -> None:
    """The same outcome for several records."""
    for _, ticket, index in items:
        ticket.settle(index, outcome)
