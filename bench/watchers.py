"""Many that listen to /v1/watch; a program that says how far apart they had each event.

python -m bench.watchers PORT COUNT

Prints `ready` once each has its first event. When its input ends it prints a JSON list: for each
transition that reached all of them, the milliseconds between the first and the last.
"""

from __future__ import annotations

import json
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
        self._last: dict[bytes, float] = {}
        self._seen: Counter[bytes] = Counter()
        for _ in range(count):
            watcher = socket.create_connection(("127.0.0.1", port), timeout=DEADLINE_S)
            watcher.sendall(_REQUEST)
            watcher.setblocking(False)
            self._selector.register(watcher, selectors.EVENT_READ)

    def listen(self) -> None:
        """Until the input ends. Raises BenchError when a connection does, or none is told."""
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
                self._first.setdefault(number, at)
                self._last[number] = at
                self._seen[number] += 1

    def spreads_ms(self) -> list[float]:
        """One for each transition that all have seen."""
        return [
            1e3 * (self._last[number] - self._first[number])
            for number, count in self._seen.items()
            if count == self._count
        ]


def main(argv: Sequence[str]) -> None:
    """Listen until the input ends."""
    port, count = argv
    watchers = Watchers(int(port), int(count))
    watchers.listen()
    print(json.dumps(watchers.spreads_ms()))


if __name__ == "__main__":
    main(sys.argv[1:])
