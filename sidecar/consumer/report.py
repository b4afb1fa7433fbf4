"""Health: how this consumer is doing, told to the local sidecar, or to Consul where none is."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import random
import re
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.client import HTTPException
from typing import Any
from urllib.parse import quote

from sidecar.client.address import places
from sidecar.client.blocking import Link
from sidecar.client.settings import BREAKER_NAME
from sidecar.consumer.consul import ConsulKeys, NotWritten
from sidecar.consumer.flow import Flow
from sidecar.consumer.retry import backoff_ceiling_s
from sidecar.consumer.source import Place, Source, SourceError
from sidecar.consumer.window import Interval

log = logging.getLogger(__name__)

INSTANCE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
MOST_PAUSE_S = 60.0
LAG_S = 2.0
"""How long Kafka may take to say where its partitions end; later, a report has no lag."""


def instance_name(environ: Mapping[str, str] | None = None) -> str:
    """This process's name among reporters: Nomad's allocation and task, else host and process."""
    environ = os.environ if environ is None else environ
    if alloc := environ.get("NOMAD_ALLOC_ID"):
        name = f"{alloc}-{environ.get('NOMAD_TASK_NAME', 'task')}"
    else:
        name = f"{os.uname().nodename}-{os.getpid()}"
    return re.sub(r"[^A-Za-z0-9_.-]", "-", name).lstrip("_.-")[:128] or "consumer"


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Where and how often to report.

    Args:
        breaker: its name; None: the sidecar's default one.
        instance: who reports; another one for each process.
        interval_s: between two reports; the breaker's `report_interval`.
        address: where the sidecar is; None: as all clients look for it.
        consul: what to write to while no sidecar answers; None: nothing.
        timeout_s: for one report.

    Raises:
        ValueError: no breaker or instance can be called so.
        AddressError: the address says nowhere to look.
    """

    breaker: str | None = None
    instance: str = field(default_factory=instance_name)
    interval_s: float = 5.0
    address: str | None = None
    consul: ConsulKeys | None = None
    timeout_s: float = 2.0

    def __post_init__(self) -> None:
        if self.breaker is not None and not BREAKER_NAME.fullmatch(self.breaker):
            raise ValueError(f"{self.breaker!r} can't be a breaker's name")
        if not INSTANCE.fullmatch(self.instance):
            raise ValueError(f"{self.instance!r} can't be an instance: {INSTANCE.pattern}")
        if self.interval_s <= 0 or self.timeout_s <= 0:
            raise ValueError("interval_s and timeout_s must be more than 0")
        places(self.address)


class Reporter:
    """Reports every interval. What could not be told is told with the next one.

    Args:
        clock: monotonic seconds.
        wall: seconds since 1970.
    """

    def __init__(
        self,
        flow: Flow,
        source: Source,
        report: Report,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._flow = flow
        self._source = source
        self._report = report
        self._clock = clock
        self._wall = wall
        self._told: set[str] = set()
        """Who has a word of ours: `sidecar`, `consul`."""
        self._failed = 0

    async def run(self) -> None:
        """For ever."""
        flow, every_s = self._flow, self._report.interval_s
        flow.window.since = self._clock()
        while True:
            await asyncio.sleep(self._pause_s(every_s))
            await self._measure()
            interval = flow.window.close(self._clock())
            if await self._tell(interval):
                self._failed = 0
            else:
                flow.window.put_back(interval)
                self._failed += 1

    def _pause_s(self, every_s: float) -> float:
        """The interval; longer with each failure, with jitter."""
        if not self._failed:
            return every_s
        ceiling_s = backoff_ceiling_s(self._failed, every_s, max(every_s, MOST_PAUSE_S))
        return ceiling_s * random.uniform(0.5, 1.0)  # noqa: S311 - spreads, guards nothing

    async def _measure(self) -> None:
        """The lag of the topics themselves; what waits on retry topics is meant to."""
        shards = [shard for shard in self._flow.shards.values() if shard.tier == 0]
        try:
            async with asyncio.timeout(LAG_S):
                ends = await self._source.ends([shard.place for shard in shards])
                fresh = [shard.place for shard in shards if shard.line.position is None]
                begun: Mapping[Place, int] = await self._source.positions(fresh) if fresh else {}
        except (TimeoutError, SourceError):
            self._flow.lag = None
            return
        lag = 0
        for shard in shards:
            at = shard.line.position
            at = begun[shard.place] if at is None else at
            lag += max(0, ends[shard.place] - at)
        self._flow.lag = lag

    async def _tell(self, interval: Interval) -> bool:
        """The sidecar, or Consul where there is none. Whether somebody took it."""
        try:
            await asyncio.to_thread(self._to_sidecar, interval)
        except (OSError, HTTPException, _Refused) as error:
            if self._report.consul is None or isinstance(error, _Refused):
                self._say(error)
                return False
        else:
            self._told.add("sidecar")
            return True
        try:
            value = json.dumps(self._for_consul(interval)).encode()
            await asyncio.to_thread(
                self._report.consul.put, self._report.instance, value, self._report.timeout_s
            )
        except NotWritten as error:
            self._say(error)
            return False
        self._told.add("consul")
        return True

    def _say(self, error: Exception) -> None:
        level = logging.DEBUG if self._failed else logging.WARNING
        log.log(level, "nobody took the report, trying again: %s", error)

    def _to_sidecar(self, interval: Interval) -> None:
        name = self._report.breaker
        body = {
            "instance": self._report.instance,
            "count_ok": interval.ok,
            "count_fail": interval.failed,
            **self._gauges(interval),
        }
        path = "/v1/report" if name is None else f"/v1/report/{quote(name)}"
        with Link(places(self._report.address), self._report.timeout_s) as link:
            status, said = link.ask(path, "POST", json.dumps(body).encode())
        if status != 202:
            raise _Refused(f"{link.place} answered {status}: {said[:200]!r}")

    def _for_consul(self, interval: Interval) -> dict[str, Any]:
        """The source system's format; more than its three fields are left alone by its readers."""
        at = datetime.fromtimestamp(self._wall(), UTC)
        return {
            "timestamp": at.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "rate_ok": round(interval.rate_ok, 3),
            "count_fail": interval.failed,
            "count_ok": interval.ok,
            "interval": round(interval.length_s, 3),
            **self._gauges(interval),
        }

    def _gauges(self, interval: Interval) -> dict[str, Any]:
        latency_ms = interval.latency_ms
        gauges = {
            "in_flight": self._flow.open,
            "lag": self._flow.lag,
            "latency_ms": None if latency_ms is None else round(latency_ms, 3),
            "role": "consumer",
        }
        return {name: value for name, value in gauges.items() if value is not None}

    async def leave(self) -> None:
        """Delete what was told: a consumer that stops in good order is not missed."""
        with suppress(OSError, HTTPException, NotWritten):
            if "sidecar" in self._told:
                await asyncio.to_thread(self._withdraw)
        with suppress(NotWritten):
            if "consul" in self._told and self._report.consul is not None:
                await asyncio.to_thread(
                    self._report.consul.delete, self._report.instance, self._report.timeout_s
                )

    def _withdraw(self) -> None:
        name = self._report.breaker or "default"
        with Link(places(self._report.address), self._report.timeout_s) as link:
            link.ask(f"/v1/report/{quote(name)}/{self._report.instance}", "DELETE")


class _Refused(Exception):
    """There is a sidecar, and it does not take the report: nothing that Consul would mend."""
