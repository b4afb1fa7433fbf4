"""The half-open share, spread over this process's own calls without a lock."""

from __future__ import annotations

import itertools

UNIT = 1_000_000
"""Ratios are counted in millionths, as integers: a float would drift over many calls."""


class Share:
    """Admits exactly its share of the calls, evenly: the integer error diffusion of the sidecar.

    Call number n is admitted when `phase + n x ratio` passes a whole unit. The number comes from
    `itertools.count`, which the interpreter advances in one step: threads need no lock, and
    however many call at once the count is exact.

    Args:
        millionths: the ratio.
        phase: where the sum starts, below UNIT; each process its own, so that the first calls of
            many processes don't all fall the same way.
    """

    __slots__ = ("_next", "_phase", "millionths")

    def __init__(self, millionths: int, phase: int) -> None:
        self.millionths = millionths
        self._phase = phase % UNIT
        self._next = itertools.count(1).__next__

    def spend(self) -> bool:
        """Decide one call."""
        return (self._phase + self._next() * self.millionths) % UNIT < self.millionths

    def at(self, millionths: int) -> Share:
        """The share to go on with at another ratio, taken up where this one stands."""
        calls = self._next() - 1
        return Share(millionths, self._phase + calls * self.millionths)
