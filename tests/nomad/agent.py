"""A real `nomad agent -dev` on free ports, and what a test asks it.

Leaving the block ends the agent, and with it every task: in dev mode an agent destroys what it
runs. What is left all the same is killed by process id.
"""

from __future__ import annotations

import contextlib
import http.client
import json
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

from tests.nomad.namespace import Namespace
from tests.nomad.variants import Job
from tests.servers import ROOT, free_port, poll_until_sync
from tools.programs import cni_plugins

Alloc = dict[str, Any]

START_DEADLINE_S = 60.0
STOP_DEADLINE_S = 30.0
REQUEST_DEADLINE_S = 15.0
COMMAND_DEADLINE_S = 60.0
NOT_OF_THE_TEST = ("NOMAD_", "CONSUL_", "VAULT_", "BREAKER_", "AWS_")
"""Of the environment: what would tell Nomad, or a task of it, of another place than the test's."""
ENDED = {"complete", "failed", "lost"}


def nomad_binary() -> Path:
    """The checkout's own Nomad, else the one on PATH."""
    own = ROOT / ".tools" / "bin" / "nomad"
    found = own if own.exists() else shutil.which("nomad")
    if found is None:
        raise AssertionError("no Nomad: `make tools` brings one to .tools/bin")
    return Path(found)


class NomadAgent:
    """Server and client in one. A context manager; entering waits until it can place a job.

    Args:
        config: more configuration in HCL.
        namespace: the network it lives in; the machine's own by default.
    """

    def __init__(self, *, config: str = "", namespace: Namespace | None = None) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="breaker-nomad-"))
        # The stand-ins of images run as other users too.
        self.folder.chmod(0o755)
        self._config = config
        self._namespace = namespace
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0

    @property
    def url(self) -> str:
        """Where its HTTP interface is."""
        return f"http://127.0.0.1:{self.port}"

    # --- the process -------------------------------------------------------------------------

    def __enter__(self) -> Self:
        try:
            self._start()
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
        self.port = free_port()
        file = self.folder / "agent.hcl"
        file.write_text(self._hcl() + self._config, "utf-8")
        command = [str(nomad_binary()), "agent", "-dev", "-config", str(file)]
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
        return f"""
            data_dir = "{self.folder / "data"}"
            bind_addr = "127.0.0.1"
            log_level = "WARN"
            disable_update_check = true
            ports {{ http = {self.port} rpc = {free_port()} serf = {free_port()} }}
            server {{ raft_multiplier = 1 }}
            client {{
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
        folder.mkdir()
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
            raise AssertionError("Nomad ended")
        with contextlib.suppress(OSError, AssertionError):
            nodes: list[dict[str, Any]] = self.get("/v1/nodes")
            return any(node["Status"] == "ready" for node in nodes)
        return False

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
        """Processes of this agent that outlived it: its data folder is in their environment."""
        mark = str(self.folder / "data").encode()
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if entry.name.isdigit() and mark in (entry / "environ").read_bytes():
                    yield int(entry.name)

    def said(self) -> str:
        """The end of its log, for a failure."""
        log = self.folder / "log"
        return f"--- Nomad\n{log.read_text('utf-8', 'replace')[-6000:]}\n" if log.exists() else ""

    # --- its HTTP interface --------------------------------------------------------------------

    def request(self, method: str, path: str, body: object = None) -> Any:
        """One request; the JSON of the answer. Raises OSError, AssertionError on a refusal."""
        if self._namespace is not None:
            return self._namespace.call(lambda: self._request(method, path, body))
        return self._request(method, path, body)

    def _request(self, method: str, path: str, body: object) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=REQUEST_DEADLINE_S)
        try:
            connection.request(method, path, None if body is None else json.dumps(body))
            response = connection.getresponse()
            content = response.read()
        except http.client.HTTPException as fault:
            raise ConnectionError(str(fault)) from fault
        finally:
            connection.close()
        assert response.status == 200, f"{method} {path}: {response.status} {content[:500]!r}"
        return json.loads(content) if content else None

    def get(self, path: str) -> Any:
        """GET."""
        return self.request("GET", path)

    def command(self, *arguments: str) -> str:
        """What the `nomad` command prints; AssertionError if it fails."""
        done = subprocess.run(
            [nomad_binary(), *arguments],
            capture_output=True,
            check=False,
            env={"PATH": os.environ["PATH"], "NOMAD_ADDR": self.url, "HOME": str(self.folder)},
            text=True,
            timeout=COMMAND_DEADLINE_S,
        )
        assert done.returncode == 0, f"nomad {arguments}: {done.stdout}{done.stderr}"
        return done.stdout

    def parse(self, file: Path, variables: Mapping[str, str] | None = None) -> Job:
        """A job file as data, read by Nomad's own command."""
        named = [f"-var={name}={value}" for name, value in (variables or {}).items()]
        job: Job = json.loads(self.command("job", "run", "-output", *named, str(file)))["Job"]
        return job

    def put_variable(self, path: str, **items: str) -> None:
        """Write a variable of Nomad, whatever is there."""
        body = {"Namespace": "default", "Path": path, "Items": items}
        self.request("PUT", f"/v1/var/{path}", body)

    # --- jobs ------------------------------------------------------------------------------------

    def run(self, job: Job) -> None:
        """Register a job, or a new version of it."""
        self.request("PUT", "/v1/jobs", {"Job": job})

    def allocs(self, job_id: str) -> list[Alloc]:
        """All allocations of a job, ended ones too."""
        listed: list[Alloc] = self.get(f"/v1/job/{job_id}/allocations")
        return listed

    def running(self, job: Job, count: int, within_s: float) -> list[Alloc]:
        """Wait until so many allocations of this job, and no more, run whole; those allocations."""

        def look() -> list[Alloc] | None:
            alive = [one for one in self.allocs(job["ID"]) if one["ClientStatus"] not in ENDED]
            return alive if len(alive) == count and all(map(whole, alive)) else None

        try:
            return poll_until_sync(look, within_s, f"{count} allocations of {job['ID']} run")
        except AssertionError:
            sys.stderr.write(json.dumps(self.allocs(job["ID"]), indent=1)[-8000:])
            sys.stderr.write(self.tasks_said())
            raise

    def port_of(self, alloc: Alloc, label: str) -> int:
        """The port of the host that Nomad gave an allocation."""
        shared = self.get(f"/v1/allocation/{alloc['ID']}")["AllocatedResources"]["Shared"]
        return next(int(port["Value"]) for port in shared["Ports"] if port["Label"] == label)

    def folder_of(self, alloc: Alloc, task: str) -> Path:
        """A task's folder on this machine."""
        return self.folder / "data" / "alloc" / str(alloc["ID"]) / task

    def log_of(self, alloc: Alloc, task: str, stream: str = "stderr") -> str:
        """What a task has written so far."""
        logs = self.folder / "data" / "alloc" / str(alloc["ID"]) / "alloc" / "logs"
        return "".join(
            file.read_text("utf-8", "replace") for file in sorted(logs.glob(f"{task}.{stream}.*"))
        )

    def tasks_said(self) -> str:
        """The end of every task's output, for a failure."""
        files = sorted((self.folder / "data" / "alloc").glob("*/alloc/logs/[!.]*.std*.*"))
        parts = [(file, file.read_text("utf-8", "replace")[-2000:]) for file in files]
        return "".join(
            f"--- {file.parent.parent.parent.name[:8]} {file.name}\n{text}\n"
            for file, text in parts
            if text
        )

    def stop_all(self) -> None:
        """Stop every job and wait until nothing of them runs."""
        for job in self.get("/v1/jobs"):
            self.request("DELETE", f"/v1/job/{job['ID']}")
        poll_until_sync(self._idle, STOP_DEADLINE_S, "all allocations have ended")
        self.request("PUT", "/v1/system/gc")

    def _idle(self) -> bool:
        return all(alloc["ClientStatus"] in ENDED for alloc in self.get("/v1/allocations"))


def whole(alloc: Alloc) -> bool:
    """Whether an allocation is up: its tasks run, and those that were to end have ended well."""
    states = (alloc["TaskStates"] or {}).values()
    return alloc["ClientStatus"] == "running" and all(
        state["State"] == "running" or (state["State"] == "dead" and not state["Failed"])
        for state in states
    )
