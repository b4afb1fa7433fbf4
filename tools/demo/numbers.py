"""What a run amounts to, and whether the breaker kept its promise. Pure."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from typing import NamedTuple

from tools.demo import script

SLACK = 20
"""Events by which a healthy lag varies, whatever it is."""


class Sample(NamedTuple):
    """One look at the running system, `at` seconds into the run."""

    at: float
    lag: int
    state: str | None
    """Of the breaker; None without one."""
    refused: int
    """Requests that were not accepted since the look before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Marks:
    """When things were done to the database, in seconds into the run."""

    down: float
    back: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One run. None: it did not come to that."""

    requests: int
    accepted: int
    refused: int
    """Answered 503 with Retry-After: the client knows, and comes again."""
    failed: int
    """No answer in time, or another fault."""
    p99_ms: float
    healthy_lag: int
    lag_at_open: int | None
    peak_lag: int
    opened_after_s: float | None
    recovered_after_s: float | None
    """From the database's return until requests are accepted and lag is as it was."""
    longest_wait_s: float
    """From an event's acceptance until it was handled."""
    lost: int
    """Accepted and not handled in the end."""


def p99(values: Sequence[float]) -> float:
    """What all but one in a hundred stay below; 0 of nothing."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)] if ordered else 0.0


def healthy_lag(samples: Sequence[Sample], marks: Marks) -> int:
    """The highest before the outage, the first seconds left out: members were still joining."""
    calm = [s.lag for s in samples if marks.down / 2 <= s.at < marks.down]
    return max(calm, default=0)


def opened(samples: Sequence[Sample], marks: Marks) -> Sample | None:
    """The first look after the breaker had opened."""
    return next((s for s in samples if s.at >= marks.down and s.state == "OPEN"), None)


def peak_lag(samples: Sequence[Sample], marks: Marks) -> int:
    """The highest since the database went down."""
    return max((s.lag for s in samples if s.at >= marks.down), default=0)


def recovered(samples: Sequence[Sample], marks: Marks) -> float | None:
    """Seconds from the database's return until all is as it was, and stays so to the end."""
    bound = script.LAG_FACTOR * healthy_lag(samples, marks) + SLACK
    since: float | None = None
    for sample in samples:
        if sample.at < marks.back:
            continue
        fine = sample.lag <= bound and sample.state in (None, "CLOSED") and not sample.refused
        since = (sample.at if since is None else since) if fine else None
    return None if since is None else since - marks.back


def column(
    samples: Sequence[Sample],
    marks: Marks,
    *,
    answers: tuple[int, int, int],
    answers_s: Sequence[float],
    lost: Collection[str],
    longest_wait_s: float,
) -> Column:
    """All of a run.

    Args:
        answers: how many requests were accepted, refused, and failed.
        answers_s: how long each answer took.
        lost: ids.
    """
    accepted, refused, failed = answers
    first = opened(samples, marks)
    back = recovered(samples, marks)
    return Column(
        requests=accepted + refused + failed,
        accepted=accepted,
        refused=refused,
        failed=failed,
        p99_ms=round(p99(answers_s) * 1000, 1),
        healthy_lag=healthy_lag(samples, marks),
        lag_at_open=None if first is None else first.lag,
        peak_lag=peak_lag(samples, marks),
        opened_after_s=None if first is None else round(first.at - marks.down, 1),
        recovered_after_s=None if back is None else round(back, 1),
        longest_wait_s=round(longest_wait_s, 1),
        lost=len(lost),
    )


def broken(run: Column) -> list[str]:
    """What the breaker promises and did not keep, as sentences; empty where all held."""
    found = []
    if run.lag_at_open is None:
        found.append("the breaker did not open")
    elif run.peak_lag > script.LAG_FACTOR * run.lag_at_open:
        found.append(
            f"lag peaked at {run.peak_lag}, more than {script.LAG_FACTOR:g} times the"
            f" {run.lag_at_open} when it opened"
        )
    if run.recovered_after_s is None or run.recovered_after_s > script.RECOVER_WITHIN_S:
        found.append(f"it did not recover within {script.RECOVER_WITHIN_S:g} s")
    if run.lost:
        found.append(f"{run.lost} accepted events were lost")
    return found


ROWS: tuple[tuple[str, str], ...] = (
    ("requests", "requests"),
    ("accepted (202)", "accepted"),
    ("refused at once (503, Retry-After)", "refused"),
    ("failed otherwise", "failed"),
    ("API p99, ms", "p99_ms"),
    ("lag while healthy", "healthy_lag"),
    ("breaker opened after, s", "opened_after_s"),
    ("lag when it opened", "lag_at_open"),
    ("peak lag", "peak_lag"),
    ("longest wait of an accepted event, s", "longest_wait_s"),
    ("time to recover, s", "recovered_after_s"),
    ("events lost", "lost"),
)


def table(with_it: Column, without: Column) -> list[str]:
    """Both side by side."""
    one, other = asdict(with_it), asdict(without)
    lines = [f"{'':37} {'with breaker':>13} {'without':>13}"]
    lines += [f"{title:37} {_cell(one[key]):>13} {_cell(other[key]):>13}" for title, key in ROWS]
    return lines


def _cell(value: object) -> str:
    return "–" if value is None else str(value)
