"""A daemon loads what is configured, and no more: memory counts once for each allocation."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import sys
import sidecar.app
from sidecar.config.load import load
from sidecar.telemetry.logging import Log
sidecar.app.Daemon(load(None, environ={}), "i", Log(), lambda: load(None, environ={}))
loaded = sorted(
    name
    for name in sys.modules
    if name in {"aiokafka", "sqlite3", "google_crc32c", "sidecar.publish", "sidecar.spool"}
)
assert not loaded, loaded
"""


def test_neither_kafka_nor_sqlite_without_publish() -> None:
    """In a process of its own: here everything has been imported long ago."""
    subprocess.run([sys.executable, "-c", SCRIPT], check=True, timeout=60)
