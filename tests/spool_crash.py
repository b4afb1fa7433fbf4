"""`python -m tests.spool_crash ROUNDS SEED FOLDER [moving]`: kill -9 at any moment, and then look.

Each round forks a process that appends, reads and finishes records on the real spool with several
callers at once, tells each promise on a pipe, and is killed. Then this process opens what is left
and holds it against what was promised. With `moving` every process is another instance, as a
rescheduled allocation is, and begins by adopting what the one before has left. The last line is a
summary in JSON; a broken promise ends with 1.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import select
import signal
import sys
import time
from collections import defaultdict
from functools import partial
from pathlib import Path

from sidecar.core.spooling import Budget, NewRecord, SpoolSettings, Stored
from sidecar.spool.adopt import Adoption
from sidecar.spool.files import Files
from sidecar.spool.room import segment_bytes
from sidecar.spool.spool import DiskSpool, open_vault
from tests.telemetry import RecordedTelemetry

PARTITIONS = 3
LONGEST_S = 0.25
SETTINGS = SpoolSettings(segment_bytes=256 * 1024, others=Budget(max_bytes=1 << 30))


class Promises:
    """What the killed processes have said, by partition."""

    def __init__(self) -> None:
        self.accepted: dict[int, list[str]] = defaultdict(list)
        """In order, but for what is over."""
        self.begun: dict[int, set[str]] = defaultdict(set)
        """Those that were to be marked as done."""
        self.ended: dict[int, set[str]] = defaultdict(set)
        """Those that were said to be."""

    def hear(self, lines: list[str]) -> None:
        """All that one process said."""
        accepted: dict[int, list[tuple[int, str]]] = defaultdict(list)
        for line in lines:
            what, where, *rest = line.split()
            if what == "accepted":
                accepted[int(where)].append((int(rest[0]), rest[1]))
            else:
                (self.begun if what == "begun" else self.ended)[int(where)].update(rest)
        for partition, told in accepted.items():
            self.accepted[partition] += [value for _, value in sorted(told)]


def value_of(stored: Stored) -> str:
    """What tells a record from all others."""
    return (stored.record.value or b"").rstrip(b"x").decode()


async def live(folder: Path, name: str, promised: int, seed: int) -> None:
    """Append and deliver until killed."""
    draw = random.Random(seed)
    spool = await DiskSpool.open(folder, name, SETTINGS, RecordedTelemetry())
    await spool.adopt()

    def say(*words: object) -> None:
        os.write(promised, " ".join(map(str, words)).encode() + b"\n")

    async def appends(caller: int) -> None:
        for number in range(1_000_000):
            partition = draw.randrange(PARTITIONS)
            names = [f"{seed}.{caller}.{number}.{n}" for n in range(draw.randint(1, 9))]
            new = [
                NewRecord(b"k", one.encode().ljust(draw.randint(0, 3000), b"x"), (), 1, time.time())
                for one in names
            ]
            for seq, one in zip(await spool.append("t", partition, new), names, strict=True):
                say("accepted", partition, seq, one)

    async def delivers(partition: int) -> None:
        while True:
            found = await spool.read("t", partition, max_records=draw.randint(1, 100))
            if found:
                say("begun", partition, *map(value_of, found))
                await spool.done("t", partition, found[-1].seq)
                say("ended", partition, *map(value_of, found))
            await asyncio.sleep(draw.random() * 0.05)

    await asyncio.gather(*[appends(n) for n in range(6)], *[delivers(n) for n in range(PARTITIONS)])


def check(folder: Path, name: str, promises: Promises) -> int:
    """Hold what is left against the promises; how many records wait in it."""
    vault = open_vault(folder / name, SETTINGS, RecordedTelemetry(), Files())
    Adoption(vault, partial(segment_bytes, SETTINGS)).run()
    waiting = 0
    for partition in range(PARTITIONS):
        found: list[Stored] = []
        while some := vault.read(
            "t",
            partition,
            after=found[-1].seq if found else 0,
            max_records=1000,
            max_bytes=1 << 22,
        ):
            found += some
        values = [value_of(stored) for stored in found]
        assert len(set(values)) == len(values), f"partition {partition}: something is there twice"
        again = promises.ended[partition] & set(values)
        assert not again, f"partition {partition}: {again} are done, and there again"
        due = [v for v in promises.accepted[partition] if v not in promises.begun[partition]]
        kept = set(due)
        there = [value for value in values if value in kept]
        lost = kept - set(there)
        assert not lost, f"partition {partition}: {lost} are lost"
        assert there == due, f"partition {partition}: out of order: {there}, and not {due}"
        promises.accepted[partition] = due
        waiting += len(found)
    vault.close()
    return waiting


def one_round(folder: Path, name: str, promises: Promises, seed: int) -> int:
    """Let a process live for a while, kill it, and hear what it had said."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        try:
            asyncio.run(live(folder, name, writing, seed))
        finally:
            os._exit(1)
    os.close(writing)
    # Every other one is let live until it has promised something, however slow the machine is.
    said = os.read(reading, 1 << 20) if seed % 2 else b""
    ends = time.monotonic() + random.Random(seed).random() * LONGEST_S
    while (left_s := ends - time.monotonic()) > 0:
        if select.select([reading], [], [], left_s)[0]:
            said += os.read(reading, 1 << 20)
    os.kill(child, signal.SIGKILL)
    while piece := os.read(reading, 1 << 20):
        said += piece
    os.close(reading)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status), "the process had ended before it was killed"
    # The last line may have been cut off.
    lines = said.decode().rpartition("\n")[0].splitlines()
    promises.hear(lines)
    return len(lines)


def main(rounds: int, seed: int, folder: Path, *, moving: bool) -> int:
    """Run the rounds."""
    promises, said, waiting, idle = Promises(), 0, 0, 0
    for number in range(rounds):
        name = f"alloc-{number}" if moving else "me"
        lines = one_round(folder, name, promises, seed + number)
        said, idle = said + lines, idle + (not lines)
        try:
            waiting = check(folder, f"next-{number}" if moving else name, promises)
        except AssertionError as broken:
            return tell({"round": number, "broken": str(broken)}, 1)
    return tell({"rounds": rounds, "promises": said, "idle": idle, "waiting": waiting}, 0)


def tell(summary: dict[str, object], code: int) -> int:
    """Print the summary; the exit code."""
    sys.stdout.write(json.dumps(summary) + "\n")
    return code


if __name__ == "__main__":
    sys.exit(
        main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), moving="moving" in sys.argv[4:])
    )
