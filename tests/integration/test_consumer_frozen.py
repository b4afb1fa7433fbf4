"""Kafka gives no answer: the kit goes on once it does, and a stop ends in time all the same."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Iterator

import pytest

from sidecar.consumer import Event, Limits, RetryPolicy, Runner
from tests.kafka import Kafka
from tests.servers import poll_until

PATIENCE_S = 60.0
FROZEN_S = 3.0


@pytest.fixture
def own_kafka() -> Iterator[Kafka]:
    """One that may be frozen."""
    with Kafka() as server:
        yield server


@pytest.mark.kafka
@pytest.mark.slow
async def test_it_goes_on_afterwards_and_a_stop_does_not_wait_for_kafka(
    own_kafka: Kafka, caplog: pytest.LogCaptureFixture
) -> None:
    own_kafka.create_topic("orders")
    own_kafka.produce("orders", [b"%d" % n for n in range(50)])
    seen: list[int] = []

    async def handle(event: Event[bytes]) -> None:
        seen.append(int(event.value))

    runner = Runner(
        "orders",
        group="billing",
        handler=handle,
        bootstrap_servers=own_kafka.bootstrap,
        retry=RetryPolicy(delays_s=(1.0,)),
        limits=Limits(commit_every_s=0.1, kafka_s=1.0, drain_s=1.0),
        client={"request_timeout_ms": 2000},
    )
    running = asyncio.create_task(runner.run(signals=False))
    try:
        await poll_until(lambda: len(seen) == 50, PATIENCE_S, "all are handled")
        own_kafka.broker.freeze()
        await asyncio.sleep(FROZEN_S)
        own_kafka.broker.thaw()
        await asyncio.to_thread(own_kafka.produce, "orders", [b"%d" % n for n in range(50, 100)])
        await poll_until(lambda: len(set(seen)) == 100, PATIENCE_S, "it goes on")
        own_kafka.broker.freeze()
        began = time.monotonic()
        runner.stop()
        await asyncio.wait_for(running, PATIENCE_S)
        assert time.monotonic() - began < 30.0
    finally:
        own_kafka.broker.thaw()
        runner.stop()
        await asyncio.wait([running], timeout=PATIENCE_S)
    gc.collect()
    assert [one.message for one in caplog.records if one.name == "asyncio"] == []
