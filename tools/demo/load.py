"""The load: clients that send at a steady rate, whatever the answers."""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque

import aiohttp

from examples.services.api import PATH
from examples.services.discovery import Discovery, NotFound
from tools.demo import script

WINDOW_S = 3.0
"""What "now" means for a rate and a percentile."""


class Load:
    """Sends tasks, each once, and keeps account of what became of them.

    Args:
        service: the API's name in Consul.
    """

    def __init__(self, session: aiohttp.ClientSession, discovery: Discovery, service: str) -> None:
        self._session = session
        self._discovery = discovery
        self._service = service
        self._open: set[asyncio.Task[None]] = set()
        self._timeout = aiohttp.ClientTimeout(total=script.CLIENT_TIMEOUT_S)
        self.accepted: set[str] = set()
        """Ids that were answered with 202."""
        self.before: set[str] = set()
        """The same of the time before `begin`."""
        self.refused = 0
        self.failed = 0
        self.answers_s: list[float] = []
        self.recent: deque[tuple[float, float, bool]] = deque()
        """Of the last seconds: when it was answered (monotonic), how long it took, whether 202."""

    def begin(self) -> None:
        """Count anew from here."""
        self.before |= self.accepted
        self.accepted = set()
        self.refused = self.failed = 0
        self.answers_s.clear()

    async def run(self) -> None:
        """Send for ever; a late turn sends what is due."""
        sent, began = 0, time.monotonic()
        while True:
            due = int((time.monotonic() - began) * script.RATE)
            for _ in range(due - sent):
                self._start()
            sent = max(sent, due)
            await asyncio.sleep(0.5 / script.RATE)

    def _start(self) -> None:
        if len(self._open) >= script.CLIENT_OUTSTANDING:
            self.failed += 1
            return
        task = asyncio.create_task(self._send())
        self._open.add(task)
        task.add_done_callback(self._open.discard)

    async def _send(self) -> None:
        key = f"customer-{random.randrange(script.KEYS)}"  # noqa: S311 - load, no secret
        began = time.monotonic()
        ok = False
        try:
            place = await self._discovery.find(self._service)
            request = self._session.post(place + PATH, json={"key": key}, timeout=self._timeout)
            async with request as answer:
                if answer.status == 202:
                    self.accepted.add((await answer.json())["id"])
                    ok = True
                elif answer.status == 503 and "Retry-After" in answer.headers:
                    self.refused += 1
                else:
                    self.failed += 1
        except (aiohttp.ClientError, TimeoutError, NotFound):
            self.failed += 1
        took_s = time.monotonic() - began
        self.answers_s.append(took_s)
        self.recent.append((began + took_s, took_s, ok))

    async def answered(self) -> None:
        """Wait until every request has its answer; each has a deadline."""
        if self._open:
            await asyncio.wait(self._open)

    def now(self) -> tuple[float, float, list[float]]:
        """Accepted and other answers a second just now, and how long these took."""
        since = time.monotonic() - WINDOW_S
        while self.recent and self.recent[0][0] < since:
            self.recent.popleft()
        accepted = sum(ok for _, _, ok in self.recent)
        others = len(self.recent) - accepted
        return accepted / WINDOW_S, others / WINDOW_S, [took for _, took, _ in self.recent]
