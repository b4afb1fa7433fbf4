"""What one partition's offsets say of its consumer group, as a function of a window of samples.

The classes are those that LinkedIn's Burrow made standard (its wiki, "Consumer Lag Evaluation
Rules", and the cases its issues settled: #290, #303, #591, #716). Burrow reads commits as they are
made; the broker's answer to a question has no time of commit, so here the window is one of time,
sampled: an offset that hasn't moved over the whole of it is stopped (the group has no members) or
stalled (it has). Two things differ on purpose. Lag that stays level is no trouble, since the
consumer keeps pace. And Burrow takes one dip in the window for health, so that a saw-tooth that
rises overall escapes it (its #533): for that there is a test for a trend over many windows.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from sidecar.core.trend import mann_kendall, theil_sen

ABSENT = -1
"""Instead of a committed offset: the group has none for this partition, or not any more."""
NO_ANSWER = -2
"""Instead of any offset: Kafka didn't say."""
LEAST_SAMPLES = 3
"""With fewer in the window nothing is said of movement."""
TREND_WINDOWS = 10
"""So many windows in a row make a trend."""
TREND_Z = 3.0
"""How certain a trend must be: by chance it comes once in a thousand times."""
LEAST_GROWTH = 0.1
"""Lag that grew by less than this share of itself hasn't grown: the traffic has."""


@dataclass(frozen=True, slots=True)
class Backlog:
    """How far a consumer group is behind."""

    messages: float
    """Over all partitions."""
    seconds: float | None
    """The age of the oldest message not yet handled, of the worst partition; None: not known."""


class PartitionState(enum.StrEnum):
    """What the samples of one partition say, the worst first."""

    REWOUND = "rewound"
    """The group went back to an offset it had passed, and hasn't got there again."""
    STOPPED = "stopped"
    """Nothing is committed, and the group has no members."""
    STALLED = "stalled"
    """The group has members, and its offset doesn't move."""
    FALLING_BEHIND = "falling_behind"
    """It moves, and the lag grows."""
    NO_ANSWER = "no_answer"
    """Kafka didn't say one of the two offsets."""
    RECREATED = "recreated"
    """The group's offset is past the end: the topic was made anew, or lost its last messages."""
    REBALANCING = "rebalancing"
    """The group is sorting out who reads what."""
    TOO_EARLY = "too_early"
    """It lags, and hasn't been watched for long enough to say how it goes on."""
    UNCOMMITTED = "uncommitted"
    """The group has no offset here: never had, or it expired."""
    OK = "ok"


UNHEALTHY = frozenset(
    {
        PartitionState.REWOUND,
        PartitionState.STOPPED,
        PartitionState.STALLED,
        PartitionState.FALLING_BEHIND,
    }
)
SEVERITY = {state: rank for rank, state in enumerate(PartitionState)}


class Sample(NamedTuple):
    """One look at a partition."""

    at: float
    """Monotonic seconds."""
    committed: int
    end: int
    lag: int = 0
    """Messages between the two that still exist; negative where it isn't known."""
    rebalancing: bool = False


def sample(at: float, committed: int, end: int, begin: int = 0, *, busy: bool = False) -> Sample:
    """A look at a partition, with the lag that follows from it.

    Args:
        begin: the oldest offset that still exists: what retention took away is no work any more.
        busy: the group is rebalancing.
    """
    lag = end - max(committed, begin) if committed >= 0 and end >= 0 else NO_ANSWER
    return Sample(at, committed, end, lag, busy)


def classify(
    samples: Sequence[Sample],
    *,
    floor: int,
    need_s: float,
    members: bool,
    troughs: Sequence[int] = (),
) -> PartitionState:
    """The state that a partition's samples show.

    Args:
        samples: oldest first; the last is the present.
        floor: lag up to here is noise, and so is growth by no more than this.
        need_s: they must span so much time before anything is said of movement.
        members: whether the group has any.
        troughs: the lowest lag of each of the last windows, oldest first, where enough are known.
    """
    last = samples[-1]
    settled = _settled(last, floor)
    if settled is not None:
        return settled
    usable = _usable(samples)
    if max(s.committed for s in usable) - last.committed > floor:
        return PartitionState.REWOUND
    if all(s.rebalancing for s in usable):
        # It excuses standing still, but not for a whole window.
        lasting = _spans(usable, need_s)
        return PartitionState.STALLED if lasting else PartitionState.REBALANCING
    return _moving(usable, floor=floor, need_s=need_s, members=members, troughs=troughs)


def _settled(last: Sample, floor: int) -> PartitionState | None:
    """What the present says alone; None where it lags, and what was before has the word."""
    if last.end < 0 or last.committed < ABSENT:
        return PartitionState.NO_ANSWER
    if last.committed == ABSENT:
        return PartitionState.UNCOMMITTED
    if last.committed > last.end:
        return PartitionState.RECREATED
    return PartitionState.OK if last.lag <= floor else None


def _usable(samples: Sequence[Sample]) -> list[Sample]:
    """Those that can be compared with the last: whole ones, since the topic is what it is now."""
    found: list[Sample] = []
    for each in reversed(samples):
        if found and each.end > found[-1].end >= 0:
            break  # the end went back: another topic of the same name
        if each.committed > each.end >= 0:
            break
        if each.committed >= 0 and each.end >= 0:
            found.append(each)
    return found[::-1]


def _spans(samples: Sequence[Sample], need_s: float) -> bool:
    return len(samples) >= LEAST_SAMPLES and samples[-1].at - samples[0].at >= need_s


def _moving(
    usable: Sequence[Sample], *, floor: int, need_s: float, members: bool, troughs: Sequence[int]
) -> PartitionState:
    """How a partition goes on that lags and was not rewound."""
    last = usable[-1]
    if any(s.lag <= floor for s in usable):
        return PartitionState.OK  # it had caught up lately: give it the window to do so again
    quiet = [s for s in usable if not s.rebalancing]
    first = quiet[0]
    moved = last.committed > first.committed
    if not _spans(quiet, need_s):
        if last.rebalancing:
            return PartitionState.REBALANCING
        return PartitionState.OK if moved and last.lag < first.lag else PartitionState.TOO_EARLY
    if not moved:
        return PartitionState.STALLED if members else PartitionState.STOPPED
    steady = all(after.lag >= before.lag for before, after in pairwise(quiet))
    behind = (steady and grown(first.lag, last.lag, floor)) or rising(troughs, floor)
    return PartitionState.FALLING_BEHIND if behind else PartitionState.OK


def grown(before: float, after: float, floor: int) -> bool:
    """Whether lag rose by more than noise, and by more than a flow's traffic varies."""
    return after - before > max(floor, LEAST_GROWTH * before)


def rising(troughs: Sequence[int], floor: int) -> bool:
    """Whether even the best moment of each window is worse than before: a saw-tooth that rises.

    The lowest lag of a window is what the consumers can get to; it doesn't depend on where in a
    tooth the window ends.
    """
    if len(troughs) < TREND_WINDOWS or min(troughs) <= floor:
        return False
    if mann_kendall(troughs) < TREND_Z:
        return False
    rise = theil_sen(troughs) * (len(troughs) - 1)
    return grown(troughs[0], troughs[0] + rise, floor)
