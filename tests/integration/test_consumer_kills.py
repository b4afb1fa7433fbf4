"""Workers on the kit are killed all the time, and some are frozen until the group has given up on
them: nothing is lost, and nothing takes place twice.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter, defaultdict
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer

from tests.integration.consumer_worker import FAILS
from tests.kafka import Kafka
from tests.servers import ROOT, poll_until

KILLING_S = float(os.environ.get("BREAKER_KILLING_S", "20"))
"""A minute shows no more than this, as a rule; it was run so when this was written."""
EVERY_S = 2.0
FROZEN_S = 3.0
"""Longer than the group waits for a member."""
A_SECOND = 150
KEYS = 40
WORKERS = 3


def start(kafka: Kafka, topic: str, database: Path) -> subprocess.Popen[bytes]:
    with database.with_suffix(".log").open("ab") as log:
        return subprocess.Popen(
            [
                *(sys.executable, "-m", "tests.integration.consumer_worker"),
                *(kafka.bootstrap, topic, str(database)),
            ],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )


async def load(kafka: Kafka, topic: str, for_s: float) -> int:
    """So many events a second, one in a hundred of them fails at first; how many there were."""
    sent, began = 0, time.monotonic()
    async with AIOKafkaProducer(**kafka.client_options(), linger_ms=5) as producer:
        while (passed := time.monotonic() - began) < for_s:
            while sent < passed * A_SECOND:
                how = FAILS if sent % 100 == 99 else b"ok"
                await producer.send(
                    topic,
                    json.dumps({"number": sent}).encode(),
                    key=b"key-%d" % (sent % KEYS),
                    headers=[("id", b"%d" % sent), ("how", how)],
                )
                sent += 1
            await asyncio.sleep(0.01)
        await producer.flush()
    return sent


def effects(database: Path) -> list[tuple[str, str, int, int]]:
    with sqlite3.connect(database, timeout=10.0) as db:
        found = db.execute("SELECT id, key, number, worker FROM effects ORDER BY rowid").fetchall()
    db.close()
    return found


def count(database: Path) -> int:
    try:
        return len(effects(database))
    except sqlite3.OperationalError:  # no worker has made the table yet
        return 0


@pytest.mark.slow
async def test_every_event_takes_effect_exactly_once_in_order_through_kill_9(
    kafka: Kafka, prefix: str, tmp_path: Path
) -> None:
    topic, database = kafka.create_topic(prefix, 6), tmp_path / "effects.db"
    workers = [start(kafka, topic, database) for _ in range(WORKERS)]
    killed = 0
    try:
        log = database.with_suffix(".log")
        await poll_until(lambda: "assigned: " in log.read_text(), 60.0, "a worker has begun")
        loading = asyncio.create_task(load(kafka, topic, KILLING_S))
        while not loading.done():
            await asyncio.sleep(EVERY_S)
            if killed % 3 == 2:
                workers[-1].send_signal(signal.SIGSTOP)
                await asyncio.sleep(FROZEN_S)
                workers[-1].send_signal(signal.SIGCONT)
            victim = workers.pop(0)
            victim.send_signal(signal.SIGKILL)
            await asyncio.to_thread(victim.wait)
            killed += 1
            workers.append(start(kafka, topic, database))
        sent = await loading
        await poll_until(lambda: count(database) >= sent, 120.0, f"all {sent} have taken effect")
        # One that is only just starting would not hear that it is to stop.
        joined = [f"{worker.pid} sidecar.consumer.giving assigned" for worker in workers]
        await poll_until(
            lambda: all(each in log.read_text() for each in joined), 60.0, "all have joined"
        )
    finally:
        for worker in workers:
            worker.terminate()
        codes = [await asyncio.to_thread(worker.wait, 30.0) for worker in workers]

    found = effects(database)
    times = Counter(identity for identity, *_ in found)
    assert len(times) == sent, "an event was lost"
    assert set(times.values()) == {1}, "an effect took place twice"
    by_key: dict[str, list[int]] = defaultdict(list)
    for _, key, number, _ in found:
        by_key[key].append(number)
    failed = {f"key-{number % KEYS}" for number in range(99, sent, 100)}
    steady = {key: numbers for key, numbers in by_key.items() if key not in failed}
    assert len(steady) >= KEYS // 2
    for key, numbers in steady.items():
        assert numbers == sorted(numbers), f"{key} is out of order"
    assert killed >= KILLING_S / (EVERY_S + FROZEN_S + 1)
    assert len({worker for *_, worker in found}) > WORKERS, "those that were started worked too"
    assert codes == [0] * len(codes), log.read_text()[-3000:]
