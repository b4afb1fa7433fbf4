"""Partitions by Kafka's own rules."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.core.placing import STICK_BYTES, Placement, Spread, murmur2, partition_of


@pytest.mark.parametrize(
    ("data", "signed"),
    [
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_the_hash_is_that_of_the_java_client(data: bytes, signed: int) -> None:
    assert murmur2(data) == signed % 2**32


@settings(deadline=None)
@given(st.binary(max_size=64), st.integers(1, 1000))
def test_a_key_has_one_place(key: bytes, partitions: int) -> None:
    at = partition_of(key, partitions)
    assert 0 <= at < partitions
    assert at == partition_of(key, partitions)


def test_keyless_records_stick_then_move_on() -> None:
    spread = Spread()
    places = [spread.next(STICK_BYTES // 4, 3, lambda _: True) for _ in range(12)]
    assert places == [0] * 4 + [1] * 4 + [2] * 4


def test_a_partition_that_cant_be_reached_is_passed_over() -> None:
    spread = Spread()
    assert {spread.next(STICK_BYTES, 3, lambda at: at != 1) for _ in range(9)} == {0, 2}
    assert 0 <= spread.next(1, 3, lambda _: False) < 3


def test_a_grown_topic_is_placed_anew_only_when_nothing_waits() -> None:
    placement = Placement()
    assert placement.learn(3, waiting=True), "the first number is taken whatever waits"
    assert not placement.learn(6, waiting=True)
    assert placement.partitions == 3
    assert placement.learn(6, waiting=False)
    assert not placement.learn(6, waiting=False)
