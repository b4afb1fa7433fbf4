"""What the demo makes of what it saw."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tools.demo import numbers, script
from tools.demo.numbers import Column, Marks, Sample

MARKS = Marks(down=8.0, back=28.0)


def run(*, closed_at: float = 40.0, refused_until: float = 40.0) -> list[Sample]:
    """A run with the breaker: opens at 10 s with a lag of 300, closed again at `closed_at`."""
    found = []
    for tenth in range(0, 500, 2):
        at = tenth / 10
        lag = 60 if at < 8 else int(60 + (at - 8) * 120) if at < 10 else 310 if at < 30 else 50
        state = "OPEN" if 10 <= at < 35 else "HALF_OPEN" if 35 <= at < closed_at else "CLOSED"
        found.append(Sample(at, lag, state, 5 if 10 <= at < refused_until else 0))
    return found


def column(samples: list[Sample], *, lost: int = 0) -> Column:
    return numbers.column(
        samples,
        MARKS,
        answers=(1000, 200, 3),
        answers_s=[0.001] * 98 + [0.5, 2.0],
        lost={str(n) for n in range(lost)},
        longest_wait_s=12.34,
    )


def test_a_run_in_numbers() -> None:
    found = column(run())
    assert (found.requests, found.accepted, found.refused, found.failed) == (1203, 1000, 200, 3)
    assert found.p99_ms == 2000.0
    assert found.healthy_lag == 60
    assert found.opened_after_s == pytest.approx(2.0)
    assert (found.lag_at_open, found.peak_lag) == (310, 310)
    assert found.recovered_after_s == pytest.approx(12.0)
    assert found.longest_wait_s == 12.3
    assert numbers.broken(found) == []


def test_it_has_recovered_when_all_is_as_before_and_stays_so() -> None:
    assert numbers.recovered(run(closed_at=45.0), MARKS) == pytest.approx(17.0)
    assert numbers.recovered(run(refused_until=48.0), MARKS) == pytest.approx(20.0)
    relapsed = [*run(), Sample(50.0, 50, "OPEN", 0)]
    assert numbers.recovered(relapsed, MARKS) is None
    without = [s._replace(state=None, refused=0) for s in run()]
    assert numbers.recovered(without, MARKS) == pytest.approx(2.0), "only lag is to come back"
    behind = [s._replace(lag=s.lag + 200) if s.at > 28 else s for s in without]
    assert numbers.recovered(behind, MARKS) is None


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ({"lag_at_open": None}, "did not open"),
        ({"peak_lag": 466}, "peaked at 466, more than 1.5 times the 310"),
        ({"recovered_after_s": None}, "did not recover"),
        ({"recovered_after_s": 60.1}, "did not recover"),
        ({"lost": 2}, "2 accepted events were lost"),
    ],
)
def test_each_promise_is_checked(broken: dict[str, int | float | None], said: str) -> None:
    good = column(run())
    (found,) = numbers.broken(replace(good, **broken))  # type: ignore[arg-type] # a case's values
    assert said in found
    assert numbers.broken(replace(good, peak_lag=465, recovered_after_s=60.0)) == []


def test_both_columns_stand_side_by_side() -> None:
    without = replace(column(run()), lag_at_open=None, peak_lag=2819)
    lines = numbers.table(column(run()), without)
    assert len({len(line) for line in lines}) == 1
    (peak,) = (line for line in lines if line.startswith("peak lag"))
    assert peak.split()[-2:] == ["310", "2819"]
    (opened,) = (line for line in lines if line.startswith("lag when it opened"))
    assert opened.split()[-2:] == ["310", "–"]


def test_p99_of_nothing_and_of_little() -> None:
    assert numbers.p99([]) == 0.0
    assert numbers.p99([3.0]) == 3.0
    assert numbers.p99(list(range(1000))) == 990


def test_all_settings_are_told() -> None:
    text = "\n".join(script.told())
    for value in (script.RATE, script.API["max_outstanding"], script.FLOW["open_duration"]):
        assert str(value) in text
