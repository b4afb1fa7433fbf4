"""Where to listen and where Consul is: reading addresses, without resolving or connecting."""

import ipaddress
import re

import msgspec

HTTP_PORT = 8500  # Consul's own default ports, for an address that is a bare host
HTTPS_PORT = 8501

_HOST = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,252})")
_PATH = re.compile(r"[A-Za-z0-9_.~/-]*")


class AddressError(ValueError):
    """The text is no address; its message says why."""


class Endpoint(msgspec.Struct, frozen=True):
    """Where one Consul answers: a host and port, or a unix socket, and a path before ``/v1``."""

    scheme: str = "http"
    host: str = "127.0.0.1"
    port: int = HTTP_PORT
    socket: str | None = None
    path: str = ""

    @property
    def base_url(self) -> str:
        """The URL in front of ``/v1``, without a trailing slash; a socket has a made-up host."""
        if self.socket is not None:
            return "http://localhost"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}{self.path}"


def split_host_port(text: str) -> tuple[str, int | None]:
    """Split ``host``, ``host:port``, ``[v6]:port``, a bare v6 address or ``:port`` (any host).

    The host comes back without brackets, the port as None where there is none. Raises
    AddressError.
    """
    if text.startswith("["):
        host, closed, rest = text[1:].partition("]")
        if not closed or not _is_ip(host, 6) or (rest and not rest.startswith(":")):
            raise AddressError("is not an address")
        return host, _port(rest[1:]) if rest else None
    if _is_ip(text, 6):
        return text, None
    host, colon, port = text.partition(":")
    if (host and not _HOST.fullmatch(host)) or not (host or colon):
        raise AddressError("is not an address")
    return host, _port(port) if colon else None


def join_host_port(host: str, port: int) -> str:
    """The opposite of split_host_port."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def bind_targets(address: str) -> list[tuple[str, int]]:
    """The (host, port) pairs to bind for ``host:port``; names but localhost stay names."""
    host, port = split_host_port(address)
    if port is None:
        raise AddressError("has no port")
    if host.lower() == "localhost":
        return [("127.0.0.1", port), ("::1", port)]
    if not host:
        return [("0.0.0.0", port), ("::", port)]  # noqa: S104 - asked for, and allow_remote set
    return [(host, port)]


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches the host; a name other than localhost may be anywhere."""
    if host.lower() == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback)


def parse_consul_address(text: str) -> tuple[str | None, Endpoint]:
    """Read ``host[:port][/path]``, ``http(s)://host[:port][/path]`` or ``unix:///path``.

    Gives the scheme where the text has one ("unix" for a socket), and the endpoint. Port 0 in
    it stands for "none written": see with_scheme. Raises AddressError.
    """
    scheme, found, rest = text.partition("://")
    if not found:
        scheme, rest = "", text
    if scheme == "unix":
        if not rest.startswith("/") or "\0" in rest:
            raise AddressError("has no absolute path to a socket")
        return "unix", Endpoint(socket=rest, port=0)
    if scheme not in ("", "http", "https"):
        raise AddressError("has a scheme that Consul doesn't speak")
    place, _, path = rest.partition("/")
    path = path.strip("/")
    host, port = split_host_port(place)
    if not host or port == 0:
        raise AddressError("has no host" if not host else "has port 0")
    if not _PATH.fullmatch(path) or "//" in path or ".." in path:
        raise AddressError("has a path with other characters than letters, digits, _ . ~ / -")
    where = Endpoint(
        scheme=scheme or "http", host=host, port=port or 0, path=f"/{path}" if path else ""
    )
    return scheme or None, where


def with_scheme(text: str, scheme: str) -> Endpoint:
    """The endpoint of a Consul address under a scheme, its port filled in.

    A URL without a port has its scheme's (80, 443), as in Consul's own client; a bare host,
    where that client would try port 80, has Consul's default port (8500, 8501).
    """
    written, endpoint = parse_consul_address(text)
    if endpoint.socket is not None:
        return endpoint
    secure = scheme == "https"
    plain, tls = (HTTP_PORT, HTTPS_PORT) if written is None else (80, 443)
    default = tls if secure else plain
    return msgspec.structs.replace(endpoint, scheme=scheme, port=endpoint.port or default)


def _is_ip(text: str, version: int) -> bool:
    try:
        return ipaddress.ip_address(text).version == version
    except ValueError:
        return False


def _port(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,5}", text) or int(text) > 65535:
        raise AddressError("has a port that is no number from 0 to 65535")
    return int(text)
