"""Who waits until a record that is in the spool is in Kafka, too."""

from __future__ import annotations

import asyncio
from typing import Final

from sidecar.core.publishing import Outcome
from sidecar.publish.ticket import Ticket

PIECE: Final = 500


class Waiters:
    """The waiters of one lane, by sequence. A request that has its answer leaves by itself."""

    def __init__(self) -> None:
        self._of: dict[int, tuple[tuple[Ticket, int], ...]] = {}
        """More than one where a request was sent again while the first still waited."""
        self._seqs: dict[Ticket, list[int]] = {}
        self.told = 0
        """What has become of everything up to this sequence is known: whoever comes now for one of
        those would wait in vain."""

    def __len__(self) -> int:
        return len(self._of)

    def add(self, seq: int, ticket: Ticket, index: int) -> None:
        """Have a record of a request told of the delivery of that sequence."""
        seqs = self._seqs.get(ticket)
        if seqs is None:
            seqs = self._seqs[ticket] = []
            ticket.done.add_done_callback(lambda _: self._leave(ticket))
        seqs.append(seq)
        self._of[seq] = (*self._of.get(seq, ()), (ticket, index))

    def tell(self, seq: int, outcome: Outcome) -> None:
        """What has become of that sequence."""
        for ticket, index in self._of.pop(seq, ()):
            ticket.settle(index, outcome)

    def forget(self, seq: int) -> None:
        """Nothing better than what was noted will come of it."""
        self._of.pop(seq, None)

    def _leave(self, ticket: Ticket) -> None:
        """Some hundreds of its records at once: decisions have a turn in between."""
        seqs = self._seqs[ticket]
        for seq in seqs[-PIECE:]:
            others = tuple([one for one in self._of.pop(seq, ()) if one[0] is not ticket])
            if others:
                self._of[seq] = others
        del seqs[-PIECE:]
        if seqs:
            asyncio.get_running_loop().call_soon(self._leave, ticket)
        else:
            del self._seqs[ticket]
