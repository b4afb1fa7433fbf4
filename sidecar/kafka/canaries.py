"""Rounds of canaries: one to every broker at once, each sent, acknowledged and read back."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from dataclasses import replace

from sidecar.core.errors import KafkaDenied, KafkaUnavailable
from sidecar.core.ports import Telemetry
from sidecar.core.probe import Canary, Round
from sidecar.kafka.client import Client
from sidecar.kafka.connection import Connection
from sidecar.kafka.line import Line
from sidecar.kafka.probe_topic import Layout, Place, ProbeTopic, needs

SHARE = 0.5
"""The part of the interval that a look around may take, and each canary as much."""


class Canaries:
    """The rounds of one topic: a canary to every broker at once, each on a line of its own.

    Args:
        instance: who sends; other probers' canaries in the same topic are none of ours.
        interval_s: between two rounds.
    """

    def __init__(
        self,
        connection: Connection,
        topic: str,
        telemetry: Telemetry,
        *,
        instance: str,
        create: bool,
        interval_s: float,
        now: Callable[[], float],
        draw: Callable[[], float],
    ) -> None:
        self.subject = (topic, create, interval_s)
        """What it was made for."""
        self._within_s = SHARE * interval_s
        timeout_s = min(connection.request_timeout_s, self._within_s)
        self._connection = replace(connection, request_timeout_s=timeout_s)
        self._topic = ProbeTopic(
            self._connection, topic, telemetry, create=create, now=now, draw=draw
        )
        self._key = instance.encode()
        self._mark = f"{draw():.12f}"
        """Differs from every other process of the same instance's."""
        self._numbers = itertools.count(1)
        self._now = now
        self._draw = draw
        self._lines: dict[tuple[int, str], Client[Line]] = {}
        self._addresses: dict[int, str] = {}
        """Where each broker was seen last: one that is gone is tried there."""

    async def round(self) -> Round:
        """Send one through every broker, and wait until each is back or has failed."""
        made = False
        try:
            layout, made = await self._topic.look(self._within_s)
        except KafkaUnavailable as fault:
            known = self._topic.layout
            if known is None or isinstance(fault, KafkaDenied):
                return Round(at=self._now(), fault=str(fault))
            layout = known  # nobody answers: so let every canary find out
        missing = needs(self._topic.topic, layout)
        if missing is not None:
            return Round(at=self._now(), fault=missing)
        self._addresses |= layout.brokers
        self._drop_lines(layout)
        if made:  # the first ones through what is new are slow, and may not find it yet
            await self._through(layout)
        sent = await self._through(layout)
        return Round(at=self._now(), canaries=_by_broker(sent))

    async def close(self) -> None:
        """Let go of all connections."""
        lines = [line.close() for line in self._lines.values()]
        self._lines.clear()
        await asyncio.gather(self._topic.close(), *lines)

    def _drop_lines(self, layout: Layout) -> None:
        """Let go of brokers that aren't tested any more, or have moved."""
        used = {(place.broker, self._addresses.get(place.broker)) for place in layout.places}
        for key in [key for key in self._lines if key not in used]:
            self._lines.pop(key).abandon()

    async def _through(self, layout: Layout) -> list[Canary]:
        return await asyncio.gather(*(self._canary(place) for place in layout.places))

    async def _canary(self, place: Place) -> Canary:
        address = self._addresses.get(place.broker)
        if address is None or not place.led:
            return Canary(broker=place.broker, fault=f"partition {place.partition} has no leader")
        line = self._line(place.broker, address)
        try:
            latency_s = await line.call(lambda made: self._sent(made, place), self._within_s)
        except KafkaUnavailable as fault:
            line.abandon()  # what was asked may still hang in it; the next one begins anew
            denied = isinstance(fault, KafkaDenied)
            return Canary(broker=place.broker, fault=str(fault), denied=denied)
        return Canary(broker=place.broker, latency_s=latency_s)

    async def _sent(self, line: Line, place: Place) -> float:
        """Seconds from sending a canary until it was read back."""
        value = f"{self._mark} {next(self._numbers)}".encode()
        began, topic = self._now(), self._topic.topic
        offset = await line.write(topic, place.partition, self._key, value)
        if await line.read(topic, place.partition, offset) != (self._key, value):
            raise KafkaUnavailable(f"another record is at offset {offset}")
        return self._now() - began

    def _line(self, broker: int, address: str) -> Client[Line]:
        line = self._lines.get((broker, address))
        if line is None:
            line = self._lines[broker, address] = Client(
                lambda: Line(self._connection, broker, address),
                Line.close,
                now=self._now,
                draw=self._draw,
                backoff_s=0.0,
            )
        return line


def _by_broker(sent: list[Canary]) -> list[Canary]:
    """One a broker: where it leads several partitions, the worst."""
    worst: dict[int, Canary] = {}
    for canary in sent:
        known = worst.get(canary.broker)
        if known is None or _badness(canary) > _badness(known):
            worst[canary.broker] = canary
    return [worst[broker] for broker in sorted(worst)]


def _badness(canary: Canary) -> tuple[bool, bool, float]:
    failed = canary.latency_s is None
    return failed and not canary.denied, failed, canary.latency_s or 0.0
