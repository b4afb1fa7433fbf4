"""The override's format. It is meant to be written by hand too, so it is read with good will.

Only when it ends must be beyond doubt: without a usable ttl or expiry it is nobody's order.
"""

from __future__ import annotations

import math
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta, Struct

from sidecar.core.override import ENDLESS, MAX_TEXT, MAX_TTL_S, BadOverride, Mode, Override
from sidecar.core.wire import override_to_dict, parse_rfc3339
from sidecar.store.fields import UNDECODABLE, fault_text, field_time, reread

MAX_BYTES: Final = 16 * 1024

_Ttl = Annotated[float, Meta(gt=0, le=MAX_TTL_S)]


class _Override(Struct):
    mode: Mode
    reason: object = ""
    author: object = ""
    set_at: object = None
    ttl_s: _Ttl | Literal["none"] | None = None
    expires_at: str | None = None


def decode_override(value: bytes) -> Override | BadOverride:
    """An override, or why it can't be used."""
    if len(value) > MAX_BYTES:
        return BadOverride(f"{len(value)} bytes; at most {MAX_BYTES} are read")
    try:
        read = msgspec.json.decode(value, type=_Override)
        ttl_s = math.inf if read.ttl_s == ENDLESS else read.ttl_s
        expires_at = (
            None
            if read.expires_at is None
            else field_time("expires_at", {"expires_at": read.expires_at})
        )
    except UNDECODABLE as fault:
        return BadOverride(fault_text(fault, reread(value)))
    if ttl_s is None and expires_at is None:
        return BadOverride('neither ttl_s nor expires_at: how long? ("ttl_s": "none" for ever)')
    return Override(
        mode=read.mode,
        reason=_text(read.reason),
        author=_text(read.author),
        set_at=_time(read.set_at),
        ttl_s=ttl_s,
        expires_at=expires_at,
    )


def _text(value: object) -> str:
    """For people: a long one is cut, and one that is no text is as good as none."""
    return value[:MAX_TEXT] if isinstance(value, str) else ""


def _time(value: object) -> float | None:
    """`set_at` is for people; one that can't be read is as good as none."""
    try:
        return parse_rfc3339(value) if isinstance(value, str) else None
    except ValueError:
        return None


def encode_override(override: Override) -> bytes:
    """An override as it is written."""
    return msgspec.json.encode(override_to_dict(override))
