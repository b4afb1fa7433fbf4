"""The spool on the event loop: shared syncs, order, cancelled callers, keys, closing."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from sidecar.core.errors import (
    SpoolClosed,
    SpoolDiskFull,
    SpoolFault,
    SpoolFormat,
    SpoolFull,
    SpoolTaken,
)
from sidecar.core.spooling import Accepted, Adopted, Claim, Idempotency, Keys, Spool, SpoolSettings
from sidecar.spool import spool as module
from sidecar.spool.files import Files
from sidecar.spool.keys import SpoolKeys
from sidecar.spool.ledger import SpooledKey
from sidecar.spool.spool import DiskSpool
from sidecar.telemetry import names
from tests.servers import poll_until
from tests.telemetry import RecordedTelemetry
from tests.unit.spool.kit import AT, BadDisk, record, records

DAY_S = 86_400.0


class Gate(Files):
    """A disk whose syncs wait until they are let through."""

    def __init__(self) -> None:
        self.free = threading.Event()
        self.free.set()
        self.asked = threading.Event()
        self.syncs = 0

    def sync(self, fd: int) -> None:
        """Wait, then sync."""
        self.asked.set()
        assert self.free.wait(30)
        self.syncs += 1
        super().sync(fd)


async def opened(root: Path, files: Files | None = None, name: str = "me") -> DiskSpool:
    return await DiskSpool.open(
        root, name, SpoolSettings(), RecordedTelemetry(), files=files, wall=lambda: AT
    )


async def claim(keys: Keys, topic: str, what: Idempotency, at: float) -> Claim | Accepted:
    (said,) = await keys.claim(topic, [what], at)
    return said


@pytest.fixture
async def spool(tmp_path: Path) -> AsyncIterator[DiskSpool]:
    made = await opened(tmp_path)
    yield made
    await made.close()


async def test_it_is_the_port(spool: DiskSpool) -> None:
    port: Spool = spool
    assert await port.append("t", 0, records(range(3))) == range(1, 4)
    assert port.backlog("t", 0).records == 3
    assert [backlog.topic for backlog in port.backlogs()] == ["t"]
    found = await port.read("t", 0)
    assert [stored.record for stored in found] == records(range(3))
    await port.done("t", 0, 2)
    assert port.backlog("t", 0).records == 1
    assert port.backlog("never", 0).records == 0
    assert await port.append("t", 0, []) == range(0)
    with pytest.raises(ValueError, match="too long"):
        await port.append("x" * 300, 0, [record()])


async def test_those_who_wait_together_share_a_sync(tmp_path: Path) -> None:
    gate = Gate()
    spool = await opened(tmp_path, gate)
    await spool.append("t", 0, [record()])
    gate.syncs = 0
    gate.free.clear()
    calls = [asyncio.create_task(spool.append("t", 0, [record(n)])) for n in range(64)]
    await asyncio.sleep(0)
    assert spool.backlog("t", 0).records == 1, "nothing is taken before it is synced"
    gate.free.set()
    taken = await asyncio.gather(*calls)
    assert taken == [range(n + 2, n + 3) for n in range(64)]
    assert gate.syncs <= 2
    assert [s.record for s in await spool.read("t", 0)][1:] == records(range(64))
    await spool.close()


async def test_the_loop_turns_while_the_disk_hangs(tmp_path: Path) -> None:
    gate = Gate()
    spool = await opened(tmp_path, gate)
    gate.free.clear()
    gate.asked.clear()
    call = asyncio.create_task(spool.append("t", 0, [record()]))
    await poll_until(gate.asked.is_set, 10, "it syncs")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await spool.read("t", 0)
    assert spool.backlog("t", 0).records == 0
    call.cancel()
    gate.free.set()
    await poll_until(lambda: spool.backlog("t", 0).records == 1, 10, "it was taken all the same")
    await spool.close()


async def test_what_waits_for_the_disk_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "QUEUE_BYTES", 10_000)
    gate = Gate()
    spool = await opened(tmp_path, gate)
    gate.free.clear()
    first = asyncio.create_task(spool.append("t", 0, [record(1, size=9000)]))
    await asyncio.sleep(0)
    with pytest.raises(SpoolFull, match="too slow"):
        await spool.append("t", 0, [record(2, size=9000)])
    gate.free.set()
    await first
    await spool.append("t", 0, [record(3, size=20_000)])
    await spool.close()


async def test_a_full_disk_and_a_failed_sync_reach_the_caller(tmp_path: Path) -> None:
    disk = BadDisk()
    spool = await opened(tmp_path, disk)
    disk.room = 0
    with pytest.raises(SpoolDiskFull):
        await spool.append("t", 0, [record()])
    disk.room, disk.sync_fails = None, True
    with pytest.raises(SpoolClosed, match="sync failed"):
        await spool.append("t", 0, [record()])
    assert spool.fault is not None
    with pytest.raises(SpoolClosed):
        await spool.append("t", 0, [record()])
    assert await spool.read("t", 0) == []
    await spool.close()


async def test_closing_finishes_what_was_handed_over(tmp_path: Path) -> None:
    spool = await opened(tmp_path)
    calls = [asyncio.create_task(spool.append("t", 0, [record(n)])) for n in range(10)]
    await asyncio.sleep(0)
    await spool.close()
    assert await asyncio.gather(*calls) == [range(n, n + 1) for n in range(1, 11)]
    await spool.close()
    with pytest.raises(SpoolClosed, match="closed"):
        await spool.read("t", 0)
    again = await opened(tmp_path)
    assert len(await again.read("t", 0)) == 10
    await again.close()


async def test_two_on_one_folder(tmp_path: Path, spool: DiskSpool) -> None:
    with pytest.raises(SpoolTaken):
        await opened(tmp_path)


async def test_it_is_counted(tmp_path: Path) -> None:
    telemetry = RecordedTelemetry()
    spool = await DiskSpool.open(tmp_path, "me", SpoolSettings(), telemetry)
    await spool.append("t", 0, records(range(3)))
    await spool.close()
    await poll_until(lambda: telemetry.observed, 10, "told")
    assert telemetry.counted(names.SPOOL_APPENDED, topic="t") == 3
    assert [name for name, _, _ in telemetry.observed] == [names.SPOOL_SYNC_DURATION]


async def test_pausing(spool: DiskSpool) -> None:
    await spool.pause("t", True)
    assert spool.paused("t")
    assert not spool.paused("u")
    await spool.pause("t", False)
    assert not spool.paused("t")


# --- keys ---------------------------------------------------------------------------------------

A, B = Idempotency("a", b"11111111"), Idempotency("a", b"22222222")


async def test_a_key_is_claimed_once() -> None:
    keys = SpoolKeys()
    claims = await asyncio.gather(*[claim(keys, "t", A, AT) for _ in range(5)])
    assert sorted(map(str, claims)) == [Claim.IN_PROGRESS] * 4 + [Claim.YOURS]
    assert await claim(keys, "t", B, AT) is Claim.OTHER_CONTENT
    assert await claim(keys, "other", A, AT) is Claim.YOURS
    keys.abandon("t", "a")
    assert await claim(keys, "t", B, AT) is Claim.YOURS


async def test_a_direct_delivery_is_remembered_for_a_day() -> None:
    keys = SpoolKeys()
    assert await claim(keys, "t", A, AT) is Claim.YOURS
    keys.settle("t", A, Accepted(partition=3, offset=9), AT)
    assert await claim(keys, "t", A, AT + DAY_S - 1) == Accepted(partition=3, offset=9)
    assert await claim(keys, "t", B, AT) is Claim.OTHER_CONTENT
    assert await claim(keys, "t", A, AT + DAY_S + 1) is Claim.YOURS


async def test_a_direct_delivery_is_remembered_with_the_cluster_that_has_it() -> None:
    keys = SpoolKeys()
    for cluster in (None, "first", "second"):
        once = Idempotency(f"to {cluster}", b"12345678")
        assert await claim(keys, "t", once, AT) is Claim.YOURS
        accepted = Accepted(partition=3, offset=9, cluster=cluster)
        keys.settle("t", once, accepted, AT)
        assert await claim(keys, "t", once, AT) == accepted


async def test_the_oldest_keys_are_forgotten_first() -> None:
    keys = SpoolKeys(most=3)
    for n in range(5):
        once = Idempotency(str(n), b"12345678")
        assert await claim(keys, "t", once, AT) is Claim.YOURS
        keys.settle("t", once, Accepted(partition=0), AT + n)
    known = [await claim(keys, "t", Idempotency(str(n), b"12345678"), AT + 5) for n in range(5)]
    assert known == [Claim.YOURS, Claim.YOURS, *[Accepted(partition=0)] * 3]


async def test_a_spooled_records_key_outlives_record_and_restart(tmp_path: Path) -> None:
    spool = await opened(tmp_path)
    assert await claim(spool.keys, "t", A, AT) is Claim.YOURS
    await spool.append("t", 2, [record(once=A)])
    assert await claim(spool.keys, "t", A, AT) == Accepted(partition=2, seq=1, spooled=True)
    await spool.done("t", 2, 1)
    await spool.close()
    spool = await opened(tmp_path)
    assert spool.backlog("t", 2).records == 0
    assert await claim(spool.keys, "t", A, AT) == Accepted(partition=2, seq=1, spooled=True)
    assert await claim(spool.keys, "t", B, AT) is Claim.OTHER_CONTENT
    assert await claim(spool.keys, "u", A, AT) is Claim.YOURS
    await spool.close()
    old = await DiskSpool.open(
        tmp_path, "me", SpoolSettings(), RecordedTelemetry(), wall=lambda: AT + 2 * DAY_S
    )
    assert await claim(old.keys, "t", A, AT + 2 * DAY_S) is Claim.YOURS
    await old.append("t", 2, [record(at=AT + 2 * DAY_S, once=A)])
    assert await claim(old.keys, "t", A, AT + 2 * DAY_S) == Accepted(
        partition=2, seq=2, spooled=True
    )
    await old.close()


async def test_keys_are_claimed_together_each_for_itself(spool: DiskSpool) -> None:
    spooled, direct, busy, free, other = (Idempotency(name, b"12345678") for name in "sdbfo")
    for what in (spooled, direct, other, busy):
        assert await claim(spool.keys, "t", what, AT) is Claim.YOURS
    await spool.append("t", 2, [record(once=spooled), record(once=other)])
    spool.keys.settle("t", direct, Accepted(partition=0, offset=9), AT)
    mine = other._replace(fingerprint=b"another1")
    assert await spool.keys.claim("t", [spooled, direct, busy, free, mine], AT) == [
        Accepted(partition=2, seq=1, spooled=True),
        Accepted(partition=0, offset=9),
        Claim.IN_PROGRESS,
        Claim.YOURS,
        Claim.OTHER_CONTENT,
    ]


async def test_a_look_that_fails_claims_nothing() -> None:
    faults: list[SpoolFault] = [SpoolFault("the ledger can't be read")]

    async def look(topic: str, keys: Sequence[bytes], since_at: float) -> list[SpooledKey | None]:
        if faults:
            raise faults.pop()
        return [None] * len(keys)

    keys = SpoolKeys(look)
    two = [A, A._replace(key="another")]
    with pytest.raises(SpoolFault):
        await keys.claim("t", two, AT)
    assert await keys.claim("t", two, AT) == [Claim.YOURS] * 2


async def test_a_key_whose_record_was_refused_is_free_again(tmp_path: Path) -> None:
    disk = BadDisk()
    spool = await opened(tmp_path, disk)
    disk.room = 0
    assert await claim(spool.keys, "t", A, AT) is Claim.YOURS
    with pytest.raises(SpoolDiskFull):
        await spool.append("t", 0, [record(once=A)])
    assert await claim(spool.keys, "t", A, AT) is Claim.IN_PROGRESS
    spool.keys.abandon("t", "a")
    assert await claim(spool.keys, "t", A, AT) is Claim.YOURS
    await spool.close()


async def test_what_is_no_folder_is_told_as_such(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("")
    with pytest.raises(SpoolFault, match="plain: Not a directory"):
        await opened(tmp_path / "plain")


async def test_a_spool_is_no_folder_for_spools(tmp_path: Path, spool: DiskSpool) -> None:
    with pytest.raises(SpoolFormat, match="name the folder that it is in"):
        await opened(tmp_path / "me")


# --- adoption -----------------------------------------------------------------------------------


def folders(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir())


async def left_behind(root: Path, name: str, numbers: range, done: int = 0) -> None:
    other = await opened(root, name=name)
    await other.append("t", 0, records(numbers))
    if done:
        await other.done("t", 0, done)
    await other.close()


async def test_spools_of_daemons_that_are_gone_are_adopted(tmp_path: Path) -> None:
    await left_behind(tmp_path, "gone", range(10), done=4)
    await left_behind(tmp_path, "gone too", range(100, 110))
    alive = await opened(tmp_path, name="alive")
    await alive.append("t", 0, [record(999)])
    spool = await opened(tmp_path)
    await spool.append("t", 0, [record(55)])
    assert await spool.adopt() == [Adopted(topic="t", partition=0, records=16)]
    found = await spool.read("t", 0)
    assert [s.seq for s in found] == list(range(1, 18))
    assert [s.record for s in found] == [
        record(55),
        *records(range(4, 10)),
        *records(range(100, 110)),
    ]
    assert folders(tmp_path) == ["alive", "me"]
    assert await spool.adopt() == []
    await spool.append("t", 0, [record(56)])
    await spool.close()
    again = await opened(tmp_path)
    assert [s.record for s in await again.read("t", 0)] == [s.record for s in found] + [record(56)]
    await again.close()
    await alive.close()


async def test_keys_and_pauses_come_along(tmp_path: Path) -> None:
    other = await opened(tmp_path, name="gone")
    assert await claim(other.keys, "t", A, AT) is Claim.YOURS
    await other.append("t", 0, [record(once=A)])
    await other.pause("t", True)
    await other.close()
    spool = await opened(tmp_path)
    await spool.adopt()
    assert await claim(spool.keys, "t", A, AT) == Accepted(partition=0, spooled=True)
    assert spool.paused("t")
    await spool.close()


class Stops(Files):
    """A disk that fails after so many changes of names: an adoption is interrupted there."""

    def __init__(self, after: int) -> None:
        self.left = after

    def rename(self, old: Path, new: Path) -> None:
        """Fails at last."""
        self._count()
        super().rename(old, new)

    def sync_folder(self, path: Path) -> None:
        """Fails at last."""
        self._count()
        super().sync_folder(path)

    def _count(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise OSError(5, os.strerror(5))


@pytest.mark.parametrize("steps", range(12))
async def test_an_interrupted_adoption_is_gone_on_with(tmp_path: Path, steps: int) -> None:
    for turn in range(3):
        other = await opened(tmp_path, name="gone")  # three segments of it
        for partition in range(2):
            await other.append("t", partition, records(range(turn * 5, turn * 5 + 5)))
        await other.done("t", 0, 2)
        await other.close()
    stops = Stops(after=1000)
    first = await opened(tmp_path, stops, name="first")
    stops.left = steps
    await first.adopt()
    if steps < 6:
        assert first.orphans == 1
    stops.left = 1000
    await first.close()
    second = await opened(tmp_path, name="second")
    await second.adopt()
    for partition, new in ((0, records(range(2, 15))), (1, records(range(15)))):
        found = [s.record for s in await second.read("t", partition)]
        assert found == new, partition
    assert second.orphans == 0
    await second.close()


async def test_what_an_interrupted_adoption_left_in_two_folders_is_in_order_again(
    tmp_path: Path,
) -> None:
    """One partition's older half was moved; the other folder holds the oldest record of all."""
    first = await opened(tmp_path, name="half moved")
    await first.append("t", 0, [record(n, at=AT + n) for n in range(10, 15)])
    await first.close()
    rest = await opened(tmp_path, name="the rest")
    await rest.append("t", 0, [record(n, at=AT + n) for n in range(15, 20)])
    await rest.append("t", 1, [record(n, at=AT + n) for n in range(5)])
    await rest.close()
    spool = await opened(tmp_path)
    await spool.adopt()
    found = await spool.read("t", 0)
    assert [s.record.accepted_at for s in found] == [AT + n for n in range(10, 20)]
    await spool.close()


async def test_what_can_not_be_adopted_is_left_and_told(tmp_path: Path) -> None:
    await left_behind(tmp_path, "newer", range(3))
    (tmp_path / "newer" / "format").write_text('{"spool": 99}')
    (tmp_path / "no spool").mkdir()
    telemetry = RecordedTelemetry()
    spool = await DiskSpool.open(tmp_path, "me", SpoolSettings(), telemetry)
    assert await spool.adopt() == []
    assert await spool.adopt() == []
    assert spool.orphans == 1
    await spool.close()
    told = [level for name, level, _ in telemetry.events if name == names.SPOOL_ORPHANED]
    assert told == ["warning"]
    assert (tmp_path / "newer" / "format").exists()


async def test_what_an_interrupted_start_or_removal_leaves_is_cleared_away(tmp_path: Path) -> None:
    for name, files in (("begun", ["lock"]), ("ending", ["lock", "format.new"])):
        (tmp_path / name).mkdir()
        for file in files:
            (tmp_path / name / file).touch()
    (tmp_path / "no spool").mkdir()
    spool = await opened(tmp_path)
    assert await spool.adopt() == []
    assert folders(tmp_path) == ["me", "no spool"]
    await spool.close()


async def test_damage_in_what_is_adopted_is_set_aside_too(tmp_path: Path) -> None:
    await left_behind(tmp_path, "gone", range(10))
    (path,) = (tmp_path / "gone" / "logs" / "t" / "0").iterdir()
    content = bytearray(path.read_bytes())
    content[5] ^= 1
    path.write_bytes(content)
    (tmp_path / "gone" / "ledger.db").unlink()
    spool = await opened(tmp_path)
    await spool.adopt()
    assert [s.record for s in await spool.read("t", 0)] == records(range(1, 10))
    assert list((tmp_path / "me" / "quarantine").iterdir())
    await spool.close()
