"""The verdict over a breaker: each enabled signal's word, how long it held, and who shows it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from sidecar.core import lag_rule, rules
from sidecar.core import probe as probes
from sidecar.core.backlog import LagBook
from sidecar.core.lag_rule import LagMemory
from sidecar.core.normal import Bound, Normal, bound
from sidecar.core.observe import Seen
from sidecar.core.probe import ProbeBook
from sidecar.core.reports import Tally
from sidecar.core.rules import Signal, count, half_open_ratio, quorum
from sidecar.core.shedding import Wait, waiting
from sidecar.core.signal_settings import Hold
from sidecar.core.types import Evidence, Policy, Verdict

__all__ = ["Judgement", "Memory", "Signal", "count", "judge", "quorum"]

_FIRST = (Verdict.UNHEALTHY, Verdict.HEALTHY, Verdict.UNKNOWN)


@dataclass(frozen=True, slots=True)
class Memory:
    """What one evaluation hands to the next. A new evaluator begins without any."""

    unhealthy_since: Mapping[str, float] = field(default_factory=dict)
    """Since when each signal has been saying so without a break (monotonic)."""
    idle_since: float | None = None
    """Since when nothing is handled though there is work."""
    lag: LagMemory = field(default_factory=LagMemory)


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
    memory: Memory = field(default_factory=Memory)
    wait: Wait | None = None
    """How far the consumers are behind, for `shed`; None: it isn't known, or nothing is shed."""
    due: float = math.inf
    """When time alone may change it (monotonic)."""


_UNREADABLE = Judgement(
    verdict=Verdict.UNKNOWN, reason="", detail="the reports can't be read", evidence={}
)


def judge(
    tally: Tally | None,
    seen: Seen,
    policy: Policy,
    memory: Memory | None = None,
    *,
    lag: LagBook | None = None,
    probe: ProbeBook | None = None,
    now: float = 0.0,
    sealed: bool = False,
    normal: Normal | None = None,
) -> Judgement:
    """The verdict over all signals; without any completed read it is unknown.

    Args:
        memory: the last judgement's.
        lag: what Kafka said of the consumer group; None where it wasn't asked.
        probe: what came of the canaries; None where none were sent.
        now: monotonic seconds.
        sealed: an override rejects everything, so that nothing being handled says nothing.
        normal: what has been learned of the flow, for `failure_threshold: auto`.
    """
    if tally is None:
        return _UNREADABLE
    memory = memory or Memory()
    idle_since = None if sealed else _idle_since(tally, seen, policy, memory, now)
    most = bound(normal, tally, seen, policy, now=now)
    words = _words(tally, seen, policy, most, idle_since=idle_since, now=now)
    of_kafka, lag_memory = _words_of_kafka(lag, probe, seen, policy, memory=memory, now=now)
    signals, since = _settled(words + of_kafka, seen, memory, now)
    decisive = min(signals, key=lambda signal: _FIRST.index(signal.verdict))
    return Judgement(
        verdict=decisive.verdict,
        reason=decisive.name,
        detail=decisive.detail,
        evidence=decisive.evidence,
        signals=signals,
        known=tally.fresh,
        index=tally.index,
        memory=Memory(since, idle_since, lag_memory),
        wait=_wait(tally, lag, policy, now),
        due=_due(policy, seen, since, idle_since, now),
    )


def _settled(
    words: Sequence[tuple[Signal, Hold]], seen: Seen, memory: Memory, now: float
) -> tuple[tuple[Signal, ...], dict[str, float]]:
    """The words after hold and quorum, and since when the unhealthy ones have been so."""
    since = {
        word.name: memory.unhealthy_since.get(word.name, now)
        for word, _ in words
        if word.verdict is Verdict.UNHEALTHY
    }
    half_open = half_open_ratio(seen) is not None
    signals = tuple(
        _held(word, hold, since.get(word.name, now), half_open=half_open, now=now)
        for word, hold in words
    )
    return signals, since


def _wait(tally: Tally, lag: LagBook | None, policy: Policy, now: float) -> Wait | None:
    """How far the consumers are behind: by Kafka's word where it is asked, else by their own."""
    if policy.shed is None:
        return None
    return waiting(lag.backlog(now) if lag is not None else None, tally, policy.shed)


def _words_of_kafka(
    lag: LagBook | None,
    probe: ProbeBook | None,
    seen: Seen,
    policy: Policy,
    *,
    memory: Memory,
    now: float,
) -> tuple[list[tuple[Signal, Hold]], LagMemory]:
    """What Kafka itself shows, and what the lag's rule remembers."""
    words: list[tuple[Signal, Hold]] = []
    remembered = memory.lag
    if policy.signals.lag is not None:
        word, remembered = lag_rule.lag(lag, seen, policy.signals.lag, policy, memory.lag, now=now)
        words.append((word, policy.signals.lag))
    if policy.signals.probe is not None:
        canaries = probes.probe(probe, seen, policy.signals.probe, now=now)
        words.append((canaries, policy.signals.probe))
    return words, remembered


def _words(
    tally: Tally,
    seen: Seen,
    policy: Policy,
    most: Bound,
    *,
    idle_since: float | None,
    now: float,
) -> list[tuple[Signal, Hold]]:
    """Every enabled signal's word, before hold and quorum."""
    on = policy.signals
    words: list[tuple[Signal, Hold]] = [(rules.failures(tally, seen, policy, most), on.failures)]
    if on.failure_ratio is not None:
        ratio = rules.failure_ratio(tally.changes, seen, on.failure_ratio, now=now)
        words.append((ratio, on.failure_ratio))
    if on.slow is not None:
        words.append((rules.slow(tally, on.slow, policy), on.slow))
    if on.stalled is not None:
        word = rules.stalled(tally, seen, on.stalled, policy, since=idle_since, now=now)
        words.append((word, on.stalled))
    if on.missing is not None:
        words.append((rules.missing(tally, on.missing, policy), on.missing))
    if on.delivery is not None:
        words.append((rules.delivery(tally, seen, on.delivery, policy), on.delivery))
    return words


def _idle_since(
    tally: Tally, seen: Seen, policy: Policy, memory: Memory, now: float
) -> float | None:
    """Since when nothing is handled. Each stay in a state counts from its own beginning: while a
    breaker is open, that nothing is handled is no surprise."""
    stalled = policy.signals.stalled
    if stalled is None or not rules.idle_with_work(tally, stalled, policy):
        return None
    return max(memory.idle_since if memory.idle_since is not None else now, seen.since)


def _held(word: Signal, hold: Hold, since: float, *, half_open: bool, now: float) -> Signal:
    """An unhealthy word counts once enough reporters show it and it has lasted."""
    if word.verdict is not Verdict.UNHEALTHY:
        return word
    if word.showing is not None and hold.quorum > 1 and word.showing < hold.quorum:
        needed = f"{hold.quorum} {word.shown_by} needed"
        said = f"{word.detail}; {word.showing} of the {needed} show it"
        evidence = {**word.evidence, "showing": word.showing, "quorum": hold.quorum}
        # The others' word: one bad instance must not keep a breaker half open for ever either.
        verdict = Verdict.HEALTHY if word.fine else Verdict.UNKNOWN
        return replace(word, verdict=verdict, detail=said, evidence=evidence)
    lasted_s = now - since
    if hold.for_s and not half_open:
        evidence = {**word.evidence, "held": round(lasted_s, 3), "for": hold.for_s}
        word = replace(word, evidence=evidence)
        if lasted_s < hold.for_s:
            said = f"{word.detail}; for {lasted_s:.0f} s of {hold.for_s:g} s"
            return replace(word, verdict=Verdict.UNKNOWN, detail=said)
    return word


def _due(
    policy: Policy, seen: Seen, since: Mapping[str, float], idle_since: float | None, now: float
) -> float:
    on = policy.signals
    ends = [
        began + hold.for_s
        for name, began in since.items()
        if (hold := getattr(on, name, None)) is not None
    ]
    if on.stalled is not None and idle_since is not None:
        ends.append(idle_since + rules.stall_time(on.stalled, seen, policy))
    return min((end for end in ends if end > now), default=math.inf)
