"""A network of a test's own, so that bridges and their firewall rules never touch the machine's."""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

T = TypeVar("T")

_CLONE_NEWNET = 0x40000000


class Namespace:
    """A network namespace with one interface beside loopback. A context manager; needs root."""

    interface = "uplink"
    address = "192.0.2.10"
    """Of documentation alone: nobody else has it."""

    def __init__(self) -> None:
        self.name = f"breaker-{os.getpid()}"
        self._path = Path("/run/netns") / self.name
        self._inside = ThreadPoolExecutor(1, initializer=self._move)

    @property
    def enter(self) -> tuple[str, ...]:
        """What stands in front of a command that is to run inside. The rest of the machine,
        cgroups included, stays as it is; `ip netns exec` would hide them."""
        return ("nsenter", f"--net={self._path}")

    def call(self, fn: Callable[[], T]) -> T:
        """Call from inside: connections that `fn` makes begin there."""
        return self._inside.submit(fn).result()

    def _move(self) -> None:
        """The one thread of the pool lives in the namespace; sockets belong where they are made."""
        with self._path.open("rb") as file:
            libc = ctypes.CDLL(None, use_errno=True)
            if libc.setns(file.fileno(), _CLONE_NEWNET) != 0:
                raise OSError(ctypes.get_errno(), f"no way into {self._path}")

    def __enter__(self) -> Self:
        _ip("netns", "add", self.name)
        try:
            _ip("-n", self.name, "link", "set", "lo", "up")
            # A cable whose other end leads nowhere: not every kernel has dummy interfaces.
            _ip("-n", self.name, "link", "add", self.interface, "type", "veth", "peer", "far")
            _ip("-n", self.name, "link", "set", "far", "up")
            _ip("-n", self.name, "addr", "add", f"{self.address}/24", "dev", self.interface)
            _ip("-n", self.name, "link", "set", self.interface, "up")
            _ip("-n", self.name, "route", "add", "default", "dev", self.interface)
        except BaseException:
            _ip("netns", "delete", self.name)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        fault: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._inside.shutdown()
        _ip("netns", "delete", self.name)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)
