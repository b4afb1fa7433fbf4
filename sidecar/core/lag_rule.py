"""The signal `lag`: the word over what Kafka says of a consumer group.

Lag outlives the outage that made it. So what counts is only what was read since the breaker's last
transition, and lag that was past a limit already then is being worked off: it is unhealthy only
while it doesn't fall, or the breaker would open on it for ever.
"""

from __future__ import annotations

from dataclasses import dataclass

from sidecar.core.backlog import LagBook, Look
from sidecar.core.lag import UNHEALTHY, PartitionState
from sidecar.core.observe import Seen
from sidecar.core.rules import Signal, count, half_open_ratio, plain
from sidecar.core.signal_settings import Lag
from sidecar.core.types import Policy, Reason, Scalar, Verdict

SPAN = 0.8
"""This share of the window must have been seen: rounds are not on time to the millisecond."""
_UNKNOWN = (
    PartitionState.NO_ANSWER,
    PartitionState.RECREATED,
    PartitionState.REBALANCING,
    PartitionState.TOO_EARLY,
)
_SAID = {
    PartitionState.REWOUND: "was rewound",
    PartitionState.STOPPED: "is stopped: nothing is committed and the group has no members",
    PartitionState.STALLED: "is stalled: the group has members and its offset doesn't move",
    PartitionState.FALLING_BEHIND: "is falling behind",
    PartitionState.NO_ANSWER: "has no answer from Kafka",
    PartitionState.RECREATED: "has an offset past its end: the topic was made anew",
    PartitionState.REBALANCING: "waits for its group to rebalance",
    PartitionState.TOO_EARLY: "lags, and hasn't been watched for long enough",
}


@dataclass(frozen=True, slots=True)
class LagMemory:
    """What one evaluation of the signal hands to the next."""

    stay: float | None = None
    """Since when the breaker has been in the state that the next is about (monotonic)."""
    leftover: bool = False
    """The lag has been past a limit ever since."""


def window(settings: Lag, seen: Seen, policy: Policy) -> float:
    """Seconds that must be seen before anything is said of movement. While half open at most half
    of the ramp, as for `stalled`: a group that doesn't move would be let through to its end."""
    whole_s = SPAN * settings.window_s
    if half_open_ratio(seen) is None:
        return whole_s
    return min(whole_s, max(policy.ramp_s / 2, policy.report_interval_s))


def lag(
    book: LagBook | None,
    seen: Seen,
    settings: Lag,
    policy: Policy,
    memory: LagMemory,
    *,
    now: float,
) -> tuple[Signal, LagMemory]:
    """The signal, and what its next evaluation is to know.

    Args:
        book: what was read of the group; None before anything was.
    """
    if book is None or not book.readable(now):
        said = "Kafka has not been asked yet" if book is None else book.fault
        said = said or "Kafka has not answered for too long"
        return _signal(Verdict.UNKNOWN, said, {}), memory
    look = book.look(since=seen.since, need_s=window(settings, seen, policy), floor=settings.floor)
    if look is None:
        return _signal(Verdict.UNKNOWN, "nothing was read since the last transition", {}), memory
    past = _past(look, settings)
    if memory.stay != seen.since:
        memory = LagMemory(seen.since, past is not None)
    elif past is None:
        memory = LagMemory(seen.since)
    verdict, said = _word(look, past, policy, leftover=memory.leftover)
    bad = sum(look.count(state) for state in UNHEALTHY)
    if past is not None and verdict is Verdict.UNHEALTHY:
        bad = look.partitions  # a limit is over the whole flow
    return _signal(
        verdict,
        said,
        _evidence(look, settings, policy),
        showing=bad,
        fine=look.count(PartitionState.OK),
    ), memory


def _past(look: Look, settings: Lag) -> str | None:
    """Which limit is passed, in words; None: neither."""
    messages, seconds = look.backlog.messages, look.backlog.seconds
    if settings.max_messages is not None and messages >= settings.max_messages:
        return f"{count(messages)} messages behind, limit {settings.max_messages}"
    if settings.max_seconds is not None and seconds is not None and seconds >= settings.max_seconds:
        return f"the oldest message waits for {seconds:.0f} s, limit {settings.max_seconds:g} s"
    return None


def _word(look: Look, past: str | None, policy: Policy, *, leftover: bool) -> tuple[Verdict, str]:
    """The verdict, with the sentence that says why."""
    if look.worst in UNHEALTHY:
        return Verdict.UNHEALTHY, _of_worst(look, policy)
    said = f"{count(look.backlog.messages)} messages behind"
    if past is not None:
        verdict, said = _past_limit(look, past, leftover=leftover)
        if verdict is not Verdict.HEALTHY:
            return verdict, said
    if any(look.count(state) for state in _UNKNOWN):
        return Verdict.UNKNOWN, _of_worst(look, policy)
    if look.count(PartitionState.UNCOMMITTED) == look.partitions:
        return Verdict.UNKNOWN, "the group has no commits"
    return Verdict.HEALTHY, said


def _past_limit(look: Look, past: str, *, leftover: bool) -> tuple[Verdict, str]:
    """The word on lag past a limit; what is left over from before may take its time to fall."""
    if not leftover:
        return Verdict.UNHEALTHY, past
    if look.falling:
        return Verdict.HEALTHY, f"{past}, but falling"
    if look.spans:
        return Verdict.UNHEALTHY, f"{past}, and not falling"
    return Verdict.UNKNOWN, f"{past}; not watched long enough to see it fall"


def _of_worst(look: Look, policy: Policy) -> str:
    """A sentence on the worst partition."""
    same = look.count(look.worst)
    others = f"; so are {same - 1} others of {look.partitions}" if same > 1 else ""
    lagging = f" ({look.partition_lag} messages)" if look.partition_lag else ""
    return f"{policy.topic}-{look.partition}{lagging} {_SAID[look.worst]}{others}"


def _evidence(look: Look, settings: Lag, policy: Policy) -> dict[str, Scalar]:
    seconds = look.backlog.seconds
    evidence: dict[str, Scalar] = {
        "lag": plain(look.backlog.messages),
        "lag_s": round(seconds, 1) if seconds is not None else None,
        "max_messages": settings.max_messages,
        "max_seconds": settings.max_seconds,
        "partitions": look.partitions,
        "partition": f"{policy.topic}-{look.partition}",
        "partition_lag": look.partition_lag,
        "status": str(look.worst),
    }
    evidence.update({str(state): number for state, number in look.states.items()})
    if look.expired:
        evidence["expired"] = look.expired
    return evidence


def _signal(
    verdict: Verdict,
    detail: str,
    evidence: dict[str, Scalar],
    *,
    showing: int | None = None,
    fine: int = 0,
) -> Signal:
    return Signal(
        name=Reason.LAG,
        verdict=verdict,
        detail=detail,
        evidence=evidence,
        showing=showing,
        fine=fine,
        shown_by="partitions",
    )
