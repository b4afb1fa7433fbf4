"""Counters that begin at 0: the first increase of one that appears above it is seen by nobody."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

from sidecar.core.outage import Outage
from sidecar.core.ports import Telemetry
from sidecar.core.publishing import ANY_TOPIC, PublishPolicy, TopicPolicy
from sidecar.telemetry import names
from sidecar.telemetry.names import Metric


def prime(telemetry: Telemetry, policy: PublishPolicy) -> None:
    """Have what is counted of the configured topics there from now on."""
    for topic, handled in policy.topics.items():
        for metric in _counters(topic, handled):
            others = {label: known for label, known in metric.labels.items() if label != "topic"}
            for values in product(*others.values()):
                telemetry.count(metric, 0, topic=topic, **dict(zip(others, values, strict=True)))


def _counters(topic: str, handled: TopicPolicy) -> Iterator[Metric]:
    yield from (names.PUBLISH_RECORDS, names.PUBLISH_FAILURES, names.PUBLISH_DEAD)
    if handled.outage is Outage.DUAL:
        yield names.PUBLISH_COPIES
    if handled.outage.spools and topic != ANY_TOPIC:  # the spool goes by topics' own names
        yield names.SPOOL_DROPPED
