"""Records that were accepted and that Kafka will never take: kept in a file, with the reason."""

from __future__ import annotations

import asyncio
import base64
import json
import os
from pathlib import Path
from typing import Final, NamedTuple

from sidecar.core.spooling import NewRecord

FILE: Final = "dead-letters.ndjson"
MAX_BYTES: Final = 256 * 1024 * 1024
"""Past this nothing more is set aside: the partition waits, and says so."""


class Letter(NamedTuple):
    """A record with where it should have gone and why it can't; `at` is epoch seconds."""

    topic: str
    partition: int
    record: NewRecord
    reason: str
    detail: str
    at: float


class DeadLetters:
    """One JSON line a record, in the shape that `POST /v1/publish` reads; synced to the disk.

    Args:
        folder: where the file lies; it must be there.
        max_bytes: how large the file may get.
    """

    def __init__(self, folder: Path, max_bytes: int = MAX_BYTES) -> None:
        self.path = folder / FILE
        self._max = max_bytes

    async def add(self, letter: Letter) -> None:
        """Set one record aside.

        Raises:
            OSError: it can't be written, or the file is full.
        """
        await asyncio.to_thread(self._write, _line(letter))

    def _write(self, line: bytes) -> None:
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            size = os.fstat(descriptor).st_size
            if size + len(line) > self._max:
                raise OSError(f"{self.path} is full: look through it and remove it")
            if os.write(descriptor, line) < len(line):
                os.ftruncate(descriptor, size)  # half a line would spoil the next one
                raise OSError(f"no room for {self.path}")
            os.fdatasync(descriptor)
        finally:
            os.close(descriptor)


def _line(letter: Letter) -> bytes:
    record = letter.record
    fields = {
        "topic": letter.topic,
        "partition_id": letter.partition,
        "reason": letter.reason,
        "detail": letter.detail,
        "set_aside_at": round(letter.at, 3),
        "timestamp": record.timestamp_ms,
        "headers": [{"name": n, "value": _text(v)} for n, v in record.headers],
        "key": None if record.key is None else {"type": "BINARY", "data": _text(record.key)},
        "value": None if record.value is None else {"type": "BINARY", "data": _text(record.value)},
    }
    return json.dumps(fields).encode() + b"\n"


def _text(data: bytes | None) -> str | None:
    return None if data is None else base64.b64encode(data).decode()
