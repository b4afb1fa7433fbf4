"""A real Consul cluster on loopback: three servers, and agents in client mode before them.

with Cluster(folder) as cluster:
    agent = cluster.agent("a")
    cluster.leader().kill()
"""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from tests.servers import ConsulServer, consul_binary, free_port, poll_until_sync

CLUSTER_DEADLINE_S = 60.0


@dataclass(frozen=True, slots=True)
class Ports:
    """Where one agent listens; fixed, so that it comes back where the others look for it."""

    rpc: int = field(default_factory=free_port)
    serf: int = field(default_factory=free_port)


class Node(ConsulServer):
    """One agent of a cluster, as server or as client; `start` doesn't wait for a quorum.

    Args:
        join: the serf ports of the servers.
        servers: how many servers make the cluster; 0 for an agent in client mode.
    """

    def __init__(self, name: str, folder: Path, ports: Ports, join: Sequence[int], servers: int):
        super().__init__(data_dir=folder / name)
        self.name = name
        self._ports = ports
        self._join = join
        self._servers = servers

    def _spawn(self) -> None:
        assert self._data_dir is not None
        (self._folder / "agent.hcl").write_text(self._hcl(), "utf-8")
        command = [str(consul_binary()), "agent", "-config-file", str(self._folder / "agent.hcl")]
        command += ["-data-dir", str(self._data_dir)]
        if self._servers:
            command += ["-server", f"-bootstrap-expect={self._servers}"]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env={}
            )

    def _hcl(self) -> str:
        joined = ", ".join(f'"127.0.0.1:{port}"' for port in self._join)
        return f"""
            node_name = "{self.name}"
            bind_addr = "127.0.0.1"
            client_addr = "127.0.0.1"
            log_level = "WARN"
            disable_update_check = true
            retry_join = [{joined}]
            retry_interval = "1s"
            ports {{
              http = {self.port} server = {self._ports.rpc} serf_lan = {self._ports.serf}
              serf_wan = -1 dns = -1 grpc = -1 grpc_tls = -1
            }}
            performance {{ raft_multiplier = 1 }}
            limits {{ http_max_conns_per_client = 2000 }}
            connect {{ enabled = false }}
            autopilot {{ cleanup_dead_servers = false }}
        """

    def _serving(self) -> bool:
        """It answers at all; whether the cluster does is another question."""
        assert self._process is not None
        assert self._process.poll() is None, f"{self.name} ended: {self.log[-2000:]}"
        try:
            return self.request("GET", "/v1/agent/self")[0] == 200
        except OSError:
            return False

    @property
    def running(self) -> bool:
        """Whether there is a process."""
        return self._process is not None

    def works(self) -> bool:
        """Whether it can write, so has a way to a leader."""
        with contextlib.suppress(OSError):
            status, _, body = self.request("PUT", "/v1/session/create", b'{"NodeChecks": []}')
            if status == 200:
                session = json.loads(body)["ID"]
                return self.request("PUT", f"/v1/session/destroy/{session}")[0] == 200
        return False


class Cluster:
    """Three servers. A context manager, which ends every agent.

    Args:
        folder: where the agents keep their data.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        ports = [Ports() for _ in range(3)]
        self._join = [each.serf for each in ports]
        self.servers = [
            Node(f"server-{number}", folder, each, self._join, len(ports))
            for number, each in enumerate(ports)
        ]
        self._agents: list[Node] = []

    def __enter__(self) -> Self:
        try:
            for server in self.servers:
                server.start()
            for server in self.servers:
                poll_until_sync(server.works, CLUSTER_DEADLINE_S, f"{server.name} has a leader")
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End every agent, by force: nobody is left to leave for."""
        for node in [*self._agents, *self.servers]:
            node.kill()
            node.close()

    def agent(self, name: str) -> Node:
        """One more agent in client mode, once it works."""
        node = Node(name, self._folder, Ports(), self._join, 0)
        self._agents.append(node)
        node.start()
        poll_until_sync(node.works, CLUSTER_DEADLINE_S, f"{name} has a way to the leader")
        return node

    def leader(self) -> Node:
        """The server that leads now."""
        return poll_until_sync(self._leader, CLUSTER_DEADLINE_S, "the cluster has a leader")

    def _leader(self) -> Node | None:
        for server in self.servers:
            if not server.running:
                continue
            with contextlib.suppress(OSError):
                status, _, body = server.request("GET", "/v1/agent/self")
                if status == 200 and json.loads(body)["Stats"]["consul"]["leader"] == "true":
                    return server
        return None

    def whole(self) -> bool:
        """Whether every server that runs can write."""
        return all(server.works() for server in self.servers if server.running)
