"""`python -m tests.dual_crash ROUNDS`: kill -9 of a daemon that publishes to two clusters, and of
the reader of both, at random moments, on real Kafka.

One topic, one spool and one reader's group over all rounds. In each a daemon is started, records
are handed over while the way to either cluster comes and goes, the daemon is killed in the middle
of it, and so is the reader now and then. In the end every record that was acknowledged was handled;
the first time that each was, they were in the order in which they were accepted; no counter stands
for two records, nor was any told to be missing that a cluster has; and each start is an incarnation
of its own.
"""

from __future__ import annotations

import contextlib
import http.client
import random
import subprocess
import sys
import tempfile
import time
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from sidecar.consumer.merge import Stamp, stamp_of
from tests.daemon import Daemon
from tests.kafka import Kafka
from tests.publish_crash import (
    BACK_S,
    PARTITIONS,
    Told,
    emptied,
    hand_over,
    in_order,
    number_of,
    one_life,
    records_of,
)
from tests.servers import ROOT, STOP_DEADLINE_S, free_port, poll_until_sync
from tests.toxiproxy import Proxy, Toxiproxy

KILLED = 0.15
"""How probable it is that the reader is killed, about every 0.2 s of a daemon's life."""


class Reader:
    """The process that reads both clusters, killed and started again. A context manager."""

    def __init__(self, ways: Sequence[Proxy], topic: str, folder: Path) -> None:
        self._file, self._log = folder / "read", folder / "reader.log"
        self._arguments = [*(way.address for way in ways), topic, str(self._file)]
        self._process: subprocess.Popen[bytes] | None = None
        self.killed = 0

    def __enter__(self) -> Self:
        self._file.touch()
        self._start()
        return self

    def __exit__(self, *_: object) -> None:
        self._kill()

    def _start(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.dual_reader", *self._arguments],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def _kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(STOP_DEADLINE_S)

    def again(self) -> None:
        """SIGKILL, and another one goes on. Raises AssertionError where it had ended by itself."""
        self.lives()
        self._kill()
        self.killed += 1
        self._start()

    def lives(self) -> None:
        """Raises AssertionError if it doesn't."""
        assert self._process is not None
        assert self._process.poll() is None, self._log.read_text("utf-8", "replace")[-3000:]

    def told(self, what: str) -> list[list[str]]:
        """What it has written down of one kind."""
        lines = (line.split() for line in self._file.read_text("ascii").splitlines())
        return [words[1:] for words in lines if words[0] == what]

    def handled(self) -> dict[int, dict[int, None]]:
        """The records of each partition, each where it came first."""
        found: dict[int, dict[int, None]] = {partition: {} for partition in range(PARTITIONS)}
        for partition, number, _ in self.told("given"):
            found[int(partition)].setdefault(int(number))
        return found


def play(
    sides: Sequence[tuple[Kafka, Proxy]],
    told: Told,
    folder: Path,
    rounds: int,
    chance: random.Random,
) -> str:
    """So many rounds on two clusters that have the topic; what was seen, in words.

    Raises AssertionError where a claim doesn't hold.
    """
    ways = [way for _, way in sides]
    first, second = (way.address for way in ways)
    settings = {
        "store": "memory",
        "data_dir": str(folder / "data"),
        "kafka": {"bootstrap_servers": [first]},
        "kafka_second": {"bootstrap_servers": [second]},
        "spool": {"dir": str(folder / "spool")},
        "publish": {
            "timeout": "2s",
            "delivery_timeout": "200ms",
            "topics": {told.topic: {"outage": "dual"}},
        },
    }
    begun: list[dict[int, int]] = []
    with Reader(ways, told.topic, folder) as reader:

        def meanwhile() -> None:
            if chance.random() < KILLED:
                reader.again()

        for done in range(rounds):
            begun.append(dict(told.next))
            one_life(settings, told, ways, chance, meanwhile)
            if done % 25 == 24:
                sys.stderr.write(f"{done + 1} rounds\n")
        begun.append(dict(told.next))
        with Daemon(settings) as daemon:
            emptied(daemon)
            _all_handled(daemon, told, reader)
        return f"{rounds} rounds: {_check([kafka for kafka, _ in sides], told, reader, begun)}"


def _all_handled(daemon: Daemon, told: Told, reader: Reader) -> None:
    """Wait for what was accepted: a cluster says by a later record that it lacks an earlier one."""
    wanted = {partition: set(numbers) for partition, numbers in told.accepted.items()}

    def so() -> bool:
        reader.lives()
        handled = reader.handled()
        return all(numbers <= handled[partition].keys() for partition, numbers in wanted.items())

    def so_by_more() -> bool:
        connection = http.client.HTTPConnection(daemon.host, daemon.port, timeout=10.0)
        with contextlib.closing(connection):
            for partition in range(PARTITIONS):
                hand_over(connection, told, partition)
        return so()

    poll_until_sync(so_by_more, BACK_S, "what was accepted is handled")
    wanted = {partition: set(numbers) for partition, numbers in told.accepted.items()}
    poll_until_sync(so, BACK_S, "so is what came last")


def _check(
    clusters: Sequence[Kafka], told: Told, reader: Reader, begun: Sequence[Mapping[int, int]]
) -> str:
    handled = reader.handled()
    accepted = in_order(handled, told)
    held: dict[tuple[int, Stamp], int] = {}
    sizes = []
    for kafka in clusters:
        records = list(records_of(kafka, told))
        sizes.append(len(records))
        for record in records:
            stamp, number = stamp_of(record.headers), number_of(record.value)
            assert stamp is not None
            assert held.setdefault((record.partition, stamp), number) == number
    _incarnations(held, begun)
    for partition, numbers in handled.items():
        assert not {(partition, number) for number in numbers} & told.refused
    gaps = [
        (int(partition), Stamp(producer, int(incarnation), counter))
        for partition, producer, incarnation, first, last in reader.told("gap")
        for counter in range(int(first), int(last) + 1)
    ]
    assert not (false := held.keys() & {*gaps}), f"told to be missing, and there: {false}"
    assert not reader.told("late")
    given = reader.told("given")
    return (
        f"{accepted} accepted and handled in order, {len(given) - sum(map(len, handled.values()))}"
        f" of them again after {reader.killed} kills of the reader; {sizes[0]} copies in the first"
        f" cluster, {sizes[1]} in the second; {len(gaps)} told to be missing, and nowhere"
    )


def _incarnations(
    held: Mapping[tuple[int, Stamp], int], begun: Sequence[Mapping[int, int]]
) -> None:
    """Raises AssertionError unless each life had one of its own, higher than those before."""
    starts = {partition: [each[partition] for each in begun] for partition in range(PARTITIONS)}
    found: dict[int, set[int]] = defaultdict(set)
    for (partition, stamp), number in held.items():
        found[bisect_right(starts[partition], number)].add(stamp.incarnation)
    assert all(len(each) == 1 for each in found.values())
    told = [min(found[life]) for life in sorted(found)]
    assert told == sorted(set(told))
    assert len({stamp.producer for _, stamp in held}) == 1


def main(rounds: int, seed: int) -> None:
    """So many rounds on clusters of its own; raises AssertionError where a claim doesn't hold."""
    ports = free_port(), free_port()
    with (
        tempfile.TemporaryDirectory(dir="/var/tmp") as folder,
        Toxiproxy() as toxiproxy,
        Kafka(side={1: ports[0]}) as first,
        Kafka(side={1: ports[1]}) as second,
    ):
        sides = [
            (kafka, toxiproxy.proxy(f"way-{port}", kafka.side_ports[1], port))
            for kafka, port in zip((first, second), ports, strict=True)
        ]
        told = Told()
        for kafka, _ in sides:
            kafka.create_topic(told.topic, PARTITIONS)
        said = play(sides, told, Path(folder), rounds, random.Random(seed))
        sys.stdout.write(f"{said}\n")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else int(time.time()))
