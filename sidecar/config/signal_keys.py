"""The keys of a breaker's signals."""

from sidecar.config import kinds, model
from sidecar.config.kinds import count, duration
from sidecar.config.shapes import (
    COUNT_MAX,
    DAY_S,
    TIMER_LEAST_S,
    Key,
    Section,
    nullable_timer,
    timer,
)

_FOR = timer("for", duration(0.0, DAY_S))
_QUORUM = Key("quorum", count(1, 100_000))
_WINDOW = timer("window", duration(1.0, 3600.0))
_MAX_OUTSTANDING = Key("max_outstanding", count(1, COUNT_MAX), nullable=True)
_MINIMUM = Key("minimum", count(1, COUNT_MAX))
SIGNALS = Section(
    "signals",
    model.Signals,
    (
        Section("failures", model.Failures, (_FOR, _QUORUM)),
        Section(
            "failure_ratio",
            model.FailureRatio,
            (Key("threshold", kinds.RATIO), _MINIMUM, _WINDOW, _FOR, _QUORUM),
            optional=True,
        ),
        Section(
            "slow",
            model.Slow,
            (nullable_timer("max_latency", duration(0.001, 3600.0)), _FOR, _QUORUM),
            optional=True,
        ),
        Section(
            "stalled",
            model.Stalled,
            (
                timer("after", duration(1.0, DAY_S)),
                Key("always_busy", kinds.BOOLEAN),
                _FOR,
                _QUORUM,
            ),
            optional=True,
        ),
        Section(
            "missing",
            model.Missing,
            (
                Key("min_consumers", count(1, 100_000), nullable=True),
                Key("ratio", kinds.RATIO, nullable=True),
                _WINDOW,
                _FOR,
                _QUORUM,
            ),
            optional=True,
        ),
        Section(
            "delivery",
            model.Delivery,
            (
                Key("ratio", kinds.RATIO),
                _MINIMUM,
                _MAX_OUTSTANDING,
                Section(
                    "local",
                    model.Local,
                    (
                        Key("ratio", kinds.RATIO),
                        _MINIMUM,
                        _MAX_OUTSTANDING,
                        _WINDOW,
                        timer("shut", duration(TIMER_LEAST_S, 3600.0)),
                        Key("trial", kinds.RATIO),
                    ),
                    optional=True,
                ),
                _FOR,
                _QUORUM,
            ),
            optional=True,
        ),
        Section(
            "lag",
            model.Lag,
            (
                Key("max_messages", count(1, COUNT_MAX), nullable=True),
                Key("max_seconds", duration(1.0, 30 * DAY_S, bare_s=True), nullable=True),
                _WINDOW,
                Key("floor", count(0, COUNT_MAX)),
                _FOR,
                _QUORUM,
            ),
            optional=True,
        ),
        Section(
            "probe",
            model.Probe,
            (
                Key("failures", count(1, 1000)),
                nullable_timer("max_latency", duration(0.001, 3600.0)),
                timer("interval", duration(0.5, 3600.0)),
                Key("topic", kinds.TOPIC),
                Key("create", kinds.BOOLEAN),
                _FOR,
                _QUORUM,
            ),
            optional=True,
        ),
    ),
)
