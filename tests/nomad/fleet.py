"""What the Nomad tests share: the files, what stands for their images, what sidecars say."""

from __future__ import annotations

import contextlib
import json
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.acceptance.support import Place
from tests.gateways import ask
from tests.nomad import variants
from tests.nomad.agent import NomadAgent
from tests.nomad.api import Alloc
from tests.nomad.variants import Job
from tests.servers import ROOT

FILES = ROOT / "nomad"
PROGRAMS = Path(__file__).resolve().parent / "programs"
IMAGE = "breaker-sidecar:0.1.0"
"""What the files name unless told otherwise."""
APP = "app:1"
HERE: Mapping[str, Sequence[str]] = {
    # Wherever a task starts, it runs this checkout.
    IMAGE: ("/usr/bin/env", f"PYTHONPATH={ROOT}", sys.executable, "-m", "sidecar"),
    APP: ("/bin/sleep", "infinity"),
}
"""What stands for each image: the checkout, and an application that does nothing."""
START_S = 60.0
"""For some allocations to be up, on a machine that has other work."""
CHANGE_S = 30.0
"""For anything that a fleet does in seconds."""


class Usual(Place):
    """The keys that a configuration has which names none."""

    @property
    def state_prefix(self) -> str:
        """Where states and locks are."""
        return "breaker"

    def reports(self, breaker: str = "default") -> str:
        """Where reports are."""
        return "service-metrics/kafka-consumer"

    def env(self, **more: str) -> dict[str, str]:
        """What a sidecar is told over its file: this Consul, and seconds for half minutes."""
        default = "BREAKER_SIDECAR__BREAKERS__DEFAULT__"
        return {
            "BREAKER_SIDECAR__CONSUL__ADDRESS": self.consul.address,
            f"{default}EVALUATION_INTERVAL": "500ms",
            f"{default}REPORT_INTERVAL": "1s",
            f"{default}OPEN_DURATION": "1s",
            f"{default}MAX_OPEN_DURATION": "2s",
            f"{default}HALF_OPEN__RAMP": "1s",
            f"{default}HALF_OPEN__MAX": "20s",
            **more,
        }


def variant(
    nomad: NomadAgent,
    file: str,
    env: Mapping[str, str],
    programs: Mapping[str, Sequence[str]] = HERE,
    **variables: str,
) -> Job:
    """The job of a committed file, by `raw_exec` and in a hurry."""
    job = nomad.parse(FILES / f"{file}.nomad.hcl", variables)
    return variants.hurried(variants.raw_exec(job, programs, env))


def statuses(ports: Sequence[int]) -> list[int | None]:
    """What the sidecars at these ports answer a producer, spending nothing; None for nobody."""
    return [_status(port, "/allowed?peek=1") for port in ports]


def _status(port: int, path: str) -> int | None:
    with contextlib.suppress(OSError):
        return ask(port, "GET", path, {}).status
    return None


def ask_ready(port: int, *, strict: bool = False) -> int | None:
    """What `/readyz` answers; None for nobody. Strict: 503 while what it knows may be old."""
    return _status(port, "/readyz" + ("?strict=1" if strict else ""))


def config_reloads(log: str) -> int:
    """How often a log says that the file was taken up anew."""
    return log.count('"config_reloaded"')


def version(port: int) -> str | None:
    """The version of the sidecar at this port; None where nobody answers."""
    with contextlib.suppress(OSError):
        return str(ask(port, "GET", "/version", {}).body["version"])
    return None


def starts(alloc: Alloc, task: str) -> int:
    """How often a task was started again."""
    return int(alloc["TaskStates"][task]["Restarts"])


def holder(place: Place) -> str | None:
    """The instance that holds the lock; None where nobody does."""
    entry = place.consul.kv_entry(place.key("leader"))
    if entry is None or "Session" not in entry:
        return None
    value: dict[str, Any] = json.loads(place.consul.kv_get(place.key("leader")) or b"{}")
    return str(value.get("instance"))


@contextlib.contextmanager
def served(folder: Path) -> Iterator[str]:
    """The files of a folder over HTTP on loopback; its URL."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its base's name
        """Say nothing."""
