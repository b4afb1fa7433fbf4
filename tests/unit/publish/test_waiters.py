"""Who waits for the delivery of spooled records, and who waits no longer."""

from __future__ import annotations

import asyncio

from sidecar.core.publishing import Delivered, Spooled
from sidecar.publish.ticket import Ticket
from sidecar.publish.waiters import PIECE, Waiters
from tests.servers import poll_until


def ticket(records: int) -> Ticket:
    return Ticket(records, lambda _: None, delivered=True)


async def test_all_who_wait_for_one_are_told() -> None:
    waiters, first, again = Waiters(), ticket(1), ticket(1)
    for one in (first, again):
        waiters.add(7, one, 0)
    waiters.tell(7, Delivered(0, 3))
    waiters.tell(8, Delivered(0, 4))
    assert first.outcomes == again.outcomes == [Delivered(0, 3)]
    assert len(waiters) == 0


async def test_a_request_that_has_its_answer_leaves_nothing_behind_but_others() -> None:
    waiters, large, other = Waiters(), ticket(3 * PIECE), ticket(1)
    for index in range(3 * PIECE):
        waiters.add(index + 1, large, index)
    waiters.add(2, other, 0)
    large.finish(Spooled(0, None))
    await poll_until(lambda: len(waiters) == 1, 5.0, "it has left")
    waiters.tell(2, Delivered(0, 1))
    await asyncio.wait_for(other.done, 1.0)
    assert other.outcomes == [Delivered(0, 1)]
