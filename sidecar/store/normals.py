"""What `failure_threshold: auto` has learned, as evaluators hand it to each other."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from sidecar.core.normal import SAMPLES, Kept, Sample, usable
from sidecar.core.types import SCHEMA
from sidecar.core.wire import EXACT, parse_rfc3339, rfc3339
from sidecar.store.fields import UNDECODABLE, Amount

_Past = Annotated[float, Meta(ge=-EXACT, le=0)]
_Row = tuple[_Past, Amount, Amount, Amount | None]
"""Seconds before `saved`, messages, failures, and latency in milliseconds where it was known."""


class _Normal(Struct):
    saved: str
    interval: Amount
    samples: Annotated[list[_Row], Meta(max_length=8 * SAMPLES)]
    schema: Annotated[int, Meta(ge=1, le=SCHEMA)] = SCHEMA


def decode_normal(value: bytes) -> Kept | None:
    """What was learned; None when that can't be read, or is of a newer version."""
    try:
        found = msgspec.json.decode(value, type=_Normal)
        rows = (
            Sample(at, messages, failures, None if latency is None else latency / 1000)
            for at, messages, failures, latency in found.samples
        )
        return Kept(parse_rfc3339(found.saved), found.interval, usable(rows))
    except UNDECODABLE:
        return None


def encode_normal(kept: Kept) -> bytes:
    """What was learned as it is written: at most `SAMPLES` rows, about 4 KiB."""
    rows: list[_Row] = [
        (
            round(s.at, 1),
            round(s.messages, 3),
            round(s.failures, 3),
            None if s.latency_s is None else round(s.latency_s * 1000, 3),
        )
        for s in kept.samples
    ]
    return msgspec.json.encode(_Normal(rfc3339(kept.saved_at), kept.interval_s, rows))
