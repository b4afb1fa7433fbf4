from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sidecar.consumer.window import Window


def test_an_interval_has_counts_a_rate_and_a_mean_latency() -> None:
    window = Window(since=100.0)
    window.handled(1, 0.010)
    window.handled(1, 0.030)
    window.missed(0.020)
    window.settled()
    interval = window.close(102.0)

    assert (interval.ok, interval.failed, interval.rate_ok) == (3, 1, 1.5)
    assert interval.latency_ms is not None
    assert round(interval.latency_ms, 6) == 20.0
    assert (window.ok, window.failed, window.since) == (0, 0, 102.0)


def test_nothing_handled_has_no_latency_and_no_division_by_nothing() -> None:
    interval = Window(since=5.0).close(5.0)
    assert interval.latency_ms is None
    assert interval.rate_ok == 0.0


@given(
    st.lists(st.sampled_from(["handled", "missed", "settled", "report", "fail to"]), max_size=60)
)
def test_every_event_is_reported_once_whatever_reports_fail(steps: list[str]) -> None:
    window, now = Window(), 0.0
    done = failed = reported_ok = reported_failed = 0
    for step in [*steps, "report"]:
        now += 1.0
        match step:
            case "handled":
                window.handled(1, 0.5)
                done += 1
            case "missed":
                window.missed(0.5)
                failed += 1
            case "settled":
                window.settled()
                done += 1
            case "report":
                interval = window.close(now)
                reported_ok += interval.ok
                reported_failed += interval.failed
                assert interval.length_s > 0
            case _:
                window.put_back(window.close(now))
    assert (reported_ok, reported_failed) == (done, failed)
