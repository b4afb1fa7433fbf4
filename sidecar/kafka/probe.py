"""Sends canaries for all breakers that this sidecar evaluates and that ask for `probe`.

One prober a sidecar: the rounds of one topic serve every breaker. A breaker that is evaluated
elsewhere costs Kafka nothing here.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping

from sidecar.core.board import Board, Cell
from sidecar.core.ports import Telemetry
from sidecar.core.probe import ProbeBook, Round
from sidecar.core.signal_settings import Probe
from sidecar.kafka.canaries import Canaries
from sidecar.kafka.connection import Connection
from sidecar.telemetry import names

IDLE_S = 1.0
"""Between two looks at whether this sidecar evaluates anything that wants canaries."""
FAREWELL_S = 0.3
"""How long a stop waits for the connections to close: locks are to be handed over after it."""


class Prober:
    """Keeps the book of the canaries, and hands it to every breaker that asks for it.

    Args:
        news: called with a breaker's name when its book has changed.
        now: monotonic seconds.
        draw: uniform random numbers from 0 to 1.
        make: what sends the canaries.
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
        make: Callable[..., Canaries] = Canaries,
    ) -> None:
        self._board = board
        self._connection = connection
        self._telemetry = telemetry
        self._news = news
        self._now = now
        self._draw = draw
        self._make = make
        self._canaries: Canaries | None = None
        self._book = ProbeBook()

    async def run(self) -> None:
        """Send until cancelled."""
        try:
            while True:
                began = self._now()
                wanted = self._wanted()
                if not wanted:
                    await self._rest()
                    await asyncio.sleep(IDLE_S)
                    continue
                interval_s = min(probe.interval_s for probe in wanted.values())
                await self._round(wanted, interval_s)
                took_s = self._now() - began
                await asyncio.sleep(max(interval_s - took_s, 0.1 * interval_s))
        finally:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(FAREWELL_S):
                    await self._rest()

    def _wanted(self) -> dict[str, Probe]:
        """What each breaker that is evaluated here asks for."""
        wanted: dict[str, Probe] = {}
        for name, cell in self._board.cells.items():
            probe = cell.policy.signals.probe
            if cell.evaluating and probe is not None:
                wanted[name] = probe
            else:
                cell.probe = None
        return wanted

    async def _rest(self) -> None:
        """Nobody asks: let go of Kafka, and of what will be old by the next time."""
        canaries, self._canaries, self._book = self._canaries, None, ProbeBook()
        if canaries is not None:
            await canaries.close()

    async def _round(self, wanted: Mapping[str, Probe], interval_s: float) -> None:
        first = next(iter(wanted.values()))  # the configuration has one topic for all
        subject = (first.topic, first.create, interval_s)
        if self._canaries is None or self._canaries.subject != subject:
            await self._rest()
            self._canaries = self._make(
                self._connection,
                first.topic,
                self._telemetry,
                instance=self._board.instance,
                create=first.create,
                interval_s=interval_s,
                now=self._now,
                draw=self._draw,
            )
        done = await self._canaries.round()
        self._tell(done)
        self._book.take(done, interval_s)
        for name in wanted:
            cell: Cell | None = self._board.cells.get(name)
            if cell is not None:
                cell.probe = self._book
                self._news(name)

    def _tell(self, done: Round) -> None:
        """Count every canary; say the first failure of each broker and the end of failures."""
        book, telemetry = self._book, self._telemetry
        if done.fault is not None and done.fault != book.fault:
            telemetry.event(names.PROBE_UNKNOWN, level="warning", error=done.fault)
        for canary in done.canaries:
            broker, before = str(canary.broker), book.brokers.get(canary.broker)
            bad = before is not None and bool(before.failed or before.denied)
            if canary.latency_s is not None:
                telemetry.observe(names.PROBE_DURATION, canary.latency_s, broker=broker)
                telemetry.count(names.PROBE_FAILURES, 0, broker=broker)
                if bad:
                    telemetry.event(names.PROBE_BACK, broker=broker)
                continue
            telemetry.count(names.PROBE_FAILURES, broker=broker)
            if not bad:
                telemetry.event(
                    names.PROBE_FAILED, level="warning", broker=broker, error=canary.fault
                )
