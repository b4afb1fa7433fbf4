"""The worked example of docs/consumer.md does what it says there."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer

from tests.kafka import Kafka
from tests.servers import ROOT, poll_until

PATIENCE_S = 30.0


def example(bootstrap: str) -> dict[str, Any]:
    """Its names, with a rate of two, and another Kafka."""
    page = (ROOT / "docs" / "consumer.md").read_text("utf-8")
    code = page.split("```python\n")[1].split("```")[0]
    body, _, last = code.rstrip().rpartition("\n")
    assert last == "asyncio.run(main())"

    async def exchange_rate(_: object) -> int:
        return 2

    names: dict[str, Any] = {"__name__": "example", "exchange_rate": exchange_rate}
    exec(compile(body.replace("localhost:9092", bootstrap), "consumer.md", "exec"), names)
    return names


def bookings(path: Path) -> list[tuple[str, int]]:
    if not path.exists():
        return []
    with sqlite3.connect(path) as db:
        tables = db.execute("SELECT 1 FROM sqlite_master WHERE name = 'bookings'").fetchall()
        found = db.execute("SELECT id, cents FROM bookings").fetchall() if tables else []
    db.close()
    return found


async def test_it_books_each_order_once_and_sets_the_impossible_aside(
    kafka: Kafka, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    kafka.create_topic("orders", 2)
    running = asyncio.create_task(example(kafka.bootstrap)["main"]())
    orders = [("a", 1, 100), ("a", 1, 100), ("b", 1, -5), ("c", 1, 7)]
    async with AIOKafkaProducer(**kafka.client_options()) as producer:
        for name, version, cents in orders:
            await producer.send_and_wait(
                "orders",
                b'{"id": "%s", "version": %d, "cents": %d}' % (name.encode(), version, cents),
                key=name.encode(),
                headers=[("id", name.encode())],
            )
    path = tmp_path / "billing.db"
    await poll_until(lambda: len(bookings(path)) == 2, PATIENCE_S, "both are booked")
    (dead,) = await asyncio.to_thread(kafka.read, "orders.dlq", 1)
    assert dead.key == b"b"
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.wait_for(running, PATIENCE_S)
    assert sorted(bookings(path)) == [("a", 200), ("c", 14)]
    committed = kafka.committed("billing", "orders")
    assert sum(committed.values()) == len(orders)
