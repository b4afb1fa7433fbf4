"""What the store still holds in our name though we act on it no more: locks, and their sessions.

A release or destroy that meets no answer is owed. Until it is paid nobody else can take the lock,
which after an outage would leave a breaker without an evaluator for up to twice the session's ttl.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

from sidecar.core.errors import SessionLost, StoreError, StoreUnreachable
from sidecar.loops.abreast import MOST, together
from sidecar.loops.around import Around

RETRY_S = 0.25
MAX_RETRY_S = 2.0


@dataclass(slots=True)
class _Owed:
    """One session's leavings."""

    next: float
    ends: float = math.inf
    """When its ttl has ended it, where there is a leader; infinite: it goes on with other locks."""
    locks: dict[str, float] = field(default_factory=dict)
    """Breakers whose lock it may still hold, and since when it did (wall time, for the value)."""
    failures: int = 0
    unheard: bool = False
    """The last attempt met no answer. Servers without a leader end no session, and the next leader
    gives each of them a whole life anew, so that nothing may be taken for over."""


class Leftovers:
    """Gives back what could not be given back at once.

    Args:
        release: gives one lock back: (breaker, held since, session); raises StoreError.
    """

    def __init__(
        self, around: Around, release: Callable[[str, float, str], Awaitable[None]]
    ) -> None:
        self._store = around.store
        self._clock = around.clock
        self._draw = around.draw
        self._release = release
        self._owed: dict[str, _Owed] = {}

    def add(
        self, session: str, locks: Mapping[str, float], *, ends: float | None, wait_s: float = 0.0
    ) -> None:
        """Owe these locks, and with `ends` (monotonic) the session itself, which ends by then."""
        owed = self._owed.setdefault(session, _Owed(self._clock.now() + wait_s))
        owed.locks.update(locks)
        if ends is not None:
            owed.ends, owed.next = ends, self._clock.now()

    def reclaimed(self, session: str, name: str) -> None:
        """The session has taken this lock again: it is not to be released."""
        if session in self._owed:
            self._owed[session].locks.pop(name, None)

    @property
    def next(self) -> float:
        """When to settle next (monotonic; infinite: nothing is owed)."""
        return min((owed.next for owed in self._owed.values()), default=math.inf)

    async def settle(self) -> None:
        """Release, then destroy (that order needs no lock-delay), whatever is due."""
        for session, owed in list(self._owed.items()):
            now = self._clock.now()
            if now >= owed.ends and not owed.unheard:
                del self._owed[session]
            elif now >= owed.next:
                await self._pay(session, owed)

    async def _give_back(self, session: str, owed: _Owed, name: str) -> bool:
        since_at = owed.locks.get(name)
        if since_at is not None:
            await self._release(name, since_at, session)
            owed.locks.pop(name, None)
        return True

    async def _pay(self, session: str, owed: _Owed) -> None:
        try:
            while some := list(owed.locks)[:MOST]:  # more may come while these are released
                await together(partial(self._give_back, session, owed), some, "give back")
            if math.isfinite(owed.ends):
                await self._store.destroy_session(session)
        except SessionLost:
            self._owed.pop(session, None)  # and all it held is free
        except StoreError as fault:
            owed.failures += 1
            owed.unheard = isinstance(fault, StoreUnreachable)
            pause_s = min(MAX_RETRY_S, RETRY_S * 2.0 ** min(owed.failures, 8))
            owed.next = self._clock.now() + pause_s * (0.5 + self._draw() / 2)
        else:
            self._owed.pop(session, None)
