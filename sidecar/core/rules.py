"""One pure function a signal: evidence in, a word with its numbers out.

Consumers and producers report alike; what producers say of Kafka counts for `delivery` alone.
While half open only reports newer than its beginning are evidence, and minima are scaled by the
admitted share: a twentieth of the traffic can't bring as many messages as all of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sidecar.core.normal import Bound
from sidecar.core.observe import Seen
from sidecar.core.reports import MAX_COUNT, Change, Tally, successes
from sidecar.core.signal_settings import Delivery, FailureRatio, Missing, Slow, Stalled
from sidecar.core.types import Evidence, Policy, Reason, Report, Scalar, State, Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Signal:
    """One signal's word."""

    name: str
    verdict: Verdict
    detail: str
    evidence: Evidence
    showing: int | None = None
    """How many reporters show what is wrong; None where it isn't a matter of single ones."""
    fine: int = 0
    """How many show that it goes well, where they are enough to say so."""
    shown_by: str = "reporters"
    """What `showing` and `fine` count."""


def count(number: float) -> str:
    """A count for people: whole numbers without a fraction."""
    return f"{number:.0f}" if float(number).is_integer() else f"{number:.2f}"


def plain(value: float) -> float | int:
    """A number for evidence: whole ones as integers."""
    return int(value) if float(value).is_integer() else round(value, 6)


def half_open_ratio(seen: Seen) -> float | None:
    """The admitted share while half open; None in other states."""
    own = seen.own
    return own.automaton_ratio if own is not None and own.automaton is State.HALF_OPEN else None


def quorum(seen: Seen) -> int:
    """How many reporters HALF_OPEN needs: half of those known at the trip, and at least one."""
    known = seen.own.evidence.get("known", 0) if seen.own is not None else 0
    return max(1, -(-known // 2)) if isinstance(known, int) else 1


def failures(tally: Tally, seen: Seen, policy: Policy, bound: Bound | None = None) -> Signal:
    """Too many failures in the fresh reports: as many as `bound` says, or as is configured.

    HALF_OPEN also fails when the failures reach the threshold scaled by the admitted share and
    outnumber the successes: a trickle that fails whole must not look healthy. And it is healthy
    only once at least half of the reporters known at the trip have reported since it began.
    """
    ratio = half_open_ratio(seen)
    needed = 1 if ratio is None else quorum(seen)
    bound = bound or Bound(policy.failure_threshold)
    threshold = bound.threshold
    evidence: dict[str, Scalar] = {
        "failures": plain(tally.failures),
        "threshold": threshold,
        "reporters": tally.reporters,
        **bound.evidence,
    }
    against = f"threshold {threshold}" + (f" ({bound.why})" if bound.why else "")
    said = f"{count(tally.failures)} failures in the last interval"

    def signal(verdict: Verdict, detail: str) -> Signal:
        return Signal(
            name=Reason.FAILURES,
            verdict=verdict,
            detail=detail,
            evidence=dict(evidence),
            showing=tally.failing,
            fine=tally.reporters - tally.failing if tally.reporters >= needed else 0,
        )

    if tally.reporters == 0:
        return signal(Verdict.UNKNOWN, "no fresh report")
    if tally.failures >= threshold:
        return signal(Verdict.UNHEALTHY, f"{said}, {against}")
    if ratio is not None:
        evidence["successes"] = plain(round(tally.successes, 3))
        scaled = max(1.0, threshold * ratio)
        if tally.failures >= scaled and tally.failures > tally.successes:
            return signal(
                Verdict.UNHEALTHY,
                f"{said} against {count(tally.successes)} successes while half open, "
                f"threshold {count(scaled)}",
            )
        evidence["needed"] = needed
        if tally.reporters < needed:
            return signal(
                Verdict.UNKNOWN,
                f"{tally.reporters} of the {needed} reporters needed have reported since",
            )
    return signal(Verdict.HEALTHY, f"{said}, {against}")


def _scaled(minimum: int, seen: Seen) -> int:
    ratio = half_open_ratio(seen)
    return minimum if ratio is None else max(1, round(minimum * ratio))


def failure_ratio(
    changes: Sequence[Change], seen: Seen, settings: FailureRatio, *, now: float
) -> Signal:
    """Failed of all messages that came in during the window, once there are enough of them."""
    counted = [
        change
        for change in changes
        if change.index > seen.floor_index and now - change.changed < settings.window_s
    ]
    failing = {change.instance for change in counted if change.failed > 0}
    failed = sum(change.failed for change in counted)
    total = failed + sum(change.handled for change in counted)
    minimum = _scaled(settings.minimum, seen)
    share = failed / total if total else 0.0
    evidence: Evidence = {
        "failed": plain(failed),
        "messages": plain(round(total, 3)),
        "ratio": round(share, 4),
        "threshold": settings.threshold,
        "minimum": minimum,
    }
    if total < minimum:
        verdict, detail = Verdict.UNKNOWN, f"{count(total)} of the {minimum} messages needed"
    else:
        verdict = Verdict.UNHEALTHY if share >= settings.threshold else Verdict.HEALTHY
        detail = (
            f"{share:.1%} of {count(total)} messages failed in {settings.window_s:g} s, "
            f"threshold {settings.threshold:.1%}"
        )
    return Signal(
        name=Reason.FAILURE_RATIO,
        verdict=verdict,
        detail=detail,
        evidence=evidence,
        showing=len(failing),
        fine=len({change.instance for change in counted if change.handled > 0} - failing),
    )


def _weight(report: Report, policy: Policy) -> float:
    """How many messages a latency stands for; an interval without any still says something."""
    handled = successes(report, policy) + report.count_fail
    return min(max(handled, 1.0), MAX_COUNT)


def slow(tally: Tally, settings: Slow, policy: Policy) -> Signal:
    """Processing latency over the fresh reports, weighted by their counts."""
    timed = [
        (report.latency_ms / 1000, _weight(report, policy))
        for _, report in tally.counting
        if report.role != "producer" and report.latency_ms is not None
    ]
    most_s = settings.max_latency_s
    if not timed:
        evidence: Evidence = {"max_latency": most_s, "reporters": 0}
        detail = "no fresh report carries latency_ms"
        return Signal(
            name=Reason.SLOW, verdict=Verdict.UNKNOWN, detail=detail, evidence=evidence, showing=0
        )
    mean_s = sum(s * weight for s, weight in timed) / sum(weight for _, weight in timed)
    return Signal(
        name=Reason.SLOW,
        verdict=Verdict.UNHEALTHY if mean_s >= most_s else Verdict.HEALTHY,
        detail=f"a message takes {mean_s * 1000:.1f} ms, at most {most_s * 1000:g} ms",
        evidence={
            "latency": round(mean_s, 6),
            "max_latency": most_s,
            "reporters": len(timed),
        },
        showing=sum(1 for s, _ in timed if s >= most_s),
        fine=sum(1 for s, _ in timed if s < most_s),
    )


def idle_with_work(tally: Tally, settings: Stalled, policy: Policy) -> bool | None:
    """Is nothing handled though there is work? None: nothing says that there is any."""
    consumers = [report for _, report in tally.counting if report.role != "producer"]
    if any(successes(report, policy) + report.count_fail > 0 for report in consumers):
        return False
    if _with_work(tally) or (settings.always_busy and tally.fresh + tally.stale > 0):
        return True
    return None


def stall_time(settings: Stalled, seen: Seen, policy: Policy) -> float:
    """Seconds without throughput that make a stall. While half open at most half of the ramp: with
    no failures in the reports, a fleet that handles nothing would walk it to its end before."""
    if half_open_ratio(seen) is None:
        return settings.after_s
    return min(settings.after_s, max(policy.ramp_s / 2, policy.report_interval_s))


def stalled(
    tally: Tally,
    seen: Seen,
    settings: Stalled,
    policy: Policy,
    *,
    since: float | None,
    now: float,
) -> Signal:
    """No throughput for `after` while there is work.

    Args:
        since: since when nothing is handled though there is work (monotonic); None: it isn't so.
    """
    idle = idle_with_work(tally, settings, policy)
    lasted_s = now - since if since is not None and idle else 0.0
    after_s = stall_time(settings, seen, policy)
    evidence: Evidence = {
        "stalled_for": round(lasted_s, 3),
        "after": after_s,
        "reporters": tally.reporters,
        "lag": plain(_sum(tally, "lag")),
        "in_flight": plain(_sum(tally, "in_flight")),
    }
    if idle is None:
        verdict, detail = Verdict.UNKNOWN, "nothing is handled, and nothing says there is work"
    elif not idle:
        verdict, detail = Verdict.HEALTHY, "messages are being handled"
    elif since is not None and lasted_s >= after_s:
        verdict = Verdict.UNHEALTHY
        detail = f"nothing was handled for {lasted_s:.0f} s while there is work"
    else:
        verdict = Verdict.UNKNOWN
        detail = f"nothing was handled for {lasted_s:.0f} s of {after_s:g} s"
    return Signal(
        name=Reason.STALLED,
        verdict=verdict,
        detail=detail,
        evidence=evidence,
        showing=tally.fresh + tally.stale if settings.always_busy else _with_work(tally),
    )


def _with_work(tally: Tally) -> int:
    """How many consumers say that they have something to do."""
    return sum(
        1
        for _, report in tally.counting
        if report.role != "producer" and ((report.lag or 0) > 0 or (report.in_flight or 0) > 0)
    )


def _sum(tally: Tally, field: str) -> float:
    values = [getattr(report, field) or 0 for _, report in tally.counting]
    return float(min(sum(values), MAX_COUNT))


def missing(tally: Tally, settings: Missing, policy: Policy) -> Signal:
    """Too few fresh reporters, or too many that went silent without a goodbye."""
    known = tally.fresh + tally.silent
    gone = tally.silent / known if known else 0.0
    evidence: Evidence = {
        "fresh": tally.fresh,
        "silent": tally.silent,
        "min_consumers": settings.min_consumers,
        "ratio": settings.ratio,
    }
    said = f"{tally.fresh} consumers report, {tally.silent} went silent"
    verdict = Verdict.HEALTHY
    if tally.fresh + tally.stale == 0:
        verdict, said = Verdict.UNKNOWN, "no consumer has ever reported"
    elif settings.min_consumers is not None and tally.fresh < settings.min_consumers:
        verdict, said = Verdict.UNHEALTHY, f"{said}; at least {settings.min_consumers} must"
    elif settings.ratio is not None and known and gone >= settings.ratio:
        verdict = Verdict.UNHEALTHY
        said = f"{said}: {gone:.0%}, at most {settings.ratio:.0%} may"
    elif known == 0:
        verdict, said = Verdict.UNKNOWN, "nobody has reported lately"
    if verdict is Verdict.UNHEALTHY and tally.watched_s < policy.fresh_for_s:
        # Their clocks may be behind, or they are only just starting, as this sidecar is.
        verdict, said = Verdict.UNKNOWN, f"{said}; but watched for {tally.watched_s:.0f} s only"
    return Signal(
        name=Reason.MISSING,
        verdict=verdict,
        detail=said,
        evidence=evidence,
        showing=max(tally.silent, (settings.min_consumers or 0) - tally.fresh),
        fine=tally.fresh,
        shown_by="absent consumers",
    )


def delivery(tally: Tally, seen: Seen, settings: Delivery, policy: Policy) -> Signal:
    """Producers' errored deliveries of all, or what they have outstanding."""
    reports = [report for _, report in tally.counting if report.role == "producer"]
    errored = min(sum(report.count_fail for report in reports), MAX_COUNT)
    total = min(errored + sum(successes(report, policy) for report in reports), MAX_COUNT)
    outstanding = min(sum(report.in_flight or 0 for report in reports), MAX_COUNT)
    minimum = _scaled(settings.minimum, seen)
    share = errored / total if total else 0.0
    evidence: Evidence = {
        "errored": plain(errored),
        "messages": plain(round(total, 3)),
        "ratio": round(share, 4),
        "threshold": settings.ratio,
        "outstanding": plain(outstanding),
        "max_outstanding": settings.max_outstanding,
        "producers": len(reports),
    }
    showing = sum(1 for r in reports if r.count_fail > 0)
    most = settings.max_outstanding
    if most is not None and outstanding >= most:
        showing = sum(1 for r in reports if (r.in_flight or 0) > 0)
        verdict = Verdict.UNHEALTHY
        detail = f"{count(outstanding)} messages are outstanding, at most {most}"
    elif total < minimum:
        verdict = Verdict.UNKNOWN
        detail = f"{count(total)} of the {minimum} deliveries needed"
    else:
        verdict = Verdict.UNHEALTHY if share >= settings.ratio else Verdict.HEALTHY
        detail = f"{share:.1%} of {count(total)} deliveries failed, threshold {settings.ratio:.1%}"
    return Signal(
        name=Reason.DELIVERY,
        verdict=verdict,
        detail=detail,
        evidence=evidence,
        showing=showing,
        fine=len(reports) - showing,
    )
