"""What the tests of the door share: requests as bytes, and the table that docs/security.md shows.

Each test tries the rules of one section and hands over what it saw. The documented table must say
the same, row by row; `make docs-security` writes it anew from a run.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass

from tests.servers import ROOT

PAGE = ROOT / "docs" / "security.md"
WRITE = "BREAKER_WRITE_SECURITY"
SECTIONS = (
    "host",
    "origin",
    "open",
    "orders",
    "methods",
    "bodies",
    "paths",
    "framing",
    "versions",
    "sizes",
    "slow",
    "crowds",
    "secrets",
    "injection",
    "files",
)
"""Every table of the page."""
DEADLINE_S = 30.0
Address = tuple[str, int] | str
"""TCP's, or the path of a unix socket."""
Row = tuple[str, ...]


def check_section(name: str, heads: Row, rows: Sequence[Row]) -> None:
    """Compare what was seen with the page, or write it there where that is asked for."""
    table = _table(heads, rows)
    text = PAGE.read_text("utf-8")
    found = re.search(_section(name), text, re.DOTALL)
    assert found is not None, f"{PAGE.name} has no place for {name}"
    if os.environ.get(WRITE) == "1":
        PAGE.write_text(text[: found.start(1)] + table + text[found.end(1) :], "utf-8")
        return
    told = found.group(1).splitlines()
    seen = table.splitlines()
    differing = [f"- {line}" for line in told if line not in seen]
    differing += [f"+ {line}" for line in seen if line not in told]
    assert table == found.group(1), "\n".join(
        [f"{PAGE.name} says otherwise of {name}; `make docs-security` writes it anew", *differing]
    )


def documented() -> list[str]:
    """The sections that the page has a place for."""
    return re.findall(r"<!-- seen: ([a-z]+) -->", PAGE.read_text("utf-8"))


def _section(name: str) -> str:
    return rf"<!-- seen: {name} -->\n(.*?)<!-- end -->"


def _table(heads: Row, rows: Sequence[Row]) -> str:
    lines = [heads, tuple("---" for _ in heads), *rows]
    return "".join("| " + " | ".join(map(_cell, line)) + " |\n" for line in lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


@dataclass(frozen=True, slots=True)
class Said:
    """One answer as it came."""

    status: int
    version: str
    headers: dict[str, str]
    body: bytes

    def __str__(self) -> str:
        """The status, with the problem's own name and what `Allow` lists."""
        said = str(self.status)
        if named := re.search(rb'"type":"urn:breaker-sidecar:([a-z-]+)"', self.body):
            said += f" {named.group(1).decode()}"
        if "allow" in self.headers:
            said += f", Allow: {self.headers['allow']}"
        return said


class Wire:
    """A connection that sends exactly what it is told, and reads answers one by one."""

    def __init__(self, address: Address) -> None:
        family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
        self.socket = socket.socket(family)
        self.socket.settimeout(DEADLINE_S)
        self.socket.connect(address)
        self._rest = b""

    def send(self, data: bytes) -> None:
        """Send it all, or what the other end takes before it closes."""
        try:
            self.socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            return

    def close(self) -> None:
        """End it."""
        self.socket.close()

    def _more(self) -> bool:
        try:
            part = self.socket.recv(1 << 16)
        except ConnectionResetError:
            return False
        self._rest += part
        return bool(part)

    def answer(self, *, bare: bool = False) -> Said | None:
        """The next answer, `bare` being one to HEAD; None where the connection ends instead."""
        while b"\r\n\r\n" not in self._rest:
            if not self._more():
                assert not self._rest, f"half an answer: {self._rest[:200]!r}"
                return None
        head, _, self._rest = self._rest.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        version, status, _ = first.split(" ", 2)
        pairs = (line.partition(":") for line in lines)
        headers = {name.lower(): value.strip() for name, _, value in pairs}
        size = 0 if bare else int(headers.get("content-length", 0))
        while len(self._rest) < size:
            assert self._more(), "an answer broke off"
        body, self._rest = self._rest[:size], self._rest[size:]
        return Said(int(status), version, headers, body)

    def to_the_end(self) -> Iterator[Said]:
        """All answers until the connection is closed."""
        while (said := self.answer()) is not None:
            yield said


def request(line: str, *headers: str, body: bytes = b"", end: str = "\r\n") -> bytes:
    """A request as bytes; each character of the text is one."""
    return end.join([line, *headers, "", ""]).encode("latin-1") + body


def tried(address: Address, data: bytes, want: str, *, first: bytes = b"") -> str:
    """Send a request and say what came: the answers, and `closed` where the connection ended.

    Args:
        want: what is expected; it tells how many answers to wait for, and whether to wait for the
            end. Whatever comes is what is returned.
        first: a request in front of it, in the same packet, whose answer is left out.
    """
    bare = data.startswith(b"HEAD ")
    with closing(Wire(address)) as wire:
        wire.send(first + data)
        if want.endswith("closed"):
            said = [str(one) for one in wire.to_the_end()]
            if first and len(said) > want.count(",") - want.count(", Allow"):
                said = said[1:]
            return ", ".join([*said, "closed"])
        if first:
            assert wire.answer() is not None
        count = len(re.findall(r"(?:^|, )[0-9]{3}", want))
        return ", ".join(str(wire.answer(bare=bare)) for _ in range(count))
