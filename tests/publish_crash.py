"""`python -m tests.publish_crash ROUNDS`: kill -9 at random moments, on a real Kafka.

One topic and one spool over all rounds. In each a daemon is started, records are handed over from
several threads, singly and in batches, while the way to Kafka comes and goes, and the daemon is
killed in the middle of it. In the end every record that was acknowledged is in the topic, byte for
byte with key, header and timestamp; first deliveries of a partition are in the order in which they
were accepted; and what was refused is nowhere.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import random
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import Any, NamedTuple

from tests.daemon import Daemon
from tests.kafka import Kafka
from tests.servers import free_port, poll_until_sync
from tests.toxiproxy import Proxy, Toxiproxy

PARTITIONS = 4
LIFE_S = (0.05, 0.9)
"""How long a daemon lives once it is ready."""
BACK_S = 120.0
TAKEN = {"delivered", "spooled"}
UNKNOWN = 504
"""It may be in Kafka or not, and that is what was said."""
MOST_IN_BATCH = 30
HOUR_MS = 3_600_000


@dataclass
class Told:
    """What the senders know of their records: each thread sends to a partition of its own."""

    topic: str = "crash"
    accepted: dict[int, list[int]] = field(
        default_factory=lambda: {p: [] for p in range(PARTITIONS)}
    )
    refused: set[tuple[int, int]] = field(default_factory=set)
    next: dict[int, int] = field(default_factory=lambda: dict.fromkeys(range(PARTITIONS), 0))
    stamped: dict[tuple[int, int], tuple[float, float]] = field(default_factory=dict)
    """Between which epoch milliseconds a record's timestamp has to be: the one that was given, or
    where none was, between request and answer."""
    batches: int = 0
    """Accepted ones."""


class _Request(NamedTuple):
    body: bytes
    headers: dict[str, str]


def _value(partition: int, number: int) -> bytes:
    return b"%d:%d:" % (partition, number) + random.Random(number).randbytes(number % 700)


def number_of(value: bytes) -> int:
    """Which of its partition's records that is."""
    return int(value.split(b":", 2)[1])


def _raw(partition: int, number: int) -> _Request:
    """One record without a timestamp."""
    headers = {
        "Content-Type": "application/octet-stream",
        "Kafka-Partition": str(partition),
        "Kafka-Key": f"k{number}",
        "Kafka-Header-n": str(number),
    }
    return _Request(_value(partition, number), headers)


def _line(partition: int, number: int, stamp_ms: int) -> bytes:
    record = {
        "partition_id": partition,
        "key": {"type": "STRING", "data": f"k{number}"},
        "value": {
            "type": "BINARY",
            "data": base64.b64encode(_value(partition, number)).decode(),
        },
        "headers": [{"name": "n", "value": base64.b64encode(b"%d" % number).decode()}],
        "timestamp": stamp_ms,
    }
    return json.dumps(record).encode()


def _request(told: Told, partition: int) -> tuple[list[int], _Request]:
    """The next record, or as many as make a batch; by its number, so that a run can be repeated."""
    first = told.next[partition]
    chance = random.Random(first)
    form = chance.choices(("raw", "json", "lines"), (8, 3, 1))[0]
    count = chance.randint(1, MOST_IN_BATCH) if form == "lines" else 1
    numbers = list(range(first, first + count))
    told.next[partition] += count
    now_ms = int(time.time() * 1000)
    if form == "raw":
        told.stamped[partition, first] = (now_ms, inf)
        return numbers, _raw(partition, first)
    lines = []
    for number in numbers:
        # Not in order, and never when it is sent: it can only be the one that was given.
        stamp_ms = now_ms - chance.randint(1, HOUR_MS)
        told.stamped[partition, number] = (stamp_ms, stamp_ms)
        lines.append(_line(partition, number, stamp_ms))
    kind = "application/json" if form == "json" else "application/x-ndjson"
    return numbers, _Request(b"\n".join(lines), {"Content-Type": kind})


def hand_over(connection: http.client.HTTPConnection, told: Told, partition: int) -> None:
    """One request. Raises OSError, HTTPException: whether it was accepted nobody knows."""
    numbers, request = _request(told, partition)
    connection.request("POST", f"/v1/publish/{told.topic}", request.body, request.headers)
    body = json.loads(connection.getresponse().read())
    results = body.get("results", [body])
    for number, result in zip(numbers, results, strict=True):
        _note(told, partition, number, result)
    told.batches += len(numbers) > 1 and any(result["status"] in TAKEN for result in results)


def _note(told: Told, partition: int, number: int, result: dict[str, Any]) -> None:
    """What the answer says of one record."""
    if result["status"] in TAKEN:
        told.accepted[partition].append(number)
    elif result.get("problem", result)["status"] != UNKNOWN:
        told.refused.add((partition, number))
    low, high = told.stamped[partition, number]
    if high == inf:
        told.stamped[partition, number] = (low, time.time() * 1000)


def _send(daemon: Daemon, told: Told, partition: int, over: threading.Event) -> None:
    """One request after the other until the daemon is killed, or the time is over."""
    connection = http.client.HTTPConnection(daemon.host, daemon.port, timeout=10.0)
    killed = contextlib.suppress(OSError, http.client.HTTPException)
    with contextlib.closing(connection), killed:
        while not over.is_set():
            hand_over(connection, told, partition)


def one_life(
    settings: dict[str, Any],
    told: Told,
    ways: Sequence[Proxy],
    chance: random.Random,
    meanwhile: Callable[[], None] = lambda: None,
) -> None:
    """Start a daemon, and kill it in the middle of its work, the ways to Kafka coming and going.

    Args:
        meanwhile: called now and then.
    """
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
            for way in ways:
                way.heal()
                chance.choice((way.heal, way.heal, way.refuse, way.drop))()
            meanwhile()
        daemon.kill()
        over.set()
        for sender in senders:
            sender.join()
    finally:
        daemon.close()
        for way in ways:
            with contextlib.suppress(OSError):
                way.heal()


def records_of(kafka: Kafka, told: Told) -> Iterator[Any]:
    """All records of the topic. Raises AssertionError where one isn't as it was handed over, or was
    refused."""
    total = sum(kafka.end_offsets(told.topic).values())
    for record in kafka.read(told.topic, total, within_s=25.0 + total / 10_000):
        number = number_of(record.value)
        assert record.value == _value(record.partition, number), (record.partition, number)
        assert record.key == b"k%d" % number
        assert dict(record.headers)["n"] == b"%d" % number
        low, high = told.stamped[record.partition, number]
        assert low <= record.timestamp <= high, (record.partition, number, record.timestamp)
        assert (record.partition, number) not in told.refused
        yield record


def in_order(found: Mapping[int, Iterable[int]], told: Told) -> int:
    """How many were accepted. Raises AssertionError where one is missing, or not in its place.

    Args:
        found: by partition, each number once, where it came first.
    """
    accepted = 0
    for partition, numbers in told.accepted.items():
        wanted = set(numbers)
        assert [number for number in found[partition] if number in wanted] == numbers, partition
        accepted += len(numbers)
    return accepted


def emptied(daemon: Daemon) -> None:
    """Wait until nothing is left in the spool."""

    def empty() -> bool:
        return bool(daemon.get("/v1/spool").body["records"] == 0)

    poll_until_sync(empty, BACK_S, "the spool is empty")


def _check(kafka: Kafka, told: Told) -> str:
    """Raises AssertionError with what doesn't hold; else what was seen, in words."""
    found: dict[int, dict[int, None]] = {partition: {} for partition in range(PARTITIONS)}
    total = 0
    for record in records_of(kafka, told):
        found[record.partition].setdefault(number_of(record.value))
        total += 1
    accepted, distinct = in_order(found, told), sum(map(len, found.values()))
    return (
        f"{accepted} accepted, {told.batches} batches among them; "
        f"{distinct} in the topic, {total - distinct} more than once"
    )


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
                one_life(settings, told, [way], chance)
                if done % 25 == 24:
                    sys.stderr.write(f"{done + 1} rounds\n")
            with Daemon(settings) as daemon:
                emptied(daemon)
            sys.stdout.write(f"{rounds} rounds: {_check(kafka, told)}\n")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else int(time.time()))
