"""One long poll tells a sidecar everything: states, overrides and locks share a prefix."""

from __future__ import annotations

import asyncio

import stamina

from sidecar.core.decision import poll_wait
from sidecar.core.errors import StoreError
from sidecar.core.override import BadOverride, Override
from sidecar.core.ports import Entry, Page
from sidecar.core.types import Stored, Unreadable
from sidecar.loops.around import Around
from sidecar.loops.cursor import Cursor
from sidecar.loops.pace import Pace
from sidecar.telemetry import names


class Watch:
    """Keeps the board up to date with the store."""

    def __init__(self, around: Around) -> None:
        self._around = around
        self._store = around.store
        self._wire = around.wire
        self._board = around.board
        self._telemetry = around.telemetry
        self._clock = around.clock
        self._cursor = Cursor()
        self._decoded: dict[str, tuple[int, Stored]] = {}
        self._overrides: dict[str, tuple[int, Override | None]] = {}
        self._reachable = True
        self._pace = Pace()

    def look_again(self) -> None:
        """Read everything anew at the next poll, for breakers that were not looked for before."""
        self._cursor.reset()
        self._decoded.clear()
        self._overrides.clear()

    async def run(self) -> None:
        """Poll for ever."""
        while True:
            async for attempt in stamina.retry_context(
                on=StoreError,
                attempts=None,
                timeout=None,
                wait_initial=0.1,
                wait_max=min(5.0, poll_wait(self._board.contact.max_stale_s)),
                wait_jitter=0.5,
            ):
                with attempt:
                    try:
                        await self._poll()
                    except StoreError as fault:
                        self._unreachable(fault)
                        raise

    async def _poll(self) -> None:
        started = self._clock.now()
        wait_s = poll_wait(self._board.contact.max_stale_s)
        before = self._cursor.index
        page = await self._store.watch(self._wire.watched, self._cursor.ask, wait_s)
        waited_s = self._clock.now() - started
        self._take(page, early=waited_s < wait_s / 2)
        await asyncio.sleep(self._pace.after(news=page.index != before, waited_s=waited_s))

    def _take(self, page: Page, *, early: bool) -> None:
        before = self._cursor.took(page.index, early=early)
        if before is not None:
            # The store was restored, or its tombstones were reaped: its clock starts anew.
            self._telemetry.event(
                names.STORE_REWOUND, level="warning", before=before, now=page.index
            )
            self._board.rewind()
            self._decoded.clear()
            self._overrides.clear()
        live = before is None and self._looking()
        entries = {entry.key: entry for entry in page.entries}
        for name in self._board.cells:
            self._state(name, entries.get(self._wire.state(name)), page.index)
            self._lock(name, entries.get(self._wire.leader(name)), page.index)
            self._override(name, entries.get(self._wire.override(name)), page.index, live=live)
        if page.known_leader:
            self._board.synced(self._clock.now())
            self._reached()
        self._around.changed()

    def _state(self, name: str, entry: Entry | None, as_of: int) -> None:
        stored: Stored | None = None
        if entry is not None:
            index, stored = self._decoded.get(name, (-1, Unreadable("")))
            if index != entry.modify_index:
                stored = self._wire.decode_state(entry.value)
                self._decoded[name] = (entry.modify_index, stored)
                if isinstance(stored, Unreadable):
                    self._telemetry.count(names.BAD_RECORDS, kind="state")
                    self._telemetry.event(
                        names.BAD_STATE, level="warning", breaker=name, fault=stored.fault
                    )
        self._board.observe(
            name,
            stored,
            entry.modify_index if entry is not None else 0,
            as_of,
            now=self._clock.now(),
            wall_at=self._clock.wall_at(),
        )

    def _looking(self) -> bool:
        """Have we been looking until now? Then what is new was written just now."""
        contact = self._board.contact
        return (
            contact.synced is not None
            and self._clock.now() < contact.synced + contact.stale_after_s
        )

    def _override(self, name: str, entry: Entry | None, as_of: int, *, live: bool) -> None:
        override: Override | None = None
        if entry is not None:
            index, override = self._overrides.get(name, (-1, None))
            if index != entry.modify_index:
                override = self._usable(name, entry)
                self._overrides[name] = (entry.modify_index, override)
        self._board.override(
            name,
            override,
            entry.modify_index if entry is not None else 0,
            as_of,
            live=live,
            now=self._clock.now(),
            wall_at=self._clock.wall_at(),
        )

    def _usable(self, name: str, entry: Entry) -> Override | None:
        found = self._wire.decode_override(entry.value)
        if not isinstance(found, BadOverride):
            return found
        self._telemetry.count(names.BAD_RECORDS, kind="override")
        self._telemetry.event(names.BAD_OVERRIDE, level="warning", breaker=name, fault=found.fault)
        return None

    def _lock(self, name: str, entry: Entry | None, as_of: int) -> None:
        holder = self._wire.decode_holder(entry.value) if entry is not None else None
        session = entry.session if entry is not None else None
        self._board.lock(name, session, holder, as_of, now=self._clock.now())

    def _unreachable(self, fault: StoreError) -> None:
        if self._reachable:
            self._reachable = False
            self._telemetry.event(
                names.STORE_LOST,
                level="warning",
                error=f"{type(fault).__name__}: {fault}",
                on_loss=str(self._board.contact.on_loss),
                max_stale_s=self._board.contact.max_stale_s,
            )

    def _reached(self) -> None:
        if not self._reachable:
            self._reachable = True
            self._telemetry.event(names.STORE_BACK)
