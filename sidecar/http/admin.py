"""Who may give orders: a bearer token over TCP; without one only who is on this machine for sure.

The token's file is read at every order, which is rare: a rotated token counts at once. Where
requests come by the thousand, a token is kept for a second (`Tokens`), and looked for in the file
before one that doesn't match is refused.
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Callable
from pathlib import Path

from aiohttp import web

from sidecar.http.problems import Problem
from sidecar.http.settings import HttpSettings, Transport

MAX_TOKEN_BYTES = 4096
KEPT_S = 1.0
CLOSED = (
    "orders over TCP need a bearer token: configure admin.token_file, use listen.socket, "
    "or go straight to Consul with your own token (breaker-sidecar force --consul)"
)
"""What to do where no token is configured."""


class Tokens:
    """Keeps the token that was read last, for `KEPT_S`.

    Args:
        now: monotonic seconds.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._kept: tuple[str, bytes, float] | None = None

    async def read(self, path: str, *, anew: bool = False) -> bytes:
        """The token in the file; `anew`: by what is in there now, whatever is kept.

        Raises Problem where it is of no use.
        """
        if self._kept is not None and not anew:
            known, token, at = self._kept
            if known == path and self._now() - at < KEPT_S:
                return token
        token = await asyncio.to_thread(_read, path)
        self._kept = (path, token, self._now())
        return token

    def right(self, path: str, given: bytes | None) -> bool:
        """Whether an `Authorization` header is right, by the token that is kept.

        False also where none is kept, or another one may be in the file by now.
        """
        if self._kept is None or given is None:
            return False
        known, token, at = self._kept
        scheme, _, sent = given.partition(b" ")
        return (
            known == path
            and self._now() - at < KEPT_S
            and scheme.lower() == b"bearer"
            and hmac.compare_digest(sent.strip(), token)
        )


async def check(
    request: web.Request,
    settings: HttpSettings,
    transport: Transport,
    tokens: Tokens | None = None,
    *,
    closed: str = CLOSED,
) -> None:
    """Let an order pass, or refuse it.

    The unix socket is guarded by its file mode and asks for no token.

    Args:
        closed: what is said where none is configured and one is needed; the mend is part of it.

    Raises:
        Problem: 401 where a token is needed and isn't right, 403 where none is configured, 503
            where the configured one can't be read.
    """
    if transport == "unix":
        return
    if settings.admin_token_file is None:
        if settings.open_orders:
            return
        raise Problem(403, "orders-need-a-token", closed)
    path = settings.admin_token_file
    sent = _sent(request)
    right = hmac.compare_digest
    if tokens is None:
        allowed = right(sent, await asyncio.to_thread(_read, path))
    else:
        allowed = right(sent, await tokens.read(path))
        if not allowed and sent:
            allowed = right(sent, await tokens.read(path, anew=True))
    if not allowed:
        raise Problem(
            401,
            "unauthorized",
            "send the bearer token of admin.token_file: Authorization: Bearer <token>",
            headers={"WWW-Authenticate": 'Bearer realm="breaker-sidecar"'},
        )


def _sent(request: web.Request) -> bytes:
    """The token that came; empty where none did, which no file holds."""
    given = request.headers.getall("Authorization", [])
    scheme, _, token = given[0].partition(" ") if len(given) == 1 else ("", "", "")
    if scheme.lower() != "bearer":
        return b""
    return token.strip().encode("utf-8", "surrogateescape")  # a header may hold any bytes


def _read(path: str) -> bytes:
    """The token. An empty file must not become a token that everybody can send."""
    try:
        with Path(path).open("rb") as file:
            token = file.read(MAX_TOKEN_BYTES).strip()
    except OSError as fault:
        raise _unreadable(fault.strerror or "it can't be read") from fault
    if not token:
        raise _unreadable("it is empty")
    return token


def _unreadable(why: str) -> Problem:
    return Problem(503, "token-file-unusable", f"admin.token_file is of no use: {why}")
