"""What every test may ask for: a shared real Consul, and keys of its own in it."""

from __future__ import annotations

import signal
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers import ConsulServer


def pytest_configure() -> None:
    """Ctrl-C reaches what the tests start: whoever runs them in the background had it ignored."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whatever asks for the Consul fixture carries its marker."""
    for item in items:
        if isinstance(item, pytest.Function) and "consul" in item.fixturenames:
            item.add_marker(pytest.mark.consul)


@pytest.fixture(scope="session")
def consul() -> Iterator[ConsulServer]:
    """One dev server for the whole run: keep to keys below `prefix`, never stop or freeze it."""
    with ConsulServer() as server:
        yield server


@pytest.fixture(scope="session")
def tarball(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The self-contained bundle of this checkout, made once for the whole run."""
    from tools import bundle

    return bundle.build(tmp_path_factory.mktemp("dist"))


@pytest.fixture
def prefix() -> str:
    """A key prefix nobody else uses, without a slash at its end."""
    return f"test-{uuid.uuid4().hex[:12]}"
