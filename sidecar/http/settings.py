"""What the HTTP layer is told of the configuration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Transport = Literal["tcp", "unix"]
"""How a request came in; a unix socket is guarded by the file system already."""
Reports = Literal["tcp", "socket", "off"]
"""Where reports are taken: everywhere, on the unix socket alone, or nowhere."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpSettings:
    """What may differ between two daemons of the same build."""

    allowed_hosts: frozenset[str] = frozenset()
    """Hosts beyond loopback that `/v1/*` may be asked by: lower case, without port or brackets."""
    reports: Reports = "tcp"
    admin_token_file: str | None = None
    """Holds the bearer token that orders over TCP need."""
    open_orders: bool = False
    """Without a token file, orders are taken over TCP too: nobody else's store is at stake."""
    version: str = "0+unknown"
    commit: str = "unknown"


class LiveSettings:
    """The settings in effect; a reload replaces `current` between two requests."""

    __slots__ = ("current",)

    def __init__(self, settings: HttpSettings) -> None:
        self.current = settings
