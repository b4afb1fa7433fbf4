"""One free lock, as a sidecar that stands for it sees it: when to try, and when to try again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sidecar.core.election import ROUND_S, probability

RETRY_S = 0.25
"""Between attempts at a free lock that is refused: no watch tells the end of a lock-delay."""
MAX_PAUSE_S = 5.0


@dataclass(slots=True)
class Contest:
    """Its times are monotonic, and `draw` is as in `Around`."""

    next: float
    round: int = 0
    failures: int = 0

    def turn(self, now: float, draw: Callable[[], float], *, alone: bool) -> bool:
        """Whether to try now.

        Args:
            alone: nobody else can have the lock, so that nothing is left to chance.
        """
        if now < self.next:
            return False
        if alone or draw() < probability(self.round):
            return True
        self.round += 1
        self.next = now + ROUND_S * (0.75 + draw() / 2)
        return False

    def refused(self, now: float, draw: Callable[[], float]) -> None:
        """Somebody has it, or its lock-delay isn't over."""
        self.next = now + RETRY_S * (0.5 + draw())

    def failed(self, now: float, draw: Callable[[], float]) -> None:
        """There was no answer, or no right to try: longer each time."""
        self.failures += 1
        pause_s = min(MAX_PAUSE_S, RETRY_S * 2.0 ** min(self.failures, 8))
        self.next = now + pause_s * (0.5 + draw())
