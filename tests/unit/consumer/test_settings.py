from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from sidecar.consumer import Event, Limits, Runner, by_header, version_header


@pytest.mark.parametrize(
    "wrong",
    [
        {"concurrency": 0},
        {"in_flight": 0},
        {"concurrency": 20, "in_flight": 10},
        {"handler_s": 0.0},
        {"drain_s": -1.0},
        {"brake_after": 0},
        {"brake_first_s": 10.0, "brake_most_s": 5.0},
    ],
)
def test_limits_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - which of them, the case says
        Limits(**wrong)


async def handle(event: Event[bytes]) -> None: ...


def test_a_version_gate_without_a_store_is_refused() -> None:
    with pytest.raises(ValueError, match="needs a store"):
        Runner("orders", group="g", handler=handle, version=version_header("v"))


def test_an_identity_without_a_store_is_refused() -> None:
    with pytest.raises(ValueError, match="needs a store"):
        Runner("orders", group="g", handler=handle, identity=by_header("id"))


@pytest.mark.parametrize("taken", ["group_id", "enable_auto_commit", "bootstrap_servers"])
def test_what_the_kit_decides_can_not_be_set(taken: str) -> None:
    with pytest.raises(ValueError, match=taken):
        Runner("orders", group="g", handler=handle, consumer={taken: "x"})


async def test_outside_of_a_store_there_is_no_transaction() -> None:
    from tests.unit.consumer.records import Rec

    with pytest.raises(RuntimeError, match="store"):
        async with Event(Rec(), b"", 0, 1).transaction():
            raise AssertionError


def test_importing_it_loads_nothing_of_the_daemon() -> None:
    code = (
        "import sys, sidecar.consumer\n"
        "heavy = {'aiohttp', 'click', 'consul', 'prometheus_client', 'structlog', 'yaml'}\n"
        "ours = {m for m in sys.modules if m.startswith('sidecar.')}\n"
        "kit = ('sidecar.consumer', 'sidecar.client')\n"
        "print(sorted(heavy & sys.modules.keys()), [m for m in ours if not m.startswith(kit)])"
    )
    said = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert said.stdout.strip() == "[] []"
