"""pytest plugin: which tests stay together where several processes share them out (`-n`).

Whole files, in their order, but the longest share first. Loaded by `-p tests.shares`.
"""

from __future__ import annotations

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

TOGETHER = ("tests/nomad/", "tests/packages/")
"""Folders whose tests run in one process, as they share much work: one Nomad, one bundle."""


class Shares(LoadScopeScheduling):  # type: ignore[misc]  # xdist ships no types
    """The scheduler."""

    def _split_scope(self, nodeid: str) -> str:
        """What a test stays together with."""
        return "together" if nodeid.startswith(TOGETHER) else nodeid.partition("::")[0]


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what one process is at for minutes, while the other has enough to do."""
    items.sort(key=lambda item: not item.nodeid.startswith(TOGETHER))


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Shares:
    """Called by xdist."""
    return Shares(config, log)
