"""Plain HTTP/1.1 on keep-alive connections, as thin as a measurement needs it."""

from __future__ import annotations

import asyncio
import re
import socket
from typing import Self

DEADLINE_S = 30.0
_LENGTH = re.compile(rb"\r\ncontent-length:\s*(\d+)", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding:\s*chunked", re.IGNORECASE)
_INDEX = re.compile(rb"\r\nx-consul-index:\s*(\d+)", re.IGNORECASE)


def _request(method: str, path: str, body: bytes) -> bytes:
    head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n"
    if method != "GET":
        head += f"Content-Length: {len(body)}\r\n"
    return head.encode() + b"\r\n" + body


def _status(head: bytes) -> int:
    return int(head[9:12])


class Connection:
    """A blocking connection: `send` and `receive` apart, so that many can be asked at once."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=DEADLINE_S)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._rest = b""

    def send(self, method: str, path: str, body: bytes = b"") -> None:
        """Send a request; its answer is to be received before the next one."""
        self._socket.sendall(_request(method, path, body))

    def receive(self) -> tuple[int, bytes]:
        """Status and body. Only for answers with a length. Raises ConnectionError."""
        data = self._rest
        while (end := data.find(b"\r\n\r\n")) < 0:
            data += self._more()
        found = _LENGTH.search(data, 0, end)
        total = end + 4 + (int(found.group(1)) if found else 0)
        while len(data) < total:
            data += self._more()
        self._rest = data[total:]
        return _status(data), data[end + 4 : total]

    def _more(self) -> bytes:
        data = self._socket.recv(65536)
        if not data:
            raise ConnectionError("the server hung up")
        return data

    def request(self, method: str, path: str, body: bytes = b"") -> tuple[int, bytes]:
        """Both."""
        self.send(method, path, body)
        return self.receive()

    def close(self) -> None:
        """Hang up."""
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncConnection:
    """The same for a coroutine; reads chunked answers too, and Consul's index."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def to(cls, port: int) -> Self:
        """Connect."""
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    async def request(self, method: str, path: str, body: bytes = b"") -> tuple[int, int, bytes]:
        """Status, index (0 without one) and body."""
        self._writer.write(_request(method, path, body))
        head = await self._reader.readuntil(b"\r\n\r\n")
        index = _INDEX.search(head)
        content = await self._body(head)
        return _status(head), int(index.group(1)) if index else 0, content

    async def _body(self, head: bytes) -> bytes:
        if not _CHUNKED.search(head):
            length = _LENGTH.search(head)
            return await self._reader.readexactly(int(length.group(1)) if length else 0)
        parts = []
        while size := int(await self._reader.readuntil(b"\r\n"), 16):
            parts.append((await self._reader.readexactly(size + 2))[:-2])
        await self._reader.readuntil(b"\r\n")
        return b"".join(parts)

    def close(self) -> None:
        """Hang up."""
        self._writer.close()
