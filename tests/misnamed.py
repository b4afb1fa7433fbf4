"""Records with a header whose name is no UTF-8 text, which aiokafka's producer can't write."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from aiokafka import AIOKafkaProducer
from aiokafka.codec import gzip_encode
from aiokafka.record.default_records import DefaultRecordBase as Layout
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.util import calc_crc32c

NAME = b"\xff\xfe-name"
READ_AS = r"\xff\xfe-name"
_STAND_IN = "standin"
RECORDS_AT = Layout.HEADER_STRUCT.size


def batch(
    values: Sequence[bytes],
    bad: Sequence[int] = (),
    *,
    base: int = 0,
    compressed: bool = False,
    producer: int | None = None,
) -> bytes:
    """A batch of format 2.

    Args:
        bad: which of them have such a header.
        base: the first offset.
        compressed: by gzip.
        producer: the number of a transactional one.
    """
    builder = DefaultRecordBatchBuilder(
        magic=2,
        compression_type=0,
        is_transactional=producer is not None,
        producer_id=-1 if producer is None else producer,
        producer_epoch=-1,
        base_sequence=-1,
        batch_size=1 << 24,
    )
    for n, value in enumerate(values):
        name = _STAND_IN if n in bad else "good"
        headers = [("first", b"1"), (name, b"x"), ("none", None)]
        assert builder.append(n, 1_000 + n, b"key-%d" % n, value, headers) is not None
    return sealed(bytes(builder.build()).replace(_STAND_IN.encode(), NAME), base, compressed)


def sealed(data: bytes, base: int = 0, compressed: bool = False) -> bytes:
    """A batch with its first offset and the checksum that is right."""
    head, records = bytearray(data[:RECORDS_AT]), data[RECORDS_AT:]
    if compressed:
        records = gzip_encode(records)
        head[Layout.ATTRIBUTES_OFFSET + 1] |= Layout.CODEC_GZIP
    struct.pack_into(">qi", head, 0, base, len(head) + len(records) - Layout.AFTER_LEN_OFFSET)
    whole = bytes(head[Layout.ATTRIBUTES_OFFSET :]) + records
    struct.pack_into(">I", head, Layout.CRC_OFFSET, calc_crc32c(whole))
    return bytes(head) + records


async def produce(
    producer: AIOKafkaProducer,
    topic: str,
    partition: int,
    values: Sequence[bytes],
    bad: Sequence[int],
) -> None:
    """Write them as one batch."""
    prepared = producer.create_batch()
    for n, value in enumerate(values):
        prepared.append(timestamp=1_000 + n, key=None, value=value)
    prepared._build()
    prepared._buffer = bytearray(batch(values, bad))
    await (await producer.send_batch(prepared, topic, partition=partition))
