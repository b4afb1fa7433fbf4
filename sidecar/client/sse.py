"""Server-sent events out of bytes as they come in. No I/O."""

from __future__ import annotations

from dataclasses import dataclass

EVENT_BYTES = 16 * 1024 * 1024
"""A snapshot of sixty breakers takes a hundredth of it; more is no sidecar."""


class NotEvents(ValueError):
    """What came is no stream of events, or one that nobody could keep."""


@dataclass(frozen=True, slots=True)
class Event:
    """One event as it was dispatched."""

    kind: str
    data: str
    id: str


class Parser:
    """Feed it chunks, split anywhere; it hands out the events that are complete.

    Follows the WHATWG description: lines end in LF, CRLF or CR, a blank one dispatches, one that
    begins with a colon is a comment, and an event without data is none.
    """

    def __init__(self, limit: int = EVENT_BYTES) -> None:
        self._limit = limit
        self._rest = b""
        self._after_cr = False
        self._kind = ""
        self._data: list[str] = []
        self._size = 0
        self._id = ""

    def feed(self, chunk: bytes) -> list[Event]:
        """The events this chunk completed.

        Raises:
            NotEvents: it is no UTF-8, or an event grows beyond the limit.
        """
        if self._after_cr and chunk:
            chunk = chunk.removeprefix(b"\n")
            self._after_cr = False
        text = self._rest + chunk
        # A CR at the very end may be half of a CRLF: it ends the line, and the LF is dropped.
        self._after_cr = text.endswith(b"\r")
        *lines, self._rest = text.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        events = [event for line in lines if (event := self._line(line)) is not None]
        if self._size + len(self._rest) > self._limit:
            raise NotEvents(f"an event of more than {self._limit} bytes")
        return events

    def _line(self, line: bytes) -> Event | None:
        if not line:
            return self._dispatch()
        try:
            field, _, value = line.decode().partition(":")
        except UnicodeDecodeError as error:
            raise NotEvents("a line that is no UTF-8") from error
        value = value.removeprefix(" ")
        if field == "data":
            self._data.append(value)
            self._size += len(line)
        elif field == "event":
            self._kind = value
        elif field == "id" and "\0" not in value:
            self._id = value
        return None

    def _dispatch(self) -> Event | None:
        kind, data = self._kind or "message", self._data
        self._kind, self._data, self._size = "", [], 0
        return Event(kind, "\n".join(data), self._id) if data else None
