"""`python -m tests.publish_outage [SECONDS [RATE]]`: an outage under load, on a real Kafka.

Records come at a steady rate, in batches, while every packet to the two brokers is dropped for so
long. In the end every accepted record is in the topic, first deliveries of a partition are in the
order in which they were accepted, and records went straight to Kafka again within the time that
`GET /v1/spool` had shown.
"""

from __future__ import annotations

import http.client
import json
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from tests.daemon import Daemon
from tests.kafka import Kafka
from tests.publish_crash import PARTITIONS, TAKEN, Told, in_order, number_of
from tests.servers import free_port
from tests.toxiproxy import Proxy, Toxiproxy

BATCH = 100
BEFORE_S, LOOK_S = 5.0, 6.0
"""How long all is well first, and when after the outage the estimate is looked at."""
LATE_S = 60.0
"""Beside the outage's own length: not back by then is not back."""
ROOM = {"max_bytes": "8GiB"}
LINES = {"Content-Type": "application/x-ndjson"}


@dataclass
class Seen:
    """What the senders saw."""

    told: Told
    took_s: list[float] = field(default_factory=list)
    """How long each answer took."""
    straight: dict[int, bool] = field(default_factory=dict)
    """By partition: whether all of its last batch was delivered at once."""
    faults: list[str] = field(default_factory=list)


def _line(partition: int, number: int) -> bytes:
    value = f"{partition}:{number}:".ljust(200, "x")
    record = {"partition_id": partition, "value": {"type": "STRING", "data": value}}
    return json.dumps(record).encode()


def _send(
    daemon: Daemon, seen: Seen, partition: int, every_s: float, over: threading.Event
) -> None:
    """A batch every so often, whatever becomes of the one before."""
    told, due = seen.told, time.monotonic()
    connection = http.client.HTTPConnection(daemon.host, daemon.port, timeout=30.0)
    with closing(connection):
        while not over.wait(max(0.0, due - time.monotonic())):
            due += every_s
            first = told.next[partition]
            told.next[partition] = first + BATCH
            numbers = range(first, first + BATCH)
            body = b"\n".join(_line(partition, number) for number in numbers)
            began = time.monotonic()
            connection.request("POST", f"/v1/publish/{told.topic}", body, LINES)
            results = json.loads(connection.getresponse().read())["results"]
            seen.took_s.append(time.monotonic() - began)
            for number, result in zip(numbers, results, strict=True):
                if result["status"] in TAKEN:
                    told.accepted[partition].append(number)
                else:
                    seen.faults.append(json.dumps(result))
            seen.straight[partition] = all(each["status"] == "delivered" for each in results)


def _back(daemon: Daemon, seen: Seen, within_s: float) -> tuple[float, float | None]:
    """Wait until nothing waits and records go straight: after how long, and what was promised.

    Returns:
        Seconds since now; the end that was shown at `LOOK_S`, None where nothing waited by then.
    """
    began, promised = time.monotonic(), None
    while True:
        spool = daemon.get("/v1/spool").body
        passed_s = time.monotonic() - began
        if not spool["records"] and all(seen.straight.values()):
            return passed_s, promised
        if promised is None and passed_s >= LOOK_S and spool["left_s"] is not None:
            promised = passed_s + float(spool["left_s"])
        assert passed_s < within_s, f"{spool['records']} records wait {within_s:g} s after the end"
        time.sleep(0.2)


def _found(kafka: Kafka, topic: str) -> tuple[dict[int, dict[int, None]], int]:
    """Each partition's numbers, where they came first; and how many came again."""
    found: dict[int, dict[int, None]] = {partition: {} for partition in range(PARTITIONS)}
    total = sum(kafka.end_offsets(topic).values())
    for record in kafka.read(topic, total, within_s=25.0 + total / 10_000):
        found[record.partition].setdefault(number_of(record.value))
    return found, total - sum(map(len, found.values()))


def _endure(
    daemon: Daemon, seen: Seen, ways: Sequence[Proxy], outage_s: float, rate: float
) -> tuple[int, float, float | None]:
    """The outage: how many records waited at its end, and what `_back` says."""
    over, every_s = threading.Event(), BATCH * PARTITIONS / rate
    senders = [
        threading.Thread(target=_send, args=(daemon, seen, partition, every_s, over))
        for partition in range(PARTITIONS)
    ]
    for sender in senders:
        sender.start()
    try:
        time.sleep(BEFORE_S)
        for way in ways:
            way.drop()
        time.sleep(outage_s)
        waiting = daemon.get("/v1/spool").body["records"]
        for way in ways:
            way.heal()
        return waiting, *_back(daemon, seen, outage_s + LATE_S)
    finally:
        over.set()
        for sender in senders:
            sender.join()


def main(outage_s: float, rate: float) -> None:
    """Raises AssertionError where a claim doesn't hold; else says what was seen."""
    ports, seen = {1: free_port(), 2: free_port()}, Seen(Told("outage"))
    kafka = Kafka(2, advertised=ports, controllers=1)
    with Toxiproxy() as toxiproxy, tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        ways = [
            toxiproxy.proxy(f"outage-{node}", broker.port, ports[node])
            for node, broker in kafka.brokers.items()
        ]
        settings = {
            "store": "memory",
            "data_dir": str(Path(folder) / "data"),
            "kafka": {"bootstrap_servers": [way.address for way in ways]},
            "spool": {"dir": str(Path(folder) / "spool"), **ROOM, "topics": {"outage": ROOM}},
            "publish": {"delivery_timeout": "1s", "topics": {"outage": {"outage": "breaker"}}},
        }
        with kafka:
            kafka.create_topic("outage", PARTITIONS)
            with Daemon(settings) as daemon:
                waiting, took_s, promised_s = _endure(daemon, seen, ways, outage_s, rate)
            found, again = _found(kafka, "outage")
    accepted = in_order(found, seen.told)
    assert not seen.faults, seen.faults[:3]
    assert promised_s is None or took_s <= promised_s, (took_s, promised_s)
    shown = f"{promised_s:.0f} s were shown" if promised_s else "before an estimate was looked at"
    sys.stdout.write(
        f"{outage_s:g} s at {rate:g} records/s: {accepted} accepted, none lost, in order, {again} "
        f"twice; {waiting} waited; straight again after {took_s:.0f} s ({shown}); "
        f"slowest answer {max(seen.took_s):.2f} s\n"
    )


if __name__ == "__main__":
    asked = [float(argument) for argument in sys.argv[1:]]
    main(*asked, *(600.0, 2_000.0)[len(asked) :])
