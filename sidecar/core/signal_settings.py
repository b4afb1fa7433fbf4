"""What an operator asks of each signal. Durations in seconds; a signal that is None is off."""

from __future__ import annotations

from dataclasses import dataclass, field, fields


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """What every signal can be asked for before it counts as unhealthy."""

    for_s: float = 0.0
    """It must have been so for this long; while half open it counts at once."""
    quorum: int = 1
    """At least so many reporters must show it, so that one alone can't stop a fleet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureRatio(Hold):
    """Failed of all messages in a window."""

    threshold: float = 0.5
    minimum: int = 20
    """With fewer messages in the window, nothing is known."""
    window_s: float = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Slow(Hold):
    """How long consumers take for a message."""

    max_latency_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Stalled(Hold):
    """Work is there, and nothing is handled."""

    after_s: float = 30.0
    always_busy: bool = False
    """The flow never rests, so that no throughput is trouble without any further evidence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Missing(Hold):
    """Consumers that should report and don't. At least one of the two bounds is set."""

    min_consumers: int | None = None
    ratio: float | None = None
    window_s: float = 300.0
    """Who went silent longer ago is not missed any more: others may have taken its place."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Local:
    """When a sidecar holds back its own callers alone, on what its own producers say of Kafka."""

    ratio: float = 0.5
    minimum: int = 20
    max_outstanding: int | None = None
    window_s: float = 15.0
    """How long a producer's word counts; the gate never outlives the last of them."""
    shut_s: float = 5.0
    trial: float = 0.05
    """The share admitted to find out whether the path has healed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery(Hold):
    """What producers say of Kafka."""

    ratio: float = 0.5
    minimum: int = 20
    max_outstanding: int | None = None
    local: Local | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Lag(Hold):
    """What Kafka says of the consumer group. Its quorum counts partitions."""

    max_messages: int | None = None
    max_seconds: float | None = None
    window_s: float = 60.0
    """How far back offsets are compared; longer than the pauses between two commits."""
    floor: int = 100
    """Messages of a partition's lag, and of its growth, that are noise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe(Hold):
    """Canaries through every broker. Its quorum counts brokers."""

    failures: int = 3
    """So many in a row, through one broker."""
    max_latency_s: float | None = None
    interval_s: float = 10.0
    """Between two rounds; a canary must be back before the next one is due."""
    topic: str = "breaker-sidecar-probe"
    create: bool = True
    """Make the topic, and a partition for each new broker, where that is missing."""


_APART = ("failures", "lag", "probe")
"""Signals that look at no single report."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SignalSettings:
    """One breaker's signals; `failures` is always on."""

    failures: Hold = field(default_factory=Hold)
    failure_ratio: FailureRatio | None = None
    slow: Slow | None = None
    stalled: Stalled | None = None
    missing: Missing | None = None
    delivery: Delivery | None = None
    lag: Lag | None = None
    probe: Probe | None = None

    @property
    def plain(self) -> bool:
        """Nothing but `failures` as it is by default: sums over the reports are enough."""
        others = (getattr(self, f.name) for f in fields(self) if f.name not in _APART)
        return self.failures == Hold() and all(other is None for other in others)


@dataclass(frozen=True, slots=True, kw_only=True)
class AutoThreshold:
    """`failure_threshold: auto`: how the normal is learned, and the bounds of the threshold."""

    floor: int = 10
    """The threshold is never less."""
    cap: int = 1000
    """The threshold is never more, whatever was learned."""
    history_s: float = 3600.0
    """How far back the normal reaches."""
    deviations: int = 6
    """By how many standard deviations of the normal it must be exceeded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shed:
    """How a closed breaker admits less while its consumers are behind."""

    start_s: float = 10.0
    """Up to this wait everything is admitted."""
    full_s: float = 60.0
    """From this wait on as little as `least`."""
    least: float = 0.05
    minimum: int = 100
    """Fewer messages behind are noise."""
