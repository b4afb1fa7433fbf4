"""The daemon's own commands: how a configuration and its faults become an exit code."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from sidecar.config.model import Config
from tests.unit.cli.canned import Invoke

BAD = "store: redis\nbreakers:\n  default:\n    failure_threshold: -3\n"


@pytest.fixture
def bad(tmp_path: Path) -> Path:
    path = tmp_path / "bad.yaml"
    path.write_text(BAD)
    return path


@pytest.fixture
def daemon(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Config, dict[str, Any]]]:
    """Takes the daemon's place and notes how it was called."""
    calls: list[tuple[Config, dict[str, Any]]] = []

    def run(config: Config, **more: Any) -> int:
        calls.append((config, more))
        return 1

    module = ModuleType("sidecar.app")
    module.run = run  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "sidecar.app", module)
    return calls


def test_run_hands_over_what_it_was_told(
    invoke: Invoke, daemon: list[tuple[Config, dict[str, Any]]], tmp_path: Path
) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("breakers: {orders: {failure_threshold: 7}}\n")
    result = invoke("run", "-c", str(path), "--listen", "127.0.0.1:9999", "--log-level", "debug")
    assert result.exit_code == 1
    ((config, more),) = daemon
    assert config.breakers["orders"].failure_threshold == 7
    assert config.listen.address == "127.0.0.1:9999"
    assert more["path"] == str(path)
    assert more["flags"] == {"listen.address": "127.0.0.1:9999"}


def test_run_needs_no_file_and_takes_one_from_the_environment(
    invoke: Invoke,
    daemon: list[tuple[Config, dict[str, Any]]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert invoke("run").exit_code == 1
    path = tmp_path / "c.yaml"
    path.write_text("breakers: {orders: {}}\n")
    monkeypatch.setenv("BREAKER_SIDECAR_CONFIG", str(path))
    invoke("run")
    assert [list(config.breakers) for config, _ in daemon] == [["default"], ["orders"]]


@pytest.mark.parametrize("command", [("run",), ("check",), ("config", "show")])
def test_every_fault_is_told_at_once_and_nothing_starts(
    invoke: Invoke,
    daemon: list[tuple[Config, dict[str, Any]]],
    bad: Path,
    command: tuple[str, ...],
) -> None:
    result = invoke(*command, "-c", str(bad))
    assert result.exit_code == 2
    assert result.stdout == ""
    faults = result.stderr.splitlines()
    assert len(faults) == 2
    assert f"{bad}:1: store" in faults[0]
    assert f"{bad}:4: breakers.default.failure_threshold" in faults[1]
    assert not daemon


def test_a_long_path_is_told_whole(invoke: Invoke, tmp_path: Path) -> None:
    path = tmp_path / ("deep" * 30) / "sidecar.yaml"
    path.parent.mkdir()
    path.write_text("store: redis\n")
    assert f"{path}:1: store" in invoke("check", "-c", str(path)).stderr


def test_check_says_ok_and_warns(invoke: Invoke, tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("breakers: {default: {failure_threshold: 1}}\n")
    result = invoke("check", "-c", str(path))
    assert result.exit_code == 0
    assert result.stdout == "OK: store memory, 1 breaker\n"
    assert result.stderr.startswith("warning: ")


def test_config_show_loads_again(invoke: Invoke, tmp_path: Path) -> None:
    shown = invoke("config", "show")
    assert shown.exit_code == 0
    path = tmp_path / "c.yaml"
    path.write_text(shown.stdout)
    assert invoke("config", "show", "-c", str(path)).stdout == shown.stdout


def test_config_schema_is_json(invoke: Invoke) -> None:
    result = invoke("config", "schema")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["$schema"].startswith("https://json-schema.org/")


def test_help_lists_every_command(invoke: Invoke) -> None:
    result = invoke("--help")
    assert result.exit_code == 0
    for command in ("run", "check", "config", "allowed", "report", "status", "watch", "history"):
        assert f"\n  {command} " in result.stdout
    assert "\n  wait " in result.stdout


def test_the_module_is_the_script() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "sidecar", "--version"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.startswith("breaker-sidecar ")
    assert done.stderr == ""


def test_a_client_command_loads_no_server() -> None:
    code = (
        "import sys\n"
        "import sidecar.cli.asking, sidecar.cli.watching, sidecar.cli.main\n"
        "heavy = {'aiohttp', 'asyncio', 'prometheus_client', 'structlog', 'consul', 'yaml'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "[]\n"
