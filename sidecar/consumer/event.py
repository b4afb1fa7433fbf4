"""What a handler is given, and how it says what went wrong."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from inspect import isawaitable, iscoroutinefunction
from typing import Any, Generic, TypeVar

import msgspec

from sidecar.consumer.headers import Origin, origin_of, value_of
from sidecar.consumer.source import Record

T = TypeVar("T")


class Permanent(Exception):
    """Raised by a handler: this event can never be handled. It goes to the dead-letter topic."""


class _More:
    """What few events are asked for, made when one is."""

    __slots__ = ("begin", "identity", "marked", "origin")

    def __init__(self) -> None:
        self.origin: Origin | None = None
        self.identity: bytes | None = None
        self.marked = False
        self.begin: Callable[[], AbstractAsyncContextManager[Any]] | None = None


class Event(msgspec.Struct, Generic[T], eq=False):
    """One event on one attempt. Attempts count from 1, those on earlier visits too.

    `record` is it as it was read (of a retry, the one on the retry topic), `value` what `decode`
    made of its bytes (without one the bytes; None: a tombstone), `tier` 0 on its own topic and n on
    retry topic n.
    """

    # A struct, because one is made for each event, and no other kind is made as quickly.
    record: Record
    value: T
    tier: int
    attempt: int
    _more: _More | None = None

    @property
    def origin(self) -> Origin:
        """Where it first was: topic, partition, offset and timestamp."""
        more = self._rest()
        if more.origin is None:
            more.origin = origin_of(self.record, moved=self.tier > 0)
        return more.origin

    @property
    def identity(self) -> bytes | None:
        """By which it is recognised; None where no store is configured."""
        return None if self._more is None else self._more.identity

    @property
    def marked(self) -> bool:
        """Whether its own transaction has marked it as handled."""
        return self._more is not None and self._more.marked

    def _rest(self) -> _More:
        if self._more is None:
            self._more = _More()
        return self._more

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

    def begin_with(
        self, identity: bytes, begin: Callable[[], AbstractAsyncContextManager[Any]]
    ) -> None:
        """For the kit: what it is recognised by, and what `transaction` begins."""
        more = self._rest()
        more.identity, more.begin = identity, begin

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Any]:
        """A transaction of the idempotency store, with the mark of this event in it.

        What the handler does in it takes place exactly once. It waits for the store's only writer,
        so keep it short. Inside, an event that was handled meanwhile raises `Known`, which the
        handler lets pass.

        Raises:
            RuntimeError: no store is configured.
        """
        more = self._rest()
        if more.begin is None:
            raise RuntimeError("no idempotency store is configured: Runner(store=…)")
        async with more.begin() as given:
            yield given
        more.marked = True

    def __repr__(self) -> str:
        where = f"{self.record.topic}[{self.record.partition}]@{self.record.offset}"
        return f"<Event {where} attempt {self.attempt}>"


Handler = Callable[[Event[T]], Awaitable[None]]
"""Returns when the event is handled; raises `Permanent`, or anything else if it may pass."""


class NotAwaitable(BaseException):
    """The handler is no coroutine function. No `Exception`: those are the events' own."""


def awaitable(handler: Handler[T]) -> Handler[T]:
    """The handler, watched where it may be one that can't be awaited.

    Such a one has done its work before anybody notices, and must not be given more.
    """
    if iscoroutinefunction(handler) or iscoroutinefunction(type(handler).__call__):
        return handler

    async def handle(event: Event[T]) -> None:
        given = handler(event)
        if not isawaitable(given):
            raise NotAwaitable(f"{handler!r} can't be awaited: write `async def`")
        await given

    return handle
