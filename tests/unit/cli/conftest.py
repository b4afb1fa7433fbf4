"""Fixtures: a canned sidecar, and commands run in this process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from sidecar.cli.main import cli
from tests.unit.cli.canned import Canned, Invoke, TcpServer, UnixServer, handler, serving


@pytest.fixture
def sidecar() -> Iterator[Canned]:
    canned = Canned()
    server = TcpServer(("127.0.0.1", 0), handler(canned))
    canned.address = f"127.0.0.1:{server.server_address[1]}"
    with serving(server):
        yield canned


@pytest.fixture
def unix_sidecar(tmp_path: Path) -> Iterator[Canned]:
    canned = Canned(address=f"unix:{tmp_path / 's'}")
    with serving(UnixServer(str(tmp_path / "s"), handler(canned))):
        yield canned


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("BREAKER_SIDECAR_ADDRESS", "NOMAD_PORT_breaker", "BREAKER_SIDECAR_CONFIG"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def invoke() -> Invoke:
    """Runs a command line in this process."""

    def run(*arguments: str, **more: Any) -> Result:
        return CliRunner().invoke(cli, list(arguments), prog_name="breaker-sidecar", **more)

    return run


@pytest.fixture
def ask(sidecar: Canned, invoke: Invoke) -> Invoke:
    """The same, of the canned sidecar."""

    def run(*arguments: str, **more: Any) -> Result:
        return invoke(*arguments, "--address", sidecar.address, **more)

    return run
