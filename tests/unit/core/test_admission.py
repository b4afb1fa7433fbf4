"""Exact fractional admission."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.admission import UNIT, Spread, hashed_share

names = st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1, max_size=12)


@given(instance=names)
def test_of_a_thousand_calls_at_a_twentieth_fifty_are_admitted(instance: str) -> None:
    spread = Spread(instance, "default")
    assert abs(sum(spread.spend(UNIT // 20) for _ in range(1000)) - 50) <= 1


@given(
    instance=names,
    stretches=st.lists(st.tuples(st.integers(0, UNIT), st.integers(1, 200)), max_size=8),
)
def test_any_mixture_of_ratios_is_admitted_exactly(
    instance: str, stretches: list[tuple[int, int]]
) -> None:
    spread = Spread(instance, "default")
    admitted = sum(spread.spend(ratio) for ratio, calls in stretches for _ in range(calls))
    assert abs(admitted - sum(ratio * calls for ratio, calls in stretches) / UNIT) <= 1


def test_the_admitted_calls_are_evenly_spread() -> None:
    spread = Spread("i", "b")
    hits = [i for i in range(1000) if spread.spend(UNIT // 20)]
    assert {after - before for before, after in pairwise(hits)} == {20}


@given(instance=names)
def test_all_and_none_are_never_almost(instance: str) -> None:
    spread = Spread(instance, "default")
    assert all(spread.spend(UNIT) for _ in range(50))
    assert not any(spread.spend(0) for _ in range(50))


def test_peeking_tells_the_next_call_and_spends_nothing() -> None:
    spread = Spread("i", "b")
    for _ in range(100):
        told = {spread.peek(UNIT // 7) for _ in range(5)}
        assert told == {spread.spend(UNIT // 7)}


def test_the_first_calls_of_many_sidecars_do_not_fall_the_same_way() -> None:
    first = sum(Spread(f"alloc-{i}", "default").spend(UNIT // 20) for i in range(4000))
    assert 140 <= first <= 260


@given(parts=st.lists(names, min_size=1, max_size=3))
def test_a_share_is_fixed_and_below_one(parts: list[str]) -> None:
    assert 0 <= hashed_share(*parts) == hashed_share(*parts) < 1


def test_names_are_told_apart_where_they_meet() -> None:
    assert hashed_share("ab", "c") != hashed_share("a", "bc")
