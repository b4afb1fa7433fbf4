"""Stands for the source system's consumer: `-config FILE`, reports by plain PUTs, INJECT_FAILURE.

Processing takes 20 ms, and 100 ms where it fails, as there. SIGTERM and SIGINT delete the key.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import urllib.request
import uuid
from datetime import UTC, datetime
from pathlib import Path

import yaml

WORK_S = 0.02
FAILING_S = 0.1


def put(url: str, body: bytes | None) -> None:
    """Write a key; without a body, delete it."""
    method = "DELETE" if body is None else "PUT"
    with urllib.request.urlopen(
        urllib.request.Request(url, data=body, method=method), timeout=5
    ) as answer:
        answer.read()


def main() -> None:
    """Report until told to stop."""
    config = yaml.safe_load(Path(sys.argv[sys.argv.index("-config") + 1]).read_text("utf-8"))
    metrics = config["metrics"]
    interval_s = float(metrics["report_interval"].removesuffix("s"))
    key = f"{metrics['consul_key_prefix']}/{config['service_name']}-{uuid.uuid4()}"
    url = f"http://{config['consul']['address']}/v1/kv/{key}"
    failing = os.environ.get("INJECT_FAILURE") == "true"
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    while not stop.wait(interval_s):
        report = {
            "timestamp": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "rate_ok": 0.0 if failing else 1 / WORK_S,
            "count_fail": round(interval_s / FAILING_S) if failing else 0,
        }
        put(url, json.dumps(report).encode())
    put(url, None)


if __name__ == "__main__":
    main()
