"""One client of Kafka's that is started when first needed, never waited for without a bound, and
given up for a new one when it is stuck.

aiokafka's clients retry inside for as long as they like, some of their calls and their own `stop`
can hang for ever while Kafka is away, and addresses to begin with are not tried again later. So
every call is bounded here; a client whose calls brought nothing for a while is abandoned (closed
aside, within a bound of its own) and the next call makes another, not more often than a backoff
with jitter allows.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Generic, Protocol, TypeVar

from aiokafka.errors import KafkaError

from sidecar.core.errors import KafkaUnavailable
from sidecar.kafka.reach import named

CLOSE_S = 5.0
"""How long an abandoned client's own end is waited for, aside."""
STUCK_S = 15.0
"""A client whose calls have brought nothing for so long is abandoned."""
BACKOFF_S = 0.5
MAX_BACKOFF_S = 15.0
"""Between two attempts to start a client."""


class Stoppable(Protocol):
    """What is asked of a client here."""

    async def start(self) -> None:
        """Connect."""


C = TypeVar("C", bound=Stoppable)
R = TypeVar("R")


class Client(Generic[C]):
    """The one client of one purpose.

    Args:
        make: builds one, unconnected; may raise KafkaUnavailable.
        stop: ends one; runs aside, bounded.
        now: monotonic seconds.
        draw: a random number from 0 to 1, for the jitter.
        stuck_s: how long calls may bring nothing before the client is abandoned.
        backoff_s: after a first failed start; 0 where the caller paces itself.
    """

    def __init__(
        self,
        make: Callable[[], C],
        stop: Callable[[C], Awaitable[object]],
        *,
        now: Callable[[], float],
        draw: Callable[[], float],
        stuck_s: float = STUCK_S,
        backoff_s: float = BACKOFF_S,
    ) -> None:
        self._make = make
        self._stop = stop
        self._now = now
        self._draw = draw
        self._stuck_s = stuck_s
        self._backoff_s = backoff_s
        self._client: C | None = None
        self._starting = asyncio.Lock()
        self._failures = 0
        self._not_before = float("-inf")
        self._failing_since: float | None = None
        self._ending: set[asyncio.Task[None]] = set()
        self.rebuilt = 0
        """How many clients were abandoned."""

    async def call(self, work: Callable[[C], Awaitable[R]], within_s: float) -> R:
        """Let a client do some work, `within_s` seconds at most, its start included.

        Raises:
            KafkaUnavailable: no answer in time, an error of Kafka's, or too soon after a failed
                start. What the work sent may have arrived.
            KafkaDenied: credentials or rights are missing.
        """
        client: C | None = None
        try:
            async with asyncio.timeout(within_s):
                client = await self._started()
                result = await work(client)
        except TimeoutError as fault:
            self._failed(client)
            raise KafkaUnavailable(f"no answer within {within_s:g} s") from fault
        except (KafkaError, OSError) as fault:
            self._failed(client)
            raise named(fault, "Kafka") from fault
        self._failing_since = None
        return result

    async def _started(self) -> C:
        async with self._starting:
            if self._client is not None:
                return self._client
            if self._now() < self._not_before:
                raise KafkaUnavailable("could not be reached a moment ago")
            client = self._make()
            try:
                await client.start()
            except BaseException:
                self._backoff()
                self._aside(client)
                raise
            self._failures = 0
            self._client = client
            return client

    def _backoff(self) -> None:
        """Full jitter over the upper half, so that a fleet doesn't come back in step."""
        pause_s = min(MAX_BACKOFF_S, self._backoff_s * 2.0 ** min(self._failures, 16))
        self._failures += 1
        self._not_before = self._now() + pause_s * (0.5 + 0.5 * self._draw())

    def _failed(self, client: C | None) -> None:
        if client is None or client is not self._client:
            return
        if self._failing_since is None:
            self._failing_since = self._now()
        elif self._now() - self._failing_since >= self._stuck_s:
            self.abandon()

    def abandon(self) -> None:
        """Give the present client up, without waiting: the next call makes a new one."""
        client, self._client = self._client, None
        self._failing_since = None
        if client is not None:
            self.rebuilt += 1
            self._aside(client)

    def _aside(self, client: C) -> None:
        task = asyncio.get_running_loop().create_task(self._end(client), name="end a Kafka client")
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    async def _end(self, client: C) -> None:
        # Whatever its end brings, nobody waits for it and nothing depends on it.
        with contextlib.suppress(Exception):
            async with asyncio.timeout(CLOSE_S):
                await self._stop(client)

    async def close(self) -> None:
        """End what there is, within `CLOSE_S`."""
        client, self._client = self._client, None
        if client is not None:
            self._aside(client)
        if self._ending:
            await asyncio.wait(self._ending, timeout=CLOSE_S)
