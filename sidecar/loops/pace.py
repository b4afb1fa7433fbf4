"""How fast a blocking query may be asked again."""

from __future__ import annotations

MIN_GAP_S = 0.02
BREATH_S = 0.01
"""Before asking again at all: after a change, whoever waits for the answer goes first."""
MAX_GAP_S = 1.0
"""Reached by a query that keeps coming back at once with no news, such as one that the token may
not read: it would otherwise spin."""


class Pace:
    """The pause after each read: short after news, doubling while a server only says the same."""

    def __init__(self) -> None:
        self._gap_s = MIN_GAP_S

    def after(self, *, news: bool, waited_s: float) -> float:
        """Seconds to pause after a read that took `waited_s`; its own duration counts."""
        if news or waited_s > MAX_GAP_S:
            self._gap_s = MIN_GAP_S
        else:
            self._gap_s = min(MAX_GAP_S, self._gap_s * 2)
        return max(BREATH_S, self._gap_s - waited_s)
