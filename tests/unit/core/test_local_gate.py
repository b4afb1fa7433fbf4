"""This sidecar's own gate: when it shuts, how it finds out, and that it never outlives evidence."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.intake import Post
from sidecar.core.local_gate import PARTS, LocalGate, Stand
from sidecar.core.signal_settings import Local

SETTINGS = Local(ratio=0.5, minimum=20, window_s=15.0, shut_s=5.0, trial=0.05)


def post(ok: float = 0, fail: float = 0, outstanding: float | None = None, who: str = "p") -> Post:
    return Post(instance=who, count_ok=ok, count_fail=fail, in_flight=outstanding, role="producer")


@pytest.fixture
def gate() -> LocalGate:
    return LocalGate()


def stand(gate: LocalGate) -> Stand:
    """Asked anew each time, which a checker of types can't know of an attribute."""
    return gate.stand


def shut(gate: LocalGate, now: float = 100.0) -> None:
    gate.take(post(ok=8, fail=12), SETTINGS, now=now)
    assert stand(gate) == Stand.SHUT


def test_errors_in_the_majority_shut_it_with_their_numbers(gate: LocalGate) -> None:
    assert not gate.take(post(ok=8, fail=11), SETTINGS, now=100.0)  # 19 of 20 needed
    assert gate.held(SETTINGS) is None
    assert gate.take(post(fail=1), SETTINGS, now=101.0)
    assert gate.evidence["errored"] == 12
    assert gate.evidence["messages"] == 20
    held = gate.held(SETTINGS)
    assert held is not None
    assert (held.stand, held.ratio, held.retry_from) == (Stand.SHUT, 0.0, 106.0)
    assert held.detail == (
        "this sidecar's own producers: 60.0% of 20 deliveries failed, threshold 50.0%"
    )


def test_successes_keep_it_open(gate: LocalGate) -> None:
    assert not gate.take(post(ok=60, fail=40), SETTINGS, now=100.0)
    assert gate.held(SETTINGS) is None


def test_only_the_window_counts(gate: LocalGate) -> None:
    gate.take(post(fail=19), SETTINGS, now=100.0)
    gate.take(post(fail=1), SETTINGS, now=115.0)
    assert stand(gate) == Stand.PASSING


def test_too_much_outstanding_shuts_it_summed_over_its_producers(gate: LocalGate) -> None:
    bounded = replace(SETTINGS, max_outstanding=1000)
    gate.take(post(outstanding=600, who="a"), bounded, now=100.0)
    gate.take(post(outstanding=100, who="b"), bounded, now=101.0)
    assert stand(gate) == Stand.PASSING
    gate.take(post(outstanding=400, who="b"), bounded, now=102.0)
    assert stand(gate) == Stand.SHUT
    assert gate.evidence["outstanding"] == 1000
    assert "1000 messages are outstanding, at most 1000" in gate.detail


def test_what_a_silent_producer_had_outstanding_is_forgotten(gate: LocalGate) -> None:
    bounded = replace(SETTINGS, max_outstanding=1000)
    gate.take(post(outstanding=900, who="a"), bounded, now=100.0)
    gate.take(post(outstanding=200, who="b"), bounded, now=115.0)
    assert stand(gate) == Stand.PASSING


def test_a_trial_that_succeeds_opens_it(gate: LocalGate) -> None:
    shut(gate, 100.0)
    gate.look(SETTINGS, now=104.9)
    assert stand(gate) == Stand.SHUT
    gate.look(SETTINGS, now=105.0)
    held = gate.held(SETTINGS)
    assert held is not None
    assert (held.stand, held.ratio, held.retry_from) == (Stand.TRIAL, 0.05, None)
    assert gate.take(post(ok=1), SETTINGS, now=106.0)  # a twentieth of the minimum
    assert gate.held(SETTINGS) is None


def test_a_trial_that_fails_shuts_it_again(gate: LocalGate) -> None:
    shut(gate, 100.0)
    assert not gate.take(post(fail=1), SETTINGS, now=105.0)  # a trial began and failed at once
    assert stand(gate) == Stand.SHUT
    assert gate.since == 105.0
    assert gate.closures == 2


def test_what_is_told_while_shut_decides_nothing(gate: LocalGate) -> None:
    """Deliveries that were on their way: the trial asks anew."""
    shut(gate, 100.0)
    gate.take(post(ok=500), SETTINGS, now=102.0)
    assert stand(gate) == Stand.SHUT
    gate.look(SETTINGS, now=105.0)
    assert stand(gate) == Stand.TRIAL


def test_a_slow_trickle_is_counted_from_the_trials_beginning(gate: LocalGate) -> None:
    patient = replace(SETTINGS, minimum=60)  # a trial needs 3
    gate.take(post(fail=60), patient, now=100.0)
    for now in (106.0, 119.0, 132.0):
        assert stand(gate) != Stand.PASSING
        gate.take(post(ok=1), patient, now=now)
    assert stand(gate) == Stand.PASSING


@pytest.mark.parametrize("later", [post(), post(outstanding=5000)])
def test_it_ends_with_its_evidence(gate: LocalGate, later: Post) -> None:
    """A producer that only says it is there, or something that isn't asked for, is no evidence."""
    shut(gate, 100.0)
    for now in (101.0, 106.0, 114.9):
        gate.take(later, SETTINGS, now=now)
        assert stand(gate) != Stand.PASSING
    held = gate.held(SETTINGS)
    assert held is not None
    assert held.changes_at == 115.0
    gate.look(SETTINGS, now=115.0)
    assert gate.held(SETTINGS) is None


def test_another_producers_silence_does_not_keep_it_shut(gate: LocalGate) -> None:
    bounded = replace(SETTINGS, max_outstanding=1000)
    gate.take(post(outstanding=2000, who="a"), bounded, now=100.0)
    for now in range(101, 140):
        gate.take(post(outstanding=0, who="b"), bounded, now=float(now))
    assert stand(gate) == Stand.PASSING


@given(
    st.lists(
        st.tuples(
            st.floats(0.01, 40.0),
            st.integers(0, 50),
            st.integers(0, 50),
            st.sampled_from([None, 0, 10, 2000]),
        ),
        max_size=60,
    )
)
def test_whatever_is_told_it_is_bounded_and_never_outlives_its_evidence(
    told: list[tuple[float, int, int, int | None]],
) -> None:
    gate, bounded, now, heard = LocalGate(), replace(SETTINGS, max_outstanding=1000), 0.0, -1e9
    for wait, ok, fail, outstanding in told:
        now += wait
        if ok + fail or outstanding:
            heard = now
        gate.take(post(ok, fail, outstanding, who=f"p-{ok % 3}"), bounded, now=now)
        held = gate.held(bounded)
        if held is not None:
            assert held.changes_at > now
            assert held.changes_at <= heard + bounded.window_s
            gate.look(bounded, now=held.changes_at)
            assert gate.held(bounded) != held
        assert len(gate._parts) <= PARTS + 1
        now = max(now, held.changes_at) if held is not None else now
    gate.look(bounded, now=now + bounded.window_s)
    gate.look(bounded, now=now + 2 * bounded.window_s)
    assert gate.held(bounded) is None
