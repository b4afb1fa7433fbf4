"""JSON of many records, decoded in pieces: others have a turn in between.

Where to cut is guessed, and a guess is right where what is before it decodes: a beginning that is
whole by itself ends between two records, whatever comes behind it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Final

import msgspec

CUT_BYTES: Final = 256 * 1024
"""So much is decoded at once, or one record where it is longer: a tenth of a millisecond."""
TRIES: Final = 8
"""So many guesses may be wrong in a row."""
FAULTS: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What decoders raise for what is no JSON."""

_SPACE = rb"[ \t\n\r]*"
_NAME = rb'"(?:key|value|headers|partition_id|timestamp)"'


def _pattern(*parts: bytes) -> re.Pattern[bytes]:
    """Of parts with any white space between them."""
    return re.compile(_SPACE.join(parts))


_OPENED = _pattern(rb"", rb"(?:(\{)", rb'"(?:records|entries)"', rb":", rb")?\[")
_CLOSED = _pattern(rb"\]", rb"(\})?", rb"\Z")
_CLOSING_BYTES: Final = 64
"""Where the end of a list is looked for, from the end of the body."""
_BEGUN = _pattern(rb"", rb"\{")
_NEXT_OF_LIST = _pattern(rb"\}(", rb",)", rb"\{", _NAME)
_NEXT_VALUE = _pattern(rb"\}(", rb")\{")

_each = msgspec.json.Decoder(list[msgspec.Raw])
_values = msgspec.json.Decoder(msgspec.Raw)


def of_list(body: bytes) -> Iterator[list[msgspec.Raw]] | None:
    """The elements of a list, alone or as the only member `records` or `entries` of an object.

    None where the body can't be one; the iterator raises one of FAULTS where it isn't one after
    all, or can't be cut.
    """
    opened = _OPENED.match(body)
    closed = _CLOSED.search(body, max(0, len(body) - _CLOSING_BYTES))
    if opened is None or closed is None or (opened[1] is None) != (closed[1] is None):
        return None
    return _cut(body, opened.end(), closed.start(), _NEXT_OF_LIST, _elements)


def of_values(body: bytes) -> Iterator[list[msgspec.Raw]] | None:
    """Objects one after the other, on lines of their own or not.

    None where the body begins otherwise, or with the only one; raises as `of_list`.
    """
    if _BEGUN.match(body) is None:
        return None
    for number, found in enumerate(_NEXT_VALUE.finditer(body)):
        if number == TRIES:
            break
        try:
            _values.decode(body[: found.start(1)])
        except FAULTS:
            continue  # it is within a string
        return _cut(body, 0, len(body), _NEXT_VALUE, _values.decode_lines)
    return None


def _elements(some: bytes) -> list[msgspec.Raw]:
    return _each.decode(b"[%b]" % some)


def _cut(
    body: bytes,
    start: int,
    end: int,
    between: re.Pattern[bytes],
    decode: Callable[[bytes], list[msgspec.Raw]],
) -> Iterator[list[msgspec.Raw]]:
    """The pieces from `start` to `end`; the first group of `between` is what parts two records."""
    while start < end:
        found, piece = _first(body, start, end, between, decode)
        yield piece
        start = end if found is None else found.end(1)


def _first(
    body: bytes,
    start: int,
    end: int,
    between: re.Pattern[bytes],
    decode: Callable[[bytes], list[msgspec.Raw]],
) -> tuple[re.Match[bytes] | None, list[msgspec.Raw]]:
    """The first piece, and what parts it from the rest; None: it is the last one."""
    found = between.search(body, start + CUT_BYTES, end)
    for _ in range(TRIES):
        if found is None:
            break
        try:
            return found, decode(body[start : found.start(1)])
        except FAULTS:
            found = between.search(body, found.end(1), end)
    return None, decode(body[start:end])
