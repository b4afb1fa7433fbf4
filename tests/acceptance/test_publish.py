"""Publishing through a real sidecar to a real Kafka that goes away in every way there is.

Two brokers of this module's own, whose clients come through Toxiproxy; each test has topics and a
spool of its own.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from sidecar.cli.main import cli as commands
from tests.acceptance.support import measured
from tests.daemon import Answer, Daemon
from tests.kafka import Kafka
from tests.servers import free_port, poll_until_sync
from tests.toxiproxy import Proxy, Toxiproxy

pytestmark = pytest.mark.kafka

RAW = {"Content-Type": "application/octet-stream"}
TIMEOUT_S = 3.0
"""`publish.timeout` here."""
LATE_S = TIMEOUT_S + 3.0
"""A publish that has no answer by then on a busy machine has none."""
BACK_S = 40.0


class Way:
    """The brokers, and the ways to them."""

    def __init__(self, kafka: Kafka, proxies: list[Proxy]) -> None:
        self.kafka, self.proxies = kafka, proxies

    def refuse(self) -> None:
        for proxy in self.proxies:
            proxy.refuse()

    def drop(self) -> None:
        for proxy in self.proxies:
            proxy.drop()

    def heal(self) -> None:
        for proxy in self.proxies:
            proxy.heal()


@pytest.fixture(scope="module")
def cluster() -> Iterator[Way]:
    ports = {1: free_port(), 2: free_port()}
    kafka = Kafka(2, advertised=ports, controllers=1)
    with Toxiproxy() as toxiproxy:
        proxies = [
            toxiproxy.proxy(f"publish-{node}", broker.port, ports[node])
            for node, broker in kafka.brokers.items()
        ]
        with kafka:
            yield Way(kafka, proxies)


@pytest.fixture
def way(cluster: Way) -> Iterator[Way]:
    cluster.heal()
    yield cluster
    cluster.heal()


@pytest.fixture
def topic(way: Way) -> str:
    """Partition 0 on the first broker, 1 on the second."""
    return way.kafka.create_topic(f"t-{uuid.uuid4().hex[:8]}", placement={0: [1], 1: [2]})


def config(
    way: Way, topic: str, folder: Path, *, outage: str = "breaker", **more: Any
) -> dict[str, Any]:
    return {
        "store": "memory",
        "kafka": {"bootstrap_servers": [proxy.address for proxy in way.proxies]},
        "spool": {"dir": str(folder)},
        "publish": {
            "timeout": f"{TIMEOUT_S:g}s",
            "delivery_timeout": "500ms",
            "topics": {topic: {"outage": outage}},
        },
        **more,
    }


class Producer:
    """Hands over numbered records, and knows which of them were accepted."""

    def __init__(self, topic: str, first: int = 0) -> None:
        self.topic = topic
        self.accepted: dict[int, list[int]] = {0: [], 1: []}
        self.slowest_s = 0.0
        self._next = first

    def send(self, daemon: Daemon, partition: int, query: str = "") -> Answer:
        """One record; its answer comes in time."""
        number, self._next = self._next, self._next + 1
        began = time.monotonic()
        answer = daemon.request(
            "POST",
            f"/v1/publish/{self.topic}{query}",
            b"%d" % number,
            {**RAW, "Kafka-Partition": str(partition), "Kafka-Key": f"k{partition}"},
            timeout_s=30.0,
        )
        took_s = time.monotonic() - began
        assert took_s < LATE_S
        self.slowest_s = max(self.slowest_s, took_s)
        if answer.status in {200, 202}:
            self.accepted[partition].append(number)
        return answer

    def check(self, way: Way) -> None:
        """All that was accepted is there, in order among first deliveries, and nothing else."""
        total = sum(way.kafka.end_offsets(self.topic).values())
        records = way.kafka.read(self.topic, total)
        for partition, accepted in self.accepted.items():
            mine = [r for r in records if r.partition == partition]
            assert list(dict.fromkeys(int(r.value) for r in mine)) == accepted
            assert {r.key for r in mine} <= {b"k%d" % partition}


def cli(*arguments: str, lines: str | None = None) -> str:
    """What a command prints; it has to succeed."""
    done = CliRunner().invoke(commands, arguments, input=lines)
    assert done.exit_code == 0, done.stderr
    return done.stdout


def waiting(daemon: Daemon) -> int:
    return int(daemon.get("/v1/spool").body["records"])


def outstanding(daemon: Daemon, topic: str) -> int:
    (found,) = [t for t in daemon.get("/v1/spool").body["topics"] if t["topic"] == topic]
    return int(found["outstanding"])


def until_direct(daemon: Daemon, producer: Producer) -> None:
    """The backlog goes, and new records go straight again."""
    poll_until_sync(lambda: waiting(daemon) == 0, BACK_S, "the backlog is delivered")
    for partition in (0, 1):
        poll_until_sync(
            lambda at=partition: producer.send(daemon, at).status == 200,  # type: ignore[misc]
            BACK_S,
            "records go straight again",
        )


def test_records_arrive_as_they_were_handed_over(way: Way, topic: str, tmp_path: Path) -> None:
    settings = config(way, topic, tmp_path)
    settings["publish"] |= {"timeout": "20s", "delivery_timeout": "10s"}
    with Daemon(settings) as daemon:
        sent = daemon.request(
            "POST",
            f"/v1/publish/{topic}",
            b"\x00raw\xff",
            {**RAW, "Kafka-Key": "k", "Kafka-Partition": "1", "Kafka-Header-Trace-Id": "abc"},
        )
        assert (sent.status, sent.body["status"], sent.body["partition"]) == (200, "delivered", 1)
        batch = {
            "records": [
                {"value": {"type": "JSON", "data": {"a": [1]}}, "partition_id": 0},
                {"value": {"type": "BINARY", "data": "not base64!"}, "partition_id": 0},
                {"key": {"type": "STRING", "data": "k"}, "partition_id": 0, "timestamp": 17},
            ]
        }
        answer = daemon.post(f"/v1/publish/{topic}", batch)
        assert answer.status == 207
        assert [r["status"] for r in answer.body["results"]] == [
            "delivered",
            "refused",
            "delivered",
        ]
        lines = b'{"value":{"type":"STRING","data":"x"},"partition_id":0}\n' * 2
        sent = daemon.request(
            "POST", f"/v1/publish/{topic}", lines, {"Content-Type": "application/x-ndjson"}
        )
        assert (sent.status, sent.body["delivered"]) == (200, 2)
        again = {**RAW, "Idempotency-Key": "once", "Kafka-Partition": "0"}
        twice = [
            daemon.request("POST", f"/v1/publish/{topic}", body, again)
            for body in (b"y", b"y", b"z")
        ]
        assert [one.status for one in twice] == [200, 200, 422]
        assert twice[0].body == twice[1].body
        unknown = daemon.request("POST", "/v1/publish/nobody", b"x", RAW)
        assert (unknown.status, unknown.body["topics"]) == (404, [topic])
    found = sorted(way.kafka.read(topic, 6), key=lambda r: (r.partition, r.offset))
    assert [r.value for r in found] == [b'{"a": [1]}', None, b"x", b"x", b"y", b"\x00raw\xff"]
    assert found[1].timestamp == 17
    assert [name for name, _ in found[-1].headers] == ["Trace-Id", "breaker-id"]


def test_a_client_that_shuts_down_its_sending_side_is_answered(
    way: Way, topic: str, tmp_path: Path
) -> None:
    producer = Producer(topic)
    with Daemon(config(way, topic, tmp_path)) as daemon:
        until_direct(daemon, producer)
        for number, (version, more) in enumerate(
            [("1.1", ""), ("1.0", ""), ("1.1", "Idempotency-Key: k\r\n")], 1000
        ):
            head = (
                f"POST /v1/publish/{topic} HTTP/{version}\r\nHost: localhost\r\nKafka-Key: k0\r\n"
                f"{more}Kafka-Partition: 0\r\nContent-Length: 4\r\n\r\n"
            )
            said = daemon.half_closed(head.encode() + b"%d" % number)
            assert said[9:12] == b"200"
            assert b'"status":"delivered"' in said
            producer.accepted[0].append(number)
    producer.check(way)


@pytest.mark.parametrize("how", ["refused", "dropped", "one broker"])
def test_kafka_goes_away_and_comes_back(way: Way, topic: str, tmp_path: Path, how: str) -> None:
    producer = Producer(topic)
    with Daemon(config(way, topic, tmp_path)) as daemon:
        until_direct(daemon, producer)
        {"refused": way.refuse, "dropped": way.drop, "one broker": way.proxies[1].drop}[how]()
        answers = [producer.send(daemon, partition) for partition in (1, 0) * 6]
        assert {answer.status for answer in answers} <= {200, 202}
        assert 202 in {answer.status for answer in answers}
        began = time.monotonic()
        assert daemon.allowed().status == 200
        assert time.monotonic() - began < 1.0
        assert waiting(daemon) > 0
        way.heal()
        until_direct(daemon, producer)
    producer.check(way)


def test_a_partition_without_a_leader(way: Way, topic: str, tmp_path: Path) -> None:
    """One broker of two is killed: its partitions have no leader, the others go on straight."""
    other = way.kafka.create_topic(f"{topic}-too", placement={0: [1], 1: [2]})
    settings = config(way, topic, tmp_path)
    settings["publish"]["delivery_timeout"] = "1500ms"
    settings["publish"]["topics"][other] = {"outage": "spool_failed"}
    producers = [Producer(topic), Producer(other)]
    with Daemon(settings) as daemon:
        for producer in producers:
            until_direct(daemon, producer)
        way.kafka.brokers[2].kill()
        try:
            for producer in producers:
                assert producer.send(daemon, 1).status == 202
            poll_until_sync(
                lambda: way.kafka.leaders(topic, 1)[1] == way.kafka.leaders(other, 1)[1] == -1,
                BACK_S,
                "its partitions have no leader",
            )
            for producer in producers:
                poll_until_sync(
                    lambda to=producer: to.send(daemon, 0).status == 200,  # type: ignore[misc]
                    BACK_S,
                    "the other partition goes straight",
                )
            straight = [
                (producer.send(daemon, 1).status, producer.send(daemon, 0).status)
                for _ in range(10)
                for producer in producers
            ]
            assert straight == [(202, 200)] * 20
            assert daemon.allowed().status == 200
            assert waiting(daemon) == 22
        finally:
            way.kafka.start()
        for producer in producers:
            until_direct(daemon, producer)
    measured("the slowest answer, breaker and spool_failed", [p.slowest_s for p in producers])
    for producer in producers:
        producer.check(way)


def test_a_topic_that_is_deleted_and_made_again(way: Way, topic: str, tmp_path: Path) -> None:
    """Away is not gone; gone for long enough is, and a new topic of the name is taken up."""
    settings = config(way, topic, tmp_path)
    settings["publish"]["missing_topic_after"] = "5s"
    producer, lost = Producer(topic), Producer(topic, first=1000)
    letters = tmp_path / "dead-letters.ndjson"
    with Daemon(settings) as daemon:
        until_direct(daemon, producer)
        way.kafka.delete_topic(topic)
        way.refuse()
        answers = [lost.send(daemon, partition).status for partition in (0, 1, 0)]
        assert answers == [202] * 3
        began = time.monotonic()
        while time.monotonic() - began < 6.0:
            assert waiting(daemon) == 3, "nobody can say that it is gone"
            time.sleep(0.2)
        way.heal()
        poll_until_sync(lambda: waiting(daemon) == 0, BACK_S, "they are set aside")
        assert time.monotonic() - began >= 11.0
        found = [json.loads(line) for line in letters.read_bytes().splitlines()]
        assert sorted((x["partition_id"], x["reason"]) for x in found) == [
            (0, "unknown-kafka-topic"),
            (0, "unknown-kafka-topic"),
            (1, "unknown-kafka-topic"),
        ]
        assert daemon.allowed().status == 200
        refused = producer.send(daemon, 0)
        assert (refused.status, refused.body["title"]) == (404, "Unknown kafka topic")
        way.kafka.create_topic(topic, placement={0: [1], 1: [2]})
        producer = Producer(topic)
        until_direct(daemon, producer)
    said = cli("spool", "dead-letters", "put-back", str(tmp_path), "--topic", topic)
    assert said == "3 put back\n"
    for partition, accepted in lost.accepted.items():
        producer.accepted[partition] += accepted
    with Daemon(settings) as daemon:
        until_direct(daemon, producer)
    producer.check(way)


def test_records_that_are_carried_to_another_node(way: Way, topic: str, tmp_path: Path) -> None:
    """Its node is emptied while Kafka is away: they go by export and import, and in order."""
    producer = Producer(topic)
    here, there = tmp_path / "here", tmp_path / "there"
    way.refuse()
    with Daemon(config(way, topic, here)) as daemon:
        assert {producer.send(daemon, p).status for p in (0, 1) * 3} == {202}
    cli("spool", "import", str(there), lines=cli("spool", "export", str(here)))
    with Daemon(config(way, topic, there)) as daemon:
        assert waiting(daemon) == 6
        assert {producer.send(daemon, p).status for p in (0, 1)} == {202}
        way.heal()
        until_direct(daemon, producer)
    producer.check(way)


def test_brokers_that_moved_to_where_nobody_is(way: Way, topic: str, tmp_path: Path) -> None:
    """The first address answers, and names brokers that can't be reached."""
    way.refuse()
    settings = config(way, topic, tmp_path)
    settings["kafka"]["bootstrap_servers"] = [b.address for b in way.kafka.brokers.values()]
    producer = Producer(topic)
    with Daemon(settings) as daemon:
        assert {producer.send(daemon, p).status for p in (0, 1, 0)} == {202}
        way.heal()
        until_direct(daemon, producer)
    producer.check(way)


def test_credentials_that_kafka_wont_have(way: Way, topic: str, tmp_path: Path) -> None:
    settings = config(way, topic, tmp_path)
    settings["kafka"]["sasl"] = {"mechanism": "PLAIN", "username": "u", "password": "p"}
    producer = Producer(topic)
    with Daemon(settings) as daemon:
        assert {producer.send(daemon, p).status for p in (0, 1, 0)} == {202}
        assert daemon.allowed().status == 200
        assert waiting(daemon) == 3
    with Daemon(config(way, topic, tmp_path)) as daemon:
        until_direct(daemon, producer)
    producer.check(way)


def test_kill_9_in_the_middle_loses_nothing_and_keeps_the_order(
    way: Way, topic: str, tmp_path: Path
) -> None:
    producer = Producer(topic)
    settings = config(way, topic, tmp_path)
    for turn in range(3):
        with Daemon(settings) as daemon:
            for partition in (0, 1) * 5:
                assert producer.send(daemon, partition).status in {200, 202}
            way.refuse()
            for partition in (0, 1) * 5:
                assert producer.send(daemon, partition).status in {200, 202}
            if turn == 1:
                way.heal()  # killed while it replays
            daemon.kill()
        way.heal()
    with Daemon(settings) as daemon:
        until_direct(daemon, producer)
    producer.check(way)


def test_a_stop_with_everything_down_is_in_time_and_loses_nothing(
    way: Way, topic: str, tmp_path: Path
) -> None:
    producer = Producer(topic)
    with Daemon(config(way, topic, tmp_path)) as daemon:
        until_direct(daemon, producer)
        way.drop()
        background = threading.Thread(target=producer.send, args=(daemon, 0))
        background.start()
        poll_until_sync(
            lambda: daemon.get("/v1/spool").body["topics"][0]["outstanding"], 5.0, "it is under way"
        )
        began = time.monotonic()
        assert daemon.stop() == 0
        assert time.monotonic() - began < 6.0
        background.join(LATE_S)
    way.heal()
    with Daemon(config(way, topic, tmp_path)) as daemon:
        until_direct(daemon, producer)
    producer.check(way)


def test_a_second_daemon_on_the_same_spool_is_refused(way: Way, topic: str, tmp_path: Path) -> None:
    settings, same = config(way, topic, tmp_path), {"NOMAD_ALLOC_ID": "the-same"}
    producer = Producer(topic)
    with Daemon(settings, env=same) as daemon:
        until_direct(daemon, producer)
        with Daemon(settings, env=same, wait=False) as second:
            assert second.wait(30.0) == 1
            assert "in use by another process" in second.said()
        until_direct(daemon, producer)
    producer.check(way)


def test_a_full_spool_refuses_and_goes_on_when_there_is_room(
    way: Way, topic: str, tmp_path: Path
) -> None:
    budget = {"dir": str(tmp_path), "topics": {"*": {"max_bytes": "64KiB"}}}
    settings = config(way, topic, tmp_path, spool=budget)
    producer = Producer(topic)
    way.refuse()
    with Daemon(settings) as daemon:
        large = {**RAW, "Kafka-Partition": "0"}
        path = f"/v1/publish/{topic}"
        answers = [daemon.request("POST", path, b"x" * 10_000, large) for _ in range(9)]
        assert answers[0].status == 202
        assert (answers[-1].status, answers[-1].headers["retry-after"]) == (507, "1")
        accepted = sum(answer.status == 202 for answer in answers)
        way.heal()
        until_direct(daemon, producer)
    assert sum(way.kafka.end_offsets(topic).values()) >= accepted + 2


def test_a_full_disk_refuses_whole_and_goes_on_when_there_is_room(
    way: Way, topic: str, tmp_path: Path
) -> None:
    mine = () if os.geteuid() == 0 else ("--user", "--map-root-user")
    script = 'mount -t tmpfs -o size=4m tmpfs "$1" && shift && exec "$@"'
    inside = ("unshare", *mine, "--mount", "sh", "-c", script, "sh", str(tmp_path))
    path, headers = f"/v1/publish/{topic}", {**RAW, "Kafka-Partition": "0"}
    with Daemon(
        config(way, topic, tmp_path), program=(*inside, sys.executable, "-m", "sidecar")
    ) as daemon:
        producer = Producer(topic)
        until_direct(daemon, producer)
        way.refuse()
        answers = [
            daemon.request("POST", path, b"%d:" % n + os.urandom(100_000), headers)
            for n in range(50)
        ]
        told = [answer.body.get("type", answer.body.get("status")) for answer in answers]
        assert set(told) == {"spooled", "urn:breaker-sidecar:disk-full"}
        assert {answer.status for answer in answers} == {202, 507}
        way.heal()
        until_direct(daemon, producer)
    total = sum(way.kafka.end_offsets(topic).values())
    large = {r.value.split(b":")[0] for r in way.kafka.read(topic, total) if len(r.value) > 1000}
    assert large == {b"%d" % n for n, answer in enumerate(answers) if answer.status == 202}


FAILING = """
import errno, os, pathlib, time

there, sync = pathlib.Path(__file__).parent, os.fdatasync

def fdatasync(fd):
    with (there / "syncs").open("a") as file:
        file.write("x")
    while (there / "hold").exists():
        time.sleep(0.01)
    if (there / "fail").exists():
        raise OSError(errno.EIO, os.strerror(errno.EIO))
    sync(fd)

os.fdatasync = fdatasync
"""
"""A disk whose syncs wait while there is a file `hold`, and fail while there is one `fail`."""


def test_a_failed_sync_closes_the_spool_until_a_restart(
    way: Way, topic: str, tmp_path: Path
) -> None:
    disk, folder = tmp_path / "disk", tmp_path / "spool"
    disk.mkdir()
    (disk / "sitecustomize.py").write_text(FAILING)
    first = way.kafka.create_topic(f"{topic}-disk", placement={0: [1], 1: [2]})
    settings = config(way, topic, folder)
    settings["publish"] |= {"timeout": "5s"}
    settings["publish"]["topics"][first] = {"outage": "spool_all"}
    straight, spooled = Producer(topic), Producer(first)
    under_way = [Producer(first, number) for number in (100, 101, 102)]
    refused: list[Answer] = []

    def closed(answer: Answer) -> bool:
        kind = answer.body.get("type") == "urn:breaker-sidecar:spool-unusable"
        return kind and answer.status == 503 and answer.headers["retry-after"] == "1"

    same = {"NOMAD_ALLOC_ID": "the-same"}
    with Daemon(settings, env={**same, "PYTHONPATH": str(disk)}) as daemon:
        until_direct(daemon, straight)
        daemon.post(f"/v1/spool/{first}/pause", None)
        assert {spooled.send(daemon, p).status for p in (0, 1) * 3} == {202}
        (disk / "hold").touch()
        (disk / "fail").touch()
        threads = [
            threading.Thread(target=lambda p=p: refused.append(p.send(daemon, 0)))
            for p in under_way
        ]
        for thread in threads:
            thread.start()
        poll_until_sync(lambda: outstanding(daemon, first) == 3, 3.0, "they are under way")
        assert daemon.allowed().status == 200
        (disk / "hold").unlink()
        for thread in threads:
            thread.join(LATE_S)
        assert len(refused) == 3
        assert all(map(closed, refused))

        (disk / "fail").unlink()  # the next sync would succeed, and would say nothing
        syncs = (disk / "syncs").read_text()
        assert all(closed(spooled.send(daemon, partition)) for partition in (0, 1, 0))
        assert (disk / "syncs").read_text() == syncs
        told = [entry for entry in daemon.logs() if entry["event"] == "spool_closed"]
        assert [entry["level"] for entry in told] == ["error"]
        assert "sync failed: Input/output error" in told[0]["error"]
        seen = daemon.get("/v1/spool").body
        assert (seen["fault"], seen["records"]) == (told[0]["error"], 6)
        assert b"\nbreaker_spool_writable 0.0\n" in daemon.get("/metrics").content
        assert daemon.allowed().status == 200
        assert {straight.send(daemon, p).status for p in (0, 1)} == {200}, "others need no disk"
        way.refuse()
        assert {straight.send(daemon, p).status for p in (0, 1, 0)} <= {503, 504}
        assert daemon.stop() == 0
    way.heal()
    with Daemon(settings, env=same) as daemon:
        assert waiting(daemon) == 6
        assert daemon.get("/v1/spool").body["fault"] is None
        daemon.post(f"/v1/spool/{first}/resume", None)
        until_direct(daemon, straight)
        assert spooled.send(daemon, 0).status == 202
        poll_until_sync(lambda: waiting(daemon) == 0, BACK_S, "the backlog is delivered")
    for producer in (straight, spooled):
        producer.check(way)


@pytest.mark.parametrize(("outage", "statuses"), [("reject", {503, 504}), ("drop", {200})])
def test_strategies_without_a_spool(
    way: Way, topic: str, tmp_path: Path, outage: str, statuses: set[int]
) -> None:
    settings = config(way, topic, tmp_path, outage=outage)
    del settings["spool"]
    headers = {**RAW, "Kafka-Partition": "0"}
    with Daemon(settings) as daemon:
        path = f"/v1/publish/{topic}"

        def delivered() -> bool:
            answer = daemon.request("POST", path, b"1", headers)
            return bool(answer.body.get("status") == "delivered")

        poll_until_sync(delivered, BACK_S, "it is delivered")
        way.drop()
        lost = [daemon.request("POST", path, b"2", headers) for _ in range(3)]
        assert {answer.status for answer in lost} <= statuses
        assert all(answer.body.get("status") != "delivered" for answer in lost)
        way.heal()
        poll_until_sync(delivered, BACK_S, "it is delivered again")


def test_who_may(way: Way, topic: str, tmp_path: Path) -> None:
    """The bearer token, as for orders; a breaker where the topic wants it asked."""
    token = tmp_path / "token"
    token.write_text("secret")
    settings = config(way, topic, tmp_path / "spool", admin={"token_file": str(token)})
    settings["publish"]["topics"][topic]["breaker"] = "default"
    headers: Mapping[str, str] = {**RAW, "Kafka-Partition": "0"}
    held = {**headers, "Authorization": "Bearer secret"}
    with Daemon(settings) as daemon:
        path = f"/v1/publish/{topic}"
        assert daemon.request("POST", path, b"1", headers).status == 401
        assert daemon.request("POST", f"/v1/spool/{topic}/pause", b"", headers).status == 401
        assert daemon.request("POST", path, b"1", held).status in {200, 202}
        assert (
            daemon.request("POST", path, b"1", {**held, "Content-Type": "text/plain"}).status == 415
        )
        order = {"mode": "open", "ttl": "1m", "reason": "test"}
        forced = daemon.request(
            "PUT", "/v1/breakers/default/override", order, {"Authorization": "Bearer secret"}
        )
        assert forced.status == 200
        rejected = daemon.request("POST", path, b"1", held)
        assert rejected.status == 503
        assert rejected.body["type"].endswith("breaker-open")
        assert int(rejected.headers["retry-after"]) >= 1


def test_too_few_in_sync_replicas(way: Way, tmp_path: Path) -> None:
    """The leader is there, and the replica whose word it needs is frozen."""
    topic = way.kafka.create_topic(
        f"t-{uuid.uuid4().hex[:8]}", placement={0: [1, 2], 1: [1, 2]}, min_insync_replicas="2"
    )
    producer = Producer(topic)
    with Daemon(config(way, topic, tmp_path)) as daemon:
        until_direct(daemon, producer)
        way.kafka.brokers[2].freeze()
        try:
            assert {producer.send(daemon, p).status for p in (0, 1, 0)} == {202}
            poll_until_sync(lambda: way.kafka.in_sync(topic, 1)[0] == [1], BACK_S, "it is out")
            assert {producer.send(daemon, p).status for p in (0, 1, 0)} == {202}
            assert daemon.allowed().status == 200
            assert waiting(daemon) == 6
        finally:
            way.kafka.brokers[2].thaw()
        until_direct(daemon, producer)
    producer.check(way)
