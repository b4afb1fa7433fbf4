"""`python -m tests.spool_crash ROUNDS SEED FOLDER`: kill -9 at any moment, and look what is left.

Each round forks a process that appends, reads and finishes records on the real spool with several
callers at once, tells each promise on a pipe, and is killed. Then this process opens the folder and
holds what it finds against what was promised. The last line is a summary in JSON; a broken promise
ends with 1.
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
from pathlib import Path

from sidecar.core.spooling import Budget, NewRecord, SpoolSettings
from sidecar.spool.files import Files
from sidecar.spool.spool import DiskSpool, open_vault
from tests.telemetry import RecordedTelemetry

PARTITIONS = 3
LONGEST_S = 0.25
SETTINGS = SpoolSettings(segment_bytes=256 * 1024, others=Budget(max_bytes=1 << 30))


class Promises:
    """What the killed processes have said."""

    def __init__(self) -> None:
        self.accepted: dict[int, dict[int, bytes]] = defaultdict(dict)
        """Partition → sequence → value."""
        self.begun: dict[int, int] = defaultdict(int)
        """The highest sequence that was to be marked as done."""
        self.ended: dict[int, int] = defaultdict(int)
        """The highest that was said to be."""

    def hear(self, line: str) -> None:
        """One line of a process."""
        what, partition, seq, *value = line.split()
        where = int(partition)
        if what == "accepted":
            self.accepted[where][int(seq)] = value[0].encode()
        elif what == "begun":
            self.begun[where] = max(self.begun[where], int(seq))
        else:
            self.ended[where] = max(self.ended[where], int(seq))


async def live(folder: Path, promised: int, seed: int) -> None:
    """Append and deliver until killed."""
    draw = random.Random(seed)
    spool = await DiskSpool.open(folder, "me", SETTINGS, RecordedTelemetry())

    def say(line: str) -> None:
        os.write(promised, line.encode() + b"\n")

    async def appends(caller: int) -> None:
        for number in range(1_000_000):
            partition = draw.randrange(PARTITIONS)
            values = [b"%d.%d.%d.%d" % (seed, caller, number, n) for n in range(draw.randint(1, 9))]
            new = [
                NewRecord(b"k", value.ljust(draw.randint(0, 3000), b"x"), (), 1, time.time())
                for value in values
            ]
            sequences = await spool.append("t", partition, new)
            for seq, one in zip(sequences, new, strict=True):
                say(f"accepted {partition} {seq} {(one.value or b'').rstrip(b'x').decode()}")

    async def delivers(partition: int) -> None:
        while True:
            found = await spool.read("t", partition, max_records=draw.randint(1, 200))
            if found:
                say(f"begun {partition} {found[-1].seq}")
                await spool.done("t", partition, found[-1].seq)
                say(f"ended {partition} {found[-1].seq}")
            await asyncio.sleep(draw.random() * 0.05)

    await asyncio.gather(*[appends(n) for n in range(6)], *[delivers(n) for n in range(PARTITIONS)])


def check(folder: Path, promises: Promises) -> int:
    """Hold the folder against the promises; how many records wait in it."""
    vault = open_vault(folder / "me", SETTINGS, RecordedTelemetry(), Files())
    waiting = 0
    for partition in range(PARTITIONS):
        done = vault.backlog("t", partition).done_seq
        assert promises.ended[partition] <= done <= promises.begun[partition] or not done, (
            f"partition {partition}: done is {done}, not between {promises.ended[partition]} "
            f"and {promises.begun[partition]}"
        )
        found: dict[int, bytes | None] = {}
        while some := vault.read(
            "t", partition, after=max(found, default=0), max_records=1000, max_bytes=1 << 22
        ):
            found.update((stored.seq, stored.record.value) for stored in some)
        assert list(found) == list(range(done + 1, done + 1 + len(found))), "gaps"
        accepted = promises.accepted[partition]
        for seq, value in accepted.items():
            kept = (found.get(seq) or b"").rstrip(b"x")
            assert seq <= done or kept == value, f"partition {partition}: {seq} is lost"
        promises.accepted[partition] = {s: v for s, v in accepted.items() if s > done}
        waiting += len(found)
    vault.close()
    return waiting


def one_round(folder: Path, promises: Promises, seed: int) -> int:
    """Let a process live for a while, kill it, and hear what it had said."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        try:
            asyncio.run(live(folder, writing, seed))
        finally:
            os._exit(1)
    os.close(writing)
    said, ends = b"", time.monotonic() + random.Random(seed).random() * LONGEST_S
    while (left_s := ends - time.monotonic()) > 0:
        if select.select([reading], [], [], left_s)[0]:
            said += os.read(reading, 1 << 20)
    os.kill(child, signal.SIGKILL)
    while piece := os.read(reading, 1 << 20):
        said += piece
    os.close(reading)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status), "the process had ended before it was killed"
    lines = said.decode().splitlines()
    for line in lines:
        promises.hear(line)
    return len(lines)


def main(rounds: int, seed: int, folder: Path) -> int:
    """Run the rounds."""
    promises, said, waiting, idle = Promises(), 0, 0, 0
    for number in range(rounds):
        lines = one_round(folder, promises, seed + number)
        said, idle = said + lines, idle + (not lines)
        try:
            waiting = check(folder, promises)
        except AssertionError as broken:
            return tell({"round": number, "broken": str(broken)}, 1)
    return tell({"rounds": rounds, "promises": said, "idle": idle, "waiting": waiting}, 0)


def tell(summary: dict[str, object], code: int) -> int:
    """Print the summary; the exit code."""
    sys.stdout.write(json.dumps(summary) + "\n")
    return code


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])))
