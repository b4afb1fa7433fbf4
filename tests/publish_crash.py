"""`python -m tests.publish_crash ROUNDS`: kill -9 at random moments, on a real Kafka.

One topic and one spool over all rounds. In each a daemon is started, records are handed over from
several threads while the way to Kafka comes and goes, and the daemon is killed in the middle of it.
In the end every record that was acknowledged is in the topic, byte for byte with key and header;
first deliveries of a partition are in the order in which they were accepted; and what was refused
is nowhere.
"""

from __future__ import annotations

import contextlib
import http.client
import random
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.daemon import Daemon
from tests.kafka import Kafka
from tests.servers import free_port, poll_until_sync
from tests.toxiproxy import Proxy, Toxiproxy

PARTITIONS = 4
LIFE_S = (0.05, 0.9)
"""How long a daemon lives once it is ready."""
BACK_S = 120.0
UNKNOWN = 504
"""It may be in Kafka or not, and that is what was said."""


@dataclass
class Told:
    """What the senders know of their records: each thread sends to a partition of its own."""

    accepted: dict[int, list[int]] = field(
        default_factory=lambda: {p: [] for p in range(PARTITIONS)}
    )
    refused: set[tuple[int, int]] = field(default_factory=set)
    next: dict[int, int] = field(default_factory=lambda: dict.fromkeys(range(PARTITIONS), 0))


def _value(partition: int, number: int) -> bytes:
    return b"%d:%d:" % (partition, number) + random.Random(number).randbytes(number % 700)


def _send(daemon: Daemon, told: Told, partition: int, over: threading.Event) -> None:
    connection = http.client.HTTPConnection(daemon.host, daemon.port, timeout=10.0)
    while not over.is_set():
        number = told.next[partition]
        told.next[partition] += 1
        headers = {
            "Content-Type": "application/octet-stream",
            "Kafka-Partition": str(partition),
            "Kafka-Key": f"k{number}",
            "Kafka-Header-n": str(number),
        }
        try:
            connection.request("POST", "/v1/publish/crash", _value(partition, number), headers)
            answer = connection.getresponse()
            answer.read()
        except (OSError, http.client.HTTPException):
            return  # killed: whether it was accepted nobody knows
        if answer.status in {200, 202}:
            told.accepted[partition].append(number)
        elif answer.status != UNKNOWN:
            told.refused.add((partition, number))


def _round(settings: dict[str, Any], told: Told, way: Proxy, chance: random.Random) -> None:
    daemon = Daemon(settings)
    try:
        daemon.start().wait_ready()
        over = threading.Event()
        senders = [
            threading.Thread(target=_send, args=(daemon, told, partition, over))
            for partition in range(PARTITIONS)
        ]
        for sender in senders:
            sender.start()
        ends = time.monotonic() + chance.uniform(*LIFE_S)
        while (left_s := ends - time.monotonic()) > 0:
            time.sleep(min(left_s, chance.uniform(0.05, 0.4)))
            way.heal()
            chance.choice((way.heal, way.heal, way.refuse, way.drop))()
        daemon.kill()
        over.set()
        for sender in senders:
            sender.join()
    finally:
        daemon.close()
        with contextlib.suppress(OSError):
            way.heal()


def _check(kafka: Kafka, told: Told) -> str:
    """Raises AssertionError with what doesn't hold; else what was seen, in words."""
    total = sum(kafka.end_offsets("crash").values())
    found: dict[int, dict[int, None]] = {partition: {} for partition in range(PARTITIONS)}
    for record in kafka.read("crash", total, within_s=25.0):
        number = int(record.value.split(b":")[1])
        assert record.value == _value(record.partition, number), (record.partition, number)
        assert record.key == b"k%d" % number
        assert dict(record.headers)["n"] == b"%d" % number
        assert (record.partition, number) not in told.refused
        found[record.partition].setdefault(number)
    accepted = 0
    for partition, numbers in told.accepted.items():
        wanted = set(numbers)
        assert [number for number in found[partition] if number in wanted] == numbers, partition
        accepted += len(numbers)
    distinct = sum(map(len, found.values()))
    return f"{accepted} accepted, {distinct} in the topic, {total - distinct} of them twice"


def main(rounds: int, seed: int) -> None:
    """So many rounds; raises AssertionError where a claim doesn't hold."""
    chance, told, port = random.Random(seed), Told(), free_port()
    kafka = Kafka(advertised={1: port})
    with Toxiproxy() as toxiproxy, tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        way = toxiproxy.proxy("crash", kafka.broker.port, port)
        settings = {
            "store": "memory",
            "data_dir": str(Path(folder) / "data"),
            "kafka": {"bootstrap_servers": [way.address]},
            "spool": {"dir": str(Path(folder) / "spool")},
            "publish": {
                "timeout": "2s",
                "delivery_timeout": "200ms",
                "topics": {"crash": {"outage": "breaker"}},
            },
        }
        with kafka:
            kafka.create_topic("crash", PARTITIONS)
            for done in range(rounds):
                _round(settings, told, way, chance)
                if done % 25 == 24:
                    sys.stderr.write(f"{done + 1} rounds\n")
            with Daemon(settings) as daemon:

                def empty() -> bool:
                    return bool(daemon.get("/v1/spool").body["records"] == 0)

                poll_until_sync(empty, BACK_S, "the spool is empty")
            sys.stdout.write(f"{rounds} rounds: {_check(kafka, told)}\n")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else int(time.time()))
