"""Who may: keeps web pages, and names that were rebound to this machine, away from `/v1/*`.

A browser on this machine can reach a port on localhost for any page it shows. What such a page
can't do is leave out `Origin` and `Sec-Fetch-Site`, or name us in `Host` (a rebound DNS name
brings its own). Decisions and probes are open to all: gateways pass on what their clients sent.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection
from urllib.parse import urlsplit

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from sidecar.http.problems import Problem, shown
from sidecar.http.settings import LiveSettings, Transport

OPEN = frozenset({"allowed", "ext_authz", "livez", "readyz", "metrics", "version"})
"""First path segments that anyone may ask for; everything else, known or not, is guarded."""


def middleware(settings: LiveSettings, transport: Transport) -> Middleware:
    """Refuse guarded paths to whoever isn't local, before anything is routed or read."""

    @web.middleware
    async def door(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path[1:].partition("/")[0] in OPEN:
            return await handler(request)
        check(request, settings.current.allowed_hosts, transport)
        return await handler(request)

    return door


def check(request: web.Request, hosts: Collection[str], transport: Transport) -> None:
    """Is it local? Raises Problem: 403 with what isn't."""
    if transport == "tcp":
        _check_host(request.headers.getall("Host", []), hosts)
        _check_target(request, hosts)
    _check_origin(request.headers.getall("Origin", []), hosts)
    for site in request.headers.getall("Sec-Fetch-Site", []):
        if site.strip().lower() == "cross-site":
            raise Problem(403, "cross-site", "requests from other sites' pages are refused")


def _check_host(values: list[str], allowed_hosts: Collection[str]) -> None:
    if len(values) != 1:
        raise Problem(403, "forbidden-host", "exactly one Host header must be there")
    if not trusted(values[0], allowed_hosts):
        raise Problem(
            403,
            "forbidden-host",
            f"Host {shown(values[0])} is neither loopback nor listed in `listen.allowed_hosts`",
        )


def _check_target(request: web.Request, allowed_hosts: Collection[str]) -> None:
    """A target may be a whole URL, whose host counts more than the header (RFC 9112, 3.2.2)."""
    named = request.url.raw_authority if request._message.url.absolute else None
    if named is not None and not trusted(named, allowed_hosts):
        raise Problem(
            403,
            "forbidden-host",
            f"the target's host {shown(named)} is neither loopback nor listed in "
            "`listen.allowed_hosts`",
        )


def _check_origin(values: list[str], allowed_hosts: Collection[str]) -> None:
    for value in values:
        if not _trusted_origin(value, allowed_hosts):
            raise Problem(
                403,
                "forbidden-origin",
                f"Origin {shown(value)} is neither loopback nor listed in `listen.allowed_hosts`",
            )


def _trusted_origin(value: str, allowed_hosts: Collection[str]) -> bool:
    """An origin is scheme, host and port; `null` and anything malformed are foreign."""
    try:
        parts = urlsplit(value.strip())
    except ValueError:
        return False
    if parts.scheme.lower() not in {"http", "https"} or parts.path or parts.query:
        return False
    return trusted(parts.netloc, allowed_hosts)


def trusted(authority: str, allowed_hosts: Collection[str]) -> bool:
    """Is the host of `host[:port]` loopback or listed, on whatever port?"""
    host = _host(authority.strip().lower())
    return host is not None and (_loopback(host) or host in allowed_hosts)


def _host(authority: str) -> str | None:
    """The host without port and brackets; None for what is no authority."""
    if authority.startswith("["):
        host, bracket, rest = authority[1:].partition("]")
        if not bracket:
            return None
    else:
        host, colon, port = authority.partition(":")
        rest = colon + port
    if rest not in {"", ":"} and not (rest.startswith(":") and _digits(rest[1:])):
        return None
    return host or None


def _digits(text: str) -> bool:
    return text.isascii() and text.isdigit()


def _loopback(host: str) -> bool:
    """`localhost`, 127.0.0.0/8 or ::1. Names below `localhost.` are left to resolvers: no."""
    if host in {"localhost", "localhost."}:
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address):
        return address == ipaddress.IPv6Address("::1")
    return address.is_loopback
