"""The measurements of the consumer kit still run."""

from __future__ import annotations

import pytest

from bench import kit
from tests.kafka import Kafka

COUNT = 2000


@pytest.mark.slow
async def test_the_kit_and_the_bare_loop_are_measured_to_their_last_event(
    kafka: Kafka, prefix: str
) -> None:
    topic = kafka.create_topic(prefix, 2)
    await kit._fill(kafka, topic, COUNT, 0)
    ours = await kit._kit(kafka, topic, COUNT, None)
    peers = await kit._bare(kafka, topic, COUNT)
    assert min(ours.wall_s, ours.cpu_s, peers.wall_s, peers.cpu_s) > 0


@pytest.mark.slow
async def test_poison_is_spread_among_the_good(kafka: Kafka, prefix: str) -> None:
    topic = kafka.create_topic(prefix, 2)
    await kit._fill(kafka, topic, COUNT, COUNT // 10)
    took = await kit._kit(kafka, topic, COUNT, 0.0001)
    assert took.wall_s > 0
    assert sum(kafka.end_offsets(topic).values()) == COUNT + COUNT // 10
