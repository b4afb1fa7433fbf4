"""A real daemon for tests: `python -m sidecar run -c FILE` as a child process on a free port.

    with Daemon({"store": "memory"}) as daemon:
        assert daemon.allowed().status == 200

Leaving the block kills it whatever state it is in, and prints what it said if the block failed.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import yaml

from tests.servers import ROOT, free_port

START_DEADLINE_S = 15.0
STOP_DEADLINE_S = 8.0
REQUEST_DEADLINE_S = 5.0
PROGRAM = (sys.executable, "-m", "sidecar")
INHERITED = ("PATH", "HOME", "LANG", "TMPDIR", "VIRTUAL_ENV", "SSL_CERT_FILE")
"""What a daemon gets of this process's environment: nothing that says where a Consul is."""


class DaemonFailed(Exception):
    """The daemon ended, or did not get ready or stop in time; the text has what it said."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer. Header names are lower case."""

    status: int
    headers: Mapping[str, str]
    content: bytes

    @property
    def body(self) -> Any:
        """The JSON in it; None where there is no content."""
        return json.loads(self.content) if self.content else None


class Daemon:
    """One daemon process. Start it by `with`, or by `start()` and always `close()`.

    Args:
        config: the configuration as text or as a mapping; None: no file at all.
        env: on top of a clean environment.
        args: further arguments behind `run -c FILE`.
        wait: whether entering waits until `/readyz` answers 200.
        port: the port to listen on; a free one by default.
        program: what is run, in front of `run`; this checkout's by default.
    """

    def __init__(
        self,
        config: str | Mapping[str, Any] | None = None,
        *,
        env: Mapping[str, str] | None = None,
        args: tuple[str, ...] = (),
        wait: bool = True,
        port: int | None = None,
        program: tuple[str, ...] = PROGRAM,
    ) -> None:
        self._program = program
        self.port = port if port is not None else free_port()
        self.host = "127.0.0.1"
        self._args = args
        self._wait = wait
        self._folder = tempfile.TemporaryDirectory(prefix="breaker-daemon-")
        self.folder = Path(self._folder.name)
        self.file: Path | None = None
        if config is not None:
            self.file = self.folder / "breaker.yaml"
            self.configure(config)
        own = {key: os.environ[key] for key in INHERITED if key in os.environ}
        # The environment beats the file, so the port holds whatever the configuration says.
        own["BREAKER_SIDECAR__LISTEN__ADDRESS"] = f"{self.host}:{self.port}"
        self._env = {**own, **(env or {})}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://{self.host}:{self.port}"

    @property
    def pid(self) -> int:
        """The process; raises DaemonFailed if it was never started."""
        return self._running().pid

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise DaemonFailed("it was not started")
        return self._process

    def configure(self, config: str | Mapping[str, Any]) -> None:
        """Write its configuration file anew; SIGHUP makes it look."""
        if self.file is None:
            raise DaemonFailed("it was made without a file")
        text = config if isinstance(config, str) else yaml.safe_dump(dict(config))
        self.file.write_text(text, "utf-8")

    def start(self) -> Self:
        """Start the process; waits for nothing."""
        command = [*self._program, "run"]
        if self.file is not None:
            command += ["-c", str(self.file)]
        with (
            (self.folder / "stdout").open("ab") as stdout,
            (self.folder / "stderr").open("ab") as stderr,
        ):
            self._process = subprocess.Popen(
                [*command, *self._args], cwd=ROOT, env=self._env, stdout=stdout, stderr=stderr
            )
        return self

    def wait_ready(self, within_s: float = START_DEADLINE_S) -> Self:
        """Poll `/readyz` until it answers 200. Raises DaemonFailed if it ends or takes too long."""
        deadline = time.monotonic() + within_s
        while time.monotonic() < deadline:
            if (code := self._running().poll()) is not None:
                raise DaemonFailed(f"it ended with {code} at its start:\n{self.said()}")
            with contextlib.suppress(OSError, http.client.HTTPException):
                if self.get("/readyz").status == 200:
                    return self
            time.sleep(0.02)
        raise DaemonFailed(f"it was not ready within {within_s:g} s:\n{self.said()}")

    def request(
        self,
        method: str,
        path: str,
        body: object = None,
        headers: Mapping[str, str] | None = None,
        *,
        timeout_s: float = REQUEST_DEADLINE_S,
    ) -> Answer:
        """One request on a connection of its own. A body that isn't bytes is sent as JSON."""
        content: bytes | None = None
        sent = dict(headers or {})
        if isinstance(body, bytes):
            content = body
        elif body is not None:
            content = json.dumps(body).encode()
            sent.setdefault("Content-Type", "application/json")
        connection = http.client.HTTPConnection(self.host, self.port, timeout=timeout_s)
        try:
            connection.request(method, path, body=content, headers=sent)
            response = connection.getresponse()
            got = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, got, response.read())
        finally:
            connection.close()

    def half_closed(self, request: bytes, timeout_s: float = 30.0) -> bytes:
        """All that is said to a client that sends these bytes and shuts its sending side down."""
        with socket.create_connection((self.host, self.port), timeout=timeout_s) as client:
            client.sendall(request)
            client.shutdown(socket.SHUT_WR)
            return b"".join(iter(lambda: client.recv(1 << 16), b""))

    def get(self, path: str, headers: Mapping[str, str] | None = None) -> Answer:
        """GET."""
        return self.request("GET", path, headers=headers)

    def post(self, path: str, body: object, headers: Mapping[str, str] | None = None) -> Answer:
        """POST."""
        return self.request("POST", path, body, headers)

    def allowed(self, name: str | None = None, *, peek: bool = False) -> Answer:
        """The decision; with `peek` it spends nothing of a half-open share."""
        return self.get("/allowed" + (f"/{name}" if name else "") + ("?peek=1" if peek else ""))

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        self._running().send_signal(number)

    def pause(self) -> None:
        """Freeze it as a machine that sleeps: SIGSTOP."""
        self.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Wake it up: SIGCONT."""
        self.send_signal(signal.SIGCONT)

    def stop(
        self, number: signal.Signals = signal.SIGTERM, within_s: float = STOP_DEADLINE_S
    ) -> int:
        """Ask it to stop; returns its exit status. Raises DaemonFailed if it doesn't in time."""
        self.send_signal(number)
        return self.wait(within_s)

    def wait(self, within_s: float) -> int:
        """Wait for its end; returns the exit status. Raises DaemonFailed if it goes on."""
        try:
            return self._running().wait(within_s)
        except subprocess.TimeoutExpired:
            raise DaemonFailed(f"it did not end within {within_s:g} s:\n{self.said()}") from None

    def kill(self) -> None:
        """SIGKILL: no goodbye. Does nothing to one that ended."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(STOP_DEADLINE_S)

    def close(self) -> None:
        """Kill it if it still runs and remove its folder."""
        self.kill()
        self._folder.cleanup()

    def stderr(self) -> str:
        """All it wrote to stderr so far."""
        path = self.folder / "stderr"
        return path.read_text("utf-8", "replace") if path.exists() else ""

    def stdout(self) -> str:
        """All it wrote to stdout so far."""
        path = self.folder / "stdout"
        return path.read_text("utf-8", "replace") if path.exists() else ""

    def logs(self) -> list[dict[str, Any]]:
        """Its log so far: every complete line of stderr that is a JSON object."""
        lines = []
        for line in self.stderr().splitlines():
            with contextlib.suppress(ValueError):
                entry = json.loads(line)
                if isinstance(entry, dict):
                    lines.append(entry)
        return lines

    def said(self) -> str:
        """The end of both streams, for a failure."""
        parts = [f"--- {self.url} {name}\n{text[-6000:]}" for name, text in self._streams() if text]
        return "\n".join(parts) or f"--- {self.url} said nothing"

    def _streams(self) -> tuple[tuple[str, str], ...]:
        return ("stdout", self.stdout()), ("stderr", self.stderr())

    def __enter__(self) -> Self:
        try:
            self.start()
            return self.wait_ready() if self._wait else self
        except BaseException:
            self.close()
            raise

    def __exit__(
        self,
        kind: type[BaseException] | None,
        fault: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if fault is not None:
            sys.stderr.write(self.said() + "\n")
        self.close()
