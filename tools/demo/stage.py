"""Everybody on stage: Kafka, Consul, sidecars, database, API and workers, all as real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import yaml
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from sidecar.consumer.retry import dead_topic, retry_topic
from tools.demo import script
from tools.programs import ROOT
from tools.servers.consul import ConsulAgent
from tools.servers.kafka import KafkaCluster, blocking
from tools.servers.waiting import free_port, listens, poll_until_sync

STOP_S = 8.0
HURRY_S = 1.0
LISTEN_S = 20.0
INHERITED = ("PATH", "HOME", "LANG", "TMPDIR", "VIRTUAL_ENV")
API, DATABASE, SIDECAR = "tasks-api", "tasks-db", "breaker-sidecar"
"""Their names in Consul."""


class Failed(Exception):
    """Something on stage ended that must not, or never got ready; the text has what it said."""


class Program:
    """One process of ours, with its log in the folder."""

    def __init__(self, folder: Path, name: str, module: str, *command: str, **env: str) -> None:
        self.name = name
        self._log = folder / f"{name}.log"
        inherited = {key: os.environ[key] for key in INHERITED if key in os.environ}
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", module, *command],
                cwd=ROOT,
                env={**inherited, **env},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # Ctrl-C is for us: we end them in order.
                start_new_session=True,
            )

    def ask_to_stop(self) -> None:
        """SIGTERM."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)

    def end(self, by: float) -> None:
        """Wait for its end until then (monotonic), and kill it after."""
        try:
            self._process.wait(max(0.1, by - time.monotonic()))
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(STOP_S)

    def check(self) -> None:
        """Raises Failed if it has ended."""
        if (code := self._process.poll()) is not None:
            said = self._log.read_text("utf-8", "replace")[-2000:]
            raise Failed(f"{self.name} ended with {code}:\n{said}")


def stop(programs: list[Program], within_s: float) -> None:
    """End them together, in good order where they can do that in time."""
    for program in programs:
        program.ask_to_stop()
    by = time.monotonic() + within_s
    for program in programs:
        program.end(by)


class Stage:
    """What both runs share. A context manager; leaving it ends everything and leaves nothing."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self.hurry = False
        """Whether it ends before its time: then nobody is waited for for long."""
        self.api_port, self.database_port = free_port(), free_port()
        self.sidecar_ports = [free_port() for _ in range(script.SIDECARS)]
        self._sidecars: list[Program] = []
        self._players: list[Program] = []

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="demo-")))
            with ThreadPoolExecutor(2) as pool:  # Kafka takes 8 s, Consul two
                kafka = pool.submit(lambda: stack.enter_context(KafkaCluster()))
                consul = pool.submit(lambda: stack.enter_context(ConsulAgent()))
                self.kafka, self.consul = kafka.result(), consul.result()
            stack.callback(self._stop_all)
            self._start_shared()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _stop_all(self) -> None:
        self._stop(self._players)
        self._stop(self._sidecars)

    def _stop(self, programs: list[Program]) -> None:
        stop(programs, HURRY_S if self.hurry else STOP_S)

    @property
    def database(self) -> str:
        """Where it is steered."""
        return f"http://127.0.0.1:{self.database_port}"

    def _start_shared(self) -> None:
        database = {"listen": f"127.0.0.1:{self.database_port}", **script.DATABASE}
        self._sidecars.append(self._program("database", "examples.services.database", database))
        registered: list[dict[str, Any]] = [
            {"name": API, "port": self.api_port, "check": self._alive(self.api_port)},
            {
                "name": DATABASE,
                "port": self.database_port,
                "check": self._alive(self.database_port),
            },
            {"name": SIDECAR, "address": "127.0.0.1"},
        ]
        for number, (port, register) in enumerate(
            zip(self.sidecar_ports, registered, strict=True), 1
        ):
            config = {
                "listen": {"address": f"127.0.0.1:{port}"},
                "consul": {"address": self.consul.address},
                "register": {"address": "127.0.0.1", "check_interval": "1s", **register},
                "breakers": {script.BREAKER: script.FLOW},
            }
            name = f"sidecar-{number}"
            self._sidecars.append(
                self._program(name, "sidecar", config, "run", NOMAD_ALLOC_ID=f"host-{number}")
            )
        for port in (self.database_port, *self.sidecar_ports):
            self._wait_for(port)

    @staticmethod
    def _alive(port: int) -> str:
        return f"http://127.0.0.1:{port}/livez"

    def _program(
        self, name: str, module: str, config: Mapping[str, Any], *command: str, **env: str
    ) -> Program:
        path = self._folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump(dict(config)), "utf-8")
        return Program(self._folder, name, module, *command, "-c", str(path), **env)

    def _wait_for(self, port: int) -> None:
        def ready() -> bool:
            self.check()
            return listens(port)

        poll_until_sync(ready, LISTEN_S, f"somebody listens on {port}")

    def check(self) -> None:
        """Raises Failed if anybody has left the stage."""
        for program in self._sidecars + self._players:
            program.check()

    def enter(self, topic: str, *, breaker: bool) -> None:
        """API and workers enter for one run, on a topic and in a group of that name."""
        names = topics(topic)
        blocking(self._create(names))
        poll_until_sync(lambda: blocking(self._there(names)), LISTEN_S, "the topics are there")
        asked = {"breaker": script.BREAKER if breaker else None}
        kafka = {"kafka": self.kafka.bootstrap, "topic": topic}
        for number, port in enumerate(self.sidecar_ports, 1):
            beside = {**asked, "sidecar": f"127.0.0.1:{port}"}
            if number == 1:
                api = {"listen": f"127.0.0.1:{self.api_port}", **kafka, **beside, **script.API}
                self._players.append(self._program("api", "examples.services.api", api))
            worker = {
                "group": topic,
                "consul": self.consul.address,
                "database": DATABASE,
                "instance": f"worker-{number}",
                "store": str(self._folder / f"{topic}.db"),
                **kafka,
                **beside,
                **script.WORKER,
            }
            name = f"worker-{number}"
            self._players.append(self._program(name, "examples.services.worker", worker))
        self._wait_for(self.api_port)

    def leave(self) -> None:
        """API and workers go; the rest stays."""
        players, self._players = self._players, []
        self._stop(players)

    async def _create(self, names: list[str]) -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=self.kafka.bootstrap)
        await admin.start()
        try:
            await admin.create_topics([NewTopic(name, script.PARTITIONS, 1) for name in names])
        finally:
            await admin.close()

    async def _there(self, names: list[str]) -> bool:
        admin = AIOKafkaAdminClient(bootstrap_servers=self.kafka.bootstrap)
        await admin.start()
        try:
            return set(names) <= set(await admin.list_topics())
        finally:
            await admin.close()


def topics(topic: str) -> list[str]:
    """The topic and those that its failures go to, the dead letters last."""
    tiers = range(1, len(script.WORKER["retry_delays_s"]) + 1)
    return [topic, *(retry_topic(topic, tier) for tier in tiers), dead_topic(topic)]
