"""Every edge between two states, and what may walk it: one literal table.

An edge that isn't in it raises and changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from sidecar.core.types import Reason, State

SIGNALS = frozenset(
    {
        Reason.FAILURES,
        Reason.FAILURE_RATIO,
        Reason.SLOW,
        Reason.STALLED,
        Reason.MISSING,
        Reason.DELIVERY,
        Reason.LAG,
        Reason.PROBE,
    }
)
"""What can trip: each signal's name is the reason."""

TABLE: Mapping[tuple[State, State], frozenset[Reason]] = MappingProxyType(
    {
        (State.CLOSED, State.OPEN): SIGNALS | {Reason.FOREIGN},
        (State.CLOSED, State.HALF_OPEN): frozenset({Reason.FOREIGN}),
        (State.OPEN, State.HALF_OPEN): frozenset({Reason.OPEN_ELAPSED, Reason.FOREIGN}),
        (State.OPEN, State.CLOSED): frozenset({Reason.FOREIGN, Reason.CREATED}),
        (State.HALF_OPEN, State.OPEN): SIGNALS | {Reason.FOREIGN},
        (State.HALF_OPEN, State.CLOSED): frozenset(
            {Reason.RECOVERED, Reason.FOREIGN, Reason.CREATED}
        ),
    }
)
"""Every edge and the reasons that may walk it. The diagram in the documentation is made of this."""
