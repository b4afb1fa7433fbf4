"""What every part of the publish needs of its surroundings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sidecar.core.pacing import Pace
from sidecar.core.ports import Telemetry
from sidecar.core.publishing import Carrier, PublishPolicy
from sidecar.core.spooling import Spool
from sidecar.publish.deadletters import DeadLetters
from sidecar.publish.pair import Pair


@dataclass(slots=True, kw_only=True)
class Around:
    """Shared by all topics; `policy` is replaced by a reload."""

    policy: PublishPolicy
    carrier: Carrier
    spool: Spool | None
    """None: no topic's strategy needs one."""
    letters: DeadLetters | None
    pace: Pace
    telemetry: Telemetry
    now: Callable[[], float]
    """Monotonic seconds."""
    wall: Callable[[], float]
    """Epoch seconds."""
    draw: Callable[[], float]
    """A random number from 0 to 1, for jitter."""
    pair: Pair | None = None
    """Two clusters, for topics whose records go to both; None: there is one cluster only."""
