"""A real Prometheus for tests: scrapes every second, by the committed configuration and rules."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
import time
import urllib.parse
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import yaml

from tests.monitoring.sources import FOLDER
from tests.servers import free_port, poll_until_sync

START_DEADLINE_S = 60.0
STOP_DEADLINE_S = 20.0
REQUEST_DEADLINE_S = 20.0

Series = list[dict[str, Any]]


class Prometheus:
    """One server on loopback. A context manager; entering waits until it answers queries.

    Everything is as in monitoring/prometheus-consul.yml but for what would take minutes (the
    intervals) and what not every build can do (finding targets in Consul: here they come from a
    file, with the labels that Consul would give).

    Args:
        folder: for its configuration and data.
        targets: `host:port` of each sidecar by the name of its node.
    """

    def __init__(self, folder: Path, targets: Mapping[str, str]) -> None:
        self._folder = folder
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._started = time.time()
        found = [
            {
                "targets": [address],
                "labels": {"__meta_consul_dc": "dc1", "__meta_consul_node": node},
            }
            for node, address in targets.items()
        ]
        (folder / "targets.json").write_text(json.dumps(found))
        (folder / "prometheus.yml").write_text(yaml.safe_dump(self._config()))

    def _config(self) -> dict[str, Any]:
        config: dict[str, Any] = yaml.safe_load((FOLDER / "prometheus-consul.yml").read_text())
        config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
        for name in config["rule_files"]:
            rules = yaml.safe_load((FOLDER / name).read_text())
            for group in rules["groups"]:
                group.pop("interval", None)
            (self._folder / name).write_text(yaml.safe_dump(rules))
        (scrape,) = config["scrape_configs"]
        del scrape["consul_sd_configs"]
        scrape["file_sd_configs"] = [{"files": [str(self._folder / "targets.json")]}]
        return config

    def ask(self, path: str, **parameters: str) -> Any:
        """The data of an answer of its API. Raises OSError, AssertionError when it says no."""
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=REQUEST_DEADLINE_S)
        try:
            connection.request("GET", f"/api/v1/{path}?{urllib.parse.urlencode(parameters)}")
            answer = json.loads(connection.getresponse().read())
        except (http.client.HTTPException, ValueError) as fault:
            raise ConnectionError(str(fault)) from fault
        finally:
            connection.close()
        assert answer["status"] == "success", (path, parameters, answer)
        return answer["data"]

    def now(self, expr: str) -> Series:
        """What an expression is now."""
        result: Series = self.ask("query", query=expr)["result"]
        return result

    def ever(self, expr: str) -> Series:
        """What an expression has been at any second since the start."""
        window = {"start": f"{self._started:.0f}", "end": f"{time.time():.0f}", "step": "1s"}
        result: Series = self.ask("query_range", query=expr, **window)["result"]
        return result

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self._said()
        try:
            return bool(self.now("vector(1)"))
        except OSError:
            return False

    def _said(self) -> str:
        return (self._folder / "log").read_text("utf-8", "replace")[-4000:]

    def __enter__(self) -> Self:
        command = [
            "prometheus",
            f"--config.file={self._folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={self._folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{self._port}",
            "--log.level=warn",
        ]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        try:
            poll_until_sync(self._answers, START_DEADLINE_S, "Prometheus answers")
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        fault: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if fault is not None:
            sys.stderr.write(self._said() + "\n")
        self._end()

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(STOP_DEADLINE_S)
