"""What a handler is given, and how it says what went wrong."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Generic, TypeVar

from sidecar.consumer.headers import Origin, origin_of, value_of
from sidecar.consumer.source import Record

T = TypeVar("T")


class Permanent(Exception):
    """Raised by a handler: this event can never be handled. It goes to the dead-letter topic."""


class Event(Generic[T]):
    """One event on one attempt."""

    __slots__ = ("_begin", "_origin", "attempt", "identity", "marked", "record", "tier", "value")

    def __init__(self, record: Record, value: T, tier: int, attempt: int) -> None:
        self.record = record
        """As it was read: of a retry, the one on the retry topic."""
        self.value = value
        """What `decode` made of its bytes; without one, the bytes (None: a tombstone)."""
        self.tier = tier
        """0 on its own topic, n on retry topic n."""
        self.attempt = attempt
        """Which attempt this is in all, from 1."""
        self.identity: bytes | None = None
        """By which it is recognised; None where no store is configured."""
        self.marked = False
        """Whether its own transaction has marked it as handled."""
        self._origin: Origin | None = None
        self._begin: Callable[[], AbstractAsyncContextManager[Any]] | None = None

    @property
    def origin(self) -> Origin:
        """Where it first was: topic, partition, offset and timestamp."""
        if self._origin is None:
            self._origin = origin_of(self.record, moved=self.tier > 0)
        return self._origin

    @property
    def key(self) -> bytes | None:
        """Its key, which orders it."""
        return self.record.key

    @property
    def topic(self) -> str:
        """Where it first was."""
        return self.origin.topic

    def header(self, name: str) -> bytes | None:
        """The last header of that name; None where there is none."""
        return value_of(self.record.headers, name)

    def begin_with(self, begin: Callable[[], AbstractAsyncContextManager[Any]]) -> None:
        """For the kit: what `transaction` begins."""
        self._begin = begin

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Any]:
        """A transaction of the idempotency store, with the mark of this event in it.

        What the handler does in it takes place exactly once. It waits for the store's only writer,
        so keep it short. Inside, an event that was handled meanwhile raises `Known`, which the
        handler lets pass.

        Raises:
            RuntimeError: no store is configured.
        """
        if self._begin is None:
            raise RuntimeError("no idempotency store is configured: Runner(store=…)")
        async with self._begin() as given:
            yield given
        self.marked = True

    def __repr__(self) -> str:
        where = f"{self.record.topic}[{self.record.partition}]@{self.record.offset}"
        return f"<Event {where} attempt {self.attempt}>"


Handler = Callable[[Event[T]], Awaitable[None]]
"""Returns when the event is handled; raises `Permanent`, or anything else if it may pass."""
