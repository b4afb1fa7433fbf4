"""What the middleware guards, and what it answers in the breaker's name."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from http import HTTPStatus

from sidecar.client.decider import Decider

Guard = Callable[[str, str], bool]
"""Says of a method and a path whether the breaker decides about it."""

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
"""RFC 9110, 9.2.1: they only read, so nothing is sent because of them."""


def unsafe_methods(method: str, _path: str) -> bool:
    """The default guard: every request that may change something."""
    return method not in SAFE_METHODS


def guarding(paths: Iterable[str] = ("/",), methods: Iterable[str] | None = None) -> Guard:
    """A guard for parts of an API.

    Args:
        paths: what lies below any of these is guarded: `/orders` covers `/orders` and
            `/orders/7`, and not `/orders-old`.
        methods: only these; None: all that may change something.
    """
    if isinstance(paths, str) or isinstance(methods, str):
        raise TypeError("paths and methods are lists: guarding(['/orders'], ['POST'])")
    roots = tuple(path.rstrip("/") for path in paths)
    chosen = None if methods is None else frozenset(method.upper() for method in methods)

    def guard(method: str, path: str) -> bool:
        if not (unsafe_methods(method, path) if chosen is None else method in chosen):
            return False
        return any(path == root or path.startswith(root + "/") for root in roots)

    return guard


@dataclass(frozen=True, slots=True)
class Rejection:
    """The answer to a request that the breaker rejects. It says nothing of the inside."""

    status: HTTPStatus
    headers: tuple[tuple[str, str], ...]
    body: bytes


class Gate:
    """The middleware's common part: who is guarded, and how a rejection looks.

    Args:
        decider: is asked, once for each guarded request.
        guard: says which requests are guarded.
        status: of a rejection; from 400 to 599.
    """

    def __init__(self, decider: Decider, guard: Guard, status: int) -> None:
        if not 400 <= status <= 599:
            raise ValueError(f"a rejection's status is from 400 to 599, not {status}")
        self._decider = decider
        self._status = HTTPStatus(status)
        self.guards = guard

    def reject(self) -> Rejection | None:
        """The rejection that a guarded request gets; None: it may go on."""
        if self._decider.allowed():
            return None
        after_s = self._decider.retry_after()
        seconds = "1 second" if after_s == 1 else f"{after_s} seconds"
        problem = {
            "type": "urn:breaker-sidecar:rejected",
            "title": self._status.phrase,
            "status": self._status.value,
            "detail": f"Nothing more can be accepted right now; try again in {seconds}.",
        }
        body = json.dumps(problem, separators=(",", ":")).encode()
        headers = (
            ("Content-Type", "application/problem+json"),
            ("Content-Length", str(len(body))),
            ("Cache-Control", "no-store"),
            ("Retry-After", str(after_s)),
        )
        return Rejection(self._status, headers, body)
