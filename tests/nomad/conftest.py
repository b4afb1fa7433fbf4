"""One Nomad for all of these tests, and for each a Consul of its own: the files have fixed keys."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.nomad.agent import NomadAgent
from tests.nomad.fleet import Usual
from tests.servers import ConsulServer


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whatever asks for Nomad carries its marker."""
    for item in items:
        if isinstance(item, pytest.Function) and "_nomad" in item.fixturenames:
            item.add_marker(pytest.mark.nomad)


@pytest.fixture(scope="session")
def _nomad() -> Iterator[NomadAgent]:
    with NomadAgent() as agent:
        yield agent


@pytest.fixture
def nomad(_nomad: NomadAgent) -> Iterator[NomadAgent]:
    """The agent; what a test runs on it is stopped afterwards."""
    yield _nomad
    _nomad.stop_all()


@pytest.fixture
def place() -> Iterator[Usual]:
    """The usual keys in a Consul of one's own."""
    with ConsulServer() as server:
        yield Usual(server, "")
