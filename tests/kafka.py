"""A real Kafka for the tests: one broker or a few, each broker and controller in one process.

What a test does to a topic or a group from outside (create, produce, commit, look) are blocking
calls with deadlines, which also work inside a running event loop. Clients of the brokers come in
by the listener CLIENT; brokers talk to each other by INTERNAL, so that what a test does to the one
doesn't take the other apart.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import uuid
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self, TypeVar

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError, for_code
from aiokafka.protocol.metadata import MetadataRequest
from aiokafka.structs import OffsetAndMetadata

from tests.servers import ROOT, free_port, poll_until_sync

T = TypeVar("T")

START_DEADLINE_S = 90.0
STOP_DEADLINE_S = 20.0
CALL_DEADLINE_S = 30.0
JAVA = (
    "-Xmx384m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS",
)


def _java(main: str, *arguments: str) -> list[str]:
    jars = ROOT / ".tools" / "kafka"
    if not jars.exists():
        raise AssertionError("no Kafka: `make tools` brings it to .tools/kafka")
    return ["java", *JAVA, "-cp", f"{jars}/*", main, *arguments]


def blocking(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end on a loop of its own, bounded; works inside a running loop too."""

    async def bounded() -> T:
        async with asyncio.timeout(CALL_DEADLINE_S):
            return await work

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, bounded()).result()


def listens(port: int) -> bool:
    """Whether anybody takes connections on a loopback port."""
    try:
        with socket.create_connection(("127.0.0.1", port), 1.0):
            return True
    except OSError:
        return False


class Broker:
    """One process of a cluster, broker and controller in one."""

    def __init__(self, node: int, folder: Path, properties: str, port: int, cluster: str) -> None:
        self.node = node
        self.port = port
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)
        self._properties = folder / "server.properties"
        self._properties.write_text(properties + f"log.dirs={folder}/data\n", "utf-8")
        format_it = _java(
            "kafka.tools.StorageTool", "format", "-t", cluster, "-c", str(self._properties)
        )
        subprocess.run(format_it, check=True, capture_output=True, timeout=START_DEADLINE_S)

    @property
    def address(self) -> str:
        """host:port of its own listener for clients."""
        return f"127.0.0.1:{self.port}"

    @property
    def running(self) -> bool:
        """Whether its process lives, frozen or not."""
        return self._process is not None and self._process.poll() is None

    @property
    def log(self) -> str:
        """What it has written so far."""
        return (self._folder / "log").read_text("utf-8", "replace")

    def start(self) -> None:
        """Begin to start; the cluster's `start` waits until it serves."""
        if self.running:
            return
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                _java("kafka.Kafka", str(self._properties)),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={k: v for k, v in os.environ.items() if not k.startswith("KAFKA_")},
            )

    def stop(self) -> None:
        """End it in an orderly way, handing its partitions over."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL."""
        self._end(signal.SIGKILL)

    def freeze(self) -> None:
        """SIGSTOP: connections are still accepted by the kernel, no answer ever comes."""
        if self._process is not None:
            self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let a frozen broker go on."""
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)

    def _end(self, how: signal.Signals) -> None:
        if self._process is None:
            return
        self._process.send_signal(how)
        self.thaw()
        try:
            self._process.wait(STOP_DEADLINE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(STOP_DEADLINE_S)
        self._process = None


class Kafka:
    """A cluster on loopback. A context manager; `start` returns once all brokers serve.

    Args:
        brokers: how many.
        advertised: the port that broker N tells clients to come to, where that isn't its own: a
            proxy's, say.
        protocol: of the CLIENT listener; whatever it needs goes into `config`.
        config: more properties, for every broker.
        admin: options of aiokafka's clients that the test's own calls need for `protocol`.
    """

    def __init__(
        self,
        brokers: int = 1,
        *,
        advertised: Mapping[int, int] | None = None,
        protocol: str = "PLAINTEXT",
        config: Mapping[str, str] | None = None,
        admin: Mapping[str, Any] | None = None,
    ) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="breaker-kafka-"))
        self._options = dict(admin or {})
        nodes = range(1, brokers + 1)
        controllers = {node: free_port() for node in nodes}
        voters = ",".join(f"{node}@127.0.0.1:{port}" for node, port in controllers.items())
        cluster = uuid.uuid4().hex[:22]
        ports = {node: free_port() for node in nodes}

        def make(node: int) -> Broker:
            listeners = (
                f"CLIENT://127.0.0.1:{ports[node]}",
                f"INTERNAL://127.0.0.1:{free_port()}",
                f"CONTROLLER://127.0.0.1:{controllers[node]}",
            )
            told = (advertised or {}).get(node, ports[node])
            properties = {
                "process.roles": "broker,controller",
                "node.id": str(node),
                "controller.quorum.voters": voters,
                "listeners": ",".join(listeners),
                "advertised.listeners": f"CLIENT://127.0.0.1:{told},{listeners[1]}",
                "listener.security.protocol.map": f"CLIENT:{protocol},INTERNAL:PLAINTEXT,"
                "CONTROLLER:PLAINTEXT",
                "inter.broker.listener.name": "INTERNAL",
                "controller.listener.names": "CONTROLLER",
                "auto.create.topics.enable": "false",
                "offsets.topic.num.partitions": "4",
                "offsets.topic.replication.factor": str(min(3, brokers)),
                "transaction.state.log.replication.factor": str(min(3, brokers)),
                "transaction.state.log.min.isr": "1",
                "group.initial.rebalance.delay.ms": "0",
                "group.min.session.timeout.ms": "1000",
                # A dead broker is told apart in seconds, not in Kafka's usual nine.
                "broker.heartbeat.interval.ms": "500",
                "broker.session.timeout.ms": "3000",
                "replica.lag.time.max.ms": "4000",
                "log.cleaner.dedupe.buffer.size": "4194304",
                **(config or {}),
            }
            text = "".join(f"{key}={value}\n" for key, value in properties.items())
            return Broker(node, self._folder / str(node), text, ports[node], cluster)

        with ThreadPoolExecutor(brokers) as pool:
            self.brokers = dict(zip(nodes, pool.map(make, nodes), strict=True))

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.close()
            raise

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def bootstrap(self) -> str:
        """The addresses to begin with, as `bootstrap_servers` takes them."""
        return ",".join(broker.address for broker in self.brokers.values())

    @property
    def broker(self) -> Broker:
        """The only broker of a single one, else the first."""
        return self.brokers[1]

    def start(self) -> Self:
        """Start what doesn't run, and wait until every broker serves and knows all the others."""
        for broker in self.brokers.values():
            broker.start()
        poll_until_sync(self._serving, START_DEADLINE_S, "Kafka serves")
        return self

    def _serving(self) -> bool:
        for broker in self.brokers.values():
            if not broker.running:
                raise AssertionError(f"Kafka ended: {broker.log[-3000:]}")
            if not listens(broker.port):
                return False

        async def known(address: str) -> int:
            async with asyncio.timeout(5):
                admin = self._admin(address)
                await admin.start()
                try:
                    return len((await admin.describe_cluster())["brokers"])
                finally:
                    await admin.close()

        try:
            return all(
                blocking(known(broker.address)) == len(self.brokers)
                for broker in self.brokers.values()
            )
        except (KafkaError, OSError, TimeoutError):
            return False

    def close(self) -> None:
        """End it for good and remove what it left."""
        for broker in self.brokers.values():
            broker.kill()
        shutil.rmtree(self._folder, ignore_errors=True)

    # --- what tests do from outside --------------------------------------------------------

    def client_options(self) -> dict[str, Any]:
        """What every client of aiokafka's needs to come in."""
        return {"bootstrap_servers": self.bootstrap, "request_timeout_ms": 10_000, **self._options}

    def _admin(self, address: str | None = None) -> AIOKafkaAdminClient:
        options = self.client_options()
        return AIOKafkaAdminClient(
            **(options | ({"bootstrap_servers": address} if address else {}))
        )

    def ask(self, work: Callable[[AIOKafkaAdminClient], Awaitable[T]]) -> T:
        """One piece of work with an admin client."""

        async def run() -> T:
            admin = self._admin()
            await admin.start()
            try:
                return await work(admin)
            finally:
                await admin.close()

        return blocking(run())

    def create_topic(
        self,
        name: str,
        partitions: int = 1,
        *,
        replication: int = 1,
        placement: Mapping[int, Sequence[int]] | None = None,
        **config: str,
    ) -> str:
        """Make a topic and wait until each partition has a leader; returns the name.

        Args:
            placement: the brokers of each partition, the preferred leader first.
            config: the topic's, with _ for dots.
        """
        topic = NewTopic(
            name,
            -1 if placement else partitions,
            -1 if placement else replication,
            replica_assignments={p: list(on) for p, on in placement.items()} if placement else None,
            topic_configs={key.replace("_", "."): value for key, value in config.items()},
        )

        async def create(admin: AIOKafkaAdminClient) -> None:
            for _, code, *_ in (await admin.create_topics([topic])).topic_errors:
                if code:
                    raise for_code(code)

        self.ask(create)
        expected = len(placement) if placement else partitions

        def led() -> bool:
            everybodys = [self.leaders(name, node) for node in self._running()]
            return all(
                len(leaders) == expected and min(leaders.values()) > 0 for leaders in everybodys
            )

        poll_until_sync(led, START_DEADLINE_S, f"every broker knows the leaders of {name}")
        return name

    def delete_topic(self, name: str) -> None:
        """Delete a topic and wait until nobody lists it."""

        async def delete(admin: AIOKafkaAdminClient) -> None:
            await admin.delete_topics([name])

        async def gone(admin: AIOKafkaAdminClient) -> bool:
            return name not in await admin.list_topics()

        self.ask(delete)
        poll_until_sync(lambda: self.ask(gone), START_DEADLINE_S, f"{name} is gone")

    def leaders(self, topic: str, node: int | None = None) -> dict[int, int]:
        """The leading broker of each partition, as one broker knows it; -1 where there is none."""
        asked = node or self._running()[0]

        async def look(admin: AIOKafkaAdminClient) -> dict[int, int]:
            told = await admin._send_request_to_node(asked, MetadataRequest([topic]))
            (found,) = told.to_object()["topics"]
            return {p["partition"]: p["leader"] for p in found["partitions"]}

        return self.ask(look)

    def _running(self) -> list[int]:
        return [node for node, broker in self.brokers.items() if broker.running]

    def produce(self, topic: str, values: Sequence[bytes], *, partition: int | None = None) -> None:
        """Send records and wait for all of them."""

        async def send() -> None:
            async with AIOKafkaProducer(**self.client_options()) as producer:
                sent = [await producer.send(topic, value, partition=partition) for value in values]
                await asyncio.gather(*sent)

        blocking(send())

    def end_offsets(self, topic: str) -> dict[int, int]:
        """The next offset of each partition."""

        async def look() -> dict[int, int]:
            async with AIOKafkaConsumer(topic, **self.client_options()) as consumer:
                found = await consumer.end_offsets(sorted(consumer.assignment()))
                return {at.partition: offset for at, offset in found.items()}

        return blocking(look())

    def read(self, topic: str, count: int, *, within_s: float = 20.0) -> list[Any]:
        """The first `count` records of a topic, in the order of each partition."""

        async def look() -> list[Any]:
            found: list[Any] = []
            options = {**self.client_options(), "auto_offset_reset": "earliest"}
            async with AIOKafkaConsumer(topic, **options) as consumer:
                async with asyncio.timeout(within_s):
                    while len(found) < count:
                        for records in (await consumer.getmany(timeout_ms=200)).values():
                            found += records
            return found

        return blocking(look())

    def commit(self, group: str, topic: str, offsets: Mapping[int, int]) -> None:
        """Commit offsets for a group without members."""

        async def write() -> None:
            options = {**self.client_options(), "group_id": group, "enable_auto_commit": False}
            consumer = AIOKafkaConsumer(**options)
            await consumer.start()
            try:
                wanted = {TopicPartition(topic, p): offset for p, offset in offsets.items()}
                consumer.assign(list(wanted))
                await consumer.commit(
                    {at: OffsetAndMetadata(offset, "") for at, offset in wanted.items()}
                )
            finally:
                await consumer.stop()

        blocking(write())

    def committed(self, group: str, topic: str) -> dict[int, int]:
        """What a group has committed, partitions without a commit left out."""

        async def look(admin: AIOKafkaAdminClient) -> dict[int, int]:
            found = await admin.list_consumer_group_offsets(group)
            return {
                at.partition: meta.offset
                for at, meta in found.items()
                if at.topic == topic and meta.offset >= 0
            }

        return self.ask(look)
