"""Toxiproxy between a client and a server: cut, dropped or slow, while both of them live."""

from __future__ import annotations

import json
import subprocess
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, Self

from tests.servers import ROOT, STOP_DEADLINE_S, free_port, poll_until_sync

CALL_DEADLINE_S = 10.0


class Proxy:
    """One way through: from a port of its own to a server's."""

    def __init__(self, toxiproxy: Toxiproxy, name: str, port: int) -> None:
        self.port = port
        self._toxiproxy = toxiproxy
        self._name = name

    @property
    def address(self) -> str:
        """host:port to connect to."""
        return f"127.0.0.1:{self.port}"

    def refuse(self) -> None:
        """Close its port and every connection: what comes is refused."""
        self._toxiproxy.call("POST", f"/proxies/{self._name}", {"enabled": False})

    def drop(self) -> None:
        """Pass nothing on, either way, and answer nothing, as a network that loses every packet."""
        for stream in ("upstream", "downstream"):
            toxic = {"name": stream, "type": "timeout", "stream": stream}
            self._toxiproxy.call(
                "POST", f"/proxies/{self._name}/toxics", toxic | {"attributes": {"timeout": 0}}
            )

    def slow(self, seconds: float) -> None:
        """Hand every answer on so much later."""
        attributes = {"latency": int(seconds * 1000)}
        toxic = {"name": "slow", "type": "latency", "stream": "downstream"}
        self._toxiproxy.call(
            "POST", f"/proxies/{self._name}/toxics", toxic | {"attributes": attributes}
        )

    def heal(self) -> None:
        """As it was at first."""
        path = f"/proxies/{self._name}"
        for toxic in self._toxiproxy.call("GET", f"{path}/toxics"):
            self._toxiproxy.call("DELETE", f"{path}/toxics/{toxic['name']}")
        self._toxiproxy.call("POST", path, {"enabled": True})


class Toxiproxy:
    """The program on loopback. A context manager."""

    def __init__(self) -> None:
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        binary = ROOT / ".tools" / "bin" / "toxiproxy"
        if not Path(binary).exists():
            raise AssertionError("no Toxiproxy: `make tools` brings one to .tools/bin")
        self._process = subprocess.Popen(
            [binary, "-host", "127.0.0.1", "-port", str(self._port)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        poll_until_sync(self._serves, CALL_DEADLINE_S, "Toxiproxy serves")
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(STOP_DEADLINE_S)

    def _serves(self) -> bool:
        try:
            self.call("GET", "/version")
        except OSError:
            return False
        return True

    def proxy(self, name: str, upstream_port: int, port: int | None = None) -> Proxy:
        """A new way to a server on loopback; `port` where it has to be known before."""
        port = port or free_port()
        body = {"name": name, "listen": f"127.0.0.1:{port}", "enabled": True}
        self.call("POST", "/proxies", body | {"upstream": f"127.0.0.1:{upstream_port}"})
        return Proxy(self, name, port)

    def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """One call of its API. Raises OSError."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self._port}{path}",
            data=json.dumps(body).encode() if body is not None else None,
            method=method,
            headers={"User-Agent": "tests"},
        )
        with urllib.request.urlopen(request, timeout=CALL_DEADLINE_S) as answer:
            text = answer.read()
        try:
            return json.loads(text) if text else None
        except ValueError:
            return text.decode()
