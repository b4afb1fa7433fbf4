"""Rules over evidence that say healthy, unhealthy or unknown, with numbers."""

from __future__ import annotations

from dataclasses import dataclass

from sidecar.core.observe import Seen
from sidecar.core.reports import Tally
from sidecar.core.types import Evidence, Policy, Reason, State, Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Signal:
    """One signal's word."""

    name: str
    verdict: Verdict
    detail: str
    evidence: Evidence


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """The verdict over one breaker and what it rests on.

    Unhealthy if any enabled signal is; else healthy if any is; else unknown.
    """

    verdict: Verdict
    reason: str
    detail: str
    evidence: Evidence
    signals: tuple[Signal, ...] = ()
    known: int = 0
    """Fresh reporters now; a trip writes it down for the half-open quorum."""
    index: int = 0
    """How far the reports have been read."""


def count(number: float) -> str:
    """A count for people: whole numbers without a fraction."""
    return f"{number:.0f}" if float(number).is_integer() else f"{number:.2f}"


def failures(tally: Tally, seen: Seen, policy: Policy) -> Signal:
    """Too many failures in the fresh reports.

    HALF_OPEN also fails when the failures reach the threshold scaled by the admitted share and
    outnumber the successes: a trickle that fails whole must not look healthy. And it is healthy
    only once at least half of the reporters known at the trip have reported since it began.
    """
    own = seen.own
    half_open = own is not None and own.automaton is State.HALF_OPEN
    evidence: dict[str, float | int] = {
        "failures": _number(tally.failures),
        "threshold": policy.failure_threshold,
        "reporters": tally.reporters,
    }
    said = f"{count(tally.failures)} failures in the last interval"

    def signal(verdict: Verdict, detail: str) -> Signal:
        return Signal(name=Reason.FAILURES, verdict=verdict, detail=detail, evidence=dict(evidence))

    if tally.reporters == 0:
        return signal(Verdict.UNKNOWN, "no fresh report")
    if tally.failures >= policy.failure_threshold:
        return signal(Verdict.UNHEALTHY, f"{said}, threshold {policy.failure_threshold}")
    if half_open and own is not None:
        evidence["successes"] = _number(round(tally.successes, 3))
        scaled = max(1.0, policy.failure_threshold * own.automaton_ratio)
        if tally.failures >= scaled and tally.failures > tally.successes:
            return signal(
                Verdict.UNHEALTHY,
                f"{said} against {count(tally.successes)} successes while half open, "
                f"threshold {count(scaled)}",
            )
        needed = quorum(seen)
        evidence["needed"] = needed
        if tally.reporters < needed:
            return signal(
                Verdict.UNKNOWN,
                f"{tally.reporters} of the {needed} reporters needed have reported since",
            )
    return signal(Verdict.HEALTHY, f"{said}, threshold {policy.failure_threshold}")


def _number(value: float) -> float | int:
    return int(value) if float(value).is_integer() else value


def quorum(seen: Seen) -> int:
    """How many reporters HALF_OPEN needs: half of those known at the trip, and at least one."""
    known = seen.own.evidence.get("known", 0) if seen.own is not None else 0
    return max(1, -(-known // 2)) if isinstance(known, int) else 1


def judge(tally: Tally | None, seen: Seen, policy: Policy) -> Judgement:
    """The verdict over all signals; without any completed read it is unknown."""
    if tally is None:
        return Judgement(
            verdict=Verdict.UNKNOWN, reason="", detail="the reports can't be read", evidence={}
        )
    signals = (failures(tally, seen, policy),)
    order = (Verdict.UNHEALTHY, Verdict.HEALTHY, Verdict.UNKNOWN)
    decisive = min(signals, key=lambda signal: order.index(signal.verdict))
    return Judgement(
        verdict=decisive.verdict,
        reason=decisive.name,
        detail=decisive.detail,
        evidence=decisive.evidence,
        signals=signals,
        known=tally.fresh,
        index=tally.index,
    )
