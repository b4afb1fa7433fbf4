"""A real `nomad agent -dev` on free ports.

Leaving the block ends the agent, and with it every task: in dev mode an agent destroys what it
runs. What is left all the same is killed by process id. A second agent may join the first one as
another host.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.nomad.api import STOP_DEADLINE_S, NomadApi, nomad_binary
from tests.nomad.namespace import Namespace
from tests.servers import free_port, poll_until_sync
from tools.programs import cni_plugins

START_DEADLINE_S = 60.0
NOT_OF_THE_TEST = ("NOMAD_", "CONSUL_", "VAULT_", "BREAKER_", "AWS_")
"""Of the environment: what would tell Nomad, or a task of it, of another place than the test's."""


class NomadAgent(NomadApi):
    """Server and client in one. A context manager; entering waits until it can place a job.

    Args:
        config: more configuration in HCL.
        namespace: the network it lives in; the machine's own by default.
        joins: the server that this one is only a client of: another host, with folders of its own.
        meta: what jobs may ask of this host.
    """

    def __init__(
        self,
        *,
        config: str = "",
        namespace: Namespace | None = None,
        joins: NomadAgent | None = None,
        meta: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(Path(tempfile.mkdtemp(prefix="breaker-nomad-")), namespace)
        # The stand-ins of images run as other users too.
        self.folder.chmod(0o755)
        self._config = config
        self._joins = joins
        self._meta = dict(meta or {})
        self.rpc_port = 0
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        try:
            self._start()
            try:
                poll_until_sync(self._ready, START_DEADLINE_S, "Nomad has a node")
            except _PortTakenError:
                self._start()  # with other ports: somebody was faster
                poll_until_sync(self._ready, START_DEADLINE_S, "Nomad has a node")
        except BaseException:
            sys.stderr.write(self.said())
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        fault: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if fault is not None:
            sys.stderr.write(self.said())
        self.close()

    def _start(self) -> None:
        self.port, self.rpc_port = free_port(), free_port()
        file = self.folder / "agent.hcl"
        file.write_text(self._hcl() + self._config, "utf-8")
        mode = "-dev" if self._joins is None else "-client"
        command = [str(nomad_binary()), "agent", mode, "-config", str(file)]
        if self._namespace is not None:
            command = [*self._namespace.enter, *command]
        own = {k: v for k, v in os.environ.items() if not k.startswith(NOT_OF_THE_TEST)}
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                command,
                cwd=self.folder,
                env=own,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def _hcl(self) -> str:
        role, servers = "server { raft_multiplier = 1 }", ""
        if self._joins is not None:
            here = "127.0.0.1"
            role = f'advertise {{ http = "{here}" rpc = "{here}" serf = "{here}" }}'
            servers = f'enabled = true\nservers = ["{here}:{self._joins.rpc_port}"]'
        meta = " ".join(f'{name} = "{value}"' for name, value in self._meta.items())
        return f"""
            data_dir = "{self.folder / "data"}"
            bind_addr = "127.0.0.1"
            log_level = "WARN"
            disable_update_check = true
            ports {{ http = {self.port} rpc = {self.rpc_port} serf = {free_port()} }}
            {role}
            client {{
              {servers}
              meta {{ {meta} }}
              network_interface = "{self._namespace.interface if self._namespace else "lo"}"
              cni_path = "{self._cni_path()}"
              # Twelve allocations are to fit on whatever this machine is.
              cpu_total_compute = 100000
              memory_total_mb = 100000
              # Nobody is asked whether this is a machine in a cloud.
              options = {{
                "fingerprint.denylist" = "env_aws,env_azure,env_digitalocean,env_gce"
                "driver.allowlist" = "raw_exec"
              }}
            }}
            plugin "raw_exec" {{ config {{ enabled = true }} }}
        """

    def _cni_path(self) -> Path:
        """The plugins, each answering with a version, as Nomad wants it; Debian's say none."""
        folder = self.folder / "cni"
        folder.mkdir(exist_ok=True)
        plugins = cni_plugins()
        assert plugins is not None, "no CNI plugins: on Debian, containernetworking-plugins"
        for plugin in ("bridge", "firewall", "host-local", "loopback", "portmap"):
            wrapper = folder / plugin
            wrapper.write_text(
                f'#!/bin/sh\n[ "$CNI_COMMAND" ] || {{ echo "CNI {plugin} plugin v1.0.0"; exit; }}\n'
                f'exec {plugins / plugin} "$@"\n',
                "utf-8",
            )
            wrapper.chmod(0o755)
        return folder

    def _ready(self) -> bool:
        if self._process is None or self._process.poll() is not None:
            if "address already in use" in self.said():
                raise _PortTakenError
            raise AssertionError("Nomad ended")
        with contextlib.suppress(OSError, AssertionError):
            nodes: list[dict[str, Any]] = self.get("/v1/nodes")
            return any(n["ID"] == self.node_id and n["Status"] == "ready" for n in nodes)
        return False

    @property
    def node_id(self) -> str:
        """What its host is called."""
        return str(self.get("/v1/agent/self")["stats"]["client"]["node_id"])

    def close(self) -> None:
        """End it, its tasks and what it mounted, and remove its folder."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(STOP_DEADLINE_S)
            self._process.kill()
            self._process.wait(STOP_DEADLINE_S)
        for pid in self._left():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        mounts = Path("/proc/self/mounts").read_text("utf-8").splitlines()
        for point in reversed([line.split(" ")[1] for line in mounts]):
            if point.startswith(f"{self.folder}/"):
                subprocess.run(["umount", "--lazy", point], check=False)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _left(self) -> Iterator[int]:
        """Processes of this agent that outlived it: its data folder is in what they were given."""
        mark = str(self.folder / "data").encode()
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if entry.name.isdigit() and any(
                    mark in (entry / given).read_bytes() for given in ("environ", "cmdline")
                ):
                    yield int(entry.name)

    def said(self) -> str:
        """The end of its log, for a failure."""
        log = self.folder / "log"
        return f"--- Nomad\n{log.read_text('utf-8', 'replace')[-6000:]}\n" if log.exists() else ""


class _PortTakenError(Exception):
    """Somebody took one of its ports between our look and its start."""
