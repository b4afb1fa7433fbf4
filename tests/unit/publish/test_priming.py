"""Which counters are there before anything has happened."""

from __future__ import annotations

from sidecar.core.outage import Outage
from sidecar.core.publishing import ANY_TOPIC, PublishPolicy, TopicPolicy
from sidecar.publish.priming import prime
from sidecar.telemetry import names
from tests.telemetry import RecordedTelemetry

TOPICS = {
    "paid": TopicPolicy(outage=Outage.DUAL),
    "seen": TopicPolicy(outage=Outage.DROP),
    ANY_TOPIC: TopicPolicy(outage=Outage.BREAKER),
}


def test_what_an_alert_asks_for_is_there_from_the_start() -> None:
    told = RecordedTelemetry()
    prime(told, PublishPolicy(topics=TOPICS))
    there = {(metric, dict(labels)["topic"]) for metric, labels in told.counts}
    for topic in TOPICS:
        assert (names.PUBLISH_DEAD, topic) in there
        assert (names.PUBLISH_FAILURES, topic) in there
    assert [topic for metric, topic in there if metric == names.PUBLISH_COPIES] == ["paid"]
    assert [topic for metric, topic in there if metric == names.SPOOL_DROPPED] == ["paid"]
    outcomes = {
        dict(labels)["outcome"]
        for metric, labels in told.counts
        if metric == names.PUBLISH_RECORDS and dict(labels)["topic"] == "seen"
    }
    assert outcomes == {"delivered", "spooled", "dropped", "refused"}
    assert not any(told.counts.values())
