from __future__ import annotations

import json
from typing import Any

import pytest

from sidecar.consumer.headers import origin_of, written
from sidecar.consumer.letters import Letter, Wanted, letter_of
from tests.unit.consumer.records import Rec


def letter(**more: Any) -> Letter:
    """A letter of the kit's: order 42, failed at 1,795,000,100 after three attempts."""
    event = Rec(offset=42, partition=3, key=b"o-42", headers=(("id", b"7"), ("raw", b"\xff")))
    headers = written(
        event,
        origin_of(event, moved=False),
        group="billing",
        attempts=3,
        error="OSError: the database is away",
        stack="  in handle",
        at_ms=1_795_000_100_000,
        reason="exhausted",
    )
    settings: dict[str, Any] = {
        "topic": "orders.dlq",
        "offset": 9,
        "key": b"o-42",
        "headers": tuple(headers),
        **more,
    }
    return letter_of(Rec(**settings), "orders.dlq")


@pytest.mark.parametrize(
    ("wanted", "meant"),
    [
        ({}, True),
        ({"reason": "exhausted"}, True),
        ({"reason": "permanent"}, False),
        ({"reason": "database"}, True),
        ({"key": b"o-42"}, True),
        ({"key": b"o-4"}, False),
        ({"since_at": 1_795_000_100.0}, True),
        ({"since_at": 1_795_000_100.1}, False),
        ({"until_at": 1_795_000_100.0}, False),
        ({"until_at": 1_795_000_100.1}, True),
        ({"min_attempts": 3, "max_attempts": 3}, True),
        ({"min_attempts": 4}, False),
        ({"max_attempts": 2}, False),
        ({"places": frozenset([(0, 9)])}, True),
        ({"places": frozenset([(1, 9)])}, False),
        ({"reason": "exhausted", "key": b"other"}, False),
    ],
)
def test_a_letter_is_meant_if_all_that_is_asked_is_true_of_it(
    wanted: dict[str, Any], meant: bool
) -> None:
    assert Wanted(**wanted).matches(letter()) is meant


def test_as_json_it_tells_where_it_lies_and_where_it_comes_from() -> None:
    told = json.loads(json.dumps(letter().as_json(whole=True)))
    assert told == {
        "place": "0:9",
        "failed_at": 1_795_000_100.0,
        "reason": "exhausted",
        "attempts": 3,
        "replays": 0,
        "key": "o-42",
        "origin": {
            "topic": "orders",
            "partition": 3,
            "offset": 42,
            "timestamp_ms": 1_795_000_000_000,
        },
        "group": "billing",
        "error": "OSError: the database is away",
        "stack": "  in handle",
        "value": "v",
        "headers": [{"name": "id", "value": "7"}, {"name": "raw", "value_base64": "/w=="}],
    }


def test_what_somebody_else_wrote_there_goes_back_to_the_topic_that_the_name_says() -> None:
    strange = letter(headers=(), key=None)
    assert strange.origin.topic == "orders"
    assert (strange.reason, strange.error, strange.key) == (None, None, None)
    assert strange.failed_at == 1_795_000_000.0
