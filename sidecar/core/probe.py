"""The signal `probe`: what came of the canaries, and what that says of Kafka.

A canary is a small record, sent to a broker with the acknowledgement of all replicas and read back
from it. Rounds of them come from outside, one canary a broker; here is what they add up to.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from sidecar.core.observe import Seen
from sidecar.core.rules import Signal, half_open_ratio
from sidecar.core.signal_settings import Probe
from sidecar.core.types import Evidence, Reason, Verdict

GOOD_FOR = 3
"""Rounds that may be missing before the last one says nothing any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Canary:
    """What came of one canary."""

    broker: int
    latency_s: float | None = None
    """From sending it until it was read back; None: it failed."""
    fault: str = ""
    denied: bool = False
    """It failed for want of rights: that says nothing of the broker."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """One canary through every broker, or why none could be sent."""

    at: float
    """When it ended (monotonic)."""
    canaries: Sequence[Canary] = ()
    fault: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """One broker as its canaries tell."""

    failed: int = 0
    """Failures in a row."""
    latency_s: float | None = None
    """Of the last canary, where it came back."""
    fault: str = ""
    denied: bool = False

    def after(self, canary: Canary) -> Standing:
        """With one more canary. A denied one is no failure, and no success either."""
        if canary.latency_s is not None:
            return Standing(latency_s=canary.latency_s)
        failed = self.failed + (0 if canary.denied else 1)
        return Standing(failed=failed, fault=canary.fault, denied=canary.denied)


class ProbeBook:
    """All rounds so far, as far as the signal needs them.

    Args:
        subject: what it is a book of, to whoever keeps it.
    """

    def __init__(self, subject: object = None) -> None:
        self.subject = subject
        self.at = -math.inf
        """When the last round ended (monotonic)."""
        self.good_for_s = 0.0
        self.completed = False
        """Whether any canary has ever come back."""
        self.fault: str | None = "no canary has been sent yet"
        """Why the last round sent none; None when it did."""
        self.brokers: dict[int, Standing] = {}

    def take(self, done: Round, interval_s: float) -> None:
        """Note a round. Brokers that it has no canary for are no part of the probe any more."""
        self.at, self.fault = done.at, done.fault
        self.good_for_s = GOOD_FOR * interval_s
        if done.fault is not None:
            return
        self.brokers = {
            canary.broker: self.brokers.get(canary.broker, Standing()).after(canary)
            for canary in done.canaries
        }
        self.completed |= any(canary.latency_s is not None for canary in done.canaries)


def probe(book: ProbeBook | None, seen: Seen, settings: Probe, *, now: float) -> Signal:
    """Brokers that don't hand canaries back, or not soon enough.

    Unknown until one has come back through any broker: before that, nothing tells a broken Kafka
    from a probe that isn't set up. While half open a round from after its beginning is needed.
    """
    brokers = book.brokers if book is not None else {}
    failing = sorted(b for b, one in brokers.items() if one.failed >= settings.failures)
    slow = sorted(b for b, one in brokers.items() if _slow(one, settings))
    evidence = _evidence(brokers, failing, slow, settings)
    showing = sorted({*failing, *slow})

    def signal(verdict: Verdict, detail: str) -> Signal:
        return Signal(
            name=Reason.PROBE,
            verdict=verdict,
            detail=detail,
            evidence=evidence,
            showing=len(showing),
            fine=len(brokers) - len(showing),
            shown_by="brokers",
        )

    unknown = _unknown(book, seen, now)
    if unknown is not None:
        return signal(Verdict.UNKNOWN, unknown)
    if failing:
        named = "; ".join(_failed(b, brokers[b]) for b in failing)
        return signal(Verdict.UNHEALTHY, f"{named}; {len(brokers)} brokers are probed")
    if slow:
        named = "; ".join(f"broker {b}: {_ms(brokers[b].latency_s)}" for b in slow)
        most = _ms(settings.max_latency_s)
        return signal(Verdict.UNHEALTHY, f"a canary is read back late, at most {most}: {named}")
    doubtful = sorted(b for b, one in brokers.items() if one.failed or one.denied)
    if doubtful:
        named = "; ".join(_failed(b, brokers[b]) for b in doubtful)
        return signal(Verdict.UNKNOWN, f"{named}; {settings.failures} in a row are needed")
    worst_s = max((one.latency_s or 0.0 for one in brokers.values()), default=0.0)
    said = f"canaries came back through {len(brokers)} brokers, the slowest in {_ms(worst_s)}"
    return signal(Verdict.HEALTHY, said)


def _unknown(book: ProbeBook | None, seen: Seen, now: float) -> str | None:
    """Why the canaries say nothing now; None where they do."""
    if book is None:
        return "no canary has been sent yet"
    if book.fault is not None:
        return book.fault
    if not book.completed:
        faults = sorted({one.fault for one in book.brokers.values()})
        return f"no canary has ever come back: {', '.join(faults)}"
    if now - book.at > book.good_for_s:
        return f"the last canary was {now - book.at:.0f} s ago"
    if half_open_ratio(seen) is not None and book.at <= seen.since:
        return "no canary since it is half open"
    return None


def _slow(one: Standing, settings: Probe) -> bool:
    most_s = settings.max_latency_s
    return most_s is not None and one.latency_s is not None and one.latency_s > most_s


def _evidence(
    brokers: dict[int, Standing], failing: list[int], slow: list[int], settings: Probe
) -> Evidence:
    late = [one.latency_s for one in brokers.values() if one.latency_s is not None]
    return {
        "brokers": len(brokers),
        "failing_brokers": _listed(failing),
        "slow_brokers": _listed(slow),
        "failed_in_row": max((one.failed for one in brokers.values()), default=0),
        "failures_needed": settings.failures,
        "latency": round(max(late), 6) if late else None,
        "max_latency": settings.max_latency_s,
    }


def _listed(brokers: list[int]) -> str | None:
    """The first few, by their ids: evidence has a bound."""
    return ",".join(map(str, brokers[:20])) or None


def _failed(broker: int, one: Standing) -> str:
    if one.denied:
        return f"broker {broker}: {one.fault}"
    times = "once" if one.failed == 1 else f"{one.failed} times in a row"
    return f"broker {broker} failed {times} ({one.fault})"


def _ms(seconds: float | None) -> str:
    return f"{(seconds or 0.0) * 1000:.1f} ms"
