"""Records with a header whose name is no UTF-8 text: aiokafka can't read them; this can.

Only the decoding of a record is ours. Which batches count (transactions that were aborted, markers,
checksums) is decided by aiokafka's own `PartitionRecords`, which is given these instead of its own.
"""

from __future__ import annotations

from typing import Any, Final

from aiokafka.errors import CorruptRecordException
from aiokafka.record.default_records import _DefaultRecordBatchPy, _DefaultRecordPy
from aiokafka.record.legacy_records import LegacyRecordBatch
from aiokafka.record.util import decode_varint

_OVERHEAD: Final = 12
"""Of a batch: its first offset and how long the rest is."""
_MAGIC_AT: Final = 16
_LEAST: Final = {0: 26, 1: 34}
"""Bytes of a batch of that format; one of format 2 has at least `_LEAST_V2`."""
_LEAST_V2: Final = 61


def is_misnamed(error: BaseException) -> bool:
    """Whether that is what aiokafka raises for such a record."""
    # The second is its decoder's without the extension in C.
    return isinstance(error, UnicodeDecodeError) or (
        isinstance(error, CorruptRecordException)
        and isinstance(error.__cause__, UnicodeDecodeError)
    )


class Batches:
    """What a fetch has brought of a partition, in place of aiokafka's `MemoryRecords`.

    Args:
        data: the answer's bytes; the last batch may be cut off, and then doesn't count.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0
        self.names: dict[int, str] = {}
        """Offsets of records that aiokafka can't read, each with the last such name."""

    def _next_at(self) -> int:
        size = self._data[self._at + 8 : self._at + _OVERHEAD]
        return self._at + _OVERHEAD + int.from_bytes(size, signed=True)

    def has_next(self) -> bool:
        """Whether another whole batch is there."""
        return self._at + _OVERHEAD <= len(self._data) and self._next_at() <= len(self._data)

    def next_batch(self) -> Any:
        """The next one. Raises CorruptRecordException."""
        begin, end = self._at, self._next_at()
        batch = self._data[begin:end]
        magic = batch[_MAGIC_AT] if len(batch) > _MAGIC_AT else 0
        if len(batch) < _LEAST.get(magic, _LEAST_V2):
            raise CorruptRecordException(f"a batch of {len(batch)} bytes")
        self._at = end
        if magic in _LEAST:
            return LegacyRecordBatch(batch, magic)  # these know no headers
        return _Batch(batch, self.names)


class _Batch(_DefaultRecordBatchPy):  # type: ignore[misc] # aiokafka ships no types
    """As aiokafka's own in Python, which says at its end whether all bytes were used."""

    def __init__(self, data: bytes, names: dict[int, str]) -> None:
        super().__init__(data)
        self._pos: int
        self._names = names

    def _read_msg(self, *_: Any) -> Any:
        read = _Cursor(self._buffer, self._pos)
        end = read.number() + read.at
        read.at += 1  # attributes: none is in use
        timestamp = self.first_timestamp + read.number()
        if self.timestamp_type == self.LOG_APPEND_TIME:
            timestamp = self.max_timestamp
        offset = self.base_offset + read.number()
        key, value = read.data(), read.data()
        headers = [self._header(read, offset) for _ in range(read.number())]
        if read.at != end:
            raise CorruptRecordException(f"a record that ends at {read.at} instead of {end}")
        self._pos = end
        return _DefaultRecordPy(offset, timestamp, self.timestamp_type, key, value, headers)

    def _header(self, read: _Cursor, offset: int) -> tuple[str, bytes | None]:
        raw = read.data()
        if raw is None:
            raise CorruptRecordException("a header without a name")
        try:
            name = raw.decode()
        except UnicodeDecodeError:
            # Writable again, on a retry or dead-letter topic, and still to be told from others.
            name = self._names[offset] = raw.decode(errors="backslashreplace")
        return name, read.data()


class _Cursor:
    """Reads a record from its begin to its end."""

    __slots__ = ("at", "buffer")

    def __init__(self, buffer: bytearray, at: int) -> None:
        self.buffer = buffer
        self.at = at

    def number(self) -> int:
        """A varint. Raises IndexError behind the end."""
        number, self.at = decode_varint(self.buffer, self.at)
        return int(number)

    def data(self) -> bytes | None:
        """Bytes, with their number before them; None where that is negative."""
        size = self.number()
        if size < 0:
            return None
        begin, self.at = self.at, self.at + size
        if self.at > len(self.buffer):
            raise CorruptRecordException(f"{size} bytes of which not all are there")
        return bytes(self.buffer[begin : self.at])
