"""Exact fractional admission: of n calls at ratio r, n x r are admitted, evenly spread."""

from __future__ import annotations

import hashlib

UNIT = 1_000_000
"""Ratios are counted in millionths, as integers: a float would drift over many calls."""


def hashed_share(*names: str) -> float:
    """A number in [0, 1) that is fixed for these names and uniform over many."""
    digest = hashlib.blake2b("\0".join(names).encode(), digest_size=8).digest()
    return (int.from_bytes(digest) >> 11) / 2**53  # a float holds 53 bits: never rounded up to 1


class Spread:
    """An error-diffusion accumulator (Bresenham's line): admits whenever the sum passes one.

    It starts at a phase hashed from instance and breaker, so that the first calls of a thousand
    sidecars don't all fall the same way. One per breaker, kept through every change of ratio.
    """

    __slots__ = ("ahead",)

    def __init__(self, instance: str, breaker: str) -> None:
        self.ahead = int(hashed_share(instance, breaker) * UNIT)
        """How far it is on the way to the next admission, in millionths below `UNIT`."""

    def spend(self, ratio_millionths: int) -> bool:
        """Decide one call and take it into account.

        `http.connection` does these three lines itself: a call would be a tenth of its work.
        """
        self.ahead += ratio_millionths
        if self.ahead >= UNIT:
            self.ahead -= UNIT
            return True
        return False

    def peek(self, ratio_millionths: int) -> bool:
        """What the next call would get."""
        return self.ahead + ratio_millionths >= UNIT

    @property
    def position(self) -> float:
        """How far it is on the way to the next admission, from 0 to 1."""
        return self.ahead / UNIT

    def until(self, ratio_millionths: int) -> int | None:
        """The number of the next call that is admitted, the next one being 1; None: never."""
        if ratio_millionths <= 0:
            return None
        return max(1, -(-(UNIT - self.ahead) // ratio_millionths))
