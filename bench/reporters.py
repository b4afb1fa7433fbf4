"""Reports as consumers write them; run as a program it keeps writing at their usual rate.

python -m bench.reporters PORT PREFIX COUNT INTERVAL_S
"""

from __future__ import annotations

import base64
import contextlib
import json
import random
import sys
import time
import uuid
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from http.client import HTTPConnection

from bench.wire import DEADLINE_S

TXN_LIMIT = 64
"""Operations in one Consul transaction."""
TICK_S = 0.05


def instances(count: int) -> list[str]:
    """Names as long as real ones, the same in every process."""
    return [f"kafka-consumer-{uuid.UUID(int=number)}" for number in range(count)]


def report(failures: int = 0) -> bytes:
    """A report of now, in the source system's three fields."""
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    rate = round(random.uniform(90, 110), 6)
    return json.dumps({"timestamp": now, "rate_ok": rate, "count_fail": failures}).encode()


def write_all(consul: HTTPConnection, prefix: str, names: Sequence[str]) -> None:
    """A healthy report of each, in as few transactions as may be. Raises ConnectionError."""
    for start in range(0, len(names), TXN_LIMIT):
        operations = [
            {
                "KV": {
                    "Verb": "set",
                    "Key": f"{prefix}/{name}",
                    "Value": base64.b64encode(report()).decode(),
                }
            }
            for name in names[start : start + TXN_LIMIT]
        ]
        consul.request("PUT", "/v1/txn", json.dumps(operations).encode())
        answer = consul.getresponse()
        answer.read()
        if answer.status != 200:
            raise ConnectionError(f"Consul answered {answer.status} to a batch of reports")


def cycle(names: Sequence[str], interval_s: float) -> Iterable[list[str]]:
    """Who reports in each tick, so that each does so once an interval."""
    position = 0.0
    step = len(names) * TICK_S / interval_s
    while True:
        due = range(int(position), int(position + step))
        yield [names[number % len(names)] for number in due]
        position = (position + step) % (len(names) * 1000)


def main(argv: Sequence[str]) -> None:
    """Report until killed. The first instance is left out: it is the one that will fail."""
    port, prefix, count, interval = argv
    names = instances(int(count))[1:]
    with contextlib.closing(HTTPConnection("127.0.0.1", int(port), timeout=DEADLINE_S)) as consul:
        due = time.monotonic()
        for batch in cycle(names, float(interval)):
            write_all(consul, prefix, batch)
            due += TICK_S
            time.sleep(max(0.0, due - time.monotonic()))


if __name__ == "__main__":
    main(sys.argv[1:])
