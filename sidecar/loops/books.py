"""An operator's orders as writes to the store, for whoever carries them out: daemon or command.

Needs no breaker configured and no lock held: an order is a person's word, and the keys are enough.
"""

from __future__ import annotations

import asyncio
import contextlib

from sidecar.core.errors import Contradicted, StillEvaluated, StoreDenied, StoreUnreachable
from sidecar.core.override import (
    BadOverride,
    Override,
    Standing,
    contradicts,
    observe_override,
)
from sidecar.core.ports import Entry, Store, Wire
from sidecar.core.types import Foreign, Reason, Record, State
from sidecar.loops.around import Clock

ATTEMPTS = 3
"""To write the override although others write it too."""
TAKEN_S = 2.0
"""A sidecar that stands for the breaker has taken a lock that was given up within this time."""
COMES_BACK_S = 1.5
"""A sidecar that still evaluates the breaker has written its state again within this time."""


class Books:
    """Writes orders.

    Args:
        instance: who does it, for the last record of a breaker that is forgotten.
    """

    def __init__(self, store: Store, wire: Wire, clock: Clock, instance: str) -> None:
        self._store = store
        self._wire = wire
        self._clock = clock
        self._instance = instance

    async def force(
        self, name: str, override: Override, *, replace: bool, seen: Standing | None = None
    ) -> None:
        """Write the override.

        Args:
            replace: it may lift a live `open`.
            seen: what this machine knows of the one that is there: when it ends by its own clock.

        Raises:
            Contradicted: it would lift a live `open`, and `replace` doesn't say so.
            StoreError: it could not be written.
        """
        key, value = self._wire.override(name), self._wire.encode_override(override)
        for _ in range(ATTEMPTS):
            entry = await self._store.read(key)
            if not replace:
                self._check(name, override, entry, seen)
            if await self._store.swap(key, value, entry.modify_index if entry is not None else 0):
                return
        raise StoreUnreachable("somebody else writes the override all the time")

    async def release(self, name: str) -> None:
        """Delete the override; none being there is fine. Raises StoreError."""
        await self._store.delete(self._wire.override(name))

    async def forget(self, name: str) -> None:
        """Close a breaker for those who only look at its state, then delete its keys.

        Raises:
            StillEvaluated: a sidecar holds its lock, or has written its state again.
            StoreError: not everything could be deleted.
        """
        store, wire = self._store, self._wire
        await self._check_free(name)
        # The lock may be free for the moment alone, because whoever asks has just given it up.
        await self._let_others(TAKEN_S)
        await self._check_free(name)
        entry = await store.read(wire.state(name))
        if entry is not None:
            await store.swap(entry.key, self._closed(entry), entry.modify_index)
        for key in (wire.override(name), wire.history(name), wire.state(name), wire.leader(name)):
            await store.delete(key)
        # A token made before this key was may not touch it, and only `auto` ever wrote it.
        with contextlib.suppress(StoreDenied):
            await store.delete(wire.normal(name))
        await self._let_others(COMES_BACK_S)
        if await store.read(wire.state(name)) is not None:
            raise StillEvaluated(self._still(name, await store.read(wire.leader(name))))

    async def _let_others(self, act_s: float) -> None:
        """Time for other sidecars to act; on a store of this process there are none."""
        if not self._store.exclusive:
            await asyncio.sleep(act_s)

    async def _check_free(self, name: str) -> None:
        holder = await self._store.read(self._wire.leader(name))
        if holder is not None and holder.session is not None:
            raise StillEvaluated(self._still(name, holder))

    def decoded(self, entry: Entry | None) -> Override | None:
        """The override that a key holds; None for none, and for what can't be used."""
        found = self._wire.decode_override(entry.value) if entry is not None else None
        return None if isinstance(found, BadOverride) else found

    def _check(
        self, name: str, override: Override, entry: Entry | None, seen: Standing | None
    ) -> None:
        """By what the key holds right now, which may be newer than what was seen."""
        found = self.decoded(entry)
        if found is None or entry is None:
            return
        now, wall_at = self._clock.now(), self._clock.wall_at()
        standing = observe_override(
            seen, found, entry.modify_index, live=seen is not None, now=now, wall_at=wall_at
        )
        if contradicts(override.mode, standing, now):
            by = found.author or "somebody"
            raise Contradicted(
                f"{name} is forced open by {by}: {found.reason or 'no reason given'}"
            )

    def _still(self, name: str, holder: Entry | None) -> str:
        who = self._wire.decode_holder(holder.value) if holder is not None else None
        return (
            f"{who.instance if who is not None else 'a sidecar'} still evaluates {name}; take the "
            "breaker out of its configuration first"
        )

    def _closed(self, entry: Entry) -> bytes:
        stored = self._wire.decode_state(entry.value)
        known = stored if isinstance(stored, Record) else None
        at = self._clock.wall_at()
        if isinstance(stored, Foreign) and stored.last_changed_at is not None:
            at = max(at, stored.last_changed_at)
        return self._wire.encode_state(
            Record(
                current_state=State.CLOSED,
                last_changed_at=at,
                seq=known.seq + 1 if known is not None else 1,
                epoch=known.epoch if known is not None else 0,
                automaton=State.CLOSED,
                reason=Reason.FORGOTTEN,
                detail="its keys are being deleted",
                admit_ratio=1.0,
                automaton_ratio=1.0,
                policy=known.policy if known is not None else "",
                evaluator=self._instance,
            )
        )
