"""What happens to the consumers, and what came of it with each policy."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from bench.simulate.policies import BINARY, GRADUATED, START_S, Breaker, NoBreaker, Ours, SourceRule
from bench.simulate.world import WELL, Fleet, Health, Story, World

BEGIN, END, LENGTH = 300, 900, 1800
"""When the trouble begins and ends, and how long is looked at, in seconds."""
QUIET_S = 30
"""It must have been well for so long to have recovered."""


def halved(second: int, _: int) -> Health:
    """Each consumer is half as fast: a database lost half of its nodes."""
    return Health(capacity=0.5) if BEGIN <= second < END else WELL


def flapping(second: int, _: int) -> Health:
    """A minute at a third, a minute well, and so on."""
    low = BEGIN <= second < END and (second - BEGIN) % 120 < 60
    return Health(capacity=1 / 3) if low else WELL


def dying(second: int, consumer: int) -> Health:
    """Half of the consumers are gone, and don't report any more."""
    return Health(alive=False) if BEGIN <= second < END and consumer % 2 else WELL


def failing(second: int, _: int) -> Health:
    """A database is away: each attempt takes five times as long, and fails."""
    return Health(capacity=0.2, failing=1.0) if BEGIN <= second < END else WELL


SCENARIOS: Mapping[str, Story] = {
    "halved": halved,
    "flapping": flapping,
    "dying": dying,
    "failing": failing,
}
POLICIES: Mapping[str, Callable[[], Breaker]] = {
    "no breaker": NoBreaker,
    "source's rule": SourceRule,
    "binary": lambda: Ours(BINARY),
    "graduated": lambda: Ours(GRADUATED),
}


@dataclass(slots=True)
class Run:
    """What came of one seed."""

    goodput: float | None = None
    """Handled during the trouble, of what the consumers could have handled; None: nothing."""
    peak_lag_s: float = 0.0
    """The longest that the oldest message has been waiting."""
    peak_backlog: float = 0.0
    """The most messages that were not yet handled."""
    recovered_s: float | None = None
    """From the end of the trouble until all is admitted and handled in time again; None: not
    within the time looked at."""
    transitions: int = 0
    steps: int = 0
    rejected: float = 0.0
    """Of all that was offered."""
    lag: list[float] = field(default_factory=list)
    ratio: list[float] = field(default_factory=list)
    """Both by the second."""


def run(story: Story, breaker: Breaker, seed: int, fleet: Fleet | None = None) -> Run:
    """One story from begin to end."""
    world, found = World(fleet or Fleet(), story, seed), Run()
    handled = able = offered = admitted = 0.0
    well_since: int | None = None
    for second in range(LENGTH):
        reports = world.step(second, breaker.ratio)
        breaker.hear(second, reports, world)
        offered += world.offered
        admitted += world.admitted
        if BEGIN <= second < END:
            handled += world.handled
            able += world.able
        age = world.age(second)
        found.lag.append(age)
        found.peak_backlog = max(found.peak_backlog, world.backlog)
        found.ratio.append(breaker.ratio)
        well = age < START_S and breaker.ratio >= 1.0
        well_since = (second if well_since is None else well_since) if well else None
        if found.recovered_s is None and well_since is not None:
            since = max(well_since, END)
            found.recovered_s = float(since - END) if second - since >= QUIET_S else None
    found.goodput = handled / able if able else None
    found.peak_lag_s = max(found.lag)
    found.transitions, found.steps = breaker.transitions, breaker.steps
    found.rejected = 1 - admitted / offered
    return found


@dataclass(frozen=True, slots=True)
class Figures:
    """A policy in a scenario, over all seeds: the median, and the worst of each."""

    scenario: str
    policy: str
    seeds: int
    goodput: float | None
    goodput_worst: float | None
    peak_lag_s: float
    peak_lag_worst_s: float
    peak_backlog: float
    recovered_s: float | None
    recovered_worst_s: float | None
    """None: not within the time looked at."""
    transitions: float
    transitions_worst: int
    steps: float
    rejected: float


def summed_up(scenario: str, policy: str, runs: list[Run]) -> Figures:
    """The figures of all seeds."""
    times = [r.recovered_s if r.recovered_s is not None else float("inf") for r in runs]
    shares = [r.goodput for r in runs if r.goodput is not None]
    middle, last = statistics.median(times), max(times)
    return Figures(
        scenario=scenario,
        policy=policy,
        seeds=len(runs),
        goodput=statistics.median(shares) if shares else None,
        goodput_worst=min(shares, default=None),
        peak_lag_s=statistics.median(r.peak_lag_s for r in runs),
        peak_lag_worst_s=max(r.peak_lag_s for r in runs),
        peak_backlog=statistics.median(r.peak_backlog for r in runs),
        recovered_s=None if middle == float("inf") else middle,
        recovered_worst_s=None if last == float("inf") else last,
        transitions=statistics.median(r.transitions for r in runs),
        transitions_worst=max(r.transitions for r in runs),
        steps=statistics.median(r.steps for r in runs),
        rejected=statistics.median(r.rejected for r in runs),
    )
