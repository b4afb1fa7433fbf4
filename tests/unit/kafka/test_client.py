"""A client of Kafka's: bounded calls, a stuck one given up, a new one not too soon."""

from __future__ import annotations

import asyncio

import pytest
from aiokafka.errors import KafkaConnectionError, TopicAuthorizationFailedError

from sidecar.core.errors import KafkaDenied, KafkaUnavailable
from sidecar.kafka.client import BACKOFF_S, Client
from tests.servers import poll_until

QUICK_S = 0.05
STUCK_S = 10.0


class Fake:
    """A client that can hang or fail at its start and at its end."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.stopped = False

    async def start(self) -> None:
        if self.world.hangs:
            await asyncio.Event().wait()
        if self.world.down:
            raise KafkaConnectionError(self.world.why)

    async def stop(self) -> None:
        self.stopped = True
        await asyncio.Event().wait()


class World:
    """The Kafka around it, and the clock."""

    def __init__(self) -> None:
        self.now = 100.0
        self.hangs = self.down = False
        self.why = "nobody there"
        self.made: list[Fake] = []
        self.client = Client[Fake](
            self.make, Fake.stop, now=lambda: self.now, draw=lambda: 1.0, stuck_s=STUCK_S
        )

    def make(self) -> Fake:
        self.made.append(Fake(self))
        return self.made[-1]


async def answer(client: Fake) -> Fake:
    return client


async def hang(client: Fake) -> None:
    await asyncio.Event().wait()


async def deny(client: Fake) -> None:
    raise TopicAuthorizationFailedError("orders")


async def test_one_client_is_made_when_first_needed_and_kept() -> None:
    world = World()
    assert world.made == []
    first, second = await asyncio.gather(*(world.client.call(answer, 1.0) for _ in range(2)))
    assert first is second
    assert world.made == [first]


async def test_a_call_never_outlasts_its_bound() -> None:
    world = World()
    with pytest.raises(KafkaUnavailable, match=r"no answer within 0\.05 s"):
        await world.client.call(hang, QUICK_S)
    world = World()
    world.hangs = True
    with pytest.raises(KafkaUnavailable, match=r"no answer within 0\.05 s"):
        await world.client.call(answer, QUICK_S)


async def test_a_no_is_told_from_no_answer() -> None:
    with pytest.raises(KafkaDenied, match="orders"):
        await World().client.call(deny, 1.0)


async def test_a_failed_start_is_told_in_words() -> None:
    world = World()
    world.why = "Unable to bootstrap from [('a', 1, <AddressFamily.AF_UNSPEC: 0>)]"
    world.down = True
    with pytest.raises(KafkaUnavailable, match=r"none of the bootstrap servers can be reached$"):
        await world.client.call(answer, 1.0)


async def test_a_stuck_client_is_abandoned_without_waiting_for_its_end() -> None:
    world = World()
    for elapsed_s in (0.0, STUCK_S - 1, 2.0):
        world.now += elapsed_s
        with pytest.raises(KafkaUnavailable):
            await world.client.call(hang, QUICK_S)
    assert world.client.rebuilt == 1
    assert await world.client.call(answer, 1.0) is world.made[1]
    await poll_until(lambda: world.made[0].stopped, 5.0, "the old one's end begins")


async def test_one_answer_in_between_shows_that_it_is_not_stuck() -> None:
    world = World()
    for work in (hang, answer, hang):
        world.now += STUCK_S
        if work is answer:
            await world.client.call(answer, 1.0)
        else:
            with pytest.raises(KafkaUnavailable):
                await world.client.call(work, QUICK_S)
    assert world.client.rebuilt == 0


async def test_after_a_failed_start_the_next_waits_for_its_turn() -> None:
    world = World()
    world.down = True
    with pytest.raises(KafkaUnavailable, match="nobody there"):
        await world.client.call(answer, 1.0)
    with pytest.raises(KafkaUnavailable, match="a moment ago"):
        await world.client.call(answer, 1.0)
    assert len(world.made) == 1
    world.now += BACKOFF_S
    with pytest.raises(KafkaUnavailable, match="nobody there"):
        await world.client.call(answer, 1.0)
    world.down = False
    world.now += BACKOFF_S  # doubled by now
    with pytest.raises(KafkaUnavailable, match="a moment ago"):
        await world.client.call(answer, 1.0)
    world.now += BACKOFF_S
    assert await world.client.call(answer, 1.0) is world.made[2]
