from __future__ import annotations

import asyncio
import shutil
import subprocess
from typing import Any, cast

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from sidecar.consumer import Dual, Event, Permanent, Runner
from sidecar.consumer.metrics import export, export_dual
from tests.unit.consumer.fake import Kit
from tests.unit.consumer.records import Rec


class AsRunner:
    """What the figures are read from, of a kit in memory."""

    def __init__(self, kit: Kit) -> None:
        self.flow, self.workers = kit.flow, kit.workers
        self.misnamed = 3


async def exposed() -> bytes:
    async def handle(event: Event[bytes]) -> None:
        if event.value == b"2":
            raise Permanent("never")
        await asyncio.sleep(0.002)

    kit, dual = Kit(handle), Dual("t", first="a", second="b")
    kit.source.add(*[Rec(offset=n, key=b"%d" % n, value=b"%d" % n) for n in range(5)])
    registry = CollectorRegistry()
    export(cast("Runner[Any]", AsRunner(kit)), registry)
    export_dual(dual, registry)
    async with kit.running():
        await kit.until_committed(5)
        kit.flow.lag = 12
        dual.figures.given, dual.figures.lost, dual.figures.withheld = 7, 2, 3
        return generate_latest(registry)


async def test_counts_gauges_and_durations_are_there() -> None:
    lines = (await exposed()).decode().splitlines()
    for line in (
        'breaker_consumer_attempts_total{outcome="handled",topic="orders"} 4.0',
        'breaker_consumer_attempts_total{outcome="dead",topic="orders"} 1.0',
        "breaker_consumer_misnamed_total 3.0",
        "breaker_consumer_in_flight 0.0",
        "breaker_consumer_partitions 1.0",
        "breaker_consumer_braked 0.0",
        "breaker_consumer_lag 12.0",
        'breaker_consumer_handling_seconds_bucket{le="0.001"} 0.0',
        'breaker_consumer_handling_seconds_bucket{le="+Inf"} 4.0',
        "breaker_consumer_handling_seconds_count 4.0",
        "breaker_consumer_dual_given_total 7.0",
        "breaker_consumer_dual_copies_total 0.0",
        "breaker_consumer_dual_lost_total 2.0",
        "breaker_consumer_dual_withheld 3.0",
    ):
        assert line in lines, line


@pytest.mark.promtool
async def test_promtool_finds_nothing_to_say_of_them() -> None:
    promtool = shutil.which("promtool")
    assert promtool is not None
    checking = await asyncio.create_subprocess_exec(
        *(promtool, "check", "metrics"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    said, _ = await asyncio.wait_for(checking.communicate(await exposed()), 30.0)
    assert (checking.returncode, said) == (0, b"")
