"""`shed`: a closed breaker admits less while its consumers are behind, and settles there.

What is measured is how long a message that comes in now will wait: messages behind ÷ messages
handled a second (Little's law). The age of the oldest message would be no measure to steer by: it
tells of what was admitted that long ago, and a controller that hears so late swings.

The law is proportional control of a level, as tanks between two plants are kept ("averaging level
control", Shinskey): the queue is the integrator, so that a proportional law needs no integral of
its own; nothing can wind up, and the queue itself absorbs what is short. It rests wherever as much
is admitted as is handled. It is geometric: each second of waiting takes the same factor off the
share. So the loop's gain, ln(1/least) ÷ (full - start), is the same whatever the overload, and the
range alone decides whether it swings: an integrator with dead time doesn't while gain x dead time
is below 1/e (Ziegler and Nichols, Astrom and Hagglund). The dead time here is about a report and a
half.

A step at most halves or doubles the share, and is taken at most once a report interval: so that
consumers that are silent for one interval don't stop a flow, and that a fleet isn't woken by noise.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from sidecar.core.lag import Backlog
from sidecar.core.reports import MAX_COUNT, PRODUCER, Tally
from sidecar.core.signal_settings import Shed
from sidecar.core.types import Evidence, Policy

LEAST_GAP_S = 3.0
"""Between two steps, however often reports come: every sidecar hears of each."""
DEADBAND = 0.1
"""A share that would change by less than this part of itself stays: noise writes nothing."""
STEP = 2.0
"""One step at most multiplies or divides the share by this."""


@dataclass(frozen=True, slots=True)
class Wait:
    """How long a message that comes in now will wait for its turn."""

    seconds: float
    """Infinite while nothing is handled."""
    messages: float
    """Behind now."""
    rate: float | None
    """Messages handled a second; None: nobody says."""

    @property
    def evidence(self) -> Evidence:
        """The numbers behind a step."""
        seconds = None if math.isinf(self.seconds) else round(self.seconds, 1)
        rate = None if self.rate is None else round(self.rate, 3)
        return {"wait": seconds, "backlog": round(self.messages), "rate": rate}


def waiting(backlog: Backlog | None, tally: Tally | None, shed: Shed) -> Wait | None:
    """The wait by what is known now; None: it isn't.

    Args:
        backlog: what Kafka says; None where it isn't asked, or doesn't answer: then the fresh
            reports' own `lag` is summed up.
        tally: the fresh reports.
    """
    consumers = [report for _, report in tally.counting if report.role != PRODUCER] if tally else []
    messages = backlog.messages if backlog is not None else None
    if messages is None:
        told = [report.lag for report in consumers if report.lag is not None]
        messages = sum(told) if told else None
    if messages is None:
        return None
    rate = min(sum(report.rate_ok for report in consumers), MAX_COUNT) if consumers else None
    if messages < shed.minimum:
        return Wait(0.0, messages, rate)
    if rate:
        return Wait(messages / rate, messages, rate)
    if backlog is not None and backlog.seconds is not None:
        return Wait(backlog.seconds, messages, rate)
    return None if rate is None else Wait(math.inf, messages, rate)


def said(wait: Wait) -> str:
    """A wait in words."""
    behind = f"{wait.messages:.0f} messages are behind"
    if math.isinf(wait.seconds):
        return f"{behind}, and none is handled"
    rate = "" if wait.rate is None else f" at {wait.rate:.0f} a second"
    return f"{behind}, a wait of {wait.seconds:.0f} s{rate}"


def aim(wait: Wait, shed: Shed) -> float:
    """The share that goes with a wait: 1 up to `start`, `least` from `full` on."""
    way = (wait.seconds - shed.start_s) / (shed.full_s - shed.start_s)
    return float(shed.least ** min(1.0, max(0.0, way)))


def next_share(ratio: float, wait: Wait | None, shed: Shed | None) -> float | None:
    """The share after the next step; None: it stays. Without a known wait it stays.

    Args:
        shed: None: nothing is shed any more, as somebody has changed the configuration.
    """
    if shed is not None and wait is None:
        return None
    aimed = 1.0 if shed is None or wait is None else aim(wait, shed)
    least = shed.least if shed is not None else 1.0
    base = max(ratio, min(least, 0.01))  # whatever a record says, there is a way back
    stepped = share(min(max(aimed, base / STEP), base * STEP, 1.0))
    at_an_end = stepped in {1.0, share(least)}
    if stepped == ratio or (not at_an_end and abs(stepped - ratio) < DEADBAND * ratio):
        return None
    return stepped


def share(ratio: float) -> float:
    """A share as it is written."""
    return round(ratio, 6)


def gap(policy: Policy) -> float:
    """Seconds between two steps: one report of everybody comes in between."""
    return max(policy.report_interval_s, LEAST_GAP_S)
