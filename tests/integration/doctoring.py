"""How the tests call `doctor`, and the broken surroundings that they make for it."""

from __future__ import annotations

import ctypes
import http.client
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml

from tests.servers import ROOT, consul_binary

DEADLINE_S = 90.0
_PR_CAPBSET_DROP = 24
_OVERRIDING = (1, 2)
"""CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH: what lets root pass by the modes of files."""


@dataclass(frozen=True)
class Diagnosis:
    """What doctor said."""

    code: int
    findings: list[dict[str, str | None]]

    def of(self, level: str) -> list[dict[str, str | None]]:
        """The findings of a level."""
        return [finding for finding in self.findings if finding["level"] == level]

    def expect(self, level: str, key: str | None, value: str | None, said: str, mend: str) -> None:
        """One finding has this level, key and value, and the texts match these patterns."""
        for found in self.of(level):
            if (
                found["key"] == key
                and found["value"] == value
                and re.search(said, str(found["said"]))
                and re.search(mend, str(found["mend"]))
            ):
                return
        raise AssertionError(f"no {level} {key}={value}: {said} / {mend}\n{self}")

    def __str__(self) -> str:
        return f"exit {self.code}\n" + "\n".join(map(str, self.findings))


def examine(
    config: str | Mapping[str, Any] | Path,
    folder: Path,
    *,
    env: Mapping[str, str] | None = None,
    args: Sequence[str] = (),
    before: Sequence[str] = (),
    ordinary: bool = False,
) -> Diagnosis:
    """Run `doctor` on a configuration, in a process of its own with a clean environment.

    Args:
        config: a text, a mapping, or the file of a running daemon.
        env: on top of the clean environment.
        before: what the command is started by.
        ordinary: without root's right to pass by the modes of files.
    """
    file = config if isinstance(config, Path) else folder / "doctor.yaml"
    if not isinstance(config, Path):
        text = config if isinstance(config, str) else yaml.safe_dump(dict(config))
        file.write_text(text, "utf-8")
    command = [*before, sys.executable, "-m", "sidecar", "doctor", "-c", str(file), *args]
    done = subprocess.run(
        [*command, "-o", "json"],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), **(env or {})},
        capture_output=True,
        text=True,
        check=False,
        timeout=DEADLINE_S,
        preexec_fn=_drop_rights if ordinary else None,
    )
    assert done.stdout.startswith("{"), f"{done.returncode}: {done.stdout}{done.stderr}"
    said = json.loads(done.stdout)
    found = Diagnosis(done.returncode, said["findings"])
    faults, warnings = len(found.of("fault")), len(found.of("warning"))
    assert (said["faults"], said["warnings"]) == (faults, warnings)
    assert (found.code, said["ok"]) == ((1, False) if faults else (0, True)), str(found)
    for finding in [*found.of("fault"), *found.of("warning")]:
        assert finding["mend"], finding
    return found


def _drop_rights() -> None:
    for right in _OVERRIDING:  # of no use, and no harm, to anybody but root
        ctypes.CDLL(None).prctl(_PR_CAPBSET_DROP, right, 0, 0, 0)


@contextmanager
def answering(port: int, reply: Callable[[BaseHTTPRequestHandler], None]) -> Iterator[None]:
    """An HTTP server on loopback whose every request goes to `reply`."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            reply(self)

        do_PUT = do_GET  # noqa: N815 - the name http.server looks for

        def log_message(self, *args: object) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


def page(
    handler: BaseHTTPRequestHandler, body: bytes = b"<h1>It works!</h1>", status: int = 200
) -> None:
    """Answer as some web server that has nothing to do with Consul."""
    handler.rfile.read(int(handler.headers.get("Content-Length", 0)))
    handler.send_response(status)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)


def shifted(target: str, seconds: float) -> Callable[[BaseHTTPRequestHandler], None]:
    """Pass everything on to a real Consul, and say that it is another time there."""

    def reply(handler: BaseHTTPRequestHandler) -> None:
        length = int(handler.headers.get("Content-Length", 0))
        body = handler.rfile.read(length) if length else None
        connection = http.client.HTTPConnection(target, timeout=10)
        connection.request(handler.command, handler.path, body)
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        handler.send_response_only(answer.status)
        for name, value in answer.getheaders():
            if name.startswith("X-Consul"):
                handler.send_header(name, value)
        handler.send_header("Date", formatdate(_now() + seconds, usegmt=True))
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content)

    return reply


def _now() -> float:
    import time

    return time.time()


@dataclass(frozen=True)
class Certificates:
    """A certificate authority, and what it signed: an agent's for localhost, and a client's."""

    folder: Path

    def __post_init__(self) -> None:
        for command in (
            ["tls", "ca", "create"],
            ["tls", "cert", "create", "-server", "-dc", "dc1"],
            ["tls", "cert", "create", "-client", "-dc", "dc1"],
        ):
            binary = str(consul_binary())
            subprocess.run([binary, *command], cwd=self.folder, check=True, capture_output=True)

    @property
    def authority(self) -> str:
        """The authority's certificate."""
        return str(self.folder / "consul-agent-ca.pem")

    @property
    def client(self) -> tuple[str, str]:
        """A client's certificate and key."""
        stem = self.folder / "dc1-client-consul-0"
        return f"{stem}.pem", f"{stem}-key.pem"

    def agent(self, port: int, *, mutual: bool) -> str:
        """The agent's configuration for TLS on a port of every loopback address."""
        stem = self.folder / "dc1-server-consul-0"
        return f"""
            ports {{ https = {port} }}
            addresses {{ https = "127.0.0.1 127.0.0.2" }}
            tls {{ defaults {{
              ca_file = "{self.authority}" cert_file = "{stem}.pem" key_file = "{stem}-key.pem"
              verify_incoming = {"true" if mutual else "false"}
            }} }}
        """


@contextmanager
def leaderless(folder: Path, port: int, ports: Sequence[int]) -> Iterator[None]:
    """A Consul server that waits for two others in vain."""
    server, serf = ports
    (folder / "agent.hcl").write_text(
        f"""
        node_name = "alone"
        data_dir = "{folder / "data"}"
        server = true
        bootstrap_expect = 3
        bind_addr = "127.0.0.1"
        log_level = "ERROR"
        ports {{
          http = {port} server = {server} serf_lan = {serf} serf_wan = -1
          dns = -1 grpc = -1 grpc_tls = -1
        }}
        """
    )
    command = [str(consul_binary()), "agent", "-config-file", str(folder / "agent.hcl")]
    environ = {k: v for k, v in os.environ.items() if not k.startswith("CONSUL_")}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environ)
        try:
            yield
        finally:
            process.kill()
            process.wait(10)
            shutil.rmtree(folder, ignore_errors=True)
