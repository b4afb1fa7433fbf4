"""Dead letters as their readers see them, and which of them are meant. Pure."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sidecar.consumer.headers import (
    ERROR,
    FAILED_AT,
    GROUP,
    REASON,
    STACK,
    Header,
    Origin,
    number_of,
    origin_of,
    own,
    text_of,
)
from sidecar.consumer.source import Record

SUFFIX = ".dlq"


@dataclass(frozen=True, slots=True, kw_only=True)
class Letter:
    """An event on a dead-letter topic."""

    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[Header]
    origin: Origin
    failed_at: float
    """Seconds since 1970."""
    reason: str | None
    error: str | None
    stack: str | None
    group: str | None

    @property
    def place(self) -> str:
        """Where it lies on its topic."""
        return f"{self.partition}:{self.offset}"

    def as_json(self, *, whole: bool) -> dict[str, Any]:
        """For programs; with `whole` also the stack, the value and the event's own headers."""
        told: dict[str, Any] = {
            "place": self.place,
            "failed_at": self.failed_at,
            "reason": self.reason,
            "attempts": self.origin.attempts,
            "replays": self.origin.replays,
            **_encoded("key", self.key),
            "origin": {
                "topic": self.origin.topic,
                "partition": self.origin.partition,
                "offset": self.origin.offset,
                "timestamp_ms": self.origin.timestamp_ms,
            },
            "group": self.group,
            "error": self.error,
        }
        if whole:
            told["stack"] = self.stack
            told |= _encoded("value", self.value)
            told["headers"] = [{"name": n, **_encoded("value", v)} for n, v in own(self.headers)]
        return told


def _encoded(name: str, data: bytes | None) -> dict[str, str | None]:
    """Bytes as text where they are some; else in base64, under a name that says so."""
    if data is None:
        return {name: None}
    try:
        return {name: data.decode()}
    except UnicodeDecodeError:
        return {f"{name}_base64": base64.b64encode(data).decode()}


def letter_of(record: Record, topic: str) -> Letter:
    """A record of a dead-letter topic, whoever wrote it there."""
    headers = record.headers
    origin = origin_of(record, moved=True)
    if origin.topic == topic and topic.endswith(SUFFIX):
        # Not written by the kit: all that is known is what the topic's name says.
        origin = Origin(
            topic=topic.removesuffix(SUFFIX),
            partition=origin.partition,
            offset=origin.offset,
            timestamp_ms=origin.timestamp_ms,
            replays=origin.replays,
        )
    failed_at_ms = number_of(headers, FAILED_AT)
    return Letter(
        partition=record.partition,
        offset=record.offset,
        key=record.key,
        value=record.value,
        headers=tuple(headers),
        origin=origin,
        failed_at=(record.timestamp if failed_at_ms is None else failed_at_ms) / 1000,
        reason=text_of(headers, REASON),
        error=text_of(headers, ERROR),
        stack=text_of(headers, STACK),
        group=text_of(headers, GROUP),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which letters are meant: those that all of what is set is true of.

    Args:
        reason: `permanent`, `exhausted`, or a part of the error.
        key: the whole key.
        since_at: failed at or after (seconds since 1970).
        until_at: failed before.
        min_attempts: tried at least so often.
        max_attempts: tried at most so often.
        places: only these (partition and offset).
    """

    reason: str | None = None
    key: bytes | None = None
    since_at: float | None = None
    until_at: float | None = None
    min_attempts: int = 0
    max_attempts: int | None = None
    places: frozenset[tuple[int, int]] = frozenset()

    def matches(self, letter: Letter) -> bool:
        """Whether this one is meant."""
        attempts = letter.origin.attempts
        return (
            (not self.places or (letter.partition, letter.offset) in self.places)
            and (self.reason is None or self._reason(letter))
            and (self.key is None or letter.key == self.key)
            and (self.since_at is None or letter.failed_at >= self.since_at)
            and (self.until_at is None or letter.failed_at < self.until_at)
            and attempts >= self.min_attempts
            and (self.max_attempts is None or attempts <= self.max_attempts)
        )

    def _reason(self, letter: Letter) -> bool:
        return self.reason == letter.reason or (self.reason or "") in (letter.error or "")
