from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.consumer.brake import Brake


def engaged(after: int = 3) -> Brake:
    """A brake that has just engaged at 100, with a pause of exactly 1 s."""
    brake = Brake(after, 1.0, 4.0)
    for _ in range(after):
        assert not brake.engaged
        brake.failed(100.0, 1.0, trial=False)
    assert brake.engaged
    return brake


def test_so_many_failures_in_a_row_engage_it_and_one_success_between_does_not() -> None:
    brake = Brake(3, 1.0, 4.0)
    for _ in range(10):
        brake.failed(0.0, 0.5, trial=False)
        brake.failed(0.0, 0.5, trial=False)
        brake.succeeded()
    assert not brake.engaged
    assert brake.wait_s(0.0) == 0.0


def test_engaged_it_lets_one_trial_through_after_a_pause() -> None:
    brake = engaged()
    assert brake.wait_s(100.0) == 1.0
    assert brake.wait_s(101.0) == 0.0
    assert brake.start() is True
    assert brake.wait_s(200.0) is None


def test_the_pause_doubles_with_each_trial_that_fails_up_to_its_bound() -> None:
    brake, now = engaged(), 100.0
    pauses = []
    for _ in range(4):
        pause_s = brake.wait_s(now)
        assert pause_s is not None
        pauses.append(pause_s)
        now += pause_s
        brake.failed(now, 1.0, trial=brake.start())
    assert pauses == [1.0, 2.0, 4.0, 4.0]


def test_what_was_begun_before_it_engaged_prolongs_nothing() -> None:
    brake = engaged()
    brake.failed(100.9, 1.0, trial=False)
    assert brake.wait_s(101.0) == 0.0


def test_any_success_releases_it() -> None:
    brake = engaged()
    brake.succeeded()
    assert not brake.engaged
    assert brake.wait_s(100.0) == 0.0


def test_a_trial_that_says_nothing_makes_room_for_the_next_at_once() -> None:
    brake = engaged()
    trial = brake.start()
    brake.unsaid(trial=trial)
    assert brake.engaged
    assert brake.wait_s(101.0) == 0.0


@given(
    st.lists(st.tuples(st.sampled_from(["ok", "fail", "none"]), st.floats(0, 1)), max_size=80),
    st.integers(1, 5),
)
def test_while_engaged_never_two_trials_are_out_and_none_waits_for_ever(
    ends: list[tuple[str, float]], after: int
) -> None:
    brake, now = Brake(after, 0.5, 5.0), 0.0
    for how, draw in ends:
        wait_s = brake.wait_s(now)
        assert wait_s is not None, "nothing is out, so something may start some time"
        assert wait_s <= 5.0
        now += wait_s
        trial = brake.engaged and brake.start()
        if brake.engaged:
            assert brake.wait_s(now + 1000) is None
        if how == "ok":
            brake.succeeded()
            assert not brake.engaged
        elif how == "fail":
            brake.failed(now, draw, trial=trial)
        else:
            brake.unsaid(trial=trial)


@pytest.mark.parametrize("wrong", [(0, 1.0, 2.0), (1, 0.0, 2.0), (1, 3.0, 2.0)])
def test_what_makes_no_sense_is_refused(wrong: tuple[int, float, float]) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - which of them, the case says
        Brake(*wrong)
