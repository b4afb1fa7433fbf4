"""Frames: how one record lies in a segment, and how records are found again behind damage.

A frame is a header of 28 bytes and a payload, all numbers little-endian:

    marker      4   drawn at random for each segment; the segment's file name has it
    length      4   of the payload
    ordinal     4   counts the segment's frames from 0, without gaps
    accepted_at 8   epoch seconds, a double
    payload CRC 4   CRC32C
    header CRC  4   CRC32C of the 24 bytes before it

The header has a checksum of its own, so that a damaged payload costs its own record alone: the
length still tells where the next frame is. Behind a damaged header the next marker with a valid
header is where it goes on. Nobody who sends records knows the marker, so no record can look like a
frame.

The payload is a fixed part of 20 bytes (timestamp in ms 8, length of key 4 and value 4, or -1 for
none, number of headers 2, length of the idempotency part 2), the idempotency part (length of the
fingerprint 1, fingerprint, key in UTF-8), the headers (length of name 2, of value 4 or -1, name,
value), the key, the value.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from google_crc32c import extend
from google_crc32c import value as crc32c

from sidecar.core.spooling import KEY_MAX, Headers, Idempotency, NewRecord

HEADER: Final = 28
PAYLOAD_MAX: Final = 64 * 1024 * 1024
"""A header that claims more is damaged."""

_HEAD = struct.Struct("<4sIIdI")
_CRC = struct.Struct("<I")
_WHOLE = struct.Struct("<4sIIdII")
_FIXED = struct.Struct("<qiiHH")
_FIELD = struct.Struct("<Hi")
_FINGERPRINT_MAX = 64


class Packed(NamedTuple):
    """A record made ready, all but its place. Its payload is in two parts, so that a large value
    isn't copied."""

    head: bytes
    value: bytes
    crc: int
    accepted_at: float
    idempotency: Idempotency | None

    @property
    def size(self) -> int:
        """Bytes of the payload."""
        return len(self.head) + len(self.value)


class Frame(NamedTuple):
    """A whole frame: `ordinal` and time are its header's; it ends before byte `end`."""

    ordinal: int
    accepted_at: float
    start: int
    end: int
    payload: bytes


class Damage(NamedTuple):
    """Bytes from `start` to before `end` that are no frame."""

    start: int
    end: int


def pack(record: NewRecord) -> Packed:
    """The record's payload.

    Raises:
        ValueError: a part is too long for the format.
    """
    key, value, headers, timestamp_ms, accepted_at, idempotency = record
    once = _once(idempotency) if idempotency is not None else b""
    fields = _fields(headers) if headers else b""
    fixed = _FIXED.pack(
        timestamp_ms,
        -1 if key is None else len(key),
        -1 if value is None else len(value),
        len(headers),
        len(once),
    )
    head = b"".join((fixed, once, fields, key or b""))
    tail = value or b""
    if len(head) + len(tail) > PAYLOAD_MAX:
        size = len(head) + len(tail)
        raise ValueError(f"a record of {size} bytes; the spool takes up to {PAYLOAD_MAX}")
    return Packed(head, tail, extend(crc32c(head), tail), accepted_at, idempotency)


def _once(idempotency: Idempotency) -> bytes:
    key = idempotency.key.encode()
    if not key or len(key) > KEY_MAX:
        raise ValueError(
            f"an idempotency key of {len(key)} bytes; from 1 to {KEY_MAX} are possible"
        )
    if len(idempotency.fingerprint) > _FINGERPRINT_MAX:
        raise ValueError(f"a fingerprint longer than {_FINGERPRINT_MAX} bytes")
    return bytes((len(idempotency.fingerprint),)) + idempotency.fingerprint + key


def _fields(headers: Headers) -> bytes:
    if len(headers) > 0xFFFF:
        raise ValueError(f"{len(headers)} headers; up to {0xFFFF} are possible")
    parts: list[bytes] = []
    for name, value in headers:
        raw = name.encode()
        if len(raw) > 0xFFFF:
            raise ValueError(f"a header's name of {len(raw)} bytes; up to {0xFFFF} are possible")
        parts += (_FIELD.pack(len(raw), -1 if value is None else len(value)), raw, value or b"")
    return b"".join(parts)


def frame(packed: Packed, marker: bytes, ordinal: int) -> bytes:
    """The frame's header; the payload follows it."""
    size = len(packed.head) + len(packed.value)
    head = _HEAD.pack(marker, size, ordinal, packed.accepted_at, packed.crc)
    return head + _CRC.pack(crc32c(head))


def unpack(payload: bytes, accepted_at: float) -> NewRecord:
    """The record in a payload whose checksum is right."""
    timestamp_ms, key_size, value_size, count, once_size = _FIXED.unpack_from(payload)
    at = _FIXED.size
    idempotency = None
    if once_size:
        split = at + 1 + payload[at]
        idempotency = Idempotency(payload[split : at + once_size].decode(), payload[at + 1 : split])
        at += once_size
    headers: Headers = ()
    if count:
        headers, at = _headers(payload, at, count)
    key = value = None
    if key_size >= 0:
        key = payload[at : at + key_size]
        at += key_size
    if value_size >= 0:
        value = payload[at : at + value_size]
    return NewRecord(key, value, headers, timestamp_ms, accepted_at, idempotency)


def _headers(payload: bytes, at: int, count: int) -> tuple[Headers, int]:
    headers: list[tuple[str, bytes | None]] = []
    for _ in range(count):
        name_size, value_size = _FIELD.unpack_from(payload, at)
        at += _FIELD.size
        name = payload[at : at + name_size].decode()
        at += name_size
        if value_size < 0:
            headers.append((name, None))
        else:
            headers.append((name, payload[at : at + value_size]))
            at += value_size
    return tuple(headers), at


def idempotency_of(payload: bytes) -> Idempotency | None:
    """The idempotency part alone: recovery needs no more."""
    size = _FIXED.unpack_from(payload)[4]
    if not size:
        return None
    at = _FIXED.size
    split = at + 1 + payload[at]
    return Idempotency(payload[split : at + size].decode(), payload[at + 1 : split])


def scan(data: bytes, marker: bytes, offset: int, *, last: bool) -> Iterator[Frame | Damage]:
    """The frames in a piece of a segment, and what is none; regions of damage may touch.

    Args:
        data: the piece; it begins at `offset` in the file, where a frame should begin.
        last: nothing comes after it. Otherwise an incomplete frame at its end is left for the next
            piece, which begins where the last result ended.
    """
    at, size = 0, len(data)
    while size - at >= HEADER:
        _, length, ordinal, accepted_at, crc, _ = _WHOLE.unpack_from(data, at)
        if not _valid(data, at, marker):
            start, at = at, _resync(data, at + 1, marker, last=last)
            yield Damage(offset + start, offset + at)
            continue
        end = at + HEADER + length
        if end > size:
            break
        payload = data[at + HEADER : end]
        if crc32c(payload) == crc:
            yield Frame(ordinal, accepted_at, offset + at, offset + end, payload)
        else:
            yield Damage(offset + at, offset + end)
        at = end
    if last and at < size:
        yield Damage(offset + at, offset + size)


def _valid(data: bytes, at: int, marker: bytes) -> bool:
    """Whether a header stands there, whole and undamaged."""
    return (
        data.startswith(marker, at)
        and crc32c(data[at : at + _HEAD.size]) == _CRC.unpack_from(data, at + _HEAD.size)[0]
    )


def _resync(data: bytes, at: int, marker: bytes, *, last: bool) -> int:
    """Where the next header is; without one, where one could still begin."""
    size = len(data)
    found = at
    while (found := data.find(marker, found)) >= 0 and found + HEADER <= size:
        if _valid(data, found, marker):
            return found
        found += 1
    return size if last else max(at, size - HEADER + 1)


def size_of(packed: Sequence[Packed]) -> int:
    """Bytes that the records take in a segment."""
    return sum([len(one.head) + len(one.value) for one in packed]) + HEADER * len(packed)
