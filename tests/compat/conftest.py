"""The source system's services, built once, and a Consul of one's own: they use fixed keys."""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers import ConsulServer

SOURCES = Path(__file__).resolve().parent / "go"
BUILD_DEADLINE_S = 240.0


def _binary() -> Path:
    """Where this very program is kept, outside the checkout; other sources get another name."""
    digest = hashlib.sha256()
    for file in sorted(SOURCES.iterdir()):
        digest.update(file.read_bytes())
    home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(home) / "breaker-sidecar" / "tools" / f"compat-{digest.hexdigest()[:12]}" / "compat"


@pytest.fixture(scope="session")
def source_system() -> Path:
    """The program that behaves as the source system's consumer or producer."""
    binary = _binary()
    if not binary.exists():
        binary.parent.mkdir(parents=True, exist_ok=True)
        # Built aside and moved: another run may be building the same.
        fresh = binary.with_name(f"compat.{os.getpid()}")
        subprocess.run(
            ["go", "build", "-o", str(fresh), "."],
            cwd=SOURCES,
            env={**os.environ, "CGO_ENABLED": "0"},
            check=True,
            timeout=BUILD_DEADLINE_S,
        )
        fresh.replace(binary)
    return binary


@pytest.fixture
def own_consul() -> Iterator[ConsulServer]:
    """A server for one test alone: the source system's state key is the same in every fleet."""
    with ConsulServer() as server:
        yield server
