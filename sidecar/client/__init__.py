"""What an application imports to ask its sidecar: the decision, and middleware that applies it.

    with Breaker("orders", on_no_answer=True) as breaker:      # threads, WSGI, scripts
        if breaker.allowed(): ...

    async with AsyncBreaker("orders", on_no_answer=True) as breaker:
        if breaker.allowed(): ...

Both follow the sidecar in the background, so that a decision costs no request. Nothing of the
daemon is imported, and aiohttp only by what needs it. Middleware: `sidecar.client.asgi`,
`sidecar.client.wsgi` and `sidecar.client.web` (aiohttp).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sidecar.client.address import AddressError
from sidecar.client.decider import Source
from sidecar.client.guard import Guard, guarding
from sidecar.client.known import Known
from sidecar.client.threads import Breaker

if TYPE_CHECKING:
    from sidecar.client.aio import AsyncBreaker

__all__ = ["AddressError", "AsyncBreaker", "Breaker", "Guard", "Known", "Source", "guarding"]


def __getattr__(name: str) -> object:
    """`AsyncBreaker` on demand: it brings aiohttp, which a WSGI server does without."""
    if name == "AsyncBreaker":
        from sidecar.client.aio import AsyncBreaker

        return AsyncBreaker
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
