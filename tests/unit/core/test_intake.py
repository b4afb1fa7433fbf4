"""Local reports on their way to the store."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sidecar.core import intake as module
from sidecar.core.intake import Intake, IntakeFull, Outgoing, Post
from sidecar.core.reports import MAX_COUNT
from tests.unit.core.kit import POLICY, WALL_AT


class Desk:
    """An intake, and its times in seconds."""

    def __init__(self, *, through: bool = False) -> None:
        self.intake = Intake(through=through)

    def post(self, now: float, *, era: float = 0, **fields: object) -> bool:
        fields = {"instance": "c-1"} | fields
        return self.intake.add(Post(**fields), POLICY, era, now=now)  # type: ignore[arg-type]

    def due(self, now: float) -> list[Outgoing]:
        out = []
        wall_at = WALL_AT + now
        while (one := self.intake.next(POLICY, due_by=now, now=now, wall_at=wall_at)) is not None:
            out.append(one)
        return out

    def next_due(self) -> float | None:
        return self.intake.next_due(POLICY)

    def lost(self, outgoing: Outgoing, now: float) -> None:
        self.intake.failed(outgoing, POLICY, now=now)


@pytest.fixture
def behind() -> Desk:
    return Desk()


@pytest.fixture
def through() -> Desk:
    return Desk(through=True)


def test_what_comes_between_two_writes_is_added_up(behind: Desk) -> None:
    behind.post(100, count_ok=10)
    behind.due(100)
    assert not behind.post(101, count_ok=10, lag=5, latency_ms=10)
    assert not behind.post(103, count_ok=30, lag=7, latency_ms=20, role="consumer")
    assert behind.due(104.9) == []
    assert behind.next_due() == 105
    (out,) = behind.due(105)
    report = out.report
    assert (report.count_ok, report.count_fail, report.interval_s) == (40, 0, 5)
    assert (report.rate_ok, report.timestamp_at) == (8, WALL_AT + 105)
    assert (report.lag, report.role, report.latency_ms) == (7, "consumer", 17.5)
    assert behind.due(200) == []
    assert behind.next_due() is None


def test_the_first_failing_post_after_quiet_goes_out_at_once(behind: Desk) -> None:
    behind.post(100, count_ok=10)
    behind.due(100)
    assert behind.post(101, count_fail=2)
    assert behind.next_due() == 101
    assert behind.due(101)[0].report.count_fail == 2
    assert not behind.post(102, count_fail=3)
    assert behind.due(102) == []
    assert behind.due(106)[0].report.count_fail == 3


def test_silence_is_quiet_too(behind: Desk) -> None:
    behind.post(100, count_fail=1)
    behind.due(100)
    assert behind.post(160, count_fail=2)
    (out,) = behind.due(160)
    assert (out.report.count_fail, out.report.interval_s) == (2, 60)


def test_a_first_post_is_written_as_the_last_interval(behind: Desk) -> None:
    assert behind.post(100, count_ok=10)
    (out,) = behind.due(100)
    assert (out.report.interval_s, out.report.rate_ok) == (5, 2)


def test_a_write_that_failed_is_added_back(behind: Desk) -> None:
    behind.post(100, count_ok=8, count_fail=2, latency_ms=10)
    (out,) = behind.due(100)
    behind.lost(out, 100)
    assert behind.next_due() == 100  # still the first failing one
    behind.post(101, count_ok=10, latency_ms=30)
    (again,) = behind.due(101)
    assert (again.report.count_ok, again.report.count_fail) == (18, 2)
    assert (again.report.latency_ms, again.report.interval_s) == (20, 6)


def test_nothing_old_comes_back_as_a_burst_of_new_failures(behind: Desk) -> None:
    behind.post(100, count_fail=5)
    (out,) = behind.due(100)
    behind.lost(out, 115)
    assert behind.due(115) == []
    assert behind.post(116, count_fail=1)
    assert behind.due(116)[0].report.count_fail == 1


def test_a_fresh_post_after_long_silence_survives_a_lost_write(behind: Desk) -> None:
    behind.post(100, count_ok=1)
    behind.due(100)
    behind.post(500, count_fail=5)
    (out,) = behind.due(500)
    behind.lost(out, 501)
    assert behind.due(501)[0].report.count_fail == 5


def test_a_lost_write_of_somebody_who_left_is_forgotten(behind: Desk) -> None:
    behind.post(100, count_fail=5)
    (out,) = behind.due(100)
    assert behind.intake.withdraw("c-1")
    assert not behind.intake.withdraw("c-1")
    behind.lost(out, 100)
    assert behind.due(200) == []
    assert behind.intake.instances == []


def test_what_is_due_longest_goes_first_and_a_failed_one_last(behind: Desk) -> None:
    for now in (100, 101, 102):
        behind.post(now, instance=f"c-{now}", count_fail=1)
    wall_at = WALL_AT
    first = behind.intake.next(POLICY, due_by=105, now=105, wall_at=wall_at)
    assert first is not None
    behind.lost(first, 106)
    assert [out.instance for out in behind.due(106)] == ["c-101", "c-102", "c-100"]
    assert behind.next_due() is None


def test_nothing_that_came_later_is_in_this_round(behind: Desk) -> None:
    behind.post(100)
    behind.post(101, instance="c-2", count_fail=1)
    began = {"due_by": 100.5, "now": 102.0, "wall_at": WALL_AT}
    out = behind.intake.next(POLICY, **began)
    assert out is not None
    assert out.instance == "c-1"
    assert behind.intake.next(POLICY, **began) is None


def test_a_shorter_interval_counts_for_what_waits_already(behind: Desk) -> None:
    behind.post(100)
    behind.due(100)
    behind.post(101)
    assert behind.next_due() == 105
    assert behind.intake.next_due(replace(POLICY, report_interval_s=2)) == 102
    behind.post(101.5, count_fail=1)
    assert behind.next_due() == 101


def test_who_comes_back_is_written_once(behind: Desk) -> None:
    behind.post(100)
    assert behind.intake.withdraw("c-1")
    assert behind.next_due() is None
    behind.post(100)
    assert len(behind.due(100)) == 1
    assert behind.next_due() is None


def test_write_through_tells_the_sum_of_the_window_every_time(through: Desk) -> None:
    sums = []
    for now in (100, 101, 104.9, 105, 106):
        assert through.post(now, count_fail=10, count_ok=5)
        (out,) = through.due(now)
        sums.append((out.report.count_fail, out.report.count_ok))
        assert out.report.rate_ok * (out.report.interval_s or 0) == out.report.count_ok
    assert sums == [(10, 5), (20, 10), (30, 15), (10, 5), (20, 10)]


def test_a_window_never_spans_two_eras(through: Desk) -> None:
    through.post(100, count_fail=19)
    through.due(100)
    through.post(101, era=1, count_fail=2)
    assert through.due(101)[0].report.count_fail == 2
    through.post(102, era=1, count_fail=2)
    assert through.due(102)[0].report.count_fail == 4


def test_a_write_through_that_failed_is_tried_again_whole(through: Desk) -> None:
    through.post(100, count_fail=3)
    (out,) = through.due(100)
    through.lost(out, 100)
    assert through.due(101)[0].report.count_fail == 3


def test_what_it_holds_is_bounded(behind: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_INSTANCES", 3)
    for i in range(3):
        behind.post(100, instance=f"c-{i}")
    with pytest.raises(IntakeFull):
        behind.post(100, instance="c-3")
    behind.post(101, instance="c-2")
    behind.post(101, instance="c-2", count_ok=1e308, count_fail=1e308)
    behind.post(101, instance="c-2", count_ok=1e308, count_fail=1e308)
    assert {o.report.count_fail for o in behind.due(101)} == {0, MAX_COUNT}


def test_the_silent_are_forgotten(behind: Desk) -> None:
    behind.post(100)
    behind.post(3000, instance="c-2")
    behind.intake.forget_silent(POLICY, now=3699)
    assert len(behind.intake.instances) == 2
    behind.intake.forget_silent(POLICY, now=3700)
    assert behind.intake.instances == ["c-2"]
    behind.intake.forget_silent(replace(POLICY, report_gc_s=0), now=3000 + 86400)
    assert behind.intake.instances == []
