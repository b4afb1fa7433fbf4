"""What aiokafka can't decode because of a header's name is read all the same; nothing else is."""

from __future__ import annotations

from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.consumer.fetcher import PartitionRecords
from aiokafka.errors import CorruptRecordException
from aiokafka.record.default_records import DefaultRecordBatch, _DefaultRecordBatchPy
from aiokafka.record.legacy_records import LegacyRecordBatchBuilder

from sidecar.consumer.misnamed import Batches, is_misnamed
from tests.misnamed import READ_AS, RECORDS_AT, batch, sealed

TP = TopicPartition("orders", 0)
VALUES = [b"a", b"b", b"c"]


def decoded(batches: Any, aborted: Any = None, isolation: int = 0) -> list[Any]:
    return list(PartitionRecords(TP, batches, aborted, 0, None, None, True, isolation))


@pytest.mark.parametrize("compressed", [False, True])
def test_a_record_is_whole_and_its_name_is_legible(compressed: bool) -> None:
    batches = Batches(batch(VALUES, [1], base=7, compressed=compressed))
    first, second, third = decoded(batches)
    assert [r.offset for r in (first, second, third)] == [7, 8, 9]
    assert [(r.key, r.value, r.timestamp) for r in (first, second)] == [
        (b"key-0", b"a", 1_000),
        (b"key-1", b"b", 1_001),
    ]
    assert first.headers == (("first", b"1"), ("good", b"x"), ("none", None))
    assert second.headers == (("first", b"1"), (READ_AS, b"x"), ("none", None))
    assert batches.names == {8: READ_AS}


def test_what_aiokafka_can_read_is_read_alike() -> None:
    data = batch([b"v%d" % n * n for n in range(200)], base=3)
    assert decoded(Batches(data)) == [
        record for record in decoded(_Own(DefaultRecordBatch(data))) if record.offset >= 0
    ]


class _Own:
    """One batch, as aiokafka's own has it."""

    def __init__(self, only: Any) -> None:
        self._left = [only]

    def has_next(self) -> bool:
        return bool(self._left)

    def next_batch(self) -> Any:
        return self._left.pop()


def test_old_formats_know_no_headers() -> None:
    builder = LegacyRecordBatchBuilder(magic=1, compression_type=0, batch_size=1_000)
    builder.append(0, 1_000, b"key", b"old")
    assert [r.value for r in decoded(Batches(bytes(builder.build())))] == [b"old"]


def test_of_a_transaction_that_was_aborted_nothing_is_read() -> None:
    data = batch([b"never"], [0], producer=5) + batch([b"c"], [0], base=1, producer=6)
    assert [r.value for r in decoded(Batches(data), [(5, 0)], isolation=1)] == [b"c"]
    assert [r.value for r in decoded(Batches(data), [(5, 0)])] == [b"never", b"c"]


def test_a_batch_that_is_cut_off_is_none() -> None:
    whole, next_one = batch(VALUES, [0]), batch(VALUES, base=3)
    assert len(decoded(Batches(whole + next_one[:-1]))) == 3
    assert len(decoded(Batches(whole + next_one[:5]))) == 3


def corrupted(data: bytes, at: int, to: int) -> bytes:
    changed = bytearray(data)
    changed[at] = to
    return bytes(changed)


def test_what_is_corrupt_stays_corrupt() -> None:
    good = batch(VALUES, [0])
    with pytest.raises(CorruptRecordException):  # the checksum
        decoded(Batches(corrupted(good, -1, 7)))
    for at in range(RECORDS_AT, len(good)):
        data = sealed(corrupted(good, at, good[at] ^ 0x2B))
        try:
            decoded(Batches(data))
        except CorruptRecordException:
            continue  # or another record, where only its content was changed
    for length in (1, 20, 40):
        data = (0).to_bytes(8) + length.to_bytes(4) + bytes(4) + b"\x02" + bytes(length - 1)
        with pytest.raises(CorruptRecordException):
            decoded(Batches(data[: 12 + length]))


def test_it_is_told_from_other_errors_whichever_decoder_aiokafka_has() -> None:
    for decoder in (DefaultRecordBatch, _DefaultRecordBatchPy):
        with pytest.raises((UnicodeDecodeError, CorruptRecordException)) as caught:
            decoded(_Own(decoder(batch(VALUES, [1]))))
        assert is_misnamed(caught.value)
    assert not is_misnamed(CorruptRecordException("Invalid CRC"))
