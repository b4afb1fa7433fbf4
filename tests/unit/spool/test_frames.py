"""Frames: whatever a record holds comes back, and damage costs those frames alone that it hits."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.spooling import Idempotency, NewRecord
from sidecar.spool.frames import HEADER, Damage, Frame, frame, idempotency_of, pack, scan, unpack
from tests.unit.spool.kit import record

MARKER = b"\x01\x02\x03\x04"

keys = st.text(min_size=1, max_size=60).filter(lambda text: len(text.encode()) <= 255)
new_records = st.builds(
    NewRecord,
    key=st.none() | st.binary(max_size=40),
    value=st.none() | st.binary(max_size=200),
    headers=st.lists(
        st.tuples(st.text(max_size=20), st.none() | st.binary(max_size=20)), max_size=4
    ).map(tuple),
    timestamp_ms=st.integers(0, 2**60),
    accepted_at=st.floats(0, 2**33),
    idempotency=st.none() | st.builds(Idempotency, keys, st.binary(min_size=8, max_size=64)),
)


def segment(records: list[NewRecord], marker: bytes = MARKER) -> tuple[bytes, list[int]]:
    """The bytes of a segment, and where each frame ends."""
    data, ends = b"", []
    for ordinal, new in enumerate(records):
        packed = pack(new)
        data += frame(packed, marker, ordinal) + packed.head + packed.value
        ends.append(len(data))
    return data, ends


def found(data: bytes) -> dict[int, NewRecord]:
    """The records that a scan finds, by ordinal."""
    items = scan(data, MARKER, 0, last=True)
    return {i.ordinal: unpack(i.payload, i.accepted_at) for i in items if isinstance(i, Frame)}


@given(new_records)
def test_a_record_comes_back_as_it_was(new: NewRecord) -> None:
    packed = pack(new)
    payload = packed.head + packed.value
    assert len(payload) == packed.size
    assert unpack(payload, new.accepted_at) == new
    assert idempotency_of(payload) == new.idempotency


@given(st.lists(new_records, min_size=1, max_size=8), st.data())
def test_a_flipped_byte_costs_the_frame_it_hits_and_no_other(
    records: list[NewRecord], data: st.DataObject
) -> None:
    whole, ends = segment(records)
    at = data.draw(st.integers(0, len(whole) - 1))
    flipped = bytearray(whole)
    flipped[at] ^= data.draw(st.integers(1, 255))
    hit = next(i for i, end in enumerate(ends) if at < end)
    expected = {i: r for i, r in enumerate(records) if i != hit}
    assert found(bytes(flipped)) == expected


@given(st.lists(new_records, min_size=1, max_size=8), st.data())
def test_a_cut_costs_what_it_cuts_off(records: list[NewRecord], data: st.DataObject) -> None:
    whole, ends = segment(records)
    at = data.draw(st.integers(0, len(whole)))
    expected = {i: r for i, r in enumerate(records) if ends[i] <= at}
    assert found(whole[:at]) == expected


@given(st.lists(new_records, min_size=1, max_size=6), st.data())
def test_a_hole_costs_the_frames_it_touches(records: list[NewRecord], data: st.DataObject) -> None:
    """Zeros, as a power cut leaves them in files that were made longer first."""
    whole, ends = segment(records)
    start = data.draw(st.integers(0, len(whole) - 1))
    end = data.draw(st.integers(start + 1, len(whole)))
    hit = whole[:start] + bytes(end - start) + whole[end:]
    untouched = {
        i: r
        for i, (r, begins, ends_at) in enumerate(zip(records, [0, *ends[:-1]], ends, strict=True))
        if hit[begins:ends_at] == whole[begins:ends_at]
    }
    assert found(hit) == untouched


@given(st.lists(new_records, min_size=1, max_size=6), st.integers(1, 50), st.data())
def test_pieces_give_what_the_whole_gives(
    records: list[NewRecord], step: int, data: st.DataObject
) -> None:
    """A reader that gets the file in pieces, some of them too small for a frame, sees the same."""
    whole, _ = segment(records)
    bad = bytearray(whole)
    bad[data.draw(st.integers(0, len(whole) - 1))] ^= 0xFF
    start, size, last = 0, step, False
    seen: list[int] = []
    while not last:
        piece = bytes(bad[start : start + size])
        last = start + len(piece) >= len(bad)
        begun = start
        for item in scan(piece, MARKER, start, last=last):
            assert item.end > item.start >= start
            start = item.end
            seen += [item.ordinal] if isinstance(item, Frame) else []
        size = step if start > begun else size + step
    assert seen == list(found(bytes(bad)))


def test_a_record_that_looks_like_a_frame_is_no_frame() -> None:
    """Somebody who guesses the format puts a frame into a value; the frame around it breaks."""
    inside, _ = segment([record(7)], marker=b"\x09\x09\x09\x09")
    trap = NewRecord(b"k", inside * 3, (), 0, 0.0)
    whole, ends = segment([trap, record(1)])
    broken = bytearray(whole)
    broken[5] ^= 1
    items = list(scan(bytes(broken), MARKER, 0, last=True))
    assert items[0] == Damage(0, ends[0])
    assert [i.ordinal for i in items if isinstance(i, Frame)] == [1]


@pytest.mark.parametrize(
    "bad",
    [
        NewRecord(b"k", bytes(64 * 1024 * 1024 + 1), (), 0, 0.0),
        NewRecord(b"k", b"", (("x" * 70_000, b""),), 0, 0.0),
        NewRecord(b"k", b"", (), 0, 0.0, Idempotency("", b"12345678")),
        NewRecord(b"k", b"", (), 0, 0.0, Idempotency("x" * 256, b"12345678")),
        NewRecord(b"k", b"", (), 0, 0.0, Idempotency("x", b"1" * 65)),
    ],
    ids=["value", "header name", "no idempotency key", "its length", "fingerprint"],
)
def test_what_the_format_cannot_hold_is_refused(bad: NewRecord) -> None:
    with pytest.raises(ValueError, match="bytes"):
        pack(bad)


def test_a_header_is_as_long_as_it_says() -> None:
    assert len(frame(pack(record()), MARKER, 0)) == HEADER
