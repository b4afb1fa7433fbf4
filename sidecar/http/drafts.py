"""What a publish request carries, as records: a raw body, or a batch in JSON.

A batch has the shape of the records of Confluent's REST Proxy, version 3: `key` and `value` are
`{"type": "BINARY" | "STRING" | "JSON", "data": …}`, binary data and header values in base64.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Final

import msgspec
from aiohttp import web

from sidecar.core.publishing import Draft, Refusal, Refused
from sidecar.core.spooling import Headers
from sidecar.http.problems import Problem, shown

JSON_TYPES: Final = ("application/json", "application/vnd.kafka.v3+json")
LINES_TYPES: Final = ("application/x-ndjson", "application/ndjson", "application/jsonl")
NOT_RAW: Final = ("text/plain", "multipart/form-data", "application/x-www-form-urlencoded")
"""What a web page may send anywhere without asking; nothing here needs them."""
MAX_RECORDS: Final = 10_000
MAX_HEADERS: Final = 1_000
MAX_NAME: Final = 0xFFFF
MAX_STAMP: Final = 2**53
MAX_PARTITION: Final = 99_999
"""Far more than a topic has; each that is named takes some memory."""
_KEY, _PARTITION, _HEADER = b"kafka-key", b"kafka-partition", b"kafka-header-"

Drafted = Draft | Refused
"""A record, or why it is none."""


class _Binary(msgspec.Struct, tag_field="type", tag="BINARY"):
    data: bytes | None = None


class _Text(msgspec.Struct, tag_field="type", tag="STRING"):
    data: str | None = None


class _Json(msgspec.Struct, tag_field="type", tag="JSON"):
    data: msgspec.Raw = msgspec.Raw(b"null")


_Data = _Binary | _Text | _Json


class _Header(msgspec.Struct):
    name: str
    value: bytes | None = None


class _Record(msgspec.Struct):
    """Unknown fields are passed over, as Confluent's proxy does it."""

    value: _Data | None = None
    key: _Data | None = None
    headers: list[_Header] = []
    partition_id: int | None = None
    timestamp: datetime | int | None = None


class _Batch(msgspec.Struct):
    records: list[_Record]


class _LooseBatch(msgspec.Struct):
    records: list[msgspec.Raw]


_record = msgspec.json.Decoder(_Record)
_batch = msgspec.json.Decoder(_Batch)
_loose = msgspec.json.Decoder(_LooseBatch)


def single(content_type: str, body: bytes) -> bool:
    """Whether a request is one record rather than a batch, and is answered as one."""
    if content_type in LINES_TYPES:
        return False
    return content_type not in JSON_TYPES or not _has_records(body)


def _has_records(body: bytes) -> bool:
    try:
        return "records" in msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError):
        return True


def read(request: web.Request, body: bytes, max_record: int) -> list[Drafted]:
    """The records of a request, each for itself.

    Raises:
        Problem: 400 where the body isn't what its type says, 415 for a type that is not taken.
    """
    kind = request.content_type
    if kind in JSON_TYPES:
        drafts = _of_json(body)
    elif kind in LINES_TYPES:
        drafts = _of_lines(body)
    elif kind in NOT_RAW:
        raise Problem(
            415,
            None,
            f"Content-Type is {kind}; send application/octet-stream for one raw record, "
            "application/json or application/x-ndjson for a batch",
        )
    else:
        drafts = [_of_headers(request.raw_headers, body)]
    if not drafts:
        raise Problem(400, "bad-records", "there are no records in the body")
    if len(drafts) > MAX_RECORDS:
        raise Problem(
            400, "bad-records", f"{len(drafts)} records; send {MAX_RECORDS} at most in one request"
        )
    return [_checked(draft, max_record) for draft in drafts]


# --- a raw body ----------------------------------------------------------------------------


def _of_headers(raw: Iterable[tuple[bytes, bytes]], body: bytes) -> Draft:
    key: bytes | None = None
    partition: int | None = None
    headers: list[tuple[str, bytes | None]] = []
    for name, value in raw:
        low = name.lower()
        if low == _KEY:
            key = value
        elif low == _PARTITION:
            partition = _partition(value)
        elif low.startswith(_HEADER):
            headers.append((name[len(_HEADER) :].decode("ascii", "replace"), value))
    return Draft(key, body, tuple(headers), partition)


def _partition(value: bytes) -> int:
    if not value.isdigit() or len(value) > 10 or int(value) > MAX_PARTITION:
        raise Problem(
            400,
            "bad-records",
            f"Kafka-Partition is {shown(value.decode('ascii', 'replace'))}; "
            f"it must be a number up to {MAX_PARTITION}",
        )
    return int(value)


# --- batches -------------------------------------------------------------------------------


def _of_json(body: bytes) -> list[Drafted]:
    """`{"records": [ … ]}` or one record alone."""
    try:
        if not _has_records(body):
            return [_draft_of(body)]
        return [_draft(record) for record in _batch.decode(body).records]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass  # one by one, so that the good ones have their way
    try:
        return [_draft_of(raw) for raw in _loose.decode(body).records]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Problem(
            400,
            "bad-records",
            f'the body must be JSON: one record, or {{"records": [ … ]}}: {_words(error)}',
        ) from error


def _of_lines(body: bytes) -> list[Drafted]:
    try:
        return [_draft(record) for record in _record.decode_lines(body)]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return [_draft_of(line) for line in body.splitlines() if line.strip()]


def _draft_of(raw: bytes | msgspec.Raw) -> Drafted:
    try:
        return _draft(_record.decode(raw))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return Refused(Refusal.INVALID, f"not a record: {_words(error)}")


def _words(error: Exception) -> str:
    return str(error)[:200]


def _draft(record: _Record) -> Drafted:
    headers: Headers = ()
    if record.headers:
        headers = tuple([(header.name, header.value) for header in record.headers])
    stamp = record.timestamp
    if isinstance(stamp, datetime):
        stamp = int((stamp if stamp.tzinfo else stamp.replace(tzinfo=UTC)).timestamp() * 1000)
    return Draft(_bytes(record.key), _bytes(record.value), headers, record.partition_id, stamp)


def _bytes(data: _Data | None) -> bytes | None:
    if data is None:
        return None
    if isinstance(data, _Json):
        raw = bytes(data.data)
        return None if raw == b"null" else raw
    return data.data.encode() if isinstance(data.data, str) else data.data


def _checked(draft: Drafted, max_record: int) -> Drafted:
    """What Kafka, the spool or this sidecar's limits can't take is refused before anything."""
    if isinstance(draft, Refused):
        return draft
    size = len(draft.key or b"") + len(draft.value or b"")
    if draft.headers:
        size += sum(len(name.encode()) + len(value or b"") for name, value in draft.headers)
    if size > max_record:
        return Refused(
            Refusal.TOO_LARGE, f"the record has {size} bytes; publish.max_record is {max_record}"
        )
    fault = _fault(draft)
    return draft if fault is None else Refused(Refusal.INVALID, fault)


def _fault(draft: Draft) -> str | None:
    key, value, headers, partition, stamp = draft
    if key is None and value is None:
        return "a record needs a key or a value"
    if len(headers) > MAX_HEADERS:
        return f"{len(headers)} headers; {MAX_HEADERS} are possible"
    if any(len(name.encode()) > MAX_NAME for name, _ in headers):
        return f"a header's name is longer than {MAX_NAME} bytes"
    if partition is not None and not 0 <= partition <= MAX_PARTITION:
        return f"partition_id is {partition}; it must be from 0 to {MAX_PARTITION}"
    if stamp is not None and not 0 <= stamp < MAX_STAMP:
        return "the timestamp is out of range: epoch milliseconds"
    return None


def accepted(drafts: Sequence[Drafted]) -> tuple[list[int], list[Draft]]:
    """Those that are records, with their places."""
    places = [at for at, draft in enumerate(drafts) if isinstance(draft, Draft)]
    return places, [draft for draft in drafts if isinstance(draft, Draft)]
