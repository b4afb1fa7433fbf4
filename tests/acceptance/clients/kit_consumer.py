"""A consumer by the kit, each of whose events needs a word of a database.

Its arguments: Kafka's server, topic, group, the sidecar's address, its instance, the database's
port.
"""

import asyncio
import sys

from sidecar.consumer import Event, Report, RetryPolicy, Runner


async def main() -> None:
    """Handle events until it is told to end."""
    server, topic, group, sidecar, instance, database = sys.argv[1:]

    async def handle(event: Event[bytes]) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(database))
        try:
            writer.write(b"save\n")
            if await reader.readline() != b"saved\n":
                raise OSError("the database did not save it")
        finally:
            writer.close()

    runner = Runner(
        topic,
        group=group,
        handler=handle,
        bootstrap_servers=server,
        retry=RetryPolicy(in_place=0, delays_s=()),
        report=Report(address=sidecar, instance=instance, interval_s=0.5),
    )
    await runner.run()


asyncio.run(main())
