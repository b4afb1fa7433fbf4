"""The limits of a runner."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much at once, and how long at most.

    Args:
        concurrency: handlers at work at the same time; never two of one key.
        in_flight: events that were read and are not done with, over all partitions.
        per_partition: the same for one partition, counted from its first event that is not done;
            so many may come again after a crash. Beyond it the partition is paused.
        handler_s: one attempt. A handler that takes longer is cancelled, which counts as a failure
            that may pass.
        drain_s: how long handlers may go on when partitions are revoked, or on a stop, before they
            are cancelled. At least `handler_s` makes sure that none is.
        commit_every_s: between two commits.
        kafka_s: one call of Kafka.
        brake_after: so many failures in a row, of any events, hold handlers back.
        brake_first_s: the ceiling of the first pause then; doubled with each trial that fails.
        brake_most_s: the ceiling of any.

    Raises:
        ValueError: they make no sense together.
    """

    concurrency: int = 16
    in_flight: int = 2000
    per_partition: int = 2000
    handler_s: float = 30.0
    drain_s: float = 30.0
    commit_every_s: float = 1.0
    kafka_s: float = 10.0
    brake_after: int = 20
    brake_first_s: float = 0.5
    brake_most_s: float = 5.0

    def __post_init__(self) -> None:
        for name in ("concurrency", "in_flight", "per_partition", "brake_after"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1")
        for name in ("handler_s", "drain_s", "commit_every_s", "kafka_s", "brake_first_s"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be more than 0")
        if self.concurrency > self.in_flight:
            raise ValueError("concurrency is more than in_flight: there is never so much to do")
        if self.brake_most_s < self.brake_first_s:
            raise ValueError("brake_most_s is less than brake_first_s")
