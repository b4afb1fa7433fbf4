"""The store in this process: the same behaviour as Consul's, without a server.

Not a fake: it is what an embedded sidecar runs on. Everything is gone with the process. One event
loop; no method waits but `watch`, so every method is atomic.
"""

from __future__ import annotations

import asyncio
import math
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from sidecar.core.errors import CheckLost, SessionLost
from sidecar.core.ports import Committed, Entry, Fence, Page, Put, Refused, Session

MAX_TOMBSTONES: Final = 1024
"""Deleted keys remembered for watchers; one that is behind them all is woken for nothing."""


@dataclass(slots=True)
class _Live:
    """A session: when it ends (inf: never) unless renewed."""

    ttl_s: float
    lock_delay_s: float
    ends: float
    check: str | None = None
    """Ends with this check too."""


@dataclass(slots=True)
class _Check:
    """Critical from `ends` on unless passed."""

    ttl_s: float
    ends: float


class MemoryStore:
    """The port `Store` in memory.

    Args:
        clock: monotonic seconds. Sessions end by it whenever the store is looked at.
    """

    exclusive = True

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._index = 1
        self._entries: dict[str, Entry] = {}
        self._deleted: dict[str, int] = {}
        self._forgotten = 0
        """The highest index of a deletion that is no longer remembered."""
        self._sessions: dict[str, _Live] = {}
        self._checks: dict[str, _Check] = {}
        self._delays: dict[str, float] = {}
        """Keys that may not be locked yet, and until when."""
        self._waiters: set[asyncio.Event] = set()

    async def read(self, key: str) -> Entry | None:
        """See `Store.read`."""
        self._expire()
        return self._entries.get(key)

    async def watch(self, prefix: str, index: int, wait_s: float) -> Page:
        """See `Store.watch`. The wait is counted by the event loop's clock."""
        loop = asyncio.get_running_loop()
        until = loop.time() + wait_s
        while True:
            self._expire()
            left_s = until - loop.time()
            if index < 1 or left_s <= 0 or self._changed(prefix) > index:
                found = [self._entries[k] for k in sorted(self._entries) if k.startswith(prefix)]
                return Page(self._index, tuple(found), known_leader=True)
            await self._woken(min(left_s, self._next_end_s()))

    async def put(self, key: str, value: bytes) -> None:
        """See `Store.put`. A lock stays held and forgets how often it was taken."""
        self._expire()
        self._set(key, value)

    async def swap(self, key: str, value: bytes, cas: int) -> bool:
        """See `Store.swap`."""
        self._expire()
        if self._stale(Put(key, value, cas)):
            return False
        self._set(key, value)
        return True

    async def delete(self, key: str, cas: int | None = None) -> bool:
        """See `Store.delete`."""
        self._expire()
        entry = self._entries.get(key)
        if cas is not None and (cas < 1 or (entry is not None and entry.modify_index != cas)):
            return False
        if entry is not None:
            del self._entries[key]
            self._deleted[key] = self._tick()
            if len(self._deleted) > MAX_TOMBSTONES:
                oldest = next(iter(self._deleted))
                self._forgotten = self._deleted.pop(oldest)
        return True

    async def commit(self, fence: Fence, writes: Sequence[Put]) -> Committed | Refused:
        """See `Store.commit`."""
        self._expire()
        held = self._entries.get(fence.key)
        if held is None or held.session != fence.session:
            return Refused((f"{fence.key}: the lock is not held by this session",))
        conflicts = [put.key for put in writes if put.cas is not None and self._stale(put)]
        if conflicts:
            return Refused(tuple(f"{key}: the index differs" for key in conflicts))
        return Committed({put.key: self._set(put.key, put.value).modify_index for put in writes})

    async def create_session(
        self,
        name: str,  # noqa: ARG002 - for people who list a server's sessions
        ttl_s: float,
        lock_delay_s: float,
        check: str | None = None,
    ) -> Session:
        """See `Store.create_session`."""
        now = self._clock()
        if check is not None and (check not in self._checks or now >= self._checks[check].ends):
            raise CheckLost("there is no such check, or it is critical")
        session = str(uuid.uuid4())
        self._sessions[session] = _Live(ttl_s, lock_delay_s, now + ttl_s, check)
        return Session(session, ttl_s)

    async def renew_session(self, session: str) -> Session:
        """See `Store.renew_session`."""
        live = self._alive(session)
        live.ends = self._clock() + live.ttl_s
        return Session(session, live.ttl_s)

    async def destroy_session(self, session: str) -> None:
        """See `Store.destroy_session`."""
        self._expire()
        self._end(session)

    async def register_check(self, check: str, ttl_s: float) -> None:
        """See `Store.register_check`; it stays until it is taken away."""
        self._expire()
        self._checks[check] = _Check(ttl_s, self._clock() + ttl_s)

    async def pass_check(self, check: str) -> None:
        """See `Store.pass_check`."""
        self._expire()
        known = self._checks.get(check)
        if known is None:
            raise CheckLost("there is no such check")
        known.ends = self._clock() + known.ttl_s

    async def deregister_check(self, check: str) -> None:
        """See `Store.deregister_check`."""
        self._expire()
        self._checks.pop(check, None)
        self._expire()

    async def acquire(self, key: str, value: bytes, session: str) -> Entry | None:
        """See `Store.acquire`."""
        self._alive(session)
        entry = self._entries.get(key)
        if entry is not None and entry.session == session:
            return self._store(replace(entry, value=value))
        if entry is not None and entry.session is not None:
            return None
        if self._clock() < self._delays.get(key, -math.inf):
            return None
        self._delays.pop(key, None)
        taken = entry.lock_index + 1 if entry is not None else 1
        return self._store(
            Entry(key=key, value=value, modify_index=0, lock_index=taken, session=session)
        )

    async def release(self, key: str, value: bytes, session: str) -> bool:
        """See `Store.release`."""
        self._expire()
        entry = self._entries.get(key)
        if entry is None or entry.session != session:
            return False
        self._store(replace(entry, value=value, session=None))
        return True

    async def close(self) -> None:
        """See `Store.close`; there are no connections."""

    def _stale(self, put: Put) -> bool:
        entry = self._entries.get(put.key)
        return (entry.modify_index if entry is not None else 0) != put.cas

    def _set(self, key: str, value: bytes) -> Entry:
        entry = self._entries.get(key)
        session = entry.session if entry is not None else None
        return self._store(Entry(key=key, value=value, modify_index=0, session=session))

    def _store(self, entry: Entry) -> Entry:
        """Keep an entry under a new index; one that changes nothing keeps its old one."""
        before = self._entries.get(entry.key)
        if before is not None and replace(entry, modify_index=before.modify_index) == before:
            return before
        stored = replace(entry, modify_index=self._tick())
        self._entries[entry.key] = stored
        self._deleted.pop(entry.key, None)
        return stored

    def _tick(self) -> int:
        self._index += 1
        for waiter in self._waiters:
            waiter.set()
        return self._index

    def _changed(self, prefix: str) -> int:
        """The highest index of a change below the prefix."""
        changes = [e.modify_index for k, e in self._entries.items() if k.startswith(prefix)]
        changes += [index for key, index in self._deleted.items() if key.startswith(prefix)]
        return max(self._forgotten, *changes, 0)

    async def _woken(self, at_most_s: float) -> None:
        waiter = asyncio.Event()
        self._waiters.add(waiter)
        try:
            async with asyncio.timeout(max(0.0, at_most_s)):
                await waiter.wait()
        except TimeoutError:
            pass
        finally:
            self._waiters.discard(waiter)

    def _next_end_s(self) -> float:
        """Seconds until a session may end by itself."""
        ends = min((self._ends(live) for live in self._sessions.values()), default=math.inf)
        return max(0.001, ends - self._clock())

    def _alive(self, session: str) -> _Live:
        self._expire()
        live = self._sessions.get(session)
        if live is None:
            raise SessionLost("there is no such session")
        return live

    def _expire(self) -> None:
        now = self._clock()
        for session in [s for s, live in self._sessions.items() if now >= self._ends(live)]:
            self._end(session)

    def _ends(self, live: _Live) -> float:
        """When a session ends by itself: the shorter of its two lives."""
        if live.check is None:
            return live.ends
        check = self._checks.get(live.check)
        return min(live.ends, check.ends) if check is not None else -math.inf

    def _end(self, session: str) -> None:
        """Its locks are lost, and nobody gets them before the lock-delay is over."""
        live = self._sessions.pop(session, None)
        if live is None:
            return
        for key in [k for k, e in self._entries.items() if e.session == session]:
            self._delays[key] = self._clock() + live.lock_delay_s
            self._store(replace(self._entries[key], session=None))
