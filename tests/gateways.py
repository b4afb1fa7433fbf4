"""A gateway of the examples as a real process, an application behind it, and a client before it."""

from __future__ import annotations

import http.client
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.daemon import Answer
from tests.servers import ROOT, free_port, poll_until_sync

EXAMPLES = ROOT / "examples" / "gateways"
START_DEADLINE_S = 20.0
STOP_DEADLINE_S = 5.0
REQUEST_DEADLINE_S = 10.0
FOREIGN = {
    "Host": "shop.example.com",
    "Origin": "https://evil.example.net",
    "Sec-Fetch-Site": "cross-site",
    "Authorization": "Bearer of-the-application",
    "Cookie": "session=1",
}
"""What a browser on a foreign page sends to a public name."""


@dataclass(frozen=True, slots=True)
class Seen:
    """A request that reached the application."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


class Application:
    """The application behind a gateway: notes every request. `/status/N` answers N."""

    def __init__(self) -> None:
        self.seen: list[Seen] = []
        seen = self.seen

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                headers = {name.lower(): value for name, value in self.headers.items()}
                seen.append(Seen(self.command, self.path, headers, body))
                wanted = self.path.partition("?")[0].rpartition("/status/")[2]
                content = b"the application\n"
                self.send_response(int(wanted) if wanted.isdigit() else 200)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(content)

            def log_message(self, *args: object) -> None:
                """Stay silent."""

        for method in ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"):
            setattr(Handler, f"do_{method}", Handler._answer)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, name="application")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join(STOP_DEADLINE_S)
        self._server.server_close()


def program(name: str) -> str:
    """The checkout's own program, else the one on PATH or where Debian puts daemons."""
    own = ROOT / ".tools" / "bin" / name
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin"])
    found = str(own) if own.exists() else shutil.which(name, path=path)
    if found is None:
        raise AssertionError(f"no {name}: `make tools` says what to do")
    return found


class Gateway:
    """One gateway running an example whose addresses are replaced by free ones. Use by `with`.

    Entering waits until a request gets through to the application.

    Args:
        command: the program and its arguments, run in a folder of its own.
        files: the files in it, by name. `:9100`, `:8000`, `:8080` and `:9180` in them mean the
            sidecar, the application, the gateway, and the gateway's own inner listener.
    """

    def __init__(
        self, command: Sequence[str], files: Mapping[str, str], *, sidecar: int, application: int
    ) -> None:
        self.port = free_port()
        self._folder = Path(tempfile.mkdtemp(prefix="breaker-gateway-"))
        ports = {8080: self.port, 9180: free_port(), 9100: sidecar, 8000: application}
        for name, text in files.items():
            (self._folder / name).write_text(_readdress(text, ports), "utf-8")
        self._command = [program(command[0]), *command[1:]]
        self._process: subprocess.Popen[bytes] | None = None

    def ask(
        self,
        path: str = "/orders",
        *,
        method: str = "GET",
        body: bytes | None = None,
        headers: Mapping[str, str] = FOREIGN,
    ) -> Answer:
        """One request of a foreign client, on a connection of its own."""
        return ask(self.port, method, path, headers, body)

    def _serving(self) -> bool:
        if self._process is None or self._process.poll() is not None:
            raise AssertionError(f"{self._command} ended:\n{self._said()}")
        with suppress(OSError):
            # Traefik listens before it knows its routes, and answers 404 until then.
            return self.ask("/").status == 200
        return False

    def _said(self) -> str:
        return (self._folder / "log").read_text("utf-8", "replace")[-6000:]

    def __enter__(self) -> Self:
        own = {"PATH": os.environ.get("PATH", os.defpath), "HOME": str(self._folder)}
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                cwd=self._folder,
                env=own,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            poll_until_sync(self._serving, START_DEADLINE_S, f"{self._command[0]} serves")
        except BaseException:
            self._close()
            raise
        return self

    def _close(self) -> None:
        if self._process is not None:
            # Its workers too: they share its session.
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(STOP_DEADLINE_S)
        shutil.rmtree(self._folder, ignore_errors=True)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        fault: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if fault is not None:
            sys.stderr.write(f"--- {self._command}\n{self._said()}\n")
        self._close()


def ask(
    port: int, method: str, path: str, headers: Mapping[str, str], body: bytes | None = None
) -> Answer:
    """One request to a port on loopback. Header names of the answer are lower case."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=REQUEST_DEADLINE_S)
    try:
        connection.request(method, path, body, dict(headers))
        response = connection.getresponse()
        got = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, got, response.read())
    finally:
        connection.close()


def _readdress(text: str, ports: Mapping[int, int]) -> str:
    for known, own in ports.items():
        text = text.replace(f":{known}", f"<{own}>")
    for own in ports.values():
        text = text.replace(f"<{own}>", f":{own}")
    return text
