"""What must hold between the settings of publish, spool and the rest."""

from __future__ import annotations

import pytest

from sidecar.config.faults import ConfigFaults
from sidecar.config.load import load
from sidecar.config.model import Publish, PublishTopic, SpoolTopic

GOOD = """
kafka: {bootstrap_servers: ["k:9092"]}
spool:
  {dir: /s, topics: {"*": {max_bytes: 1MiB, when_full: drop_oldest, max_age: 1h}}}
publish:
  max_record: 2KiB
  topics:
    Orders.v1: {}
    "*": {outage: drop, breaker: default, max_outstanding: 5}
"""


def test_topics_are_read_with_their_names() -> None:
    config = load(GOOD, environ={})
    assert config.publish == Publish(
        max_record=2048,
        topics={
            "Orders.v1": PublishTopic(),
            "*": PublishTopic(outage="drop", breaker="default", max_outstanding=5),
        },
    )
    assert config.spool.topics["*"] == SpoolTopic(
        max_bytes=1024**2, when_full="drop_oldest", max_age_s=3600.0
    )


def test_a_variable_names_a_topic() -> None:
    name = "BREAKER_SIDECAR__PUBLISH__TOPICS__PAGE_VIEWS__OUTAGE"
    config = load(GOOD, environ={name: "reject"})
    assert config.publish is not None
    assert config.publish.topics["page_views"].outage == "reject"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (('kafka: {bootstrap_servers: ["k:9092"]}', ""), "publish needs it"),
        (("dir: /s, ", ""), "there is no spool"),
        (("breaker: default", "breaker: other"), "names no breaker (other)"),
        (("max_record: 2KiB", "max_record: 16MiB"), "larger than max_request"),
        (("max_record: 2KiB", "delivery_timeout: 3s"), "too little of timeout"),
        (("Orders.v1", "no topic"), "is not a topic's name"),
        (("Orders.v1", ".."), "is not a topic's name"),
        (("Orders.v1", "."), "is not a topic's name"),
        (("outage: drop", "outage: drops"), "none of its values"),
        (("outage: drop", "outage: dual"), "is dual, and there is no second cluster"),
        (("max_bytes: 1MiB", "max_bytes: 1 MB"), "is not a size"),
        (("2KiB", "1B"), "out of range"),
    ],
)
def test_what_must_hold(change: tuple[str, str], said: str) -> None:
    with pytest.raises(ConfigFaults) as caught:
        load(GOOD.replace(*change), environ={})
    assert any(said in str(fault) for fault in caught.value.faults), caught.value.faults
