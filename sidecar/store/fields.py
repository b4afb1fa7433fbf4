"""What the formats share: bounded numbers, times, and saying which field is wrong."""

from __future__ import annotations

import re
import reprlib
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from sidecar.core.wire import EXACT, parse_rfc3339

UNDECODABLE = (msgspec.MsgspecError, RecursionError, UnicodeError, ValueError)
"""What may go wrong inside msgspec: no JSON, wrong types, nesting beyond the stack."""

MOST: Final = EXACT - 2**32
"""The highest seq, epoch or open_count that is believed. What follows it is one more, and must
still be readable: at the very edge our own next record would look like junk to us."""
Count = Annotated[int, Meta(ge=0, le=MOST)]
Amount = Annotated[float, Meta(ge=0, le=EXACT)]
Scalars = dict[str, str | int | float | bool | None]

_SHOWN_CHARACTERS: Final = 40


def field_time(name: str, fields: dict[str, Any]) -> float:
    """Epoch seconds of a field. Raises ValidationError in msgspec's own form."""
    text = fields[name]
    try:
        return parse_rfc3339(text)
    except ValueError as fault:
        raise msgspec.ValidationError(f"{fault} - at `$.{name}` {shown(text)}") from fault


def reread(value: bytes) -> object:
    """The value without any expectation, for a fault text; None when it is no JSON."""
    try:
        return msgspec.json.decode(value)
    except UNDECODABLE:
        return None


def fault_text(fault: BaseException, raw: object) -> str:
    """The field, its value shortened, and what is wrong with it."""
    said = str(fault)
    found = re.search(r" - at `\$\.([A-Za-z_]+)", said)
    if found is None:
        return said[:200]
    name, said = found.group(1), said[: found.start()]
    if isinstance(raw, dict) and name in raw:
        return f"{name} is {shown(raw[name])}: {said}"
    return f"{name}: {said}"


def shown(value: object) -> str:
    """A value for a fault text, shortened."""
    text = reprlib.repr(value)  # never deep or long, whatever was read
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[: _SHOWN_CHARACTERS - 1]}…"
