"""What a test asks Nomad: over HTTP, by its command, and in its allocations' folders."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.nomad.namespace import Namespace
from tests.nomad.variants import Job
from tests.servers import ROOT, poll_until_sync

Alloc = dict[str, Any]

STOP_DEADLINE_S = 30.0
REQUEST_DEADLINE_S = 15.0
COMMAND_DEADLINE_S = 60.0
ENDED = {"complete", "failed", "lost"}


def nomad_binary() -> Path:
    """The checkout's own Nomad, else the one on PATH."""
    own = ROOT / ".tools" / "bin" / "nomad"
    found = own if own.exists() else shutil.which("nomad")
    if found is None:
        raise AssertionError("no Nomad: `make tools` brings one to .tools/bin")
    return Path(found)


class NomadApi:
    """One agent as its users see it.

    Args:
        folder: where the agent keeps what is its own.
        namespace: the network it lives in; the machine's own by default.
    """

    def __init__(self, folder: Path, namespace: Namespace | None = None) -> None:
        self.folder = folder
        self.port = 0
        self._namespace = namespace

    @property
    def url(self) -> str:
        """Where its HTTP interface is."""
        return f"http://127.0.0.1:{self.port}"

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
