"""Each breaker's configuration in the words of the rules."""

from __future__ import annotations

from typing import TypeVar

import msgspec

from sidecar.config import model
from sidecar.config.model import Breaker, Config, policy_hash
from sidecar.core.naming import DEFAULT_NAME
from sidecar.core.signal_settings import (
    AutoThreshold,
    Delivery,
    FailureRatio,
    Hold,
    Lag,
    Local,
    Missing,
    Probe,
    Shed,
    SignalSettings,
    Slow,
    Stalled,
)
from sidecar.core.types import Policy

T = TypeVar("T")


def policies(config: Config) -> list[Policy]:
    """Every breaker's policy, as the rules need it."""
    return [
        _policy(breaker, reports_apart=_reports_apart(breaker, config.store))
        for breaker in config.breakers.values()
    ]


def _reports_apart(breaker: Breaker, store: str) -> bool:
    """Whether it shares its reports with nobody, whatever the prefix.

    In memory they come by a breaker's name. Those that say no prefix don't share the default one:
    who reports for one of them doesn't mean the others. In Consul the keys are as configured.
    """
    unsaid = breaker.consul_key_prefix == Breaker().consul_key_prefix
    return store == "memory" and unsaid and breaker.name != DEFAULT_NAME


def _policy(breaker: Breaker, *, reports_apart: bool) -> Policy:
    threshold, auto = _threshold(breaker)
    return Policy(
        name=breaker.name,
        shadow=breaker.mode == "shadow",
        evaluation_interval_s=breaker.evaluation_interval_s,
        failure_threshold=threshold,
        auto=auto,
        shed=_made(Shed, breaker.shed),
        report_interval_s=breaker.report_interval_s,
        report_gc_s=breaker.report_gc_s,
        open_duration_s=breaker.open_duration_s,
        max_open_duration_s=breaker.max_open_duration_s,
        initial_ratio=breaker.half_open.initial,
        ramp_s=breaker.half_open.ramp_s,
        half_open_max_s=breaker.half_open.max_s,
        unknown_is_healthy=breaker.on_unknown == "healthy",
        reassert=breaker.foreign_writes == "reassert",
        deny_status=breaker.deny_status,
        fingerprint=policy_hash(breaker),
        consul_key_prefix=breaker.consul_key_prefix,
        reports_apart=reports_apart,
        signals=_signals(breaker.signals),
        topic=breaker.topic,
        group=breaker.group,
    )


def _made(kind: type[T], given: msgspec.Struct | None) -> T | None:
    """The same fields by the same names; None stays None."""
    return None if given is None else kind(**msgspec.structs.asdict(given))


def _threshold(breaker: Breaker) -> tuple[int, AutoThreshold | None]:
    """The number of failures, of the beginning where it is learned, and how it is."""
    if breaker.failure_threshold != "auto":
        return breaker.failure_threshold, None
    learned = msgspec.structs.asdict(breaker.auto_threshold)
    return int(learned.pop("initial")), AutoThreshold(**learned)


def _signals(signals: model.Signals) -> SignalSettings:
    return SignalSettings(
        failures=Hold(for_s=signals.failures.for_s, quorum=signals.failures.quorum),
        failure_ratio=_made(FailureRatio, signals.failure_ratio),
        slow=_made(Slow, signals.slow),
        stalled=_made(Stalled, signals.stalled),
        missing=_made(Missing, signals.missing),
        delivery=_delivery(signals.delivery),
        lag=_made(Lag, signals.lag),
        probe=_made(Probe, signals.probe),
    )


def _delivery(given: model.Delivery | None) -> Delivery | None:
    if given is None:
        return None
    local = None if given.local is None else Local(**msgspec.structs.asdict(given.local))
    return Delivery(**{**msgspec.structs.asdict(given), "local": local})
