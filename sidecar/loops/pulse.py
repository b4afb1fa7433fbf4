"""A sign of life at the local agent: a check with a short time to live, which a session needs.

A session alone outlives its owner by up to twice its ttl, which Consul keeps at 10 s or more. One
that is bound to a check ends as soon as the check has not been passed for `ttl_s`. The owner must
count on the shorter of the two lives, so this one has a lease of its own, counted from when the
pass was *sent*.
"""

from __future__ import annotations

import asyncio
import math

from sidecar.core.errors import CheckLost, StoreError, StoreUnreachable
from sidecar.core.lease import Lease
from sidecar.loops.around import Around
from sidecar.loops.guard import Signal
from sidecar.telemetry import names

TRY_AGAIN_S = 300.0
"""After a refusal sessions do without for so long: rights are given by people, not in seconds."""
PATIENCE = 3
"""An agent that doesn't answer this call so often in a row, but the others, doesn't offer it."""
YOUNG_S = 60.0
"""A check that is forgotten before it is so old isn't tried again at once: the address may be that
of several agents in turn, and then each evaluator would last for one pass."""
END_S = 1.0
"""How long the check's end may take; the agent removes one that stays critical by itself."""


class Pulse:
    """This sidecar's check: registered, passed in time, and taken away again.

    Args:
        lost: set when a pass says that the check is gone.
    """

    def __init__(self, around: Around, lost: Signal) -> None:
        self._check = f"breaker-sidecar-{around.instance}"
        self._store = around.store
        self._telemetry = around.telemetry
        self._clock = around.clock
        self._draw = around.draw
        self._lease: Lease | None = None
        self._next = math.inf
        self._failures = 0
        self._not_before = -math.inf
        self._unanswered = 0
        self._began = -math.inf
        self._told = False
        self._lost = lost
        self._wake = Signal()

    @property
    def ends(self) -> float:
        """Until when the check is surely alive (monotonic; infinite while none is bound)."""
        return math.inf if self._lease is None else self._lease.ends

    async def begin(self, ttl_s: float | None) -> str | None:
        """Register the check for a new session, passing now; None: do without one.

        Args:
            ttl_s: how long it lives without a pass; None when it isn't wanted.

        Raises:
            StoreUnreachable: the agent doesn't answer; a session could not be made either.
        """
        if ttl_s is None or self._clock.now() < self._not_before:
            await self.end()
            return None
        sent = self._clock.now()
        try:
            await self._store.register_check(self._check, ttl_s)
        except StoreUnreachable as fault:
            self._unanswered += 1
            if self._unanswered < PATIENCE:
                raise
            await self.forgo(fault)
            return None
        except StoreError as fault:
            await self.forgo(fault)
            return None
        self._unanswered = 0
        self._began = sent
        self._hold(sent, ttl_s)
        return self._check

    async def forgo(self, why: StoreError) -> None:
        """Do without a check for a while, and say so once."""
        self._put_off(why)
        await self.end()

    def _put_off(self, why: StoreError) -> None:
        self._not_before = self._clock.now() + TRY_AGAIN_S
        if not self._told:
            self._told = True
            self._telemetry.event(names.FAST_TAKEOVER_OFF, level="warning", error=str(why))

    async def end(self) -> None:
        """Take the check away. Only after its session: its loss costs the locks a lock-delay."""
        if self._lease is None:
            return
        self._lease, self._next = None, math.inf
        try:
            async with asyncio.timeout(END_S):
                await self._store.deregister_check(self._check)
        except (StoreError, TimeoutError):
            return  # it turns critical, and the agent removes it

    async def run(self) -> None:
        """Pass the check in time, for ever."""
        while True:
            await self._wake.wait(min(60.0, max(0.0, self._next - self._clock.now())))
            if self._lease is not None and self._clock.now() >= self._next:
                await self._beat(self._lease)

    async def _beat(self, lease: Lease) -> None:
        """One pass. Its wait is bounded so that another fits in before the check turns critical."""
        sent = self._clock.now()
        if sent >= lease.ends:
            self._next = math.inf  # too late: its session may be gone, and its owner knows
            return
        error: StoreError | None = None
        try:
            async with asyncio.timeout(lease.ttl_s / 3):
                await self._store.pass_check(self._check)
        except CheckLost as fault:
            error = fault
        except (StoreError, TimeoutError):
            self._failures += 1
            pause_s = min(0.2 * lease.ttl_s, 0.05 * 2.0 ** min(self._failures, 8))
            self._next = self._clock.now() + pause_s * (0.5 + self._draw())
            return
        if self._lease is not lease:
            return  # it ended, or began anew, while the answer was on its way
        if error is not None:
            self._lease, self._next = Lease(-math.inf, lease.ttl_s), math.inf
            if sent < self._began + YOUNG_S:
                self._put_off(error)
            self._lost.set()
        elif self._clock.now() < lease.ends:
            # Only an answer from within the old lease proves that the check never was critical.
            self._hold(sent, lease.ttl_s)

    def _hold(self, sent: float, ttl_s: float) -> None:
        self._lease = Lease(sent, ttl_s)
        self._next = self._lease.renew_at
        self._failures = 0
        self._wake.set()
