"""A fleet's own place in the shared Consul, and a Consul that a test may freeze."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.acceptance.support import Place
from tests.servers import ConsulServer


@pytest.fixture
def place(consul: ConsulServer, prefix: str) -> Place:
    """Keys of this test alone in the shared Consul, which it must not freeze."""
    return Place(consul, prefix)


@pytest.fixture(scope="module")
def _own_server() -> Iterator[ConsulServer]:
    with ConsulServer() as server:
        yield server


@pytest.fixture
def own_place(_own_server: ConsulServer, prefix: str) -> Iterator[Place]:
    """Keys of this test alone in a Consul that it may freeze."""
    yield Place(_own_server, prefix)
    _own_server.thaw()
