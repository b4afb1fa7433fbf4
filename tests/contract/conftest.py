"""Both stores, each as the port has it."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

import pytest

from sidecar.core.ports import Store
from sidecar.store.consul import ConsulSettings, ConsulStore
from sidecar.store.memory import MemoryStore
from tests.servers import ConsulServer
from tests.telemetry import RecordedTelemetry


@pytest.fixture(params=["memory", pytest.param("consul", marks=pytest.mark.consul)])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[Store]:
    """The suite runs once on each."""
    made: Store
    if request.param == "memory":
        made = MemoryStore(time.monotonic)
    else:
        server: ConsulServer = request.getfixturevalue("consul")
        made = ConsulStore(ConsulSettings(port=server.port), RecordedTelemetry())
    yield made
    await made.close()
