"""One log event as one line: safe to print, never with a secret, and never longer than a page.

Whatever a client, a record in the store or a library says can end up in a field, so a line holds
printable characters only: no line breaks, no terminal control sequences, no reordering marks.
"""

from __future__ import annotations

import json
import math
import os
import re
import select
from collections.abc import Callable, Mapping, MutableMapping

Fields = MutableMapping[str, object]
Renderer = Callable[[Fields], str]

LINE_BYTES = 4096
"""PIPE_BUF on Linux: a pipe that is ready takes this much at once, whole and without waiting."""
_CLIPS = (1024, 256, 64)
"""Characters of one text, tried in turn until the line fits."""
_ITEMS = 32
_GRACE_MS = 10
"""How long a reader that has kept up so far may make us wait."""

_SECRET_KEY = re.compile(r"(?:^|[_-])(?:token|authorization|password|secret)$", re.IGNORECASE)
_SECRET_TEXT = re.compile(
    r"(?i)\b(bearer\s+|x-consul-token['\"]?\s*[:=]\s*['\"]?|token=)[^\s'\",&}]+"
)
_PLAIN = re.compile(r"[A-Za-z0-9_.,:/@%+*-]+")
_MASK = "***"

_COLOURS = {"debug": "2", "warning": "33", "error": "31", "critical": "1;31"}


def printable(text: str) -> str:
    """The text with everything that could move a cursor or break a line written as an escape."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else _escape(c) for c in text)


def _escape(char: str) -> str:
    code = ord(char)
    return {"\n": "\\n", "\t": "\\t", "\r": "\\r"}.get(
        char, f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
    )


def as_json(fields: Fields) -> str:
    """A JSON object in pure ASCII, where every control character is an escape."""
    return json.dumps(fields, default=str).replace("\x7f", "\\u007f")


def as_text(colour: bool) -> Renderer:
    """For people: time, level, event, then key=value."""

    def render(fields: Fields) -> str:
        stamp, level = str(fields.get("timestamp", "")), str(fields.get("level", ""))
        head = f"{stamp[11:23]} {level.upper():<8} {printable(str(fields.get('event', '')))}"
        if colour and level in _COLOURS:
            head = f"\x1b[{_COLOURS[level]}m{head}\x1b[0m"
        rest = (
            f"{printable(key)}={_text(value)}"
            for key, value in fields.items()
            if key not in {"timestamp", "level", "event"}
        )
        return " ".join([head, *rest])

    return render


def _text(value: object) -> str:
    if isinstance(value, str):
        return value if _PLAIN.fullmatch(value) else _quoted(value)
    if isinstance(value, list | tuple):
        return "[" + " ".join(_text(item) for item in value) + "]"
    return printable(str(value))


def _quoted(text: str) -> str:
    return '"' + printable(text).replace('"', '\\"') + '"'


def fitted(fields: Fields, render: Renderer) -> bytes:
    """The line, its break included: texts are clipped until it fits."""
    for clip in _CLIPS:
        line = render({key: _tamed(key, value, clip) for key, value in fields.items()})
        data = (line + "\n").encode("utf-8", "backslashreplace")
        if len(data) <= LINE_BYTES:
            return data
    kept = {k: _tamed(k, fields[k], 64) for k in ("timestamp", "level", "event") if k in fields}
    return (render({**kept, "truncated": True}) + "\n").encode("utf-8", "backslashreplace")


def _tamed(key: str, value: object, clip: int) -> object:
    """A value that JSON can hold, without secrets, and not too long."""
    tamed: object = value
    if value is not None and _SECRET_KEY.search(key):
        tamed = _MASK
    elif isinstance(value, Mapping):
        some = list(value.items())[:_ITEMS]
        tamed = {str(k)[:clip]: _tamed(str(k), v, clip) for k, v in some}
    elif isinstance(value, list | tuple | set | frozenset):
        tamed = [_tamed("", item, clip) for item in list(value)[:_ITEMS]]
    elif isinstance(value, float) and not math.isfinite(value):
        tamed = str(value)
    elif value is not None and not isinstance(value, int | float):
        tamed = _clipped(_SECRET_TEXT.sub(rf"\1{_MASK}", str(value)), clip, key == "traceback")
    return tamed


def _clipped(text: str, clip: int, keep_end: bool) -> str:
    """At most `clip` characters; of a traceback the end says what happened."""
    if len(text) <= clip:
        return text
    return "…" + text[-clip:] if keep_end else text[:clip] + "…"


class LineWriter:
    """Writes whole lines to a descriptor, and gives a line up rather than wait for a reader.

    The descriptor stays blocking, since others may share it; it is asked before each write.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._poll = select.poll()
        self._poll.register(fd, select.POLLOUT)
        self._keeps_up = True

    def write(self, line: bytes) -> bool:
        """False when the line was given up: a full pipe, a full disk, nobody there."""
        try:
            ready = self._poll.poll(_GRACE_MS if self._keeps_up else 0)
            self._keeps_up = bool(ready) and os.write(self._fd, line) == len(line)
        except OSError:
            self._keeps_up = False
        return self._keeps_up
