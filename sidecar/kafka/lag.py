"""Keeps the book of every breaker that this sidecar evaluates and that asks for `lag`, or sheds.

One loop for all of them, one round after another: rounds never overlap, and a breaker that is
evaluated elsewhere costs Kafka nothing here.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping

from sidecar.core.backlog import LagBook, Reading
from sidecar.core.board import Board, Cell
from sidecar.core.errors import KafkaUnavailable
from sidecar.core.ports import Telemetry
from sidecar.kafka.client import Client
from sidecar.kafka.cluster import Cluster
from sidecar.kafka.connection import Connection
from sidecar.kafka.offsets import Flow, Offsets
from sidecar.telemetry import names

IDLE_S = 1.0
"""Between two looks at whether this sidecar evaluates anything that wants to be read."""
FAREWELL_S = 0.3
"""How long a stop waits for the connections to close: locks are to be handed over after it."""
ROUND_TIMEOUTS = 3.0
"""A round may take this many request timeouts: a broker that doesn't answer is asked once in it,
but the first one may already have been asked where the others are."""


class LagReader:
    """Reads lag for the board's breakers.

    Args:
        news: called with a breaker's name when its book has changed.
        now: monotonic seconds.
        draw: uniform random numbers from 0 to 1.
    """

    def __init__(
        self,
        board: Board,
        connection: Connection,
        telemetry: Telemetry,
        *,
        news: Callable[[str], None],
        now: Callable[[], float],
        draw: Callable[[], float],
    ) -> None:
        self._board = board
        self._telemetry = telemetry
        self._news = news
        self._now = now
        self._round_s = ROUND_TIMEOUTS * connection.request_timeout_s
        self._failing = False
        self._client = Client(
            lambda: Asking(connection, telemetry, now), Asking.close, now=now, draw=draw
        )

    async def run(self) -> None:
        """Read until cancelled."""
        try:
            while True:
                began = self._now()
                flows = self._wanted()
                if flows:
                    await self._round(flows)
                pause_s = self._interval(flows) if flows else IDLE_S
                await asyncio.sleep(max(pause_s - (self._now() - began), 0.1 * pause_s))
        finally:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(FAREWELL_S):
                    await self._client.close()

    def _wanted(self) -> dict[str, Flow]:
        """The flow of each breaker to be read; the books of the others are put away."""
        flows: dict[str, Flow] = {}
        for name, cell in self._board.cells.items():
            policy, lag = cell.policy, cell.policy.lag_read
            if not cell.evaluating or lag is None or policy.topic is None or policy.group is None:
                cell.lag = None
                continue
            flows[name] = Flow(policy.topic, policy.group, lag.floor)
            if cell.lag is None or cell.lag.subject != (*flows[name], lag.window_s):
                cell.lag = LagBook(lag.window_s, subject=(*flows[name], lag.window_s))
        return flows

    def _interval(self, flows: Mapping[str, Flow]) -> float:
        cells = self._board.cells
        return min(
            (cells[name].policy.evaluation_interval_s for name in flows if name in cells),
            default=IDLE_S,
        )

    async def _round(self, flows: Mapping[str, Flow]) -> None:
        began = self._now()
        try:
            found = await self._client.call(
                lambda asking: asking.round(set(flows.values())), self._round_s
            )
            self._back()
        except KafkaUnavailable as fault:
            self._failed(fault)
            found = {flow: Reading(at=began, fault=str(fault)) for flow in flows.values()}
        good_for_s = 3 * self._interval(flows) + self._round_s
        for name, flow in flows.items():
            cell = self._board.cells.get(name)
            if cell is not None and cell.lag is not None:
                self._note(cell, cell.lag, found[flow], good_for_s)
                self._news(name)
            await asyncio.sleep(0)  # callers of /allowed go first

    def _note(self, cell: Cell, book: LagBook, reading: Reading, good_for_s: float) -> None:
        fault, before = reading.fault, book.fault
        book.take(reading, good_for_s)
        if fault is not None and fault != before and not self._failing:
            self._telemetry.event(
                names.LAG_UNKNOWN, level="warning", breaker=cell.policy.name, error=fault
            )

    def _back(self) -> None:
        if self._failing:
            self._failing = False
            self._telemetry.event(names.KAFKA_BACK)

    def _failed(self, fault: KafkaUnavailable) -> None:
        if not self._failing:
            self._failing = True
            self._telemetry.event(names.KAFKA_LOST, level="warning", error=str(fault))


class Asking:
    """A client and what it knows of the cluster; both are given up together.

    `round` is that of `Offsets`.
    """

    def __init__(
        self, connection: Connection, telemetry: Telemetry, now: Callable[[], float]
    ) -> None:
        self._cluster = Cluster(connection, telemetry, now)
        self._offsets = Offsets(self._cluster, now)
        self.round = self._offsets.round

    async def start(self) -> None:
        """Find the brokers. Raises KafkaConnectionError."""
        await self._cluster.start()

    async def close(self) -> None:
        """Let go of the connections."""
        await self._cluster.close()
