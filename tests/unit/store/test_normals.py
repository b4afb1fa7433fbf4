"""What `failure_threshold: auto` has learned, in the store: it comes back, and junk is junk."""

from __future__ import annotations

import msgspec
import pytest

from sidecar.core.normal import SAMPLES, Kept, Sample
from sidecar.store.codec import JsonWire, Keys

WIRE = JsonWire("breaker")
KEPT = Kept(
    1_763_668_800.25,
    5.0,
    (Sample(-30.0, 4980.0, 6.0, 0.0125), Sample(0.0, 5010.0, 4.0, None)),
)


def test_it_comes_back() -> None:
    assert WIRE.decode_normal(WIRE.encode_normal(KEPT)) == KEPT


def test_it_lies_outside_what_everybody_watches() -> None:
    keys = Keys("breaker")
    assert keys.normal("default") == "breaker-normal/default"
    assert keys.normal("a") == "breaker-normal/a"
    assert not keys.normal("a").startswith(keys.watched)


def test_it_is_small() -> None:
    full = Kept(1e9, 5.0, (Sample(-3570.125, 123456.789, 1234.567, 0.0123456),) * SAMPLES)
    assert len(WIRE.encode_normal(full)) < 6 * 1024


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"[]",
        b"{}",
        b'{"saved": "today", "interval": 5, "samples": []}',
        b'{"saved": "2026-11-20T20:00:00Z", "interval": 5, "samples": [[1, 2, 3, null]]}',
        b'{"saved": "2026-11-20T20:00:00Z", "interval": 5, "samples": [[-1, -2, 3, null]]}',
        b'{"saved": "2026-11-20T20:00:00Z", "interval": 5, "samples": [[-1, 2, 3]]}',
        b'{"saved": "2026-11-20T20:00:00Z", "interval": 5, "samples": [], "schema": 2}',
        msgspec.json.encode(
            {
                "saved": "2026-11-20T20:00:00Z",
                "interval": 5,
                "samples": [[-1, 2, 1, None]] * 5000,
            }
        ),
    ],
)
def test_junk_is_none(value: bytes) -> None:
    assert WIRE.decode_normal(value) is None
