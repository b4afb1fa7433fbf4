"""Where the sidecar is, found the way every client of it finds it."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv6Address

DEFAULT_PORT = 9100
ADDRESS_VARIABLE = "BREAKER_SIDECAR_ADDRESS"
PORT_VARIABLE = "NOMAD_PORT_breaker"
"""Set by Nomad for a port labelled `breaker`."""
LAST_PORT = 65535

_USER = re.compile(r"(^|//)[^/]*@")
_ADDRESS = re.compile(
    r"(?:\[(?P<v6>[^]]*)\]|(?P<name>[^][:/?#@\x00-\x20\x7f]*))(?::(?P<port>[0-9]{1,5}))?"
)


class AddressError(ValueError):
    """The text says nowhere to look; the message says what would be right."""


@dataclass(frozen=True, slots=True)
class Place:
    """One place to try: a host and port, or a unix socket."""

    host: str = "localhost"
    port: int = DEFAULT_PORT
    socket_path: str | None = None

    @property
    def base_url(self) -> str:
        """In front of a path; a socket has a made-up host."""
        if self.socket_path is not None:
            return "http://localhost"
        return f"http://{self}"

    def __str__(self) -> str:
        if self.socket_path is not None:
            return f"unix:{self.socket_path}"
        return f"{url_host(self.host)}:{self.port}"


def places(address: str | None = None, environ: Mapping[str, str] | None = None) -> list[Place]:
    """The places to try in turn; localhost is both of its addresses.

    Args:
        address: `host:port`, an `http://` URL or `unix:PATH`; else BREAKER_SIDECAR_ADDRESS, else
            localhost at NOMAD_PORT_breaker, else localhost:9100.
        environ: this process's by default.

    Raises:
        AddressError: it is none of these.
    """
    environ = os.environ if environ is None else environ
    text = address or environ.get(ADDRESS_VARIABLE) or ""
    if not text:
        return _nomads(environ.get(PORT_VARIABLE) or str(DEFAULT_PORT))
    if text.startswith("unix:"):
        path = text.removeprefix("unix:").removeprefix("//")
        if not path:
            raise AddressError(f"{text!r} names no socket; write unix:/path/to/socket")
        return [Place(socket_path=path)]
    return _hosts(text, DEFAULT_PORT) if "://" not in text else _hosts(_of_url(text), 80)


def _nomads(port: str) -> list[Place]:
    try:
        return _hosts(f"localhost:{port}", DEFAULT_PORT)
    except AddressError:
        raise AddressError(f"{PORT_VARIABLE} is {port!r}; write a port's number") from None


def _of_url(text: str) -> str:
    scheme, _, rest = text.partition("://")
    rest = rest.removesuffix("/")
    if scheme != "http" or not rest or any(mark in rest for mark in "/?#@"):
        raise AddressError(f"{_shown(text)} is no place a sidecar can be; write http://host:port")
    return rest


def _hosts(text: str, default_port: int) -> list[Place]:
    try:
        host, port = _split(text)
    except ValueError:
        raise AddressError(
            f"{_shown(text)} is no address; write host:port, http://… or unix:PATH"
        ) from None
    # By hand: a resolver may know only one of the two, and may even ask the network.
    hosts = ("127.0.0.1", "::1") if host in {"", "localhost"} else (host,)
    return [Place(name, default_port if port is None else port) for name in hosts]


def _split(text: str) -> tuple[str, int | None]:
    """Host and port of `host`, `host:port`, `:port`, `[v6]:port` or a bare v6 address."""
    found = _ADDRESS.fullmatch(f"[{text}]" if text.count(":") > 1 and "[" not in text else text)
    if found is None or not any(found.groups()):
        raise ValueError
    v6, name, port = found["v6"], found["name"], found["port"]
    if port is not None and int(port) > LAST_PORT:
        raise ValueError
    host = str(IPv6Address(v6)) if v6 is not None else name.lower()
    return host, None if port is None else int(port)


def _shown(text: str) -> str:
    """What was given, without the password that a URL may carry."""
    return repr(_USER.sub(r"\1***@", text))


def url_host(host: str) -> str:
    """A host as it stands in a URL."""
    return f"[{host}]" if ":" in host else host
