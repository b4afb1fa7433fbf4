"""A worker on the consumer kit: it writes each task to a database that it finds in Consul.

python -m examples.services.worker -c worker.yaml
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from typing import Any

import aiohttp
import msgspec

from examples.services.discovery import Discovery
from examples.services.settings import load, log_to_stderr
from sidecar.consumer import (
    Event,
    Limits,
    MemoryStore,
    Permanent,
    Report,
    RetryPolicy,
    Runner,
    SqliteStore,
    by_header,
    version_header,
)

log = logging.getLogger("worker")


class Settings(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """The file's keys, with their defaults.

    Args:
        database: the database's service in Consul.
        breaker: the breaker to report to; null: to none.
        sidecar: where the sidecar is; null: as all clients look for it.
        store: the file that knows what was handled; null: in memory, until the next restart.
        newest_only: drop an event that is older than the newest handled one of its key.
    """

    kafka: str = "localhost:9092"
    topic: str = "tasks"
    group: str = "task-workers"
    consul: str = "127.0.0.1:8500"
    database: str = "tasks-db"
    breaker: str | None = "tasks"
    sidecar: str | None = None
    report_interval_s: float = 5.0
    instance: str | None = None
    store: str | None = None
    newest_only: bool = True
    concurrency: int = 8
    handler_s: float = 5.0
    commit_every_s: float = 1.0
    brake_most_s: float = 5.0
    retry_delays_s: tuple[float, ...] = (10.0, 60.0, 600.0)


class Task(msgspec.Struct):
    """An event as the API publishes it."""

    id: str
    version: int
    key: str
    at: float
    data: dict[str, Any] = {}


class DatabaseFailed(Exception):
    """It didn't take the task; that may pass."""


class Database:
    """The database, by its HTTP interface."""

    def __init__(self, discovery: Discovery, service: str, session: aiohttp.ClientSession) -> None:
        self._discovery = discovery
        self._service = service
        self._session = session

    async def save(self, task: Task) -> None:
        """Write a task; once more does nothing. Raises DatabaseFailed, Permanent."""
        place = await self._discovery.find(self._service)
        row = {"key": task.key, "version": task.version, "at": task.at}
        try:
            async with self._session.put(f"{place}/tasks/{task.id}", json=row) as answer:
                status = answer.status
        except aiohttp.ClientError as fault:
            raise DatabaseFailed(f"{type(fault).__name__}: {fault}") from fault
        if 400 <= status < 500:
            raise Permanent(f"the database says {status}")
        if status >= 500:
            raise DatabaseFailed(f"the database says {status}")


def runner(settings: Settings, database: Database) -> Runner[Task]:
    """The kit, set up by the settings."""

    async def handle(event: Event[Task]) -> None:
        await database.save(event.value)

    report = Report(
        breaker=settings.breaker, interval_s=settings.report_interval_s, address=settings.sidecar
    )
    if settings.instance is not None:
        report = dataclasses.replace(report, instance=settings.instance)
    return Runner(
        settings.topic,
        group=settings.group,
        handler=handle,
        bootstrap_servers=settings.kafka,
        decode=msgspec.json.Decoder(Task).decode,
        store=MemoryStore() if settings.store is None else SqliteStore(settings.store),
        identity=by_header("id"),
        version=version_header("version") if settings.newest_only else None,
        retry=RetryPolicy(delays_s=settings.retry_delays_s),
        limits=Limits(
            concurrency=settings.concurrency,
            handler_s=settings.handler_s,
            commit_every_s=settings.commit_every_s,
            brake_first_s=min(0.5, settings.brake_most_s),
            brake_most_s=settings.brake_most_s,
        ),
        report=report if settings.breaker is not None else None,
    )


async def work(settings: Settings) -> None:
    """Until SIGTERM or SIGINT."""
    async with aiohttp.ClientSession() as session:
        discovery = Discovery(settings.consul, session)
        log.info("working on %s as one of %s", settings.topic, settings.group)
        await runner(settings, Database(discovery, settings.database, session)).run()
    log.info("stopped")


def main(argv: list[str] | None = None) -> None:
    """Work until it is asked to stop: what has begun is finished and committed first."""
    settings = load(Settings, __doc__.partition("\n")[0], argv)
    log_to_stderr()
    asyncio.run(work(settings))


if __name__ == "__main__":
    main()
