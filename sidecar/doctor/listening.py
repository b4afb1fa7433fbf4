"""Whether the addresses to answer on can be had, and who has them if not."""

from __future__ import annotations

import http.client
import re
from collections.abc import Iterator
from pathlib import Path

from sidecar.config import model
from sidecar.config.addresses import is_loopback, split_host_port
from sidecar.config.model import Config
from sidecar.doctor.findings import Finding, fault, fine, warning
from sidecar.http.sockets import ListenFailed, PortTaken, Target, bind_tcp, close

_LISTENS = "0A"
_ASK_S = 1.0
_KNOWN = {b"node_exporter_build_info": "node_exporter", b"prometheus_build_info": "Prometheus"}
"""Programs by a series that only their own /metrics has."""


def addresses(config: Config, *, ours: bool) -> Iterator[Finding]:
    """Every TCP address of the configuration.

    Args:
        ours: a sidecar answers there already, so that it is taken is as it should be.
    """
    listen = config.listen
    yield from _bound("listen.address", listen.address, model.listen_targets(listen), ours=ours)
    if listen.diagnostics:
        targets = model.diagnostics_targets(listen)
        yield from _bound("listen.diagnostics", listen.diagnostics, targets, ours=ours)
    host, _ = split_host_port(listen.address)
    if not is_loopback(host):
        said = "other machines reach it: whoever does can ask, and report unless `reports` says no"
        mend = "listen on localhost, and give Prometheus listen.diagnostics"
        yield warning("listen", said, mend, "listen.address", listen.address)


def _bound(key: str, text: str, targets: list[Target], *, ours: bool) -> Iterator[Finding]:
    try:
        close(bind_tcp(targets, key))
    except PortTaken as taken:
        if ours:
            yield fine("listen", "the running sidecar answers there", key, text)
            return
        said = f"port {taken.port} on {taken.host} is taken by {owner(taken.host, taken.port)}"
        yield fault("listen", said, _another(key), key, text)
        return
    except ListenFailed as failed:
        yield fault("listen", str(failed), _another(key), key, text)
        return
    yield fine("listen", "can be bound", key, text)


def _another(key: str) -> str:
    variable = key.upper().replace(".", "__")
    return f"set {key} (or BREAKER_SIDECAR__{variable}) to another address, such as localhost:9108"


def owner(host: str, port: int) -> str:
    """Who listens on a port: the process, if it may be seen, else what it says of itself."""
    for inode in _inodes(port):
        for process in Path("/proc").glob("[0-9]*"):
            if _has(process, inode):
                return f"{_name(process)} (process {process.name})"
    said = _metrics(host, port)
    program = next((name for series, name in _KNOWN.items() if series in said), None)
    if program:
        return f"{program}, by its /metrics"
    return "another process" + (" (node_exporter usually sits on 9100)" if port == 9100 else "")


def _inodes(port: int) -> Iterator[str]:
    """The sockets that listen on a port, by the kernel's tables."""
    for table in ("tcp", "tcp6"):
        try:
            lines = Path("/proc/net", table).read_text("ascii").splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            if fields[3] == _LISTENS and int(fields[1].rpartition(":")[2], 16) == port:
                yield fields[9]


def _has(process: Path, inode: str) -> bool:
    try:
        links = [link.readlink().name for link in (process / "fd").iterdir()]
    except OSError:
        return False  # another user's, or gone
    return f"socket:[{inode}]" in links


def _name(process: Path) -> str:
    try:
        return re.sub(
            r"[^\x21-\x7e]", "?", (process / "comm").read_text("utf-8", "replace").strip()
        )
    except OSError:
        return "a process"


def _metrics(host: str, port: int) -> bytes:
    connection = http.client.HTTPConnection(host, port, timeout=_ASK_S)
    try:
        connection.request("GET", "/metrics")
        return connection.getresponse().read(1 << 20)
    except (OSError, http.client.HTTPException):
        return b""
    finally:
        connection.close()
