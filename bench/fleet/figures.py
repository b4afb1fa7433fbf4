"""What is measured of a fleet, and how much."""

from __future__ import annotations

from dataclasses import dataclass

from bench.fleet.worker import Totals


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How much is measured. Sizes ascend: a fleet grows."""

    sizes: tuple[int, ...] = (100, 300, 1000)
    trips: int = 5
    page_trips: int = 3
    pages: tuple[int, ...] = (1, 50, 200)
    """Breakers under one prefix …"""
    page_followers: int = 100
    """… and how many read them."""
    pollers: int = 1000
    reporters: int = 100
    interval_s: float = 5.0
    """The source system's evaluation_interval: its default."""
    max_stale_s: float = 30.0
    """The sidecar's default; it decides how long a poll waits."""
    processes: int = 4


QUICK = Plan(
    sizes=(20, 80),
    trips=2,
    page_trips=1,
    pages=(1, 20),
    page_followers=20,
    pollers=80,
    reporters=20,
    interval_s=1.0,
    max_stale_s=8.0,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rest:
    """A while in which nothing changed."""

    followers: int
    seconds: float
    did: Totals
    consul_cpu_s: float
    sessions: int
    evaluators: int
    """Sidecars that hold a lock."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trip:
    """One transition, begun by the report that reaches the threshold."""

    followers: int
    breakers: int
    first_s: float
    """From sending the report until the first knows …"""
    last_s: float
    """… and until all do."""
    writes: int
    """State records written for it."""
    did: Totals
    consul_cpu_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Handover:
    """The evaluator stops in good order, and all followers may stand for its lock."""

    followers: int
    seconds: float
    """From SIGTERM until one of them holds it."""
    most_sessions: int
    """Held at one moment meanwhile, the old evaluator's included."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Everything."""

    plan: Plan
    rests: tuple[Rest, ...]
    trips: tuple[Trip, ...]
    handover: Handover
    pages: tuple[Trip, ...]
    polled: Rest
    polled_trip: Trip
    consul_rss_mb: tuple[tuple[int, float], ...]
    """With so many followers."""
