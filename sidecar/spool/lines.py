"""Records as lines of JSON, to be carried from one spool to another or looked at."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

from sidecar.core.naming import TOPIC_NAME
from sidecar.core.placing import UNPLACED, placed
from sidecar.core.spooling import Headers, Idempotency, NewRecord, Stored

_FIELDS = {
    "topic",
    "partition",
    "sequence",
    "timestamp_ms",
    "accepted_at",
    "key",
    "value",
    "headers",
    "idempotency",
}


class BadLine(Exception):
    """A line that is no record; the text says which and why."""


def to_line(topic: str, partition: int, stored: Stored) -> str:
    """One line. Bytes are in base64, what is absent is null."""
    record = stored.record
    once = record.idempotency
    return json.dumps(
        {
            "topic": topic,
            "partition": placed(partition),
            "sequence": stored.seq,
            "timestamp_ms": record.timestamp_ms,
            "accepted_at": record.accepted_at,
            "key": _text(record.key),
            "value": _text(record.value),
            "headers": [[name, _text(value)] for name, value in record.headers],
            "idempotency": None
            if once is None
            else {"key": once.key, "fingerprint": _text(once.fingerprint)},
        },
        separators=(",", ":"),
    )


def from_lines(lines: Iterable[str]) -> Iterator[tuple[str, int, NewRecord]]:
    """Topic, partition and record of each line; empty ones are skipped.

    Raises:
        BadLine: one is something else.
    """
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            yield _record(json.loads(line))
        except (ValueError, TypeError, KeyError, binascii.Error) as fault:
            why = f"{fault} is missing" if isinstance(fault, KeyError) else str(fault)
            raise BadLine(f"line {number} is no record: {why}") from fault


def _record(said: Any) -> tuple[str, int, NewRecord]:
    if not isinstance(said, dict):
        raise TypeError("it is no object")
    if unknown := said.keys() - _FIELDS:
        raise ValueError(f"{sorted(unknown)[0]!r} is unknown")
    headers: Headers = tuple((_str(name), _bytes(value)) for name, value in said["headers"])
    return (
        _topic(said["topic"]),
        UNPLACED if said["partition"] is None else _int(said["partition"]),
        NewRecord(
            _bytes(said["key"]),
            _bytes(said["value"]),
            headers,
            _int(said["timestamp_ms"]),
            float(said["accepted_at"]),
            _once(said.get("idempotency")),
        ),
    )


def _once(said: Any) -> Idempotency | None:
    if said is None:
        return None
    return Idempotency(_str(said["key"]), _bytes(said["fingerprint"]) or b"")


def _text(data: bytes | None) -> str | None:
    return None if data is None else base64.b64encode(data).decode()


def _bytes(text: object) -> bytes | None:
    return None if text is None else base64.b64decode(_str(text), validate=True)


def _topic(value: object) -> str:
    topic = _str(value)
    if re.fullmatch(TOPIC_NAME, topic) is None:
        raise ValueError(f"{topic[:64]!r} can't be a topic's name")
    return topic


def _str(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value


def _int(value: object) -> int:
    if not isinstance(value, int) or not 0 <= value < 1 << 63:
        raise TypeError(f"{value!r} is no whole number")
    return value
