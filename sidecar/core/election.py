"""Who tries for a free lock, and when: thousands must not stampede, and three must not dawdle.

A free lock starts a contest of short rounds. In each a sidecar tries with a probability that
begins at 1/64 and doubles; the first that tries wins within milliseconds, everybody's watch shows
the lock as held, and the rest never create a session.
"""

from __future__ import annotations

FIRST_PROBABILITY = 1 / 64
ROUND_S = 0.08
ROUNDS = 7
"""After this many rounds the probability is 1, so a contest lasts 0.7 s at most."""


def probability(round_no: int) -> float:
    """The chance of trying in a round, counted from 0."""
    return min(1.0, FIRST_PROBABILITY * 2.0**round_no)


def starts_after(released: bool, lock_delay_s: float, first_ever: bool) -> float:
    """Seconds from seeing the lock free to the contest's first round.

    A released lock (or one never held) is free at once. Any other was lost with its session,
    and the server refuses everybody until the lock-delay is over.
    """
    return 0.0 if released or first_ever else lock_delay_s
