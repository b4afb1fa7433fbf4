"""The file of dead letters: what is written, torn, full, taken out, and by whom at once."""

from __future__ import annotations

import asyncio
import fcntl
import json
from pathlib import Path

import pytest

from sidecar.core.placing import UNPLACED
from sidecar.core.spooling import NewRecord
from sidecar.publish import deadletters
from sidecar.publish.deadletters import FILE, DeadLetters, Walked, take_out, walk
from sidecar.publish.letters import Letter, NoLetter, from_line, id_of, to_line

AT = 1_795_000_000.25


def letter(value: bytes = b"v", topic: str = "t", partition: int = 0) -> Letter:
    record = NewRecord(b"\xff", value, (("ä", b"\x00"), ("none", None)), 17, AT - 60)
    return Letter(topic, partition, record, "record-too-large", "it is", AT)


def values(folder: Path) -> list[bytes | None]:
    return [found.record.value for _, found in walk(folder, Walked())]


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize(
    "one",
    [
        letter(),
        letter(partition=UNPLACED),
        Letter("t", 3, NewRecord(None, None, (), 0, AT), "unknown-partition", "", AT),
    ],
)
def test_a_line_is_read_as_it_was_written(one: Letter) -> None:
    line = to_line(one)
    assert from_line(line) == one
    assert id_of(line) == id_of(line.rstrip())
    assert json.loads(line)["partition_id"] in {0, 3, None}


@pytest.mark.parametrize("line", [b"", b"{", b"[]", b'{"topic": "t"}', b"\xff"])
def test_what_is_no_letter(line: bytes) -> None:
    with pytest.raises(NoLetter):
        from_line(line)


def test_letters_of_before_have_no_time_of_acceptance() -> None:
    fields = json.loads(to_line(letter()))
    del fields["accepted_at"]
    assert from_line(json.dumps(fields).encode()).record.accepted_at == AT


async def test_letters_stay_in_order_and_the_size_is_known(tmp_path: Path) -> None:
    letters = DeadLetters(tmp_path)
    assert values(tmp_path) == []
    await letters.add([letter(b"0"), letter(b"1")])
    await letters.add([letter(b"2")])
    assert values(tmp_path) == [b"0", b"1", b"2"]
    assert letters.bytes == (tmp_path / FILE).stat().st_size
    assert (tmp_path / FILE).stat().st_mode & 0o777 == 0o600
    other = DeadLetters(tmp_path)
    await other.look()
    assert other.bytes == letters.bytes


async def test_at_its_bound_it_takes_what_fits_and_says_so(tmp_path: Path) -> None:
    letters = DeadLetters(tmp_path, max_bytes=2 * len(to_line(letter())))
    with pytest.raises(OSError, match="is full"):
        await letters.add([letter(b"0"), letter(b"1"), letter(b"2")])
    assert values(tmp_path) == [b"0", b"1"]
    with pytest.raises(OSError, match="is full"):
        await letters.add([letter(b"2")])
    take_out(tmp_path, lambda _, found: found.record.value == b"0")
    await letters.add([letter(b"2")])
    assert values(tmp_path) == [b"1", b"2"]


async def test_a_torn_line_costs_itself_alone(tmp_path: Path) -> None:
    letters = DeadLetters(tmp_path)
    await letters.add([letter(b"0"), letter(b"1")])
    path = tmp_path / FILE
    path.write_bytes(path.read_bytes()[:-20])
    await letters.add([letter(b"2")])
    walked = Walked()
    assert [found.record.value for _, found in walk(tmp_path, walked)] == [b"0", b"2"]
    assert (walked.letters, walked.unreadable) == (2, 1)
    assert take_out(tmp_path, lambda *_: True) == 2
    assert len(path.read_bytes().splitlines()) == 1, "nobody said that it may go"
    assert take_out(tmp_path, lambda *_: True, unreadable=True) == 1
    assert path.read_bytes() == b""


async def test_what_is_taken_out_is_gone_and_the_rest_stays_as_it_was(tmp_path: Path) -> None:
    await DeadLetters(tmp_path).add([letter(b"%d" % n) for n in range(4)])
    before = (tmp_path / FILE).read_bytes().splitlines()
    wanted = {id_of(before[1]), id_of(before[2])}
    assert take_out(tmp_path, lambda name, _: name in wanted) == 2
    assert (tmp_path / FILE).read_bytes().splitlines() == [before[0], before[3]]
    assert names_in(tmp_path) == [FILE]


async def test_nothing_goes_where_what_comes_first_fails(tmp_path: Path) -> None:
    await DeadLetters(tmp_path).add([letter()])

    def fails() -> None:
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        take_out(tmp_path, lambda *_: True, fails)
    assert values(tmp_path) == [b"v"]


async def test_a_writer_waits_for_who_replaces_the_file_and_then_writes_the_new_one(
    tmp_path: Path,
) -> None:
    letters = DeadLetters(tmp_path)
    await letters.add([letter(b"0"), letter(b"1")])
    loop, adding = asyncio.get_running_loop(), []

    def meanwhile() -> None:
        adding.append(asyncio.run_coroutine_threadsafe(letters.add([letter(b"2")]), loop))

    await asyncio.to_thread(take_out, tmp_path, lambda _, x: x.record.value == b"0", meanwhile)
    await asyncio.wrap_future(adding[0])
    assert values(tmp_path) == [b"1", b"2"]


async def test_a_lock_that_is_never_given_back_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deadletters, "LOCK_S", 0.05)
    letters = DeadLetters(tmp_path)
    await letters.add([letter()])
    with (tmp_path / FILE).open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(OSError, match="in use"):
            await letters.add([letter()])
