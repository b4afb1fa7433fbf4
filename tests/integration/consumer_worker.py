"""A worker on the consumer kit for tests to kill: it writes each event into SQLite, once."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
from pathlib import Path

from sidecar.consumer import Event, Limits, RetryPolicy, Runner, SqliteStore, by_header

SCHEMA = """
CREATE TABLE IF NOT EXISTS effects (id TEXT, key TEXT, number INTEGER, worker INTEGER);
CREATE TABLE IF NOT EXISTS starts (id TEXT);
"""
FAILS = b"fails-at-first"


async def handle(event: Event[dict[str, int]]) -> None:
    """The effect in the mark's transaction; some events fail until they are on a retry topic."""
    if event.header("how") == FAILS and event.tier == 0:
        raise ConnectionError("away")
    async with event.transaction() as db:
        db.execute(
            "INSERT INTO effects VALUES (?, ?, ?, ?)",
            (
                (event.header("id") or b"").decode(),
                (event.key or b"").decode(),
                event.value["number"],
                os.getpid(),
            ),
        )


def worker(bootstrap: str, topic: str, database: Path) -> Runner[dict[str, int]]:
    """One of a group of these."""
    return Runner(
        topic,
        group=f"g-{topic}",
        handler=handle,
        bootstrap_servers=bootstrap,
        decode=json.loads,
        store=SqliteStore(database, schema=SCHEMA, timeout_s=10.0),
        identity=by_header("id"),
        retry=RetryPolicy(in_place=1, first_s=0.02, delays_s=(1.0,)),
        limits=Limits(drain_s=3.0, kafka_s=5.0, commit_every_s=0.3, per_partition=200),
        consumer={"session_timeout_ms": 2000, "heartbeat_interval_ms": 400},
    )


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format=f"{os.getpid()} %(name)s %(message)s")
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    asyncio.run(worker(sys.argv[1], sys.argv[2], Path(sys.argv[3])).run())
