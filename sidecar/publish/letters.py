"""A dead letter as a line of JSON, and back."""

from __future__ import annotations

import base64
import binascii
import json
from hashlib import blake2b
from typing import Any, NamedTuple

from sidecar.core.placing import UNPLACED
from sidecar.core.publishing import SEQUENCE_HEADER
from sidecar.core.spooling import NewRecord


class Letter(NamedTuple):
    """A record with where it should have gone and why it can't; `at` is epoch seconds."""

    topic: str
    partition: int
    record: NewRecord
    reason: str
    detail: str
    at: float


class NoLetter(Exception):
    """A line that is no letter."""


def to_line(letter: Letter) -> bytes:
    """One line, with its end, in the shape that `POST /v1/publish` reads."""
    record = letter.record
    fields = {
        "topic": letter.topic,
        "partition_id": None if letter.partition == UNPLACED else letter.partition,
        "reason": letter.reason,
        "detail": letter.detail,
        "set_aside_at": round(letter.at, 3),
        "timestamp": record.timestamp_ms,
        "accepted_at": round(record.accepted_at, 3),
        "headers": [{"name": n, "value": _text(v)} for n, v in record.headers],
        "key": None if record.key is None else {"type": "BINARY", "data": _text(record.key)},
        "value": None if record.value is None else {"type": "BINARY", "data": _text(record.value)},
    }
    return json.dumps(fields).encode() + b"\n"


def from_line(line: bytes) -> Letter:
    """The letter of a line. Raises NoLetter."""
    try:
        return _letter(json.loads(line))
    except (ValueError, TypeError, KeyError, AttributeError, binascii.Error) as fault:
        raise NoLetter(str(fault)) from fault


def once_more(record: NewRecord, now_at: float) -> NewRecord:
    """The record of a letter as it goes into a spool again.

    Its age counts from now on, or a topic's max_age would drop it at once. Its counter is one that
    readers of two clusters have given up, and goes: by it they would take the record for a copy.
    """
    headers = record.headers
    if headers and headers[-1][0] == SEQUENCE_HEADER:
        headers = headers[:-1]
    return record._replace(accepted_at=now_at, headers=headers)


def id_of(line: bytes) -> str:
    """What a letter is called: it stays the same as long as the line does, wherever it lies."""
    return blake2b(line.rstrip(b"\n"), digest_size=6).hexdigest()


def _letter(said: Any) -> Letter:
    partition, at = said["partition_id"], float(said["set_aside_at"])
    headers = tuple((str(one["name"]), _bytes(one["value"])) for one in said["headers"])
    record = NewRecord(
        _data(said["key"]),
        _data(said["value"]),
        headers,
        int(said["timestamp"]),
        float(said.get("accepted_at", at)),
    )
    return Letter(
        str(said["topic"]),
        UNPLACED if partition is None else int(partition),
        record,
        str(said["reason"]),
        str(said["detail"]),
        at,
    )


def _data(said: Any) -> bytes | None:
    return None if said is None else _bytes(said["data"])


def _text(data: bytes | None) -> str | None:
    return None if data is None else base64.b64encode(data).decode()


def _bytes(text: str | None) -> bytes | None:
    return None if text is None else base64.b64decode(text, validate=True)
