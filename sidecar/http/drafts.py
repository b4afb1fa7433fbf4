"""What a publish request carries, as records: a raw body, or a batch in JSON.

A record has the shape of those of Confluent's REST Proxy, version 3: `key` and `value` are
`{"type": "BINARY" | "STRING" | "JSON", "data": …}`, binary data and header values in base64. A
batch is `{"records": [ … ]}`, `{"entries": [ … ]}` as that proxy has it, the array alone, or
records one after the other, as that proxy has them streamed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import chain
from typing import Final, NamedTuple

import msgspec
from aiohttp import web

from sidecar.core.publishing import Draft, Refusal, Refused
from sidecar.core.spooling import Headers
from sidecar.http import cutting
from sidecar.http.problems import Problem, shown

JSON_TYPES: Final = ("application/json", "application/vnd.kafka.v3+json")
LINES_TYPES: Final = (
    "application/x-ndjson",
    "application/ndjson",
    "application/jsonl",
    "application/x-jsonlines",
)
NOT_RAW: Final = ("text/plain", "multipart/form-data", "application/x-www-form-urlencoded")
"""What a web page may send anywhere without asking; nothing here needs them."""
OTHER_BATCHES: Final = "application/vnd.kafka."
"""Batches in shapes that aren't known here: as one raw record they would be a nasty surprise."""
LISTS: Final = ("records", "entries")
BEGINS_LIST: Final = re.compile(rb"[ \t\n\r]*\[")
MEND: Final = '; key and value are {"type": "BINARY", "STRING" or "JSON", "data": …}, or null'
MAX_RECORDS: Final = 10_000
PIECE_BYTES: Final = 32 * 1024
"""Lines are read so many bytes at once, or one where it is longer."""
PIECE_RECORDS: Final = 25
"""Of records in a list so many are read at once."""
MAX_HEADERS: Final = 1_000
MAX_NAME: Final = 0xFFFF
MAX_STAMP: Final = 2**53
MAX_PARTITION: Final = 99_999
"""Far more than a topic has; each that is named takes some memory."""
OURS = b"kafka-"
"""How the headers begin that describe a raw record."""
KEY, PARTITION, HEADER = b"kafka-key", b"kafka-partition", b"kafka-header-"

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


_record = msgspec.json.Decoder(_Record)
_each = msgspec.json.Decoder(list[msgspec.Raw])
_members = msgspec.json.Decoder(dict[str, msgspec.Raw])


class Request(NamedTuple):
    """What a request hands over."""

    pieces: Iterator[list[Drafted]]
    """The records in pieces, some of them empty: others can have a turn in between. Raises Problem:
    400 where the body isn't what its type says, or there are no records, or too many."""
    single: bool
    """One record rather than a batch; it is answered as one."""


def read(request: web.Request, body: bytes, max_record: int) -> Request:
    """The records of a request, each for itself.

    Raises:
        Problem: 400 where headers and body don't go together, 415 for a type that is not taken.
    """
    kind = request.content_type
    _known(request.raw_headers)
    single = False
    pieces: Iterable[list[Drafted]]
    if kind in JSON_TYPES and not _raw_in_json(request.raw_headers, body):
        pieces, single = _of_json(body)
    elif kind in LINES_TYPES:
        if _described(request.raw_headers):
            raise _twice_described()
        pieces = _of_lines(body)
    elif kind in NOT_RAW or (kind.startswith(OTHER_BATCHES) and kind not in JSON_TYPES):
        raise Problem(
            415,
            None,
            f"Content-Type is {kind}; send application/octet-stream for one raw record, "
            "application/json or application/x-ndjson for a batch",
        )
    else:
        pieces, single = [[_of_headers(request.raw_headers, body)]], True
    return Request(_counted(pieces, max_record), single)


def _counted(pieces: Iterable[list[Drafted]], max_record: int) -> Iterator[list[Drafted]]:
    count = 0
    for piece in pieces:
        count += len(piece)
        if count > MAX_RECORDS:
            raise Problem(
                400,
                "bad-records",
                f"more than {MAX_RECORDS} records; send {MAX_RECORDS} at most in one request",
            )
        yield [checked(draft, max_record) for draft in piece]
    if not count:
        raise Problem(400, "bad-records", "there are no records in the body")


# --- a raw body ----------------------------------------------------------------------------


def _of_headers(raw: Iterable[tuple[bytes, bytes]], body: bytes) -> Draft:
    key: bytes | None = None
    partition: int | None = None
    headers: list[tuple[str, bytes | None]] = []
    once: set[bytes] = set()
    for name, value in raw:
        low = name.lower()
        if low in once:
            raise Problem(400, "bad-records", f"{low.decode().title()} may be there once")
        if low == KEY:
            key = value
            once.add(low)
        elif low == PARTITION:
            partition = _partition(value)
            once.add(low)
        elif low.startswith(HEADER):
            headers.append((name[len(HEADER) :].decode("ascii", "replace"), value))
    return Draft(key, body, tuple(headers), partition)


def means(low: bytes) -> bool:
    """Whether a header, in lower case, isn't one of ours mistyped."""
    return not low.startswith(OURS) or low in (KEY, PARTITION) or low.startswith(HEADER)


def _known(raw: Iterable[tuple[bytes, bytes]]) -> None:
    """Refuse a header that is one of ours mistyped: the record would go elsewhere than meant."""
    for name, _ in raw:
        low = name.lower()
        if not means(low):
            raise Problem(
                400,
                "bad-records",
                f"the header {shown(low.decode('ascii', 'replace'))} means nothing here; there are "
                "Kafka-Key, Kafka-Partition and Kafka-Header-<name>",
            )


def _partition(value: bytes) -> int:
    if not value.isdigit() or len(value) > 10 or int(value) > MAX_PARTITION:
        raise Problem(
            400,
            "bad-records",
            f"Kafka-Partition is {shown(value.decode('ascii', 'replace'))}; "
            f"it must be a number up to {MAX_PARTITION}",
        )
    return int(value)


def _described(raw: Iterable[tuple[bytes, bytes]]) -> bool:
    """Whether headers say something of a raw record."""
    return any(name.lower().startswith(OURS) for name, _ in raw)


def _raw_in_json(raw: Iterable[tuple[bytes, bytes]], body: bytes) -> bool:
    """Whether a JSON body is the value of one record, which headers describe.

    Raises:
        Problem: 400 where it reads as records that say all of that themselves.
    """
    if not _described(raw):
        return False
    try:
        pieces, _ = _of_json(body)
        drafts = chain.from_iterable(pieces)
        records = any(isinstance(draft, Draft) and draft[:2] != (None, None) for draft in drafts)
    except Problem:
        return True
    if records:
        raise _twice_described()
    return True


def _twice_described() -> Problem:
    return Problem(
        400,
        "bad-records",
        "Kafka-Key, Kafka-Partition and Kafka-Header-* describe one raw record, and the body reads "
        "as records that say this themselves; a value that only looks so goes as "
        "application/octet-stream",
    )


# --- batches -------------------------------------------------------------------------------


def _of_json(body: bytes) -> tuple[Iterator[list[Drafted]], bool]:
    """A batch or one record alone, and which of the two."""
    cut = cutting.of_list(body)
    if cut is None:
        cut = cutting.of_values(body)
    if cut is not None:
        return _of_pieces(cut, body), False
    found = _whole(body)
    if found is None:
        return iter([[_draft_of(body)]]), True
    return _of_raw([found]), False


def _whole(body: bytes) -> list[msgspec.Raw] | None:
    """The records of a batch, decoded at once; None: it is one record alone."""
    try:
        if BEGINS_LIST.match(body):
            return _each.decode(body)
        told = _members.decode(body)
        for name in LISTS:
            if name in told:
                return _each.decode(told[name])
    except cutting.FAULTS as error:
        raise Problem(
            400,
            "bad-records",
            'the body must be JSON: one record or several one after the other, {"records": [ … ]}, '
            f"or an array of records: {_words(error)}",
        ) from error
    return None


def _of_pieces(cut: Iterator[list[msgspec.Raw]], body: bytes) -> Iterator[list[Drafted]]:
    """All of it is decoded before the first record is made: no JSON is no batch."""
    found: list[list[msgspec.Raw]] = []
    try:
        for piece in cut:
            found.append(piece)
            yield []
    except cutting.FAULTS:
        found = [_whole(body) or []]
    yield from _of_raw(found)


def _of_raw(found: Sequence[list[msgspec.Raw]]) -> Iterator[list[Drafted]]:
    for piece in found:
        for at in range(0, len(piece), PIECE_RECORDS):
            # One by one, so that the good ones have their way.
            yield [_draft_of(each) for each in piece[at : at + PIECE_RECORDS]]


def _of_lines(body: bytes) -> Iterator[list[Drafted]]:
    at = 0
    while at < len(body):
        end = body.find(b"\n", at + PIECE_BYTES) + 1 or len(body)
        yield _some_lines(body[at:end])
        at = end


def _some_lines(body: bytes) -> list[Drafted]:
    try:
        return [_draft(record) for record in _record.decode_lines(body)]
    except cutting.FAULTS:
        return [_draft_of(line) for line in body.splitlines() if line.strip()]


def _draft_of(raw: bytes | msgspec.Raw) -> Drafted:
    try:
        return _draft(_record.decode(raw))
    except cutting.FAULTS as error:
        said = _words(error)
        mend = MEND if "`$.key" in said or "`$.value" in said else ""
        return Refused(Refusal.INVALID, f"not a record: {said}{mend}")


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


def checked(draft: Drafted, max_record: int) -> Drafted:
    """What Kafka, the spool or this sidecar's limits can't take is refused before anything."""
    if isinstance(draft, Refused):
        return draft
    if (size := size_of(draft)) > max_record:
        return Refused(
            Refusal.TOO_LARGE, f"the record has {size} bytes; publish.max_record is {max_record}"
        )
    fault = fault_of(draft)
    return draft if fault is None else Refused(Refusal.INVALID, fault)


def size_of(draft: Draft) -> int:
    """The bytes of a record that `publish.max_record` bounds."""
    size = len(draft.key or b"") + len(draft.value or b"")
    if draft.headers:
        size += sum(len(name.encode()) + len(value or b"") for name, value in draft.headers)
    return size


def fault_of(draft: Draft) -> str | None:
    """Why no record can be like that, whatever its size; None: it can."""
    key, value, headers, partition, stamp = draft
    if key is None and value is None:
        return (
            'a record needs a key or a value, such as {"type": "JSON", "data": 1}; a body that is '
            "the value itself goes as application/octet-stream"
        )
    if len(headers) > MAX_HEADERS:
        return f"{len(headers)} headers; {MAX_HEADERS} are possible"
    if any(len(name.encode()) > MAX_NAME for name, _ in headers):
        return f"a header's name is longer than {MAX_NAME} bytes"
    if partition is not None and not 0 <= partition <= MAX_PARTITION:
        return f"partition_id is {partition}; it must be from 0 to {MAX_PARTITION}"
    if stamp is not None and not 0 <= stamp < MAX_STAMP:
        return "the timestamp is out of range: epoch milliseconds"
    return None
