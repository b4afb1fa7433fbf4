"""The override's format, as people write it by hand and as we do."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.override import BadOverride, Mode, Override, placed
from sidecar.store.overrides import decode_override, encode_override

AT = 1_763_668_800.0


@pytest.mark.parametrize("ttl_s", [0.5, 900.0, math.inf])
@pytest.mark.parametrize("mode", Mode)
def test_what_is_written_reads_back(mode: Mode, ttl_s: float) -> None:
    override = placed(mode, ttl_s=ttl_s, reason="ünïcode", author="ann", wall_at=AT)
    assert decode_override(encode_override(override)) == override


def test_the_public_form() -> None:
    override = placed(Mode.OPEN, ttl_s=900.0, reason="why", author="ann", wall_at=AT)
    assert json.loads(encode_override(override)) == {
        "mode": "open",
        "reason": "why",
        "author": "ann",
        "set_at": "2025-11-20T20:00:00.000000Z",
        "ttl_s": 900,
        "expires_at": "2025-11-20T20:15:00.000000Z",
    }
    endless = placed(Mode.OPEN, ttl_s=math.inf, reason="why", author="ann", wall_at=AT)
    assert json.loads(encode_override(endless))["ttl_s"] == "none"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"mode": "open", "ttl_s": 60}', Override(mode=Mode.OPEN, ttl_s=60.0)),
        ('{"mode": "shadow", "ttl_s": "none"}', Override(mode=Mode.SHADOW, ttl_s=math.inf)),
        (
            '{"mode": "closed", "expires_at": "2025-11-20T21:00:00+01:00", "more": [1]}',
            Override(mode=Mode.CLOSED, expires_at=AT),
        ),
        (
            '{"mode": "open", "ttl_s": 60, "set_at": "this morning"}',
            Override(mode=Mode.OPEN, ttl_s=60.0),
        ),
        (
            '{"mode": "open", "ttl_s": 60, "reason": 7, "author": null}',
            Override(mode=Mode.OPEN, ttl_s=60.0),
        ),
        (
            f'{{"mode": "open", "ttl_s": 60, "reason": "{"x" * 2000}"}}',
            Override(mode=Mode.OPEN, ttl_s=60.0, reason="x" * 1024),
        ),
    ],
)
def test_the_shortest_forms_are_enough(text: str, expected: Override) -> None:
    assert decode_override(text.encode()) == expected


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ('{"mode": "open"}', "ttl_s"),
        ('{"mode": "open", "ttl_s": null, "expires_at": null}', "ttl_s"),
        ('{"mode": "open", "ttl_s": 0}', "ttl_s"),
        ('{"mode": "open", "ttl_s": -5}', "ttl_s"),
        ('{"mode": "open", "ttl_s": "15m"}', "ttl_s"),
        ('{"mode": "open", "ttl_s": true}', "ttl_s"),
        ('{"mode": "open", "ttl_s": 1e300}', "ttl_s"),
        ('{"mode": "open", "expires_at": "soon"}', "expires_at"),
        ('{"mode": "half_open", "ttl_s": 60}', "mode"),
        ('{"ttl_s": 60}', "mode"),
        ('"open"', ""),
        ("open", ""),
        ("", ""),
        ('{"mode": "open", "ttl_s": NaN}', ""),
    ],
)
def test_what_is_not_beyond_doubt_is_nobodys_order(text: str, names: str) -> None:
    found = decode_override(text.encode())
    assert isinstance(found, BadOverride)
    assert names in found.fault


def test_a_huge_value_is_not_even_read() -> None:
    assert isinstance(decode_override(b'{"mode": "open", "ttl_s": 1}' + b" " * 20_000), BadOverride)


@given(st.binary(max_size=200))
def test_nothing_raises(value: bytes) -> None:
    assert isinstance(decode_override(value), Override | BadOverride)
