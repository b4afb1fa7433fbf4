"""What becomes of an event whose handler failed. Pure: draws and counts are arguments."""

from __future__ import annotations

from dataclasses import dataclass

PERMANENT = "permanent"
"""Reason of a dead letter: no attempt could ever succeed."""
EXHAUSTED = "exhausted"
"""Reason of a dead letter: every attempt it was entitled to failed."""


@dataclass(frozen=True, slots=True)
class Again:
    """Try again in place; its key waits meanwhile, nothing else does."""

    pause_s: float


@dataclass(frozen=True, slots=True)
class Later:
    """Move it to the retry topic of this tier; whatever is behind it goes on."""

    tier: int
    delay_s: float


@dataclass(frozen=True, slots=True)
class Dead:
    """Move it to the dead-letter topic."""

    reason: str


Step = Again | Later | Dead


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often, and when, a failed event is tried again.

    An event visits its own topic, then each retry topic. On each visit it is tried once, and
    `in_place` times more with pauses of up to `first_s`, twice that, and so on to `most_s` (full
    jitter: any pause between nothing and that is as likely).

    Args:
        in_place: retries without moving the event, on each visit.
        first_s: the ceiling of the first pause.
        most_s: the ceiling of any pause.
        delays_s: one retry topic each, with how long an event waits there; must grow. Empty: no
            retry topics.

    Raises:
        ValueError: they make no sense together.
    """

    in_place: int = 2
    first_s: float = 0.1
    most_s: float = 2.0
    delays_s: tuple[float, ...] = (10.0, 60.0, 600.0)

    def __post_init__(self) -> None:
        if self.in_place < 0:
            raise ValueError("in_place is negative")
        if not 0 < self.first_s <= self.most_s:
            raise ValueError("0 < first_s <= most_s does not hold")
        if list(self.delays_s) != sorted(set(self.delays_s)) or any(d <= 0 for d in self.delays_s):
            raise ValueError("delays_s must be more than 0 and grow")

    @property
    def tiers(self) -> int:
        """The number of retry topics."""
        return len(self.delays_s)

    def topics(self, topic: str) -> list[str]:
        """The retry topics of `topic`, tier by tier."""
        return [retry_topic(topic, tier) for tier in range(1, self.tiers + 1)]

    def after_transient(self, *, failed: int, tier: int, draw: float) -> Step:
        """After a failure that may pass.

        Args:
            failed: failures on this visit, this one included.
            tier: 0 for the event's own topic, n for retry topic n.
            draw: in [0, 1).
        """
        if failed <= self.in_place:
            return Again(draw * self.ceiling_s(failed))
        if tier < self.tiers:
            return Later(tier + 1, self.delays_s[tier])
        return Dead(EXHAUSTED)

    def ceiling_s(self, failed: int) -> float:
        """The longest pause after that many failures on a visit."""
        return backoff_ceiling_s(failed, self.first_s, self.most_s)


def backoff_ceiling_s(failed: int, first_s: float, most_s: float) -> float:
    """`first_s` doubled with each failure after the first, and never more than `most_s`."""
    return min(most_s, first_s * 2.0 ** min(max(failed, 1) - 1, 60))


def retry_topic(topic: str, tier: int) -> str:
    """Where events of `topic` wait for their next visit."""
    return f"{topic}.retry.{tier}"


def dead_topic(topic: str) -> str:
    """Where events of `topic` end that can't be handled."""
    return f"{topic}.dlq"
