"""A consumer kit on aiokafka: handlers that fail without stalling a fleet. Needs no daemon.

    async def handle(event: Event[Order]) -> None:
        await save(event.value)

    runner = Runner("orders", group="billing", handler=handle, decode=Decoder(Order).decode,
                    report=Report(breaker="orders"))
    await runner.run()

It commits only what is done with, retries, sets aside what can't be handled, recognises what comes
again, and reports to the breaker. What it promises, and what not: docs/consumer.md.
"""

from __future__ import annotations

from sidecar.consumer.consul import ConsulKeys
from sidecar.consumer.dual import Dual
from sidecar.consumer.event import Event, Handler, Permanent
from sidecar.consumer.flow import Hooks, Outcome
from sidecar.consumer.identity import (
    by_content,
    by_field,
    by_header,
    version_field,
    version_header,
)
from sidecar.consumer.memory import MemoryStore
from sidecar.consumer.merge import Gap
from sidecar.consumer.report import Report
from sidecar.consumer.retry import RetryPolicy
from sidecar.consumer.runner import Runner, RunnerFailed
from sidecar.consumer.settings import Limits
from sidecar.consumer.sink import SinkFailed
from sidecar.consumer.source import SourceError
from sidecar.consumer.sqlite import SqliteStore
from sidecar.consumer.store import Known, Mark, Store, StoreFailed, Verdict

__all__ = [
    "ConsulKeys",
    "Dual",
    "Event",
    "Gap",
    "Handler",
    "Hooks",
    "Known",
    "Limits",
    "Mark",
    "MemoryStore",
    "Outcome",
    "Permanent",
    "Report",
    "RetryPolicy",
    "Runner",
    "RunnerFailed",
    "SinkFailed",
    "SourceError",
    "SqliteStore",
    "Store",
    "StoreFailed",
    "Verdict",
    "by_content",
    "by_field",
    "by_header",
    "version_field",
    "version_header",
]
