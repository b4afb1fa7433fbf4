"""Free ports, and waiting by polling."""

from __future__ import annotations

import secrets
import socket
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

POLL_S = 0.02


_PORTS = range(10_000, 20_000)
"""Below those that the system gives to outgoing connections, which would take a port between its
choice and its use, or while its server is down; and below Nomad's."""
_given: set[int] = set()


def free_port() -> int:
    """A TCP port on loopback that nobody listens on right now; never the same twice."""
    while True:
        port = secrets.choice(_PORTS)
        if port in _given:
            continue
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        _given.add(port)
        return port


def listens(port: int) -> bool:
    """Whether anybody takes connections on a loopback port."""
    try:
        with socket.create_connection(("127.0.0.1", port), 1.0):
            return True
    except OSError:
        return False


def poll_until_sync(fn: Callable[[], T | None], timeout_s: float, what: str) -> T:
    """Call `fn` until it returns something true, and return that.

    Raises:
        AssertionError: it never did; the text says what never was.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        if result := fn():
            return result
        if time.monotonic() >= deadline:
            raise AssertionError(f"not within {timeout_s} s: {what}")
        time.sleep(POLL_S)
