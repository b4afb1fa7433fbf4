"""Many that listen to /v1/watch; a program that says how far apart they had each event.

python -m bench.watchers PORT COUNT

Prints `ready` once each has its first event, then for each transition, when all of them have it,
the milliseconds between the first and the last. Ends when its input does.
"""

from __future__ import annotations

import re
import selectors
import socket
import sys
import time
from collections import Counter
from collections.abc import Sequence

from bench.host import BenchError
from bench.wire import DEADLINE_S

_EVENT = re.compile(rb"id: (\d+)\nevent: (\w+)\n")
_REQUEST = b"GET /v1/watch HTTP/1.1\r\nHost: localhost\r\n\r\n"


class Watchers:
    """The connections, and when events came in."""

    def __init__(self, port: int, count: int) -> None:
        self._selector = selectors.DefaultSelector()
        self._selector.register(sys.stdin, selectors.EVENT_READ)
        self._count = count
        self._snapshots = 0
        self._first: dict[bytes, float] = {}
        self._seen: Counter[bytes] = Counter()
        for _ in range(count):
            watcher = socket.create_connection(("127.0.0.1", port), timeout=DEADLINE_S)
            watcher.sendall(_REQUEST)
            watcher.setblocking(False)
            self._selector.register(watcher, selectors.EVENT_READ)

    def listen(self) -> None:
        """Print until the input ends. Raises BenchError when a connection ends."""
        deadline = time.monotonic() + DEADLINE_S
        while True:
            for key, _ in self._selector.select(1.0):
                if key.fileobj is sys.stdin:
                    return
                assert isinstance(key.fileobj, socket.socket)
                self._take(key.fileobj.recv(65536), time.perf_counter())
            if self._snapshots < self._count and time.monotonic() > deadline:
                raise BenchError(f"{self._snapshots} of {self._count} watchers were told anything")

    def _take(self, data: bytes, at: float) -> None:
        if not data:
            raise BenchError("a watcher was dropped")
        for number, kind in _EVENT.findall(data):
            if kind == b"snapshot":
                self._snapshots += 1
                if self._snapshots == self._count:
                    print("ready", flush=True)
            elif kind == b"transition":
                began = self._first.setdefault(number, at)
                self._seen[number] += 1
                if self._seen[number] == self._count:
                    print(f"{1e3 * (at - began):.3f}", flush=True)


def main(argv: Sequence[str]) -> None:
    """Listen until the input ends."""
    port, count = argv
    Watchers(int(port), int(count)).listen()


if __name__ == "__main__":
    main(sys.argv[1:])
