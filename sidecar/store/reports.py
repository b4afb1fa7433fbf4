"""The report format: the source system's three fields are enough, the rest is optional."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from sidecar.core.types import BadReport, Report
from sidecar.core.wire import plain, rfc3339
from sidecar.store.fields import UNDECODABLE, Amount, fault_text, field_time, reread


class _Report(Struct):
    timestamp: str
    rate_ok: Amount
    count_fail: Amount
    count_ok: Amount | None = None
    interval: Amount | None = None
    lag: Amount | None = None
    in_flight: Amount | None = None
    latency_ms: Amount | None = None
    role: Annotated[str, Meta(max_length=64)] | None = None
    window: Amount | None = None


_REPORT = msgspec.json.Decoder(_Report)


def decode_report(value: bytes) -> Report | BadReport:
    """A report, or which field is wrong and how. Unknown fields are no fault."""
    try:
        report = _REPORT.decode(value)
        return Report(
            timestamp_at=field_time("timestamp", {"timestamp": report.timestamp}),
            rate_ok=report.rate_ok,
            count_fail=report.count_fail,
            count_ok=report.count_ok,
            interval_s=report.interval,
            lag=report.lag,
            in_flight=report.in_flight,
            latency_ms=report.latency_ms,
            role=report.role,
            window=report.window,
        )
    except msgspec.ValidationError as fault:
        return BadReport(fault_text(fault, reread(value)))
    except UNDECODABLE as fault:
        return BadReport(fault_text(fault, None))


def encode_report(report: Report) -> bytes:
    """A report as it is written: microseconds in its time make every write a change of value.

    Raises ValueError on a NaN or infinity.
    """
    fields: dict[str, object] = {
        "timestamp": rfc3339(report.timestamp_at),
        "rate_ok": plain(report.rate_ok),
        "count_fail": plain(report.count_fail),
    }
    optional = {
        "count_ok": report.count_ok,
        "interval": report.interval_s,
        "lag": report.lag,
        "in_flight": report.in_flight,
        "latency_ms": report.latency_ms,
        "window": report.window,
    }
    fields.update((name, plain(value)) for name, value in optional.items() if value is not None)
    if report.role is not None:
        fields["role"] = report.role
    return msgspec.json.encode(fields)
