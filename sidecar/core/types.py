"""The words of the domain as values: states, verdicts, the state record and its odd cousins."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

from sidecar.core.signal_settings import AutoThreshold, Lag, Local, Shed, SignalSettings

SCHEMA = 1
"""The version of the state record that this code writes. A higher one is followed, not written."""

Scalar = str | int | float | bool | None
Evidence = Mapping[str, Scalar]
"""Numbers behind a decision, JSON scalars by name. Two names have meaning for the rules:
`known` (fresh reporters at the trip) and `index` (reports at or below it don't count any more)."""


class State(enum.StrEnum):
    """A breaker's state. CLOSED admits all, OPEN rejects all, HALF_OPEN admits a share."""

    CLOSED = "CLOSED"
    OPEN = "OPEN"
    HALF_OPEN = "HALF_OPEN"


class Verdict(enum.StrEnum):
    """What the evidence says. Unknown is never healthy."""

    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"
    UNKNOWN = "unknown"


class Reason(enum.StrEnum):
    """Why a record or a decision is as it is: the closed list of the documentation.

    The name of a signal is a reason too.
    """

    # Why a record was written.
    CREATED = "created"
    """No record was there: a first start, or somebody deleted the key."""
    FAILURES = "failures"
    """The signal `failures` was unhealthy."""
    FAILURE_RATIO = "failure_ratio"
    """The signal `failure_ratio` was."""
    SLOW = "slow"
    """The signal `slow` was."""
    STALLED = "stalled"
    """The signal `stalled` was."""
    MISSING = "missing"
    """The signal `missing` was."""
    DELIVERY = "delivery"
    """The signal `delivery` was."""
    LAG = "lag"
    """The signal `lag` was."""
    PROBE = "probe"
    """The signal `probe` was."""
    OPEN_ELAPSED = "open_elapsed"
    """The open time was over."""
    RECOVERED = "recovered"
    """The ramp was walked to its end on healthy evidence."""
    SHED = "shed"
    """Closed, and the consumers are behind: it admits a share until they have caught up."""
    FOREIGN = "foreign"
    """Somebody else wrote the state and it was adopted."""
    REASSERTED = "reasserted"
    """Somebody else wrote a looser state and it was overwritten."""
    REPAIRED = "repaired"
    """The record could not be read and was replaced."""
    # Why a decision differs from the record.
    NO_STATE = "no_state"
    """No state has been seen yet."""
    STORE_LOST = "store_lost"
    """The store has not answered for `max_stale`."""
    NO_EVALUATOR = "no_evaluator"
    """Nobody has held the breaker's lock for `max_stale`."""
    OVERDUE = "overdue"
    """OPEN is past its time by `max_stale`, and nobody moved it."""
    SHADOW = "shadow"
    """The breaker only watches: everything is admitted."""
    FORCED = "forced"
    """Somebody forced it: an override is in force."""
    DELIVERY_LOCAL = "delivery_local"
    """This sidecar's own producers can't deliver: it holds its own callers back, and only these."""
    FORGOTTEN = "forgotten"
    """Somebody has it forgotten: its keys are gone, and everything is admitted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """The state record as the store holds it. Wall times are for people and for legacy readers."""

    current_state: State
    """What is in force (what a legacy reader obeys)."""
    last_changed_at: float
    seq: int
    epoch: int
    automaton: State
    """The state underneath what is in force; they differ in shadow mode and by an override."""
    reason: str
    detail: str
    evidence: Evidence = field(default_factory=dict)
    open_count: int = 0
    """Openings in a row; doubles the open time."""
    open_for_s: float = 0.0
    """How long OPEN lasts, counted by each machine from when it saw the record."""
    retry_at: float | None = None
    admit_ratio: float
    """The share in force."""
    automaton_ratio: float
    """The share of the state underneath; differs from `admit_ratio` as the states do."""
    override: str | None = None
    """The mode of the override that was in force when this was written."""
    forced_at: float | None = None
    """`last_changed` as a legacy reader shall see it while an override is in force; the
    automaton's own stays in `last_changed_at`."""
    policy: str
    evaluator: str
    schema: int = SCHEMA

    @property
    def unforced(self) -> tuple[State, float]:
        """State and share without the override that it was written under."""
        if self.override is None:
            return self.current_state, self.admit_ratio
        return self.automaton, self.automaton_ratio


@dataclass(frozen=True, slots=True)
class Foreign:
    """A record without `seq`, as the source system writes it."""

    state: State
    last_changed_at: float | None


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A record that can't be understood; `fault` says why, without quoting much of it."""

    fault: str


Stored = Record | Foreign | Unreadable
"""What a state key can hold; a missing key is `None`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Transition:
    """One entry of a breaker's history."""

    seq: int
    at: float
    from_state: State | None
    to_state: State
    reason: str
    detail: str
    evidence: Evidence
    epoch: int
    evaluator: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LockHolder:
    """The value of a lock key."""

    instance: str
    address: str
    since_at: float
    released: bool = False
    """True in the value left behind by a graceful release: no lock-delay is to be waited for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What one instance says of its last interval."""

    timestamp_at: float
    rate_ok: float
    count_fail: float
    count_ok: float | None = None
    interval_s: float | None = None
    lag: float | None = None
    in_flight: float | None = None
    latency_ms: float | None = None
    role: str | None = None
    window: float | None = None
    """Which of its writer's windows the counts are the running sums of, where they are such."""


@dataclass(frozen=True, slots=True)
class BadReport:
    """A report that can't be used; `fault` names the field and the value."""

    fault: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """One breaker's configuration as the rules need it."""

    name: str
    shadow: bool = False
    evaluation_interval_s: float = 5.0
    failure_threshold: int = 20
    report_interval_s: float = 5.0
    report_gc_s: float = 3600.0
    open_duration_s: float = 30.0
    max_open_duration_s: float = 300.0
    initial_ratio: float = 0.05
    ramp_s: float = 30.0
    half_open_max_s: float = 120.0
    unknown_is_healthy: bool = False
    reassert: bool = False
    deny_status: int = 503
    fingerprint: str = ""
    """Hash of the breaker's configuration, the record's `policy`."""
    consul_key_prefix: str = "service-metrics/kafka-consumer"
    """As configured; `reports_prefix` is where reports lie."""
    reports_apart: bool = False
    """No other breaker's reports count, although it has the same prefix."""
    signals: SignalSettings = field(default_factory=SignalSettings)
    topic: str | None = None
    group: str | None = None
    """The flow in Kafka: set where a signal reads it."""
    auto: AutoThreshold | None = None
    """The threshold is learned; `failure_threshold` holds until enough is known. None: it isn't."""

    shed: Shed | None = None
    """A closed breaker admits less while consumers are behind. None: it admits all."""

    @property
    def reports_prefix(self) -> str:
        """Where its reports lie, one key an instance."""
        # A configured prefix has no @.
        apart = f"@{self.name}" if self.reports_apart else ""
        return f"{self.consul_key_prefix}{apart}"

    @property
    def plain(self) -> bool:
        """Sums over the reports are enough; nothing looks at single ones."""
        return self.signals.plain and self.auto is None and self.shed is None

    @property
    def lag_read(self) -> Lag | None:
        """How the group's lag is read from Kafka: the signal's way, or for `shed` alone; None: it
        isn't wanted, or there is no flow to ask for."""
        if self.topic is None or self.group is None:
            return None
        return self.signals.lag or (Lag() if self.shed is not None else None)

    @property
    def fresh_for_s(self) -> float:
        """A report whose value has not changed for this long is stale (three report intervals)."""
        return 3 * self.report_interval_s

    @property
    def local(self) -> Local | None:
        """When this sidecar holds its own callers back; None: never."""
        return self.signals.delivery.local if self.signals.delivery is not None else None
