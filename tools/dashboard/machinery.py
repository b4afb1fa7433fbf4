"""How the machinery behind does: evaluators, Consul, the sidecars, and all of it over weeks."""

from __future__ import annotations

from tools.dashboard.model import Panel, Query, Row

ROWS: tuple[Row, ...] = (
    (
        "The evaluator",
        (
            Panel(
                "Evaluations",
                "Evaluations a second, by what came of them.",
                (
                    Query(
                        "sum by (fleet, breaker, result)"
                        " (rate(breaker_evaluations_total{%B}[$__rate_interval]))",
                        "{{fleet}} {{breaker}} {{result}}",
                    ),
                ),
                unit="ops",
                stacked=True,
            ),
            Panel(
                "Duration of an evaluation",
                "Median and 99th percentile, the write included.",
                tuple(
                    Query(
                        f"histogram_quantile({quantile}, sum by (fleet, le)"
                        " (rate(breaker_evaluation_duration_seconds_bucket{%S}"
                        "[$__rate_interval])))",
                        f"{{{{fleet}}}} {name}",
                    )
                    for quantile, name in ((0.5, "median"), (0.99, "99 %"))
                ),
                unit="s",
            ),
            Panel(
                "Writes in each other's way",
                "Within 5 minutes: writes that the store refused, and state records that something"
                " other than a sidecar wrote.",
                (
                    Query(
                        "sum by (fleet) (increase(breaker_cas_conflicts_total{%S}[5m]))",
                        "{{fleet}} refused",
                    ),
                    Query(
                        "sum by (fleet, breaker) (increase(breaker_foreign_writes_total{%B}[5m]))",
                        "{{fleet}} {{breaker}} foreign",
                    ),
                ),
            ),
        ),
    ),
    (
        "Consul",
        (
            Panel(
                "Since the last read",
                "Seconds since a sidecar last completed a read: the worst and the median. An idle"
                " poll lasts up to a minute.",
                (
                    Query(
                        "max by (fleet) (time() - breaker_last_sync_timestamp_seconds{%S})",
                        "{{fleet}} worst",
                    ),
                    Query(
                        "quantile by (fleet)"
                        " (0.5, time() - breaker_last_sync_timestamp_seconds{%S})",
                        "{{fleet}} median",
                    ),
                ),
                unit="s",
            ),
            Panel(
                "Stale sidecars",
                "Sidecars whose answer rests on a state that may have changed unseen.",
                (Query("sum by (fleet, breaker) (breaker_stale{%B})", "{{fleet}} {{breaker}}"),),
            ),
            Panel(
                "Values that can't be used",
                "Within 5 minutes, by what they should have been.",
                (
                    Query(
                        "max by (fleet, kind) (increase(breaker_bad_records_total{%S}[5m]))",
                        "{{fleet}} {{kind}}",
                    ),
                ),
            ),
            Panel(
                "Requests by operation",
                "The fleet's load on Consul, requests a second.",
                (
                    Query(
                        "sum by (fleet, op)"
                        " (rate(breaker_consul_requests_total{%S}[$__rate_interval]))",
                        "{{fleet}} {{op}}",
                    ),
                ),
                unit="reqps",
                stacked=True,
            ),
            Panel(
                "Requests by outcome",
                "refused is an answer (somebody else was first); what is neither ok nor refused is"
                " a fault.",
                (
                    Query(
                        "sum by (fleet, outcome)"
                        " (rate(breaker_consul_requests_total{%S}[$__rate_interval]))",
                        "{{fleet}} {{outcome}}",
                    ),
                ),
                unit="reqps",
                stacked=True,
            ),
            Panel(
                "Duration of requests",
                "99th percentile by operation. Blocking queries wait by design and aren't in it.",
                (
                    Query(
                        "histogram_quantile(0.99, sum by (fleet, op, le)"
                        " (rate(breaker_consul_request_duration_seconds_bucket{%S}"
                        "[$__rate_interval])))",
                        "{{fleet}} {{op}}",
                    ),
                ),
                unit="s",
            ),
        ),
    ),
    (
        "Kafka, seen from evaluators",
        (
            Panel(
                "Requests to Kafka",
                "Requests a second by operation and outcome: their number doesn't grow with the"
                " breakers. Without a signal that reads Kafka there are none.",
                (
                    Query(
                        "sum by (fleet, op, outcome)"
                        " (rate(breaker_kafka_requests_total{%S}[$__rate_interval]))",
                        "{{fleet}} {{op}} {{outcome}}",
                    ),
                ),
                unit="reqps",
                stacked=True,
            ),
            Panel(
                "Duration of requests to Kafka",
                "99th percentile by operation, connecting included.",
                (
                    Query(
                        "histogram_quantile(0.99, sum by (fleet, op, le)"
                        " (rate(breaker_kafka_request_duration_seconds_bucket{%S}"
                        "[$__rate_interval])))",
                        "{{fleet}} {{op}}",
                    ),
                ),
                unit="s",
            ),
            Panel(
                "Answers that make no sense",
                "Parts of Kafka's answers that were left out, within 5 minutes. None is good.",
                (
                    Query(
                        "sum by (fleet) (increase(breaker_kafka_junk_total{%S}[5m]))", "{{fleet}}"
                    ),
                ),
            ),
        ),
    ),
    (
        "The sidecars themselves",
        (
            Panel(
                "Memory",
                "Resident memory, the largest and the average.",
                (
                    Query(
                        "max by (fleet) (process_resident_memory_bytes{%S})", "{{fleet}} largest"
                    ),
                    Query(
                        "avg by (fleet) (process_resident_memory_bytes{%S})", "{{fleet}} average"
                    ),
                ),
                unit="bytes",
            ),
            Panel(
                "CPU",
                "Cores used: the busiest sidecar (an evaluator, as a rule) and the average.",
                (
                    Query(
                        "max by (fleet) (rate(process_cpu_seconds_total{%S}[$__rate_interval]))",
                        "{{fleet}} busiest",
                    ),
                    Query(
                        "avg by (fleet) (rate(process_cpu_seconds_total{%S}[$__rate_interval]))",
                        "{{fleet}} average",
                    ),
                ),
            ),
            Panel(
                "Versions",
                "Sidecars by version: two at once only while an update rolls.",
                (
                    Query(
                        "count by (fleet, version) (breaker_build_info{%S})",
                        "{{fleet}} {{version}}",
                    ),
                ),
                stacked=True,
            ),
            Panel(
                "Configuration",
                "Sidecars that refused their last configuration, and those whose configuration"
                " differs from the one the state was written under: all of them after an update,"
                " until the next transition.",
                (
                    Query(
                        "sum by (fleet) (breaker_config_last_reload_successful{%S} == bool 0)",
                        "{{fleet}} refused",
                    ),
                    Query(
                        "sum by (fleet, breaker) (breaker_config_mismatch{%B})",
                        "{{fleet}} {{breaker}} differs",
                    ),
                ),
            ),
            Panel(
                "Restarts",
                "Within an hour, by sidecar; those without any are left out.",
                (
                    Query(
                        "changes(process_start_time_seconds{%S}[1h]) > 0",
                        "{{fleet}} {{instance}}",
                    ),
                ),
            ),
            Panel(
                "Log lines given up",
                "Within 5 minutes, because nobody read standard error.",
                (
                    Query(
                        "sum by (fleet) (increase(breaker_log_lines_dropped_total{%S}[5m]))",
                        "{{fleet}}",
                    ),
                ),
            ),
        ),
    ),
    (
        "Over weeks",
        (
            Panel(
                "Share of calls rejected (recorded)",
                "As above, from the recording rules: of the whole fleet, whatever the job.",
                (
                    Query(
                        "fleet_breaker:breaker_decisions_rejected:ratio_rate5m{%R}",
                        "{{fleet}} {{breaker}}",
                    ),
                ),
                unit="percentunit",
                top=1,
            ),
            Panel(
                "Calls (recorded)",
                "Calls a second, admitted and rejected, and what shadow would have rejected.",
                (
                    Query(
                        "fleet_breaker_decision:breaker_decisions:rate5m{%R}",
                        "{{fleet}} {{breaker}} {{decision}}",
                    ),
                    Query(
                        "fleet_breaker:breaker_shadow_rejections:rate5m{%R}",
                        "{{fleet}} {{breaker}} shadow",
                    ),
                ),
                unit="reqps",
            ),
            Panel(
                "Trips an hour (recorded)",
                "How often it opened within the hour before, by reason.",
                (
                    Query(
                        "fleet_breaker_reason:breaker_trips:increase1h{%R}",
                        "{{fleet}} {{breaker}} {{reason}}",
                    ),
                ),
                stacked=True,
            ),
            Panel(
                "Share admitted (recorded)",
                "Below 1 the fleet was held back.",
                (Query("fleet_breaker:breaker_admit_ratio:avg{%R}", "{{fleet}} {{breaker}}"),),
                unit="percentunit",
                top=1,
            ),
            Panel(
                "Who took part (recorded)",
                "Reporters fresh and stale, evaluators, and sidecars that had the breaker open.",
                (
                    Query(
                        "fleet_breaker_freshness:breaker_reporters:max{%R}",
                        "{{fleet}} {{breaker}} {{freshness}} reporters",
                    ),
                    Query(
                        "fleet_breaker:breaker_evaluator:sum{%R}",
                        "{{fleet}} {{breaker}} evaluators",
                    ),
                    Query(
                        'fleet_breaker_state:breaker_state:sum{%R, state="OPEN"}',
                        "{{fleet}} {{breaker}} open",
                    ),
                ),
            ),
            Panel(
                "Load on Consul (recorded)",
                "Requests a second by operation and outcome.",
                (
                    Query(
                        "fleet_op_outcome:breaker_consul_requests:rate5m{%F}",
                        "{{fleet}} {{op}} {{outcome}}",
                    ),
                ),
                unit="reqps",
                stacked=True,
            ),
        ),
    ),
)
