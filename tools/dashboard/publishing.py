"""The durable publish: what becomes of records, and what waits for Kafka."""

from __future__ import annotations

from tools.dashboard.model import Panel, Query, Row

ROWS: tuple[Row, ...] = (
    (
        "Publishing",
        (
            Panel(
                "Records by outcome",
                "Records a second that were handed over, by what became of them.",
                (
                    Query(
                        "sum by (fleet, topic, outcome)"
                        " (rate(breaker_publish_records_total{%S}[$__rate_interval]))",
                        "{{fleet}} {{topic}} {{outcome}}",
                    ),
                ),
                unit="ops",
                stacked=True,
            ),
            Panel(
                "Kafka failing",
                "Within 5 minutes: batches that Kafka didn't confirm with failed probes, records"
                " that it will never take, and copies that one of two clusters has missed.",
                (
                    Query(
                        "sum by (fleet, topic) (increase(breaker_publish_failures_total{%S}[5m]))",
                        "{{fleet}} {{topic}} failed",
                    ),
                    Query(
                        "sum by (fleet, topic, reason)"
                        " (increase(breaker_publish_dead_letters_total{%S}[5m]))",
                        "{{fleet}} {{topic}} {{reason}}",
                    ),
                    Query(
                        "sum by (fleet, topic, cluster)"
                        ' (increase(breaker_publish_copies_total{outcome="missed", %S}[5m]))',
                        "{{fleet}} {{topic}} missed by the {{cluster}}",
                    ),
                ),
            ),
            Panel(
                "Not direct, and on the way",
                "Sidecars that send a topic's records elsewhere than straight to Kafka, and records"
                " that are not answered yet.",
                (
                    Query(
                        "count by (fleet, topic) (breaker_publish_direct{%S} == 0)",
                        "{{fleet}} {{topic}} not direct",
                    ),
                    Query(
                        "sum by (fleet, topic) (breaker_publish_outstanding_records{%S})",
                        "{{fleet}} {{topic}} outstanding",
                    ),
                ),
            ),
            Panel(
                "Waiting in spools",
                "Records on disk that wait for Kafka.",
                (
                    Query(
                        "sum by (fleet, topic) (breaker_spool_records{%S})",
                        "{{fleet}} {{topic}}",
                    ),
                ),
            ),
            Panel(
                "Bytes in spools",
                "Bytes on disk that wait for Kafka, and the largest file of dead letters.",
                (
                    Query("sum by (fleet, topic) (breaker_spool_bytes{%S})", "{{fleet}} {{topic}}"),
                    Query(
                        "max by (fleet) (breaker_spool_dead_letter_bytes{%S})",
                        "{{fleet}} dead letters",
                    ),
                ),
                unit="bytes",
            ),
            Panel(
                "Oldest record that waits",
                "Seconds since it was accepted, and the longest estimate until a spool is empty.",
                (
                    Query(
                        "max by (fleet, topic) (breaker_spool_oldest_age_seconds{%S})",
                        "{{fleet}} {{topic}} age",
                    ),
                    Query(
                        "max by (fleet) (breaker_spool_replay_left_seconds{%S})",
                        "{{fleet}} left",
                    ),
                ),
                unit="s",
            ),
            Panel(
                "Replay",
                "Records a second brought from spools to Kafka: as counted, and as sidecars say.",
                (
                    Query(
                        "sum by (fleet, topic)"
                        " (rate(breaker_spool_replayed_records_total{%S}[$__rate_interval]))",
                        "{{fleet}} {{topic}}",
                    ),
                    Query(
                        "sum by (fleet) (breaker_spool_replay_records_per_second{%S})",
                        "{{fleet}} now",
                    ),
                ),
                unit="ops",
            ),
            Panel(
                "Spools that stand still",
                "Topics whose replay was paused, and spools of others that nobody could adopt.",
                (
                    Query(
                        "sum by (fleet, topic) (breaker_spool_paused{%S})",
                        "{{fleet}} {{topic}} paused",
                    ),
                    Query("max by (fleet) (breaker_spool_orphans{%S})", "{{fleet}} orphans"),
                ),
            ),
        ),
    ),
)
