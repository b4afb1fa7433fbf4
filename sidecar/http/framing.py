"""Plain HTTP/1.1: where a message ends beyond doubt, and answers as aiohttp writes them.

For the lanes that answer without aiohttp. What is left to aiohttp though it need not be costs time;
what is taken though aiohttp would have read it otherwise would be a defect, so that every rule
here leaves out more than it must.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from time import time

from aiohttp import web
from aiohttp.helpers import rfc822_formatted_time
from aiohttp.http import SERVER_SOFTWARE

MAX_HEAD = 8192
"""Bytes. What is longer has something in it that is worth a parser."""
HEADERS = rb"((?:[A-Za-z0-9-]+:[\t -~]*\r\n)+)\r\n"
"""A block of headers with the empty line behind it; the block is the pattern's group."""
_MAX_HEADERS = 64
_MAX_LENGTH_DIGITS = 4
"""A body of up to 9,999 bytes is followed to its end; reports are a few hundred."""
_HEAD = re.compile(rb"(?!CONNECT )[A-Z]+ /[!-~]* HTTP/1\.1\r\n" + HEADERS)
_STEERING = frozenset(
    {
        b"expect",
        b"proxy-connection",
        b"sec-websocket-key1",
        b"transfer-encoding",
        b"upgrade",
    }
)
"""What frames a message in another way or steers a connection."""


Found = Mapping[bytes, bytes]
"""Headers' values by lower-case name."""


def headers(block: bytes) -> Found | None:
    """Values by lower-case name, without the blanks around them.

    None where anything is out of the way. A repeated header is: some may be and some may not, and
    it matters to few.
    """
    lines = block.split(b"\r\n")
    found = {}
    for line in lines[:-1]:
        name, _, value = line.partition(b":")
        found[name.lower()] = value.strip(b" \t")
    if len(found) != len(lines) - 1 or len(found) > _MAX_HEADERS or b"host" not in found:
        return None
    if not _STEERING.isdisjoint(found):
        return None
    if found.get(b"connection", b"keep-alive").lower() != b"keep-alive":
        return None
    return found


def length(found: Found) -> int | None:
    """Bytes of the body, 0 without one; None where that isn't plain."""
    given = found.get(b"content-length", b"0")
    return int(given) if given.isdigit() and len(given) <= _MAX_LENGTH_DIGITS else None


def owed(data: bytes) -> int | None:
    """How many bytes are still to come of the message that begins `data`.

    None: it isn't plain where that message ends, or something follows it already.
    """
    match = _HEAD.match(data)
    found = headers(match.group(1)) if match is not None else None
    size = length(found) if found is not None else None
    if match is None or size is None:
        return None
    left = match.end() + size - len(data)
    return left if left >= 0 else None


def head(status: int, given: Sequence[tuple[str, str]], size: int) -> bytes:
    """An answer up to its body, byte for byte as aiohttp sends it now."""
    lines = [
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}",
        *(f"{name}: {value}" for name, value in given),
        f"Content-Length: {size}",
        f"Date: {rfc822_formatted_time()}",
        f"Server: {SERVER_SOFTWARE}",
        "\r\n",
    ]
    return "\r\n".join(lines).encode()


class Heads:
    """Heads of answers that differ in little but their length; each is written once a second.

    Args:
        given: headers that all of them have.
    """

    __slots__ = ("_given", "_known", "_second")

    def __init__(self, given: Sequence[tuple[str, str]]) -> None:
        self._given = given
        self._known: dict[tuple[int, int], bytes] = {}
        self._second = -1
        """The one in `Date`."""

    def of(self, status: int, size: int) -> bytes:
        """The head of an answer with so many bytes of body."""
        second = int(time())
        if second != self._second:
            self._second = second
            self._known.clear()
        known = self._known.get((status, size))
        if known is None:
            known = self._known[status, size] = head(status, self._given, size)
        return known


def whole(response: web.Response, *more: tuple[str, str]) -> bytes:
    """A small answer of aiohttp's, with further headers, byte for byte as it would be sent."""
    body = response.body if isinstance(response.body, bytes) else b""
    return head(response.status, [*response.headers.items(), *more], len(body)) + body
