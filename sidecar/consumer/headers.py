"""What the kit writes into headers, and how it reads it again. Pure.

Events on their own topics come from anywhere, so of theirs only the count of replays is believed;
the rest is read on retry and dead-letter topics alone, which the kit itself writes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sidecar.consumer.source import Record

PREFIX = "breaker-"
TOPIC = "breaker-topic"
PARTITION = "breaker-partition"
OFFSET = "breaker-offset"
TIMESTAMP = "breaker-timestamp"
"""Of the event where it first was, milliseconds since 1970."""
GROUP = "breaker-group"
"""The consumer group that could not handle it."""
ATTEMPTS = "breaker-attempts"
"""How often it was tried in all."""
ERROR = "breaker-error"
"""Type and message of the last failure."""
STACK = "breaker-stack"
REASON = "breaker-reason"
"""Of a dead letter: `permanent` or `exhausted`."""
FAILED_AT = "breaker-failed-at"
"""When it was moved, milliseconds since 1970."""
DUE_AT = "breaker-due-at"
"""Not before then, milliseconds since 1970: on retry topics."""
REPLAYS = "breaker-replays"
"""How often it was put back from the dead-letter topic."""
EMPTY = "breaker-empty"
"""The value was null and there was no key: a record that producers can't write."""

MOST_ERROR_BYTES = 2048
MOST_STACK_BYTES = 8192
SLIM_ERROR_BYTES = 200
_MOST_DIGITS = 19
_RETRY = re.compile(r"\.retry\.[0-9]+$")

Header = tuple[str, bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where an event first was, and what it went through since."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    attempts: int = 0
    replays: int = 0
    due_at_ms: int | None = None


def value_of(headers: Iterable[Header], name: str) -> bytes | None:
    """The last header of that name; None where there is none."""
    found = None
    for key, value in headers:
        if key == name:
            found = value
    return found


def number_of(headers: Iterable[Header], name: str) -> int | None:
    """A header that is a whole number of decimal digits; None where it is none."""
    value = value_of(headers, name)
    if value is None or len(value) > _MOST_DIGITS or not value.isdigit():
        return None
    return int(value)


def text_of(headers: Iterable[Header], name: str) -> str | None:
    """A header as text, whatever bytes it has; None where there is none."""
    value = value_of(headers, name)
    return None if value is None else value.decode("utf-8", "replace")


def origin_of(record: Record, *, moved: bool) -> Origin:
    """Where a record comes from.

    Args:
        moved: it lies on a topic that the kit writes, so that its headers are believed.
    """
    headers = record.headers
    replays = number_of(headers, REPLAYS) or 0 if headers else 0
    topic = text_of(headers, TOPIC) if moved else None
    if topic is None:
        # Somebody else put it there: all that is known is what the retry topic's name says.
        return Origin(
            topic=_RETRY.sub("", record.topic) if moved else record.topic,
            partition=record.partition,
            offset=record.offset,
            timestamp_ms=record.timestamp,
            replays=replays,
        )
    return Origin(
        topic=topic,
        partition=number_of(headers, PARTITION) or 0,
        offset=number_of(headers, OFFSET) or 0,
        timestamp_ms=number_of(headers, TIMESTAMP) or 0,
        attempts=number_of(headers, ATTEMPTS) or 0,
        replays=replays,
        due_at_ms=number_of(headers, DUE_AT),
    )


def own(headers: Iterable[Header]) -> list[Header]:
    """The headers that are the event's, not the kit's."""
    return [header for header in headers if not header[0].startswith(PREFIX)]


def written(
    record: Record,
    origin: Origin,
    *,
    group: str,
    attempts: int,
    error: str,
    stack: str,
    at_ms: int,
    reason: str | None = None,
    due_at_ms: int | None = None,
) -> list[Header]:
    """The headers of an event that is moved to a retry topic, or (with a reason) dies."""
    said: list[tuple[str, str | int | None]] = [
        (TOPIC, origin.topic),
        (PARTITION, origin.partition),
        (OFFSET, origin.offset),
        (TIMESTAMP, origin.timestamp_ms),
        (GROUP, group),
        (ATTEMPTS, attempts),
        (REASON, reason),
        (ERROR, clipped(error, MOST_ERROR_BYTES)),
        (STACK, clipped(stack, MOST_STACK_BYTES)),
        (FAILED_AT, at_ms),
        (DUE_AT, due_at_ms),
        (REPLAYS, origin.replays or None),
        (EMPTY, 1 if record.key is None and record.value is None else None),
    ]
    ours = [(name, str(value).encode()) for name, value in said if value is not None]
    return own(record.headers) + ours


def slimmed(headers: Sequence[Header]) -> list[Header]:
    """The same, without the stack and with the end of the error, for a topic that takes no more."""
    slim = [header for header in headers if header[0] != STACK]
    return [
        (name, clipped(value.decode("utf-8", "replace"), SLIM_ERROR_BYTES).encode())
        if name == ERROR
        else (name, value)
        for name, value in slim
    ]


def replayed(headers: Sequence[Header], replays: int) -> list[Header]:
    """The headers of a dead letter that is put back: the event's own, and how often that was."""
    return [*own(headers), (REPLAYS, str(replays).encode())]


def clipped(text: str, most_bytes: int) -> str:
    """Its end, where it is longer: what went wrong stands there. Encodable whatever it was."""
    data = text.encode("utf-8", "replace")
    if len(data) <= most_bytes:
        return data.decode()
    return "…" + data[-(most_bytes - 3) :].decode("utf-8", "ignore")
