"""Binds listening sockets: TCP on one or both loopbacks, and unix sockets with care."""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Sequence
from pathlib import Path

BACKLOG = 1024
Target = tuple[str, int]
"""(host, port); port 0 is any free one."""
_NO_SUCH_FAMILY = {errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL, errno.EPROTONOSUPPORT}
_EPHEMERAL_ATTEMPTS = 16


class ListenFailed(Exception):
    """An address can't be bound; the message says which, why, and what would help."""


class PortTaken(ListenFailed):
    """Somebody else listens there already."""

    def __init__(self, host: str, port: int, setting: str) -> None:
        key = setting.upper().replace(".", "__")
        super().__init__(
            f"port {port} on {host} is taken by another process (node_exporter usually sits on "
            f"9100); set `{setting}` or BREAKER_SIDECAR__{key} to another address, "
            f"such as localhost:9108"
        )
        self.host = host
        self.port = port


def bind_tcp(targets: Sequence[Target], setting: str) -> list[socket.socket]:
    """Sockets bound to all that is meant, listening already; port 0 is the same one for all.

    Several targets are one meaning on both families (`localhost`): a machine that has only one of
    them, as a container without IPv6, is served on that.

    Raises:
        PortTaken: on any of its addresses.
        ListenFailed: for any other reason.
    """
    for _ in range(_EPHEMERAL_ATTEMPTS - 1):
        try:
            return _bind_all(targets, setting)
        except PortTaken:
            if any(port for _, port in targets):
                raise
    return _bind_all(targets, setting)


def _bind_all(targets: Sequence[Target], setting: str) -> list[socket.socket]:
    bound: list[socket.socket] = []
    missing: ListenFailed | None = None
    free = 0
    try:
        for host, port in targets:
            try:
                for family, address in _resolve(host, port):
                    bound.append(_bind(family, address, port or free, setting))
                    free = bound[-1].getsockname()[1]
            except ListenFailed as error:
                cause = error.__cause__
                lacking = isinstance(cause, OSError) and cause.errno in _NO_SUCH_FAMILY
                if len(targets) == 1 or not lacking:
                    raise
                missing = error
        if missing is not None and not bound:
            raise missing
    except ListenFailed:
        close(bound)
        raise
    return bound


def _resolve(host: str, port: int) -> Sequence[tuple[socket.AddressFamily, str]]:
    bare = host.removeprefix("[").removesuffix("]")
    try:
        found = socket.getaddrinfo(
            bare or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except OSError as error:
        raise ListenFailed(f"{host!r} is no address of this machine: {error}") from error
    return list(dict.fromkeys((family, str(address[0])) for family, _, _, _, address in found))


def _bind(family: socket.AddressFamily, address: str, port: int, setting: str) -> socket.socket:
    try:
        sock = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        raise ListenFailed(f"{address}: {error.strerror}") from error
    try:
        # Connections of a predecessor that still linger must not keep us from starting.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.setblocking(False)
        sock.bind((address, port))
        # Only this tells of a port that another process shares with SO_REUSEADDR.
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        if error.errno == errno.EADDRINUSE:
            raise PortTaken(address, port, setting) from error
        raise ListenFailed(
            f"can't listen on {address} port {port}: {error.strerror}; change `{setting}`"
        ) from error
    return sock


def bind_unix(path: str, mode: int, setting: str) -> socket.socket:
    """A listening unix socket with exactly this mode, in the place of a dead one if need be.

    Raises:
        ListenFailed: something that is no socket is there (a symlink counts as that), another
            process answers on it, or the folder doesn't take it.
    """
    _clear(path, setting)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    # The file must never be there with wider rights, not even for a moment.
    before = os.umask(0o777 & ~mode)
    try:
        sock.setblocking(False)
        sock.bind(path)
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        raise ListenFailed(f"can't listen on {path}: {error}; change `{setting}`") from error
    finally:
        os.umask(before)
    return sock


def _clear(path: str, setting: str) -> None:
    """Remove the socket file of a process that has died; refuse anything else that is there."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    except OSError as error:
        raise ListenFailed(f"can't look at {path}: {error.strerror}") from error
    if not stat.S_ISSOCK(found.st_mode):
        what = "a symlink" if stat.S_ISLNK(found.st_mode) else "no socket"
        raise ListenFailed(f"{path} is there and is {what}; remove it or change `{setting}`")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            Path(path).unlink(missing_ok=True)
            return
        except OSError as error:
            raise ListenFailed(
                f"can't tell who listens on {path}: {error}; remove it or change `{setting}`"
            ) from error
    raise ListenFailed(f"another process listens on {path}; stop it or change `{setting}`")


def identity(path: str) -> tuple[int, int] | None:
    """What tells this file from a successor under the same name; None when it is gone."""
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def close(sockets: Sequence[socket.socket]) -> None:
    """Close them all."""
    for sock in sockets:
        sock.close()
