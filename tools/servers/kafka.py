"""A real Kafka: one broker or a few, each broker and controller in one process.

Clients of the brokers come in by the listener CLIENT; brokers talk to each other by INTERNAL, so
that what is done to the one doesn't take the other apart.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import tempfile
import uuid
from collections.abc import Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self, TypeVar

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from tools.get_kafka import LINK
from tools.servers.waiting import free_port, listens, poll_until_sync

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
    if not LINK.exists():
        raise AssertionError("no Kafka: `make tools` brings it to .tools/kafka")
    return ["java", *JAVA, "-cp", f"{LINK}/*", main, *arguments]


def blocking(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end on a loop of its own, bounded; works inside a running loop too."""

    async def bounded() -> T:
        async with asyncio.timeout(CALL_DEADLINE_S):
            return await work

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, bounded()).result()


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


COMMON = {
    "inter.broker.listener.name": "INTERNAL",
    "controller.listener.names": "CONTROLLER",
    "auto.create.topics.enable": "false",
    "offsets.topic.num.partitions": "4",
    "transaction.state.log.min.isr": "1",
    "group.initial.rebalance.delay.ms": "0",
    "group.min.session.timeout.ms": "1000",
    # A dead broker is told apart in seconds, not in Kafka's usual nine.
    "broker.heartbeat.interval.ms": "500",
    "broker.session.timeout.ms": "3000",
    "replica.lag.time.max.ms": "4000",
    "log.cleaner.dedupe.buffer.size": "4194304",
}
"""Properties of every broker, wherever it listens."""


class KafkaCluster:
    """A cluster on loopback. A context manager; `start` returns once all brokers serve.

    Args:
        brokers: how many.
        advertised: the port that broker N tells clients to come to, where that isn't its own: a
            proxy's, say.
        controllers: how many of them are controllers too, the first ones; None: all. What is killed
            must leave a majority of these, or nobody finds new leaders or says that there is none.
        side: makes a second listener for clients, SIDE, with the port of a proxy that broker N
            tells those who come in by it: so that some can be cut off and others not.
        protocol: of the CLIENT listener; whatever it needs goes into `config`.
        config: more properties, for every broker.
        admin: options of aiokafka's clients that calls from outside need for `protocol`.
    """

    def __init__(
        self,
        brokers: int = 1,
        *,
        advertised: Mapping[int, int] | None = None,
        controllers: int | None = None,
        side: Mapping[int, int] | None = None,
        protocol: str = "PLAINTEXT",
        config: Mapping[str, str] | None = None,
        admin: Mapping[str, Any] | None = None,
    ) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="breaker-kafka-"))
        self._options = dict(admin or {})
        nodes = range(1, brokers + 1)
        voting = {node: free_port() for node in nodes[:controllers]}
        voters = ",".join(f"{node}@127.0.0.1:{port}" for node, port in voting.items())
        cluster = uuid.uuid4().hex[:22]
        ports = {node: free_port() for node in nodes}
        self.side_ports = {node: free_port() for node in side or {}}
        """Where SIDE listens, behind the proxies."""

        def make(node: int) -> Broker:
            listeners = [
                f"CLIENT://127.0.0.1:{ports[node]}",
                f"INTERNAL://127.0.0.1:{free_port()}",
            ]
            if node in voting:
                listeners.append(f"CONTROLLER://127.0.0.1:{voting[node]}")
            aside = f",SIDE://127.0.0.1:{self.side_ports[node]}" if side else ""
            told_aside = f",SIDE://127.0.0.1:{side[node]}" if side else ""
            told = (advertised or {}).get(node, ports[node])
            properties = {
                "process.roles": "broker,controller" if node in voting else "broker",
                "node.id": str(node),
                "controller.quorum.voters": voters,
                "listeners": ",".join(listeners) + aside,
                "advertised.listeners": f"CLIENT://127.0.0.1:{told},{listeners[1]}{told_aside}",
                "listener.security.protocol.map": f"CLIENT:{protocol},INTERNAL:PLAINTEXT,"
                "CONTROLLER:PLAINTEXT,SIDE:PLAINTEXT",
                "offsets.topic.replication.factor": str(min(3, brokers)),
                "transaction.state.log.replication.factor": str(min(3, brokers)),
                **COMMON,
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

    def client_options(self) -> dict[str, Any]:
        """What every client of aiokafka's needs to come in."""
        return {"bootstrap_servers": self.bootstrap, "request_timeout_ms": 10_000, **self._options}

    def _admin(self, address: str | None = None) -> AIOKafkaAdminClient:
        options = self.client_options()
        return AIOKafkaAdminClient(
            **(options | ({"bootstrap_servers": address} if address else {}))
        )
