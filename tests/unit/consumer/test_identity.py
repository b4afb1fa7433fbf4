from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.consumer import by_content, by_field, by_header, version_field, version_header
from sidecar.consumer.event import Event
from sidecar.consumer.headers import origin_of, written
from tests.unit.consumer.records import Rec


def event(record: Rec, value: Any = None, tier: int = 0) -> Event[Any]:
    return Event(record, value, tier, 1)


def test_content_is_recognised_whatever_key_and_place_it_has() -> None:
    first = by_content(event(Rec(offset=1, key=b"random-1")))
    assert by_content(event(Rec(offset=9, key=b"random-2"))) == first
    assert by_content(event(Rec(value=b"other"))) != first
    assert by_content(event(Rec(topic="refunds"))) != first


def test_on_a_retry_topic_it_is_still_the_same_event() -> None:
    record = Rec(offset=4)
    headers = written(
        record,
        origin_of(record, moved=False),
        group="g",
        attempts=3,
        error="",
        stack="",
        at_ms=0,
    )
    retried = Rec(topic="orders.retry.1", headers=tuple(headers))
    assert by_content(event(retried, tier=1)) == by_content(event(record))


def test_a_tombstone_is_not_an_empty_value() -> None:
    assert by_content(event(Rec(value=None))) != by_content(event(Rec(value=b"")))


@given(st.tuples(st.text(), st.binary()), st.tuples(st.text(), st.binary()))
def test_only_equal_topics_and_contents_are_the_same(
    one: tuple[str, bytes], other: tuple[str, bytes]
) -> None:
    hashes = [by_content(event(Rec(topic=topic, value=value))) for topic, value in (one, other)]
    assert (hashes[0] == hashes[1]) == (one == other)


@dataclass
class Inner:
    id: int


def test_an_identity_may_be_a_header_or_a_field_however_deep() -> None:
    assert by_header("id")(event(Rec(headers=(("id", b"7"),)))) == b"7"
    assert by_header("id")(event(Rec())) is None
    assert by_header("id")(event(Rec(headers=(("id", b""),)))) is None
    assert by_field("order", "id")(event(Rec(), {"order": Inner(7)})) == b"7"
    assert by_field("order", "id")(event(Rec(), {"order": {"id": "a-7"}})) == b"a-7"
    assert by_field("order", "id")(event(Rec(), {})) is None


@pytest.mark.parametrize(
    ("value", "version"), [({"v": 7}, 7), ({"v": "7"}, None), ({"v": True}, None), ({}, None)]
)
def test_a_version_field_is_a_whole_number(value: Any, version: int | None) -> None:
    assert version_field("v")(event(Rec(), value)) == version


@pytest.mark.parametrize(
    ("value", "version"), [(b"12", 12), (b"-1", None), (b"", None), (b"9" * 30, None)]
)
def test_a_version_header_is_a_whole_number_in_digits(value: bytes, version: int | None) -> None:
    assert version_header("v")(event(Rec(headers=(("v", value),)))) == version
