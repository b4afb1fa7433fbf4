from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.consumer.retry import (
    EXHAUSTED,
    Again,
    Dead,
    Later,
    RetryPolicy,
    dead_topic,
    retry_topic,
)

DRAWS = st.floats(0, 1, exclude_max=True)


def test_a_visit_is_tried_in_place_then_moved_tier_by_tier_then_dies() -> None:
    policy = RetryPolicy(in_place=2, first_s=0.1, most_s=0.15, delays_s=(10.0, 60.0))

    assert policy.after_transient(failed=1, tier=0, draw=0.5) == Again(0.05)
    assert policy.after_transient(failed=2, tier=0, draw=0.5) == Again(0.075)
    assert policy.after_transient(failed=3, tier=0, draw=0.5) == Later(1, 10.0)
    assert policy.after_transient(failed=3, tier=1, draw=0.5) == Later(2, 60.0)
    assert policy.after_transient(failed=3, tier=2, draw=0.5) == Dead(EXHAUSTED)


def test_without_retry_topics_it_dies_after_its_attempts_in_place() -> None:
    policy = RetryPolicy(in_place=0, delays_s=())
    assert policy.after_transient(failed=1, tier=0, draw=0.9) == Dead(EXHAUSTED)


@given(
    in_place=st.integers(0, 100),
    tiers=st.integers(0, 6),
    draw=DRAWS,
    first_s=st.floats(0.001, 10),
    factor=st.floats(1, 100),
)
def test_every_event_ends_after_as_many_attempts_as_it_is_entitled_to(
    in_place: int, tiers: int, draw: float, first_s: float, factor: float
) -> None:
    policy = RetryPolicy(
        in_place=in_place,
        first_s=first_s,
        most_s=first_s * factor,
        delays_s=tuple(float(n) for n in range(1, tiers + 1)),
    )
    attempts = tier = failed = 0
    while True:
        attempts, failed = attempts + 1, failed + 1
        step = policy.after_transient(failed=failed, tier=tier, draw=draw)
        if isinstance(step, Again):
            assert 0 <= step.pause_s <= policy.most_s
        elif isinstance(step, Later):
            assert step == Later(tier + 1, policy.delays_s[tier])
            tier, failed = step.tier, 0
        else:
            break
    assert attempts == (in_place + 1) * (tiers + 1)


@given(failed=st.integers(1, 10_000), draw=DRAWS)
def test_a_pause_has_full_jitter_below_a_ceiling_that_only_grows(failed: int, draw: float) -> None:
    policy = RetryPolicy(in_place=10_000, first_s=0.1, most_s=2.0)
    assert policy.ceiling_s(failed) <= policy.ceiling_s(failed + 1) <= 2.0
    step = policy.after_transient(failed=failed, tier=0, draw=draw)
    assert step == Again(draw * policy.ceiling_s(failed))


@pytest.mark.parametrize(
    "wrong",
    [
        {"in_place": -1},
        {"first_s": 0.0},
        {"first_s": 3.0, "most_s": 2.0},
        {"delays_s": (60.0, 10.0)},
        {"delays_s": (10.0, 10.0)},
        {"delays_s": (0.0,)},
    ],
)
def test_what_makes_no_sense_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - which of them, the case says
        RetryPolicy(**wrong)  # type: ignore[arg-type]


def test_the_topics_are_named_after_the_events_own() -> None:
    assert [retry_topic("orders", 1), dead_topic("orders")] == ["orders.retry.1", "orders.dlq"]
