"""Power cuts at any moment: what was accepted is there, in order, and nothing that was refused."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from sidecar.core.errors import SpoolFault
from sidecar.core.spooling import Budget, NewRecord, SpoolSettings
from sidecar.spool.adopt import Adoption
from sidecar.spool.frames import pack
from sidecar.spool.vault import Append
from tests.unit.spool.kit import Box, record
from tests.unit.spool.power import Forgetful, PowerCut

PARTITIONS = 3
SETTINGS = SpoolSettings(
    segment_bytes=65_536, topics={"t": Budget(max_bytes=1 << 20)}, max_bytes=1 << 20
)


class Story:
    """What has been promised so far, and a vault that is to keep it."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.draw = Random(seed)
        (shadow := folder / "shadow").mkdir()
        self.disk = Forgetful(self.draw, shadow)
        self.root = folder / "root"
        self.box = Box(self.root, SETTINGS, self.disk)
        self.count = 0
        self.accepted: list[list[bytes]] = [[] for _ in range(PARTITIONS)]
        """Values, in the order they were accepted."""
        self.refused: set[bytes] = set()
        self.started: list[int] = [0] * PARTITIONS
        """How many of them were at least begun to be marked as done."""

    def live(self, cut_after: int) -> None:
        """Append, read and finish until the power is cut."""
        self.disk.left = cut_after
        try:
            while True:
                self._act()
        except PowerCut:
            pass

    def _act(self) -> None:
        if self.draw.random() < 0.6:
            self._append()
        elif self.draw.random() < 0.9:
            self._deliver(self.draw.randrange(PARTITIONS))
        else:
            self.box.clock.at += 30
            self.box.vault.tick()

    def _append(self) -> None:
        calls: list[tuple[int, list[NewRecord]]] = []
        for _ in range(self.draw.randint(1, 4)):
            new = []
            for _ in range(self.draw.randint(1, 3)):
                self.count += 1
                # Now and then one that no budget allows.
                size = 2 << 20 if self.draw.random() < 0.03 else self.draw.randint(0, 30_000)
                new.append(record(self.count, size=size))
            calls.append((self.draw.randrange(PARTITIONS), new))
        outcomes = self.box.vault.append(
            [Append("t", p, [pack(one) for one in n]) for p, n in calls]
        )
        for (partition, new), outcome in zip(calls, outcomes, strict=True):
            values = [one.value or b"" for one in new]
            if isinstance(outcome, SpoolFault):
                self.refused.update(values)
            else:
                self.accepted[partition] += values

    def _deliver(self, partition: int) -> None:
        found = self.box.vault.read(
            "t", partition, after=0, max_records=self.draw.randint(1, 8), max_bytes=200_000
        )
        if found:
            value = found[-1].record.value or b""
            if value in self.accepted[partition]:
                self.started[partition] = max(
                    self.started[partition], self.accepted[partition].index(value) + 1
                )
            self.box.vault.done([("t", partition, found[-1].seq)])

    def power_comes_back(self) -> None:
        """Another process opens what is left."""
        power_off(self.box)
        self.disk.restore(self.box.path / "ledger.db")
        self.box.open()
        self.check()

    def check(self) -> None:
        """Nothing accepted is lost before it was delivered, nothing refused is there."""
        for partition in range(PARTITIONS):
            values = [one.value or b"" for one in self.box.waiting("t", partition)]
            assert not self.refused & set(values)
            due = self.accepted[partition][self.started[partition] :]
            assert [value for value in values if value in set(due)] == due
            # What was delivered may come again, in order.
            known = [value for value in values if value in set(self.accepted[partition])]
            assert known == [value for value in self.accepted[partition] if value in set(known)]
            # What was cut off on its way in has no place among the accepted; it is behind them.
            self.accepted[partition] += [value for value in values if value not in set(known)]


def power_off(box: Box) -> None:
    """As `kill`, and the ledger stays as it is: closing it would write it all to the main file."""
    kept = {path: path.read_bytes() for path in box.path.glob("ledger.db*")}
    box.kill()
    for path, content in kept.items():
        path.write_bytes(content)


@pytest.mark.parametrize("seed", range(8))
def test_power_cuts(tmp_path: Path, seed: int) -> None:
    story = Story(tmp_path, seed)
    for _ in range(10):
        story.live(cut_after=story.draw.randint(1, 60))
        story.power_comes_back()
    story.box.vault.close()


@pytest.mark.parametrize("seed", range(8))
def test_power_cuts_in_an_adoption(tmp_path: Path, seed: int) -> None:
    """What the one accepted is in the other, once and in order, however often it is interrupted."""
    draw = Random(seed)
    (shadow := tmp_path / "shadow").mkdir()
    disk = Forgetful(draw, shadow)
    gone = Box(tmp_path / "root", SETTINGS, disk, name="gone")
    for number in range(30):
        gone.append(record(number, size=9000), topic="t", partition=number % 2)
    gone.vault.done([("t", 0, 3)])
    gone.vault.close()
    heir = Box(tmp_path / "root", SETTINGS, disk, name="heir")
    heir.append(record(77), topic="t", partition=0)
    for turn in range(20):
        disk.left = draw.randint(1, 12) + turn
        try:
            Adoption(heir.vault, lambda _: 65_536).run()
            break
        except PowerCut:
            power_off(heir)
            disk.restore(heir.path / "ledger.db")
            heir.open()
    disk.left = None
    Adoption(heir.vault, lambda _: 65_536).run()
    assert not gone.path.exists()
    assert heir.waiting() == [record(77), *[record(n, size=9000) for n in range(6, 30, 2)]]
    assert heir.waiting(partition=1) == [record(n, size=9000) for n in range(1, 30, 2)]
    heir.vault.close()
