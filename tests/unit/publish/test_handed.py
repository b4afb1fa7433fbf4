"""Single records: told once, and by when at latest; one timer for all of them."""

from __future__ import annotations

import asyncio

from sidecar.core.publishing import Dropped, Outcome, Spooled
from sidecar.publish.handed import Handing

NOTHING = Dropped("no word")


class Topic:
    """Counts what it is told."""

    def __init__(self) -> None:
        self.told: list[Outcome] = []

    def settled_one(self, outcome: Outcome) -> None:
        self.told.append(outcome)


def still() -> float:
    """A clock that stands."""
    return 0.0


async def test_the_first_outcome_is_told_once_and_counted() -> None:
    topic, told = Topic(), list[Outcome]()
    handing = Handing(still, NOTHING)
    one = handing.take(topic, told.append, 5.0)
    one.settle(0, Spooled(0, 1))
    one.settle(0, Spooled(0, 2))
    one.finish(NOTHING)
    handing.close()
    assert told == topic.told == [Spooled(0, 1)]


async def test_closing_answers_those_that_have_none() -> None:
    topic, told = Topic(), list[Outcome]()
    handing = Handing(still, NOTHING)
    settled, left = (handing.take(topic, told.append, 5.0) for _ in range(2))
    settled.settle(0, Spooled(0, 1))
    handing.close()
    handing.close()
    assert told == [Spooled(0, 1), NOTHING]
    assert left.given_up
    assert not settled.given_up


async def test_each_is_told_in_its_own_time_also_where_a_later_one_has_less() -> None:
    """A reload may shorten the time while others still have the longer one."""
    loop, topic, told = asyncio.get_running_loop(), Topic(), list[str]()
    handing = Handing(loop.time, NOTHING)
    over = asyncio.Event()

    def last(_: Outcome) -> None:
        told.append("long")
        over.set()

    handing.take(topic, last, 0.2)
    handing.take(topic, lambda _: told.append("short"), 0.02)
    handing.take(topic, lambda _: told.append("settled"), 0.01).settle(0, Spooled(0, 1))
    await asyncio.wait_for(over.wait(), 5.0)
    assert told == ["settled", "short", "long"]
    assert topic.told == [Spooled(0, 1), NOTHING, NOTHING]
