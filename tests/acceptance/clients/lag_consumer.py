"""A consumer that commits what it reads: bootstrap server, topic and group are its arguments."""

import asyncio
import sys

from aiokafka import AIOKafkaConsumer


async def main(server: str, topic: str, group: str) -> None:
    """Read for ever."""
    consumer = AIOKafkaConsumer(
        topic,
        bootstrap_servers=server,
        group_id=group,
        auto_offset_reset="earliest",
        auto_commit_interval_ms=200,
        session_timeout_ms=6000,
        heartbeat_interval_ms=500,
    )
    async with consumer:
        async for _ in consumer:
            pass


asyncio.run(main(*sys.argv[1:]))
