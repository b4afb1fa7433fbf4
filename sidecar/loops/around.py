"""What every loop of a sidecar works with."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from sidecar.core.board import Board
from sidecar.core.ports import Store, Telemetry, Wire

boottime: Callable[[], float] = partial(time.clock_gettime, time.CLOCK_BOOTTIME)
"""Monotonic seconds that go on while the machine is suspended."""


@dataclass(frozen=True, slots=True)
class Clock:
    """The two clocks of a machine. Tests hand in another with the same two methods."""

    def now(self) -> float:
        """See `boottime`."""
        return boottime()

    def wall_at(self) -> float:
        """Epoch seconds: for people, for legacy readers and for first guesses."""
        return time.time()


@dataclass(frozen=True, slots=True, kw_only=True)
class Around:
    """The surroundings that the loops share.

    Args:
        draw: uniform random numbers in [0, 1), for jitter and elections.
        changed: called after the board was changed.
    """

    instance: str
    store: Store
    wire: Wire
    board: Board
    telemetry: Telemetry
    clock: Clock
    draw: Callable[[], float]
    changed: Callable[[], None]
