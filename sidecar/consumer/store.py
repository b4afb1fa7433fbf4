"""What is known of events that were handled: the port, and what is asked of it.

A store keeps one mark for each event that was handled, and the newest version for each key. With
them an event that comes again is dropped, and so is one that is older than the newest handled for
its key: it came back late from a retry or dead-letter topic.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol


class Verdict(StrEnum):
    """What an event is to a consumer group."""

    NEW = "new"
    KNOWN = "known"
    """It was handled already."""
    STALE = "stale"
    """A newer one of its key was handled already."""


class Known(Exception):
    """The event needs no handling any more; raised inside its transaction, for the kit to see."""

    def __init__(self, verdict: Verdict) -> None:
        super().__init__(f"the event is {verdict}")
        self.verdict = verdict


class StoreFailed(Exception):
    """The store could not be read or written; whether something was written is unknown."""


@dataclass(frozen=True, slots=True)
class Mark:
    """An event to a store."""

    scope: str
    """The consumer group: two groups handle the same event each."""
    identity: bytes
    key: bytes | None
    """Topic and key together; None for one without a key, which has no versions."""
    version: int | None


def judged(*, known: bool, version: int | None, newest: int | None) -> Verdict:
    """The version gate: an older one is stale, an equal one is not (its identity tells)."""
    if known:
        return Verdict.KNOWN
    if version is not None and newest is not None and version < newest:
        return Verdict.STALE
    return Verdict.NEW


class Store(Protocol):
    """Marks and versions. Every call ends within a deadline; all of them raise StoreFailed."""

    async def look(self, mark: Mark) -> Verdict:
        """What this event is."""

    async def remember(self, marks: Sequence[Mark]) -> None:
        """These were handled. On return it is durable, as far as the store is."""

    def transaction(self, mark: Mark) -> AbstractAsyncContextManager[Any]:
        """Effects and the mark, both or neither.

        Entering looks once more and raises Known; leaving without an error commits.
        """

    async def close(self) -> None:
        """Give back what it holds. A second time does nothing."""
