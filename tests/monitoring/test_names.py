"""What rules and dashboard ask for is in the list of metrics, down to labels and their values."""

from __future__ import annotations

import re

import pytest

from sidecar.telemetry.names import METRICS
from tests.monitoring.promql import SCRAPED, Asked, asked
from tests.monitoring.sources import expressions, panel_queries, rules

BY_PROMETHEUS = {
    "up": frozenset[str](),
    "ALERTS": frozenset({"alertname", "alertstate", "breaker", "severity"}),
}
PROCESS = re.compile(r"process_\w+")
VARIABLE = re.compile(r"\$[a-z]+")


def labels_of(metric: str) -> frozenset[str]:
    """The labels a metric has; fails where there is no such metric."""
    base = re.sub(r"_(bucket|count|sum)$", "", metric)
    for known in METRICS:
        if metric == known and known.kind != "histogram":
            return frozenset(known.labels) | SCRAPED
        if base == known and known.kind == "histogram" and metric != base:
            return frozenset(known.labels) | SCRAPED | {"le"}
    if metric in BY_PROMETHEUS:
        return BY_PROMETHEUS[metric] | SCRAPED
    if PROCESS.fullmatch(metric):
        return SCRAPED
    return asked(rules("record")[metric]["expr"]).grouped


def values_of(metric: str, label: str) -> tuple[str, ...]:
    """All values a label can have; none where they are open."""
    base = re.sub(r"_(bucket|count|sum)$", "", metric)
    return next((m.labels.get(label, ()) for m in METRICS if m in (metric, base)), ())


@pytest.mark.parametrize(("where", "expr"), expressions().items(), ids=list(expressions()))
def test_metrics_labels_and_values_exist(where: str, expr: str) -> None:
    needs = asked(expr)
    assert needs.metrics, where
    everywhere = frozenset[str]().union(*(labels_of(metric) for metric in needs.metrics))
    assert needs.grouped <= everywhere | {"__name__"}
    for metric, label, operator, value in needs.matchers:
        if label == "__name__":
            continue
        assert label in (labels_of(metric) if metric else everywhere), (metric, label)
        possible = values_of(metric, label)
        if possible and not value.startswith("$"):
            written = value.split("|") if operator in {"=~", "!~"} else [value]
            assert set(written) <= set(possible), (metric, label, value)


def test_what_is_taken_apart() -> None:
    """The tool of the test above sees metrics, matchers and groupings, and nothing else."""
    assert asked(
        'max by (fleet, op) (rate(a_total{x="1", y=~"b|c"}[5m] offset 1h)) > bool 0.5'
        ' unless on (job) count(d:e) or {__name__=~"f_(g|h)"} == time()'
    ) == Asked(
        frozenset({"a_total", "d:e", "f_g", "f_h"}),
        (
            ("a_total", "x", "=", "1"),
            ("a_total", "y", "=~", "b|c"),
            ("", "__name__", "=~", "f_(g|h)"),
        ),
        frozenset({"fleet", "op", "job"}),
    )


def test_every_metric_is_looked_at() -> None:
    """A metric that neither an alert nor a panel uses is one that nobody would miss."""
    used = {name for expr in expressions().values() for name in asked(expr).metrics}
    bases = used | {re.sub(r"_bucket$", "", name) for name in used}
    assert [metric for metric in METRICS if metric not in bases] == []


def test_the_guard_counts_what_every_sidecar_exports() -> None:
    """BreakerMetricsMissing knows how many names it looks for, and each of them is everybody's."""
    expr = rules("alert")["BreakerMetricsMissing"]["expr"]
    guarded = {name for name in asked(expr).metrics if name != "up"}
    limit = re.search(r"< (\d+)", expr)
    assert limit is not None
    assert int(limit[1]) == len(guarded)
    assert guarded <= {metric for metric in METRICS if metric.by == "sidecar"}
    # What comes only with a store, an override or an evaluator can't be asked of everybody.
    alone = {"breaker_override", "breaker_local_gate", "breaker_consul_requests_total"}
    rest = {
        metric
        for rule in rules("alert").values()
        for metric in asked(rule["expr"]).metrics
        for known in METRICS
        if metric == known and known.by == "sidecar" and known.kind != "histogram"
    }
    assert rest - alone <= guarded


def test_panels_narrow_down_by_the_variables() -> None:
    """A query without the variables would show everybody's breakers."""
    for where, expr in panel_queries().items():
        recorded = asked(expr).metrics <= {*rules("record"), "ALERTS"}
        assert 'fleet=~"$fleet"' in expr, where
        assert recorded or 'job=~"$job"' in expr, where
        assert set(VARIABLE.findall(expr)) <= {"$job", "$fleet", "$breaker"}, where
