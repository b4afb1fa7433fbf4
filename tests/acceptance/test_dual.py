"""A topic on two clusters of which one is killed, or falls silent, and comes back: written by a
sidecar, read by the kit."""

from __future__ import annotations

import asyncio
import random
import signal
import time
import uuid
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from bench import dual as bench_dual
from sidecar.consumer import Dual, Event, Gap
from sidecar.consumer.merge import Stamp, stamp_of
from sidecar.consumer.source import Place, Record
from tests import dual_crash
from tests.daemon import Daemon
from tests.dual_reader import of_both
from tests.kafka import Kafka
from tests.publish_crash import PARTITIONS, Told
from tests.servers import free_port, poll_until
from tests.toxiproxy import Proxy, Toxiproxy

pytestmark = pytest.mark.kafka

PATIENCE_S = 40.0
RAW = {"Content-Type": "application/octet-stream"}
ANSWERED_S = 5.0
"""What `publish.timeout` is by default."""
SLACK_S = 2.0
"""For a busy machine."""
WAIT_S = 3.0
NAMES = ("first", "second")
Clusters = tuple[Kafka, Kafka]
Ways = tuple[Proxy, Proxy]


@pytest.fixture(scope="module")
def network() -> Iterator[tuple[Clusters, Ways]]:
    """Two clusters, and to each a way of its own beside the straight one."""
    ports = free_port(), free_port()
    with (
        Toxiproxy() as toxiproxy,
        Kafka(side={1: ports[0]}) as first,
        Kafka(side={1: ports[1]}) as second,
    ):
        there = toxiproxy.proxy("first", first.side_ports[1], ports[0])
        other = toxiproxy.proxy("second", second.side_ports[1], ports[1])
        yield (first, second), (there, other)


@pytest.fixture
def clusters(network: tuple[Clusters, Ways]) -> Clusters:
    return network[0]


@pytest.fixture
def ways(network: tuple[Clusters, Ways]) -> Iterator[Ways]:
    yield network[1]
    for way in network[1]:
        way.heal()


@pytest.fixture
def topic(clusters: Clusters) -> str:
    name = f"t-{uuid.uuid4().hex[:8]}"
    for kafka in clusters:
        kafka.create_topic(name, PARTITIONS)
    return name


class Producer:
    """Hands over numbered records, and knows which of them were accepted."""

    def __init__(self, daemon: Daemon, topic: str) -> None:
        self._daemon, self._topic = daemon, topic
        self.accepted: dict[int, list[int]] = {0: [], 1: []}
        self.slowest_s = 0.0
        self._next = 0

    def send(self) -> dict[str, Any]:
        """One record; where it went."""
        number, self._next = self._next, self._next + 1
        began = time.monotonic()
        answer = self._daemon.request(
            "POST",
            f"/v1/publish/{self._topic}",
            b"%d" % number,
            {**RAW, "Kafka-Partition": str(number % 2)},
            timeout_s=30.0,
        )
        self.slowest_s = max(self.slowest_s, time.monotonic() - began)
        assert answer.status in {200, 202}, answer.body
        self.accepted[number % 2].append(number)
        return dict(answer.body)

    async def send_until(self, holds: Callable[[dict[str, Any]], bool], what: str) -> None:
        """Some a second, until an answer is of that kind."""
        until = time.monotonic() + PATIENCE_S
        while not holds(await asyncio.to_thread(self.send)):
            assert time.monotonic() < until, what
            await asyncio.sleep(0.02)


@dataclass
class Reading:
    """What a runner on both clusters has handled, and been told."""

    dual: Dual
    seen: dict[int, list[int]] = field(default_factory=lambda: defaultdict(list))
    missed: set[tuple[int, Stamp]] = field(default_factory=set)
    """Each counter in a gap, by partition."""
    late: dict[int, list[int]] = field(default_factory=lambda: defaultdict(list))

    def figures(self) -> tuple[int, int, int]:
        """Gaps, lost, late."""
        return self.dual.figures.gaps, self.dual.figures.lost, self.dual.figures.late


@asynccontextmanager
async def reading(servers: tuple[str, str], topic: str) -> AsyncIterator[Reading]:
    """A runner at work."""

    async def handle(event: Event[bytes]) -> None:
        found.seen[event.record.partition].append(int(event.value))

    def gap(place: Place, told: Gap) -> None:
        found.missed.update(
            (place.partition, Stamp(told.producer, told.incarnation, counter))
            for counter in range(told.first, told.last + 1)
        )

    def late(record: Record) -> None:
        found.late[record.partition].append(int(record.value or b""))

    runner, dual = of_both(servers, topic, handle, wait_s=WAIT_S, on_gap=gap, on_late=late)
    found = Reading(dual)
    task = asyncio.create_task(runner.run(signals=False))
    try:
        yield found
    finally:
        runner.stop()
        await asyncio.wait_for(task, PATIENCE_S)


def straight(clusters: Clusters) -> tuple[str, str]:
    return clusters[0].bootstrap, clusters[1].bootstrap


def config(servers: tuple[str, str], topic: str, folder: Path) -> dict[str, Any]:
    first, second = servers
    return {
        "store": "memory",
        "kafka": {"bootstrap_servers": [first]},
        "kafka_second": {"bootstrap_servers": [second]},
        "spool": {"dir": str(folder)},
        "publish": {"delivery_timeout": "1s", "topics": {topic: {"outage": "dual"}}},
    }


def events(daemon: Daemon, name: str) -> list[dict[str, Any]]:
    """What it has logged under that name."""
    return [line for line in daemon.logs() if line["event"] == name]


def held(kafka: Kafka, topic: str) -> dict[tuple[int, Stamp], int]:
    """What a cluster has of the topic, by partition and counter."""
    found = {}
    for record in kafka.read(topic, sum(kafka.end_offsets(topic).values())):
        stamp = stamp_of(record.headers)
        assert stamp is not None
        found[record.partition, stamp] = int(record.value)
    return found


def copies(daemon: Daemon, cluster: str, outcome: str = "confirmed") -> float:
    """How many records that cluster has confirmed, or missed."""
    metric = f'breaker_publish_copies_total{{cluster="{cluster}",outcome="{outcome}"'
    lines = daemon.get("/metrics").content.decode().splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(metric))


async def takes_part(producer: Producer, daemon: Daemon, cluster: str) -> None:
    """Send until that cluster has confirmed some more."""
    before = copies(daemon, cluster)
    await producer.send_until(
        lambda _: copies(daemon, cluster) > before, f"the {cluster} takes copies"
    )


async def settled(producer: Producer, daemon: Daemon) -> None:
    """Nothing is on its way to either cluster any more."""
    records = sum(map(len, producer.accepted.values()))

    def so() -> bool:
        return all(
            copies(daemon, each) + copies(daemon, each, "missed") >= records for each in NAMES
        )

    await poll_until(so, PATIENCE_S, "each has its copies, or has missed them")


async def both_take(producer: Producer, daemon: Daemon) -> None:
    """Whichever is quicker, each gets its copies."""
    for cluster in NAMES:
        await takes_part(producer, daemon, cluster)


async def test_a_killed_cluster_loses_nothing_and_takes_part_again(
    clusters: Clusters, topic: str, tmp_path: Path
) -> None:
    first, second = clusters
    with Daemon(config(straight(clusters), topic, tmp_path)) as daemon:
        producer = Producer(daemon, topic)
        async with reading(straight(clusters), topic) as found:
            seen, dual = found.seen, found.dual
            await both_take(producer, daemon)
            await poll_until(lambda: seen == producer.accepted, PATIENCE_S, "all are handled")

            await asyncio.to_thread(first.broker.kill)
            for _ in range(60):
                await asyncio.to_thread(producer.send)
            assert (await asyncio.to_thread(producer.send))["cluster"] == "second"
            await poll_until(lambda: seen == producer.accepted, PATIENCE_S, "nobody waits for it")

            await asyncio.to_thread(first.start)
            await takes_part(producer, daemon, "first")
            await poll_until(lambda: seen == producer.accepted, PATIENCE_S, "all are handled")

            # The other one goes, so that only what came back is left.
            await asyncio.to_thread(second.broker.kill)
            await producer.send_until(lambda b: b.get("cluster") == "first", "the first confirms")
            await poll_until(lambda: seen == producer.accepted, PATIENCE_S, "all are handled")
            await asyncio.to_thread(second.start)
    assert found.figures() == (0, 0, 0)
    assert dual.figures.copies > 0
    assert dual.figures.given == sum(map(len, producer.accepted.values()))
    for kafka in clusters:
        committed = kafka.committed(f"g-{topic}", topic)
        assert committed, "each cluster knows what is done"


async def test_what_neither_takes_is_spooled_and_comes_once(
    clusters: Clusters, topic: str, tmp_path: Path
) -> None:
    with Daemon(config(straight(clusters), topic, tmp_path)) as daemon:
        producer = Producer(daemon, topic)
        async with reading(straight(clusters), topic) as found:
            seen = found.seen
            for _ in range(6):
                await asyncio.to_thread(producer.send)
            await poll_until(lambda: seen == producer.accepted, PATIENCE_S, "all are handled")
            for kafka in clusters:
                kafka.broker.freeze()
            try:
                answers = [await asyncio.to_thread(producer.send) for _ in range(6)]
            finally:
                for kafka in clusters:
                    kafka.broker.thaw()
            assert {answer["status"] for answer in answers} == {"spooled"}
            daemon.kill()
            with Daemon(config(straight(clusters), topic, tmp_path)) as again:
                producer._daemon = again
                for _ in range(6):
                    await asyncio.to_thread(producer.send)
                await poll_until(lambda: seen == producer.accepted, PATIENCE_S, "all came, once")
            assert found.figures() == (0, 0, 0)


@pytest.mark.parametrize("silent", [0, 1], ids=NAMES)
async def test_dropped_packets_hold_up_neither_producer_nor_reader(
    ways: Ways, topic: str, tmp_path: Path, silent: int
) -> None:
    servers, other = (ways[0].address, ways[1].address), NAMES[1 - silent]
    with Daemon(config(servers, topic, tmp_path)) as daemon:
        producer = Producer(daemon, topic)
        async with reading(servers, topic) as found:
            await both_take(producer, daemon)
            await poll_until(lambda: found.seen == producer.accepted, PATIENCE_S, "all are handled")

            ways[silent].drop()
            until = time.monotonic() + 2.0  # beyond the time in which a copy has to be confirmed
            while time.monotonic() < until:
                answer = await asyncio.to_thread(producer.send)
                assert (answer["status"], answer["cluster"]) == ("delivered", other)
            await poll_until(
                lambda: found.seen == producer.accepted, PATIENCE_S, "nobody waits for it"
            )

            ways[silent].heal()
            await takes_part(producer, daemon, NAMES[silent])
            # The other one falls silent, so that only what came back is left.
            ways[1 - silent].drop()
            await producer.send_until(
                lambda body: body.get("cluster") == NAMES[silent], "what came back confirms"
            )
            await poll_until(lambda: found.seen == producer.accepted, PATIENCE_S, "all are handled")
            ways[1 - silent].heal()
    assert producer.slowest_s < ANSWERED_S + SLACK_S
    assert found.figures() == (0, 0, 0)
    assert found.dual.figures.given == sum(map(len, producer.accepted.values()))


async def test_what_a_silent_cluster_alone_holds_is_told_as_a_gap_and_then_as_late(
    clusters: Clusters, ways: Ways, topic: str, tmp_path: Path
) -> None:
    servers = ways[0].address, ways[1].address
    with Daemon(config(servers, topic, tmp_path)) as daemon:
        producer = Producer(daemon, topic)
        await both_take(producer, daemon)
        for away in (0, 1):  # so each of them misses what the other one gets
            ways[away].drop()
            for _ in range(4):
                await asyncio.to_thread(producer.send)
            await settled(producer, daemon)
            ways[away].heal()
            await takes_part(producer, daemon, NAMES[away])
        await settled(producer, daemon)
        ways[1].drop()
        here, there = await asyncio.gather(
            *(asyncio.to_thread(held, kafka, topic) for kafka in clusters)
        )
        alone = {at: value for at, value in there.items() if at not in here}
        assert alone, "only the second has some of them"
        async with reading(servers, topic) as found:
            await poll_until(lambda: found.missed == {*alone}, PATIENCE_S, "the gaps are told")
            await producer.send_until(lambda b: b.get("cluster") == "first", "it goes on")
            rest = {
                p: [number for number in numbers if number not in alone.values()]
                for p, numbers in producer.accepted.items()
            }
            await poll_until(lambda: found.seen == rest, PATIENCE_S, "the reader goes on")
            assert not found.late

            ways[1].heal()
            late = {p: [n for n in alone.values() if n % 2 == p] for p in (0, 1)}
            await poll_until(lambda: found.late == late, PATIENCE_S, "what came late is told")
            await takes_part(producer, daemon, "second")
            rest = {
                p: [number for number in numbers if number not in alone.values()]
                for p, numbers in producer.accepted.items()
            }
            await poll_until(lambda: found.seen == rest, PATIENCE_S, "both are read again")
    assert found.missed == {*alone}
    assert found.figures()[1:] == (len(alone), len(alone))


async def test_a_reader_that_starts_anew_knows_what_is_done(
    clusters: Clusters, topic: str, tmp_path: Path
) -> None:
    with Daemon(config(straight(clusters), topic, tmp_path)) as daemon:
        producer = Producer(daemon, topic)
        await both_take(producer, daemon)
        async with reading(straight(clusters), topic) as found:
            await poll_until(lambda: found.seen == producer.accepted, PATIENCE_S, "all are handled")
        before = {p: len(numbers) for p, numbers in producer.accepted.items()}
        # As if the second had been away: it brings all of it again.
        clusters[1].commit(f"g-{topic}", topic, {0: 0, 1: 0})
        for _ in range(4):
            await asyncio.to_thread(producer.send)
        rest = {p: numbers[before[p] :] for p, numbers in producer.accepted.items()}
        async with reading(straight(clusters), topic) as found:
            await poll_until(lambda: found.seen == rest, PATIENCE_S, "only what is new is handled")
            copies = sum(map(len, producer.accepted.values()))
            await poll_until(
                lambda: found.dual.figures.copies == copies, PATIENCE_S, "the rest are copies"
            )
        assert found.seen == rest
        assert found.figures() == (0, 0, 0)


async def test_a_topic_is_gone_when_both_clusters_say_so(
    clusters: Clusters, ways: Ways, topic: str, tmp_path: Path
) -> None:
    first, second = clusters
    settings = config((ways[0].address, ways[1].address), topic, tmp_path)
    settings["publish"]["missing_topic_after"] = "5s"
    letters = tmp_path / "dead-letters.ndjson"
    with Daemon(settings) as daemon:

        def waiting() -> int:
            return int(daemon.get("/v1/spool").body["records"])

        producer = Producer(daemon, topic)
        await both_take(producer, daemon)
        await asyncio.to_thread(first.delete_topic, topic)
        await producer.send_until(lambda b: b.get("cluster") == "second", "one of them is enough")
        ways[1].refuse()
        await producer.send_until(lambda b: b["status"] == "spooled", "neither takes it")
        assert waiting()
        await asyncio.to_thread(second.delete_topic, topic)
        ways[1].heal()
        await poll_until(lambda: not waiting(), PATIENCE_S, "what waited is set aside")
        assert b"unknown-kafka-topic" in letters.read_bytes()
        refused = daemon.request("POST", f"/v1/publish/{topic}", b"x", RAW)
        assert (refused.status, refused.body["title"]) == (404, "Unknown kafka topic")
        for kafka in clusters:
            await asyncio.to_thread(kafka.create_topic, topic, PARTITIONS)
        await poll_until(
            lambda: daemon.request("POST", f"/v1/publish/{topic}", b"x", RAW).status == 200,
            PATIENCE_S,
            "it is there again",
        )


async def test_a_reload_brings_the_second_cluster(
    clusters: Clusters, topic: str, tmp_path: Path
) -> None:
    both = config(straight(clusters), topic, tmp_path)
    alone = {key: value for key, value in both.items() if key != "kafka_second"}
    alone["publish"] = {"topics": {topic: {"outage": "breaker"}}}
    with Daemon(alone) as daemon:

        async def reload(settings: dict[str, Any]) -> dict[str, Any]:
            """The configuration is read anew; what is told of that."""
            before = len(events(daemon, "config_reloaded"))
            daemon.configure(settings)
            daemon.send_signal(signal.SIGHUP)
            await poll_until(
                lambda: len(events(daemon, "config_reloaded")) > before, PATIENCE_S, "it says so"
            )
            return events(daemon, "config_reloaded")[-1]

        producer = Producer(daemon, topic)
        assert "cluster" not in await asyncio.to_thread(producer.send)
        assert (await reload(both))["restart_needed_for"] == []
        await both_take(producer, daemon)
        async with reading(straight(clusters), topic) as found:
            await poll_until(lambda: found.seen == producer.accepted, PATIENCE_S, "all are handled")
        assert found.figures() == (0, 0, 0)

        elsewhere = {**both, "kafka_second": {"bootstrap_servers": [f"127.0.0.1:{free_port()}"]}}
        assert (await reload(elsewhere))["restart_needed_for"] == ["kafka_second"]
        await both_take(producer, daemon)  # until the restart it is as it was
        assert (await reload(alone))["restart_needed_for"] == ["kafka_second"]
        assert "cluster" not in await asyncio.to_thread(producer.send)


def test_kill_9_of_daemon_and_reader_loses_nothing_and_tells_no_false_gap(
    clusters: Clusters, ways: Ways, topic: str, tmp_path: Path
) -> None:
    """`python -m tests.dual_crash 100` plays more."""
    sides = list(zip(clusters, ways, strict=True))
    dual_crash.play(sides, Told(topic), tmp_path, rounds=5, chance=random.Random(1))


def test_what_two_clusters_cost_is_measured(clusters: Clusters) -> None:
    rows = list(bench_dual.rows(clusters, rounds=1, seconds=0.1, count=2_000))
    assert all(row.value and row.peer_value for row in rows)
