"""`doctor` on a real Kafka: what answers, what only takes a connection, and what isn't there."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.doctoring import Diagnosis, examine
from tests.kafka import Kafka
from tests.servers import free_port
from tests.toxiproxy import Toxiproxy

Doctor = Callable[..., Diagnosis]
KEY = "kafka.bootstrap_servers"


@pytest.fixture
def doctor(tmp_path: Path) -> Doctor:
    """Looks at breakers that read lag, by the servers that it is given."""

    def look(*servers: str, **breakers: tuple[str, str]) -> Diagnosis:
        config = {
            "listen": {"address": f"127.0.0.1:{free_port()}"},
            "kafka": {"bootstrap_servers": list(servers), "request_timeout": "2s"},
            "breakers": {
                name: {
                    "topic": topic,
                    "group": group,
                    "consul_key_prefix": f"reports/{name}",
                    "signals": {"lag": {}},
                }
                for name, (topic, group) in breakers.items()
            },
        }
        return examine(config, tmp_path)

    return look


def test_topics_and_groups_are_looked_for(kafka: Kafka, doctor: Doctor) -> None:
    topic, group = kafka.create_topic(f"there-{uuid.uuid4().hex[:8]}", 2), uuid.uuid4().hex
    kafka.produce(topic, [b"x"] * 5, partition=0)
    kafka.commit(group, topic, {0: 2})
    found = doctor(
        kafka.bootstrap, fine=(topic, group), lost=("nowhere", group), quiet=(topic, "nobody")
    )
    assert found.code == 1
    assert f"3 messages behind on {topic} (partitions: 2)" in str(found)
    found.expect(
        "fault", "breakers.lost.topic", "nowhere", "the topic nowhere does not exist", "create it"
    )
    found.expect(
        "warning", "breakers.quiet.group", "nobody", "has committed nothing", "start its consumers"
    )


def test_one_broker_of_two_is_a_warning(kafka: Kafka, doctor: Doctor) -> None:
    topic, group = kafka.create_topic(f"there-{uuid.uuid4().hex[:8]}"), uuid.uuid4().hex
    kafka.commit(group, topic, {0: 0})
    away = f"127.0.0.1:{free_port()}"
    found = doctor(kafka.bootstrap, away, orders=(topic, group))
    value = f"{kafka.bootstrap}, {away}"
    found.expect(
        "warning", KEY, value, "1 of 2 brokers can't be used .*Connect call failed", "start them"
    )
    assert found.code == 0
    assert f"0 messages behind on {topic} (partitions: 1)" in str(found)


def test_the_second_cluster_is_looked_at_too(kafka: Kafka, tmp_path: Path) -> None:
    away = f"127.0.0.1:{free_port()}"
    config = {
        "listen": {"address": f"127.0.0.1:{free_port()}"},
        "kafka": {"bootstrap_servers": [kafka.bootstrap], "request_timeout": "2s"},
        "kafka_second": {"bootstrap_servers": [away], "request_timeout": "2s"},
    }
    found = examine(config, tmp_path)
    key = "kafka_second.bootstrap_servers"
    found.expect("fault", key, away, "1 of 1 brokers can't be used", "start them")
    config["kafka_second"] = {
        "bootstrap_servers": [kafka.bootstrap],
        "tls": {"enabled": True, "ca_file": str(tmp_path / "none.pem")},
    }
    found = examine(config, tmp_path)
    found.expect("fault", None, None, r"kafka_second\.tls\.ca_file .*none\.pem", "see to the file")
    config["kafka_second"] = config["kafka"]
    found = examine(config, tmp_path)
    assert found.code == 0
    assert {KEY, key} <= {each["key"] for each in found.of("ok")}


def test_topics_that_are_published_to_are_looked_for_and_not_made(
    kafka: Kafka, tmp_path: Path
) -> None:
    topic, nowhere = kafka.create_topic(f"there-{uuid.uuid4().hex[:8]}"), uuid.uuid4().hex
    reached = {"bootstrap_servers": [kafka.bootstrap], "request_timeout": "5s"}
    config = {
        "listen": {"address": f"127.0.0.1:{free_port()}"},
        "kafka": reached,
        "kafka_second": reached,
        "spool": {"dir": str(tmp_path / "spool")},
        "publish": {"topics": {topic: {"outage": "dual"}, nowhere: {"outage": "reject"}, "*": {}}},
    }
    found = examine(config, tmp_path)
    key = f"publish.topics.{nowhere}"
    found.expect("warning", key, None, "^kafka has no such topic", "create it")
    there = {each["said"] for each in found.of("ok") if each["key"] == f"publish.topics.{topic}"}
    assert there == {"kafka has the topic", "kafka_second has the topic"}
    again = examine(config, tmp_path)
    again.expect("warning", key, None, "^kafka has no such topic", "create it")


def test_a_connection_alone_is_no_answer(
    kafka: Kafka, toxiproxy: Toxiproxy, doctor: Doctor
) -> None:
    proxy = toxiproxy.proxy(f"doctor-{uuid.uuid4().hex[:8]}", kafka.broker.port)
    proxy.drop()
    found = doctor(proxy.address, orders=("orders", "billing"))
    found.expect("fault", KEY, proxy.address, "1 of 1 brokers .*no answer within 2 s", "start them")
