"""What callers get and why: the rows that on-call looks at first."""

from __future__ import annotations

from tools.dashboard.model import (
    BLUE,
    GREEN,
    GREY,
    RED,
    YELLOW,
    Annotation,
    Panel,
    Query,
    Row,
)

STATES = {
    0: ("CLOSED", GREEN),
    1: ("HALF_OPEN", YELLOW),
    2: ("OPEN", RED),
    3: ("OPEN and HALF_OPEN", RED),
}
VERDICTS = {0: ("healthy", GREEN), 1: ("unknown", GREY), 2: ("unhealthy", RED)}
NONE_IS_GOOD: tuple[tuple[float | None, str], ...] = ((None, GREEN), (1, RED))
ONE_IS_GOOD: tuple[tuple[float | None, str], ...] = ((None, RED), (1, GREEN), (2, RED))

ANNOTATIONS = (
    Annotation(
        "Opened",
        "sum by (fleet, breaker, from, reason)"
        ' (increase(breaker_transitions_total{%B, to="OPEN"}[1m])) > 0',
        "{{breaker}}: {{from}} → OPEN ({{reason}})",
        RED,
    ),
    Annotation(
        "Other transitions",
        "sum by (fleet, breaker, from, to, reason)"
        ' (increase(breaker_transitions_total{%B, to!="OPEN"}[1m])) > 0',
        "{{breaker}}: {{from}} → {{to}} ({{reason}})",
        BLUE,
    ),
    Annotation(
        "Forced",
        "max by (fleet, breaker, mode) (breaker_override{%B})",
        "{{breaker}}: forced {{mode}}",
        YELLOW,
    ),
)

ROWS: tuple[Row, ...] = (
    (
        "Now",
        (
            Panel(
                "State",
                "What is in force, by breaker: the strictest that any sidecar answers by.",
                (
                    Query(
                        'max by (fleet, breaker) (breaker_state{%B, state="HALF_OPEN"})'
                        ' + 2 * max by (fleet, breaker) (breaker_state{%B, state="OPEN"})',
                        "{{fleet}} {{breaker}}",
                    ),
                ),
                kind="state-timeline",
                mapped=STATES,
                width=16,
            ),
            Panel(
                "Alerts",
                "What Prometheus says of the sidecars right now. Empty is good.",
                (
                    Query(
                        'ALERTS{alertname=~"Breaker.+", alertstate="firing", %F}',
                        "",
                    ),
                ),
                kind="table",
            ),
            Panel(
                "Sidecars",
                "How many answer the scrape.",
                (Query("count by (fleet) (breaker_build_info{%S})", "{{fleet}}"),),
                kind="stat",
                width=6,
            ),
            Panel(
                "Sidecars that don't answer",
                "Targets that Prometheus knows and can't scrape.",
                (Query("sum by (fleet) (up{%S} == bool 0)", "{{fleet}}"),),
                kind="stat",
                steps=NONE_IS_GOOD,
                width=6,
            ),
            Panel(
                "Evaluators",
                "Sidecars that hold a breaker's lock: one each. 0: nobody moves it.",
                (
                    Query(
                        "sum by (fleet, breaker) (breaker_evaluator{%B})", "{{fleet}} {{breaker}}"
                    ),
                ),
                kind="stat",
                steps=ONE_IS_GOOD,
                width=6,
            ),
            Panel(
                "Forced",
                "Overrides in force, by breaker and mode. Empty is good.",
                (
                    Query(
                        "max by (fleet, breaker, mode) (breaker_override{%B})",
                        "{{fleet}} {{breaker}}: {{mode}}",
                    ),
                ),
                kind="stat",
                steps=NONE_IS_GOOD,
                width=6,
            ),
        ),
    ),
    (
        "What callers get",
        (
            Panel(
                "Decisions",
                "Calls a second, admitted and rejected.",
                (
                    Query(
                        "sum by (fleet, breaker, decision)"
                        " (rate(breaker_decisions_total{%B}[$__rate_interval]))",
                        "{{fleet}} {{breaker}} {{decision}}",
                    ),
                ),
                unit="reqps",
                stacked=True,
            ),
            Panel(
                "Share of calls rejected",
                "Rejected calls among all. No line where nobody calls.",
                (
                    Query(
                        "sum by (fleet, breaker) (rate(breaker_decisions_total"
                        '{%B, decision="reject"}[$__rate_interval])) / (sum by (fleet, breaker)'
                        " (rate(breaker_decisions_total{%B}[$__rate_interval])) > 0)",
                        "{{fleet}} {{breaker}}",
                    ),
                ),
                unit="percentunit",
                top=1,
            ),
            Panel(
                "Share admitted",
                "The ratio in force, averaged over the sidecars. Half open, it climbs.",
                (
                    Query(
                        "avg by (fleet, breaker) (breaker_admit_ratio{%B})", "{{fleet}} {{breaker}}"
                    ),
                ),
                unit="percentunit",
                top=1,
            ),
            Panel(
                "Shadow would have rejected",
                "Calls a second that were admitted only because the breaker is in shadow mode.",
                (
                    Query(
                        "sum by (fleet, breaker)"
                        " (rate(breaker_shadow_rejections_total{%B}[$__rate_interval]))",
                        "{{fleet}} {{breaker}}",
                    ),
                ),
                unit="reqps",
                width=12,
            ),
            Panel(
                "Cut off alone",
                "Sidecars that hold back their own callers because only their own producers can't"
                " reach Kafka, and how often they have shut within 5 minutes.",
                (
                    Query(
                        "sum by (fleet, breaker) (breaker_local_gate{%B})", "{{fleet}} {{breaker}}"
                    ),
                    Query(
                        "sum by (fleet, breaker)"
                        " (increase(breaker_local_gate_closures_total{%B}[5m]))",
                        "{{fleet}} {{breaker}} closures",
                    ),
                ),
                width=12,
            ),
            Panel(
                "Sidecars by state",
                "How many sidecars answer by which state. Two states at once for longer than a"
                " scrape: somebody is cut off.",
                (
                    Query(
                        "sum by (fleet, breaker, state) (breaker_state{%B}) > 0",
                        "{{fleet}} {{breaker}} {{state}}",
                    ),
                ),
                stacked=True,
                width=12,
            ),
        ),
    ),
    (
        "Why",
        (
            Panel(
                "Verdicts",
                "What each signal says, by the evaluator.",
                (
                    Query(
                        "max by (fleet, breaker, signal)"
                        ' (breaker_verdict{%B, verdict="unknown"}) + 2 * max by (fleet, breaker,'
                        ' signal) (breaker_verdict{%B, verdict="unhealthy"})',
                        "{{fleet}} {{breaker}} {{signal}}",
                    ),
                ),
                kind="state-timeline",
                mapped=VERDICTS,
            ),
            Panel(
                "Reporters",
                "Instances whose report changes (fresh) or has stopped changing (stale).",
                (
                    Query(
                        "max by (fleet, breaker, freshness) (breaker_reporters{%B})",
                        "{{fleet}} {{breaker}} {{freshness}}",
                    ),
                ),
                stacked=True,
            ),
            Panel(
                "Lag",
                "Messages behind, and the age of the oldest in seconds, where signals.lag is on."
                " No line: unknown.",
                (
                    Query(
                        "max by (fleet, breaker) (breaker_lag_messages{%B})",
                        "{{fleet}} {{breaker}} messages",
                    ),
                    Query(
                        "max by (fleet, breaker) (breaker_lag_seconds{%B})",
                        "{{fleet}} {{breaker}} seconds",
                    ),
                ),
            ),
            Panel(
                "Transitions",
                "State changes within 5 minutes, by where to and why.",
                (
                    Query(
                        "sum by (fleet, breaker, to, reason)"
                        " (increase(breaker_transitions_total{%B}[5m])) > 0",
                        "{{fleet}} {{breaker}} → {{to}} {{reason}}",
                    ),
                ),
                stacked=True,
            ),
            Panel(
                "Canaries",
                "How long one takes through a broker and back, the slowest twentieth left out.",
                (
                    Query(
                        "histogram_quantile(0.95, sum by (fleet, broker, le)"
                        " (rate(breaker_probe_duration_seconds_bucket{%S}[$__rate_interval])))",
                        "{{fleet}} broker {{broker}}",
                    ),
                ),
                unit="s",
                width=12,
            ),
            Panel(
                "Canaries lost",
                "Within 5 minutes, by broker. Empty is good.",
                (
                    Query(
                        "sum by (fleet, broker) (increase(breaker_probe_failures_total{%S}[5m]))"
                        " > 0",
                        "{{fleet}} broker {{broker}}",
                    ),
                ),
                width=12,
            ),
        ),
    ),
)
