"""What every test may ask for: a shared real Consul, and keys of its own in it."""

from __future__ import annotations

import ast
import functools
import gc
import signal
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests.kafka import Kafka
from tests.servers import ConsulServer
from tests.toxiproxy import Toxiproxy

MARKED = ("consul", "kafka")
"""Whatever asks for one of these fixtures carries the marker of the same name."""


def pytest_configure() -> None:
    """Ctrl-C reaches what the tests start: whoever runs them in the background had it ignored.

    No generated case is timed: on a busy machine that would say something of the machine alone.
    """
    ast.parse = _parse_undisturbed(ast.parse)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    present = settings()  # under CI=true Hypothesis chose one that draws the same each time
    settings.register_profile(
        "untimed", present, deadline=None, suppress_health_check=[HealthCheck.too_slow]
    )
    settings.load_profile("untimed")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whatever asks for a server's fixture carries its marker."""
    for item in items:
        if isinstance(item, pytest.Function):
            for name in MARKED:
                if name in item.fixturenames:
                    item.add_marker(name)


def _parse_undisturbed(parse: Callable[..., Any]) -> Callable[..., Any]:
    """`ast.parse` without a collection of garbage in the middle.

    A forgotten task that is collected then logs a traceback, for which source is parsed as well,
    and in early releases of Python 3.11 and 3.12 (cpython's gh-106905) the outer parse then ends
    with a SystemError: in a report it would hide the failure, at the end of a run make it fail.
    """

    @functools.wraps(parse)
    def undisturbed(*args: Any, **kwargs: Any) -> Any:
        was_on = gc.isenabled()
        gc.disable()
        try:
            return parse(*args, **kwargs)
        finally:
            if was_on:
                gc.enable()

    return undisturbed


@pytest.fixture(scope="session")
def consul() -> Iterator[ConsulServer]:
    """One dev server for the whole run: keep to keys below `prefix`, never stop or freeze it."""
    with ConsulServer() as server:
        yield server


@pytest.fixture(scope="session")
def kafka() -> Iterator[Kafka]:
    """One broker for the whole run: keep to topics and groups of your own, never stop it."""
    with Kafka() as cluster:
        yield cluster


@pytest.fixture(scope="session")
def toxiproxy(kafka: Kafka) -> Iterator[Toxiproxy]:
    """For the whole run; make proxies of your own, with names of your own."""
    with Toxiproxy() as server:
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
