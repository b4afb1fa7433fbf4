"""The spool on real files: order, progress, damage, full and failing disks, budgets, crashes."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sidecar.core.errors import (
    SpoolClosed,
    SpoolDiskFull,
    SpoolFault,
    SpoolFormat,
    SpoolFull,
    SpoolTaken,
)
from sidecar.core.spooling import Budget, Idempotency, SpoolSettings
from sidecar.spool.frames import HEADER, pack
from sidecar.spool.ledger import digest
from sidecar.spool.log import MARK_BYTES
from sidecar.spool.segments import frames_in
from sidecar.spool.vault import OPEN_FILES, Append
from sidecar.telemetry import names
from tests.unit.spool.kit import AT, BadDisk, Box, Hasty, record, records, small

each_its_folder = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=30
)


@pytest.fixture
def box(tmp_path: Path) -> Box:
    return Box(tmp_path)


def lost(box: Box, reason: str, topic: str = "t") -> int:
    return box.telemetry.counted(names.SPOOL_DROPPED, topic=topic, reason=reason)


# --- order and progress -------------------------------------------------------------------------


def test_what_was_appended_waits_in_order(box: Box) -> None:
    new = records(range(30))
    assert box.append(*new[:10]) == range(1, 11)
    assert box.append(*new[10:]) == range(11, 31)
    assert box.waiting() == new
    view = box.vault.backlog("t", 0)
    assert (view.records, view.done_seq, view.last_seq, view.oldest_at) == (30, 0, 30, AT)
    assert view.bytes == sum(HEADER + pack(one).size for one in new)


def test_a_crash_loses_nothing_and_knows_what_is_done(box: Box) -> None:
    new = records(range(20))
    box.append(*new)
    assert box.vault.read("t", 0, after=0, max_records=8, max_bytes=10_000)
    box.vault.done([("t", 0, 5)])
    box.crash()
    assert box.waiting() == new[5:]
    assert box.vault.backlog("t", 0).done_seq == 5
    assert box.append(record(99)) == range(21, 22)
    assert box.waiting() == [*new[5:], record(99)]


def test_a_restart_in_good_order_reads_nothing_again(box: Box, monkeypatch: Any) -> None:
    new = records(range(20))
    box.append(*new)
    box.vault.close()
    monkeypatch.setattr("sidecar.spool.recovery.frames_in", _nothing_but_ends)
    box.open()
    assert box.waiting() == new


def test_a_crash_makes_little_to_be_read_again(tmp_path: Path, monkeypatch: Any) -> None:
    box = Box(tmp_path, files=Hasty())
    for number in range(60):
        box.append(record(number, size=1_000_000))
    box.vault.tick()
    box.kill()
    read: list[int] = []

    def counting(path: Path, marker: bytes, start: int, end: int) -> Any:
        read.append(end - start)
        return frames_in(path, marker, start, end)

    monkeypatch.setattr("sidecar.spool.recovery.frames_in", counting)
    box.open()
    assert sum(read) <= MARK_BYTES + 1_100_000
    assert box.vault.backlog("t", 0).records == 60


def _nothing_but_ends(path: Path, marker: bytes, start: int, end: int) -> list[Any]:
    assert start == end, f"{path} is read again from {start}"
    return []


def test_partitions_and_topics_have_nothing_to_do_with_each_other(box: Box) -> None:
    odd = "ä/../x y"
    box.append(record(1), topic=odd)
    box.append(record(2), partition=3)
    box.append(record(3))
    box.crash()
    assert box.waiting(odd) == [record(1)]
    assert box.waiting("t", 3) == [record(2)]
    assert box.waiting() == [record(3)]
    assert box.waiting("t", 9) == []
    assert {p.name for p in (box.path / "logs").iterdir()} == {"%C3%A4%2F..%2Fx%20y", "t"}


@pytest.mark.parametrize("topic", ["", "x" * 250, "ä" * 60])
def test_a_topic_that_can_be_no_folder_is_refused(box: Box, topic: str) -> None:
    with pytest.raises(ValueError, match="too long"):
        box.append(record(), topic=topic)


def test_done_out_of_turn_changes_nothing(box: Box) -> None:
    box.append(*records(range(5)))
    box.vault.done([("t", 0, 3), ("t", 0, 2), ("t", 7, 1)])
    assert box.waiting() == records(range(3, 5))
    box.vault.done([("t", 0, 99)])
    assert box.waiting() == []
    assert box.vault.backlog("t", 0).done_seq == 5


def test_a_reader_goes_on_behind_what_it_has(box: Box) -> None:
    box.append(*records(range(10)))
    first = box.vault.read("t", 0, after=0, max_records=4, max_bytes=10_000)
    second = box.vault.read("t", 0, after=first[-1].seq, max_records=4, max_bytes=10_000)
    assert [stored.seq for stored in first + second] == list(range(1, 9))
    # Kafka has refused the third: it begins again.
    box.vault.done([("t", 0, 2)])
    again = box.vault.read("t", 0, after=0, max_records=100, max_bytes=10_000)
    assert [stored.seq for stored in again] == list(range(3, 11))
    assert len(box.vault.read("t", 0, after=0, max_records=100, max_bytes=1)) == 1


def test_a_record_larger_than_what_is_read_at_once(box: Box) -> None:
    new = [record(1), record(2, size=3_000_000), record(3)]
    box.append(*new)
    assert box.waiting() == new


# --- room ---------------------------------------------------------------------------------------


def test_segments_roll_and_are_given_back(tmp_path: Path) -> None:
    box = Box(tmp_path, small())
    new = records(range(40), size=10_000)
    for one in new:
        box.append(one)
    assert len(box.segments()) == 6
    assert box.waiting() == new
    box.vault.done([("t", 0, 20)])
    assert len(box.segments()) == 4
    box.crash()
    assert box.waiting() == new[20:]
    box.vault.done([("t", 0, 40)])
    assert box.vault.backlog("t", 0).bytes == 0
    box.clock.at += 60
    box.vault.tick()
    assert box.segments() == []
    assert box.append(record(1)) == range(41, 42)


def test_sequences_go_on_when_all_files_are_gone(box: Box) -> None:
    box.append(*records(range(5)))
    box.vault.done([("t", 0, 5)])
    box.restart()
    assert box.segments() == []
    assert box.append(record(5)) == range(6, 7)


def test_a_full_budget_refuses_and_takes_again_when_there_is_room(tmp_path: Path) -> None:
    box = Box(tmp_path, small(max_bytes=100_000))
    new = records(range(9), size=10_000)
    box.append(*new)
    with pytest.raises(SpoolFull, match=r"topic t: 9\d+ of its 100000 wait"):
        box.append(record(9, size=10_000))
    box.append(record(9, size=5_000))
    box.vault.done([("t", 0, 3)])
    box.append(record(10, size=10_000))
    assert box.waiting() == [*new[3:], record(9, size=5_000), record(10, size=10_000)]


def test_the_whole_spool_has_a_budget_too(tmp_path: Path) -> None:
    box = Box(tmp_path, SpoolSettings(max_bytes=50_000))
    box.append(record(1, size=30_000), topic="a")
    with pytest.raises(SpoolFull, match=r"the spool: 3\d+ of its 50000"):
        box.append(record(2, size=30_000), topic="b")


def test_one_call_is_refused_and_those_beside_it_are_taken(tmp_path: Path) -> None:
    box = Box(tmp_path, SpoolSettings(topics={"a": Budget(max_bytes=1000)}))
    large, fits = [pack(record(1, size=2000))], [pack(record(2))]
    refused, taken, also = box.vault.append(
        [Append("a", 0, large), Append("a", 0, fits), Append("b", 0, large)]
    )
    assert isinstance(refused, SpoolFull)
    assert (taken, also) == (range(1, 2), range(1, 2))


def test_the_oldest_make_room(tmp_path: Path) -> None:
    box = Box(tmp_path, small(max_bytes=100_000, drop_oldest=True))
    for number in range(40):
        box.append(record(number, size=10_000, at=AT + number), partition=number % 2)
    kept = box.waiting() + box.waiting(partition=1)
    numbers = sorted(int(one.value.split(b".")[0]) for one in kept if one.value)
    assert numbers[-5:] == [35, 36, 37, 38, 39]
    assert numbers == list(range(40 - len(numbers), 40))
    assert len(numbers) + lost(box, "full") == 40
    box.vault.tick()
    assert sum(p.stat().st_size for p in box.path.rglob("*.seg")) < 100_000 + 2 * 75_536
    box.crash()
    assert len(box.waiting() + box.waiting(partition=1)) == len(kept)


def test_none_goes_for_a_record_that_does_not_fit_all_the_same(tmp_path: Path) -> None:
    budgets = {"t": Budget(max_bytes=100_000, drop_oldest=True)}
    box = Box(tmp_path, SpoolSettings(max_bytes=150_000, topics=budgets))
    new = records(range(5), size=10_000)
    box.append(*new)
    with pytest.raises(SpoolFull, match=r"topic t: 5\d+ of its 100000 wait"):
        box.append(record(9, size=120_000))
    box.append(record(1, size=80_000), topic="other")
    with pytest.raises(SpoolFull, match="wait already"):
        box.append(record(9, size=90_000))
    assert box.waiting() == new
    assert lost(box, "full") == 0


def test_what_is_too_old_is_dropped(tmp_path: Path) -> None:
    box = Box(tmp_path, small(max_age_s=60))
    for number in range(20):
        box.append(record(number, size=10_000, at=AT + number))
    box.clock.at = AT + 70
    assert [one.accepted_at for one in box.waiting()] == [AT + n for n in range(10, 20)]
    assert lost(box, "expired") == 10
    box.clock.at = AT + 75
    box.vault.tick()
    assert box.vault.backlog("t", 0).records == 5
    box.crash()
    assert len(box.waiting()) == 5
    box.clock.at = AT + 1000
    box.vault.tick()
    assert box.waiting() == []
    assert lost(box, "expired") == 20


def test_many_partitions_hold_few_files_open(box: Box) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    for partition in range(3 * OPEN_FILES):
        box.append(record(partition), partition=partition)
    assert len(list(Path("/proc/self/fd").iterdir())) <= before + OPEN_FILES + 2
    box.append(record(-1))
    assert box.waiting() == [record(0), record(-1)]


class Remembering(Hasty):
    """Knows of which files the kernel's copy was given up, and up to where."""

    def __init__(self) -> None:
        self.forgotten: dict[str, int] = {}

    def forget(self, fd: int, offset: int, size: int) -> None:
        super().forget(fd, offset, size)
        name = Path(f"/proc/self/fd/{fd}").readlink().name
        assert offset <= self.forgotten.get(name, 0)
        self.forgotten[name] = offset + size


def test_what_waits_far_behind_its_reader_is_not_kept_in_memory(tmp_path: Path) -> None:
    files = Remembering()
    box = Box(tmp_path, SpoolSettings(segment_bytes=2 * MARK_BYTES), files)
    new = [record(number, size=1_000_000) for number in range(80)]
    for one in new:
        box.append(one)
    sizes = {path.name: path.stat().st_size for path in box.segments()}
    assert len(sizes) == 5
    near, far = list(sizes)[:2], list(sizes)[2:-1]
    assert not set(near) & set(files.forgotten), "it is where the reader goes on"
    for name in far:
        assert sizes[name] - MARK_BYTES <= files.forgotten[name] <= sizes[name]
    assert box.waiting() == new


def test_what_a_reader_keeps_up_with_stays_in_memory(tmp_path: Path) -> None:
    files = Remembering()
    box = Box(tmp_path, SpoolSettings(segment_bytes=2 * MARK_BYTES), files)
    after = 0
    for number in range(80):
        box.append(record(number, size=1_000_000))
        if number % 10 == 9:
            after = box.vault.read("t", 0, after=after, max_records=10, max_bytes=1 << 30)[-1].seq
    assert after == 80
    assert files.forgotten == {}


def test_what_comes_first_stays_in_memory_however_much_it_is(tmp_path: Path) -> None:
    files = Remembering()
    box = Box(tmp_path, files=files)
    box.append(*records(range(10), size=1_000_000))
    assert files.forgotten == {}


def test_nobody_else_may_read_it(box: Box) -> None:
    box.append(record())
    for path in [box.path, *box.path.rglob("*")]:
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == (0o700 if path.is_dir() else 0o600), path


# --- damage -------------------------------------------------------------------------------------


def test_damage_is_counted_and_set_aside(box: Box) -> None:
    new = records(range(10))
    box.append(*new)
    (path,) = box.segments()
    _flip(path, path.stat().st_size // 2)
    found = box.waiting()
    assert len(found) == 9
    assert set(found) < set(new)
    assert lost(box, "damaged") == 1
    assert box.vault.backlog("t", 0).records == 9
    assert len(box.waiting()) == 9
    assert lost(box, "damaged") == 1
    damage = [fields for name, _, fields in box.telemetry.events if name == names.SPOOL_DAMAGED]
    (kept,) = (box.path / "quarantine").iterdir()
    assert [fields["bytes"] for fields in damage] == [kept.stat().st_size]
    box.vault.done([("t", 0, 10)])
    assert box.vault.backlog("t", 0).records == 0


def test_records_that_are_all_damaged_keep_nobody_waiting(box: Box) -> None:
    box.append(*records(range(3)))
    (path,) = box.segments()
    path.write_bytes(bytes(path.stat().st_size))
    assert box.waiting() == []
    view = box.vault.backlog("t", 0)
    assert (view.records, view.done_seq, view.last_seq) == (0, 3, 3)
    assert box.append(record(3)) == range(4, 5)
    assert box.waiting() == [record(3)]
    assert lost(box, "damaged") == 3


@each_its_folder
@given(data=st.data(), restarts=st.sampled_from(["crash", "restart", None]))
def test_any_flipped_byte_costs_one_record(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, restarts: str | None
) -> None:
    box = Box(tmp_path_factory.mktemp("spool"), small(), Hasty())
    new = records(range(24), size=6000)
    for one in new:
        box.append(one)
    path = data.draw(st.sampled_from(box.segments()))
    if restarts == "restart":
        box.vault.close()
    elif restarts == "crash":
        box.kill()
    _flip(path, data.draw(st.integers(0, path.stat().st_size - 1)), data.draw(st.integers(1, 255)))
    if restarts is not None:
        box.open()
    found = box.waiting()
    assert len(found) == 23
    assert found == [one for one in new if one in found]
    if restarts != "crash" or found[-1] == new[-1]:
        # After a crash nobody knows that there was a last one, for it may never have been whole.
        assert lost(box, "damaged") == 1
    box.append(record(99))
    assert box.waiting()[-1] == record(99)
    box.vault.close()


@each_its_folder
@given(data=st.data(), clean=st.booleans())
def test_any_cut_costs_what_it_cuts_off(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, clean: bool
) -> None:
    box = Box(tmp_path_factory.mktemp("spool"), small(), Hasty())
    new = records(range(24), size=6000)
    for one in new:
        box.append(one)
    paths = box.segments()
    number = data.draw(st.integers(0, len(paths) - 1))
    firsts = [int(path.name[:20]) for path in paths] + [25]
    size = paths[number].stat().st_size
    at = data.draw(st.integers(0, size))
    (box.vault.close if clean else box.kill)()
    os.truncate(paths[number], at)
    box.open()
    frame_size = size // (firsts[number + 1] - firsts[number])
    last = firsts[number] + at // frame_size
    found = box.waiting()
    kept = [
        one
        for seq, one in enumerate(new, 1)
        if seq < firsts[number] or seq >= firsts[number + 1] or seq < last
    ]
    assert len(found) in {len(kept), len(kept) - 1}  # frames differ by some bytes in length
    assert found == [one for one in new if one in found]
    assert found[: firsts[number] - 1] == new[: firsts[number] - 1]
    assert found[len(found) - (25 - firsts[number + 1]) :] == new[firsts[number + 1] - 1 :]
    seen = box.append(record(99))[0]
    assert seen > (0 if not found else box.vault.backlog("t", 0).done_seq)
    assert box.waiting()[-1] == record(99)
    box.vault.close()


def test_a_torn_tail_is_no_record_and_is_not_appended_to(box: Box) -> None:
    box.append(*records(range(3)))
    box.kill()
    (path,) = box.segments()
    with path.open("ab") as file:
        file.write(path.read_bytes()[:40])
    box.open()
    box.append(record(3))
    assert box.waiting() == records(range(4))
    assert len(box.segments()) == 2


def test_a_missing_segment_is_missed(tmp_path: Path) -> None:
    box = Box(tmp_path, small())
    new = records(range(40), size=10_000)
    for one in new:
        box.append(one)
    box.kill()
    paths = box.segments()
    paths[2].unlink()
    box.open()
    found = box.waiting()
    assert found == [one for one in new if one in found]
    assert len(found) + lost(box, "damaged") == 40
    assert lost(box, "damaged") == 7
    assert box.vault.backlog("t", 0).records == len(found)


@pytest.mark.parametrize("spoil", [b"junk" * 5000, b""])
def test_a_ledger_that_is_none_costs_progress_and_no_record(box: Box, spoil: bytes) -> None:
    once = Idempotency("k", b"12345678")
    box.append(record(0, once=once), *records(range(1, 4)))
    box.vault.done([("t", 0, 2)])
    box.vault.close()
    (box.path / "ledger.db").write_bytes(spoil)
    box.open()
    assert [one.value for one in box.waiting()] == [one.value for one in records(range(4))]
    assert box.vault.notebook.key("t", digest("k"), 0.0) is not None
    told = [name for name, _, _ in box.telemetry.events if name == names.SPOOL_LEDGER_LOST]
    assert len(told) == bool(spoil)


# --- disks --------------------------------------------------------------------------------------


def test_a_full_disk_keeps_nothing_half_and_goes_on_when_there_is_room(tmp_path: Path) -> None:
    disk = BadDisk()
    box = Box(tmp_path, files=disk)
    box.append(record(0))
    (path,) = box.segments()
    size = path.stat().st_size
    disk.room = 50
    with pytest.raises(SpoolDiskFull, match="nothing of this was kept"):
        box.append(*records(range(1, 4)))
    assert path.stat().st_size == size
    assert box.vault.fault is None
    disk.room = None
    box.append(record(4))
    assert box.waiting() == [record(0), record(4)]
    box.crash()
    assert box.waiting() == [record(0), record(4)]


def test_what_fits_is_taken_although_a_larger_one_beside_it_does_not(tmp_path: Path) -> None:
    disk = BadDisk()
    box = Box(tmp_path, files=disk)
    disk.room = 1000
    outcomes = box.vault.append(
        [
            Append("t", 0, [pack(record(1))]),
            Append("t", 0, [pack(record(2, size=5000))]),
            Append("t", 0, [pack(record(3))]),
        ]
    )
    assert [type(outcome) for outcome in outcomes] == [range, SpoolDiskFull, range]
    box.crash()
    assert box.waiting() == [record(1), record(3)]


def test_a_failed_sync_closes_the_spool_until_a_restart(tmp_path: Path) -> None:
    disk = BadDisk()
    box = Box(tmp_path, files=disk)
    box.append(record(0))
    disk.sync_fails = True
    with pytest.raises(SpoolClosed, match="sync failed"):
        box.append(record(1))
    disk.sync_fails = False
    syncs = disk.syncs
    with pytest.raises(SpoolClosed):
        box.append(record(2))
    assert disk.syncs == syncs, "a failed sync is never tried again"
    assert [level for name, level, _ in box.telemetry.events if name == names.SPOOL_CLOSED] == [
        "error"
    ]
    # What was safe before is still delivered, and known to be.
    assert box.waiting() == [record(0)]
    box.vault.done([("t", 0, 1)])
    box.crash()
    assert box.waiting() == []
    box.append(record(3))
    assert box.waiting() == [record(3)]


def test_a_segment_that_was_deleted_takes_nothing_more(tmp_path: Path) -> None:
    """What is written to it would be synced, and gone with the process all the same."""
    box = Box(tmp_path)
    box.append(record(1))
    for segment in box.segments():
        segment.unlink()
    with pytest.raises(SpoolClosed, match="the file was deleted"):
        box.append(record(2))
    with pytest.raises(SpoolClosed):
        box.append(record(3), partition=1)
    box.crash()
    box.append(record(4))
    assert box.waiting() == [record(4)]


def test_one_partition_that_fails_to_sync_closes_all_but_keeps_what_is_synced(
    tmp_path: Path,
) -> None:
    class OneBad(BadDisk):
        def sync(self, fd: int) -> None:
            if Path(f"/proc/self/fd/{fd}").readlink().parent.name == "1":
                raise OSError(errno.EIO, "bad")
            super().sync(fd)

    box = Box(tmp_path, files=OneBad())
    outcomes = box.vault.append([Append("t", p, [pack(record(p))]) for p in range(3)])
    assert [type(outcome) for outcome in outcomes] == [range, SpoolClosed, range]
    assert box.vault.fault is not None
    box.crash()
    assert [box.waiting(partition=p) for p in range(3)] == [[record(0)], [], [record(2)]]


def test_what_can_not_be_taken_back_closes_the_spool(tmp_path: Path) -> None:
    disk = BadDisk()
    box = Box(tmp_path, files=disk)
    disk.room, disk.truncate_fails = 50, True
    with pytest.raises(SpoolDiskFull):
        box.append(*records(range(3)))
    with pytest.raises(SpoolClosed, match="can't be taken back"):
        box.append(record(4))


def test_a_disk_that_can_not_be_read_says_so(box: Box) -> None:
    box.append(record())
    (path,) = box.segments()
    path.rename(path.with_suffix(".away"))
    with pytest.raises(SpoolFault, match="No such file"):
        box.waiting()


# --- the folder ---------------------------------------------------------------------------------


def test_a_second_process_is_refused(box: Box, tmp_path: Path) -> None:
    with pytest.raises(SpoolTaken, match="in use"):
        Box(tmp_path)


@pytest.mark.parametrize(
    ("content", "said"), [('{"spool": 2}', "format 2"), ("x", "can't be read"), ("[]", "read")]
)
def test_another_format_is_left_alone(tmp_path: Path, content: str, said: str) -> None:
    box = Box(tmp_path)
    box.append(record())
    box.vault.close()
    (box.path / "format").write_text(content)
    before = {p: p.stat().st_mtime_ns for p in box.path.rglob("*") if p.is_file()}
    with pytest.raises(SpoolFormat, match=said):
        box.open()
    assert {p: p.stat().st_mtime_ns for p in before} == before


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "me").mkdir()
    (tmp_path / "me" / "thesis.txt").write_text("long")
    with pytest.raises(SpoolFormat, match=r"thesis\.txt"):
        Box(tmp_path)
    (tmp_path / "link").symlink_to(tmp_path / "me")
    with pytest.raises(SpoolFormat, match="symlink"):
        Box(tmp_path, name="link")


def test_a_start_that_was_interrupted_is_gone_on_with(tmp_path: Path) -> None:
    (tmp_path / "me").mkdir()
    (tmp_path / "me" / "lock").touch()
    box = Box(tmp_path)
    box.append(record())
    assert box.waiting() == [record()]


def test_pauses_are_remembered(box: Box) -> None:
    box.vault.notebook.pause("t", paused=True)
    box.crash()
    assert box.vault.notebook.paused == {"t"}
    box.vault.notebook.pause("t", paused=False)
    box.crash()
    assert box.vault.notebook.paused == set()


def _flip(path: Path, at: int, how: int = 0xFF) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= how
    path.write_bytes(content)
