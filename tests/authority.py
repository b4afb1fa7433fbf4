"""Certificates for tests: an authority of one's own, made by Consul's own command."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.servers import consul_binary


@dataclass(frozen=True)
class Authority:
    """A certificate authority, with a server's and a client's certificate."""

    folder: Path

    def __post_init__(self) -> None:
        self.folder.mkdir()
        self._make("ca", "create")
        self._make("cert", "create", "-server", "-additional-ipaddress=127.0.0.1")
        self._make("cert", "create", "-client")

    def _make(self, *arguments: str) -> None:
        command = [str(consul_binary()), "tls", *arguments]
        subprocess.run(command, cwd=self.folder, check=True, capture_output=True, timeout=30)

    @property
    def ca(self) -> str:
        """The file with the authority's own certificate."""
        return str(self.folder / "consul-agent-ca.pem")

    def pair(self, kind: str) -> tuple[str, str]:
        """Certificate and key."""
        stem = f"{self.folder}/dc1-{kind}-consul-0"
        return f"{stem}.pem", f"{stem}-key.pem"
