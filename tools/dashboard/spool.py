"""The durable spool: what goes in, what is lost, how the disk does."""

from __future__ import annotations

from tools.dashboard.model import Panel, Query, Row

ROWS: tuple[Row, ...] = (
    (
        "The spool",
        (
            Panel(
                "Records spooled",
                "Records a second that were synced to disk instead of sent.",
                (
                    Query(
                        "sum by (fleet, topic)"
                        " (rate(breaker_spool_appended_records_total{%S}[$__rate_interval]))",
                        "{{fleet}} {{topic}}",
                    ),
                ),
                unit="ops",
            ),
            Panel(
                "Records lost from the spool",
                "Within 5 minutes: given up to make room or for their age, or damaged on disk.",
                (
                    Query(
                        "sum by (fleet, topic, reason)"
                        " (increase(breaker_spool_dropped_records_total{%S}[5m]))",
                        "{{fleet}} {{topic}} {{reason}}",
                    ),
                ),
            ),
            Panel(
                "Sync to disk",
                "Median and 99th percentile of a group commit's sync.",
                tuple(
                    Query(
                        f"histogram_quantile({quantile}, sum by (fleet, le)"
                        " (rate(breaker_spool_sync_duration_seconds_bucket{%S}"
                        "[$__rate_interval])))",
                        f"{{{{fleet}}}} {name}",
                    )
                    for quantile, name in ((0.5, "median"), (0.99, "99 %"))
                ),
                unit="s",
            ),
        ),
    ),
)
