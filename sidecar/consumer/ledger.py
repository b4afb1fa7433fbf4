"""The marks of a runner: those in the store, and those that are on their way there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from sidecar.consumer.event import Event
from sidecar.consumer.identity import Identify, Versioned
from sidecar.consumer.store import Mark, Store, StoreFailed, Verdict, judged
from sidecar.consumer.told import words

LEAST_VERSION, MOST_VERSION = -(2**63), 2**63 - 1
"""What a database's whole numbers can be."""


class Unidentified(Exception):
    """An event from which no identity can be read: it can't be told from its duplicates."""


class Ledger:
    """Marks are gathered and written together, at the latest before their events are committed.

    Args:
        scope: the consumer group.
        version: None: no version gate.
    """

    def __init__(
        self, store: Store, scope: str, identify: Identify, version: Versioned | None
    ) -> None:
        self._store = store
        self._scope = scope
        self._identify = identify
        self._version = version
        self._waiting: dict[bytes, Mark] = {}
        self._newest: dict[bytes, int] = {}
        """Of the waiting ones, by key."""
        self._turn = asyncio.Lock()

    async def try_out(self) -> None:
        """Look for nothing in particular. Raises StoreFailed where the store is of no use."""
        await self._store.look(Mark(self._scope, b"", None, None))

    def mark(self, event: Event[Any]) -> Mark:
        """What the event is called here. Raises Unidentified."""
        try:
            identity = self._identify(event)
            version = None if self._version is None else self._version(event)
        except Exception as error:  # whatever the application's own functions raise
            raise Unidentified(words(error)) from error
        if identity is None:
            raise Unidentified("no identity in it")
        if version is not None and not LEAST_VERSION <= version <= MOST_VERSION:
            raise Unidentified("its version has more than 64 bits")
        key = event.record.key
        return Mark(
            self._scope,
            identity,
            None if key is None else event.origin.topic.encode() + b"\x00" + key,
            version,
        )

    async def look(self, mark: Mark) -> Verdict:
        """What the event is. Raises StoreFailed."""
        verdict = judged(
            known=mark.identity in self._waiting,
            version=mark.version,
            newest=None if mark.key is None else self._newest.get(mark.key),
        )
        return await self._store.look(mark) if verdict is Verdict.NEW else verdict

    def note(self, mark: Mark) -> None:
        """It was handled; `flush` writes that."""
        self._waiting[mark.identity] = mark
        if mark.key is not None and mark.version is not None:
            self._newest[mark.key] = max(mark.version, self._newest.get(mark.key, mark.version))

    @asynccontextmanager
    async def transaction(self, mark: Mark) -> AsyncIterator[Any]:
        """The store's, which waits for nothing that is gathered here. Raises Known, StoreFailed."""
        async with self._store.transaction(mark) as given:
            yield given

    async def flush(self) -> None:
        """Write what is waiting. Raises StoreFailed; then it waits on."""
        async with self._turn:
            marks = list(self._waiting.values())
            if not marks:
                return
            try:
                await self._store.remember(marks)
            except StoreFailed:
                raise
            except Exception as error:  # of a store that says it in words of its own
                raise StoreFailed(words(error)) from error
            for mark in marks:
                self._waiting.pop(mark.identity, None)
            if not self._waiting:
                self._newest.clear()

    async def close(self) -> None:
        """Close the store."""
        await self._store.close()
