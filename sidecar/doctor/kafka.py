"""The brokers of the source system's `kafka:` block: whether they take a TCP connection.

The sidecar itself only passes that block over; it is the flow that needs them.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from sidecar.config.addresses import AddressError, split_host_port
from sidecar.doctor.findings import Finding, fault, fine, warning

PORT = 9092
CONNECT_S = 3.0
_KEY = "kafka.brokers"
_MOST = 64


def brokers_of(path: str | None) -> list[str]:
    """What the file lists under `kafka.brokers`; nothing where it has no such block."""
    if path is None:
        return []
    import yaml

    try:
        document: Any = yaml.safe_load(Path(path).read_text("utf-8-sig"))
        listed = document["kafka"]["brokers"]
    except (OSError, UnicodeError, yaml.YAMLError, TypeError, KeyError):
        return []
    texts = listed.split(",") if isinstance(listed, str) else listed
    return [str(text).strip() for text in texts or ()][:_MOST]


def brokers(addresses: list[str]) -> Iterator[Finding]:
    """Whether each takes a connection; all are tried at once."""
    if not addresses:
        return
    with ThreadPoolExecutor(len(addresses)) as pool:
        problems = list(pool.map(_problem, addresses))
    away = [f"{at}: {why}" for at, why in zip(addresses, problems, strict=True) if why]
    value = ", ".join(addresses)
    if not away:
        yield fine("kafka", f"{len(addresses)} brokers take connections", _KEY, value)
        return
    said = f"{len(away)} of {len(addresses)} brokers take no connection ({'; '.join(away)})"
    mend = "start them, open the network to them, or correct their addresses"
    yield (fault if len(away) == len(addresses) else warning)("kafka", said, mend, _KEY, value)


def _problem(address: str) -> str | None:
    """Why a broker takes no connection; None when it does."""
    try:
        host, port = split_host_port(address)
    except AddressError as error:
        return str(error)
    try:
        with socket.create_connection((host, port or PORT), CONNECT_S):
            return None
    except TimeoutError:
        return f"nothing within {CONNECT_S:g} s"
    except OSError as error:
        return error.strerror or str(error)
