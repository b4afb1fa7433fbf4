"""The log: one line an event on standard error; JSON for machines, readable on a terminal."""

from __future__ import annotations

import logging
import os
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Literal

from sidecar.telemetry import names
from sidecar.telemetry.lines import Fields, LineWriter, as_json, as_text, fitted

Style = Literal["auto", "json", "console"]
LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}
AGAIN_S = 60.0
"""How long a library's repeated words are held back."""
MOST_SAID = 256
_OWN = ("timestamp", "level", "event")


class Log:
    """Writes events as lines.

    Args:
        level: the lowest level that is written.
        style: `auto` is JSON unless `fd` is a terminal.
        fd: where to write; standard error.
        environ: for `NO_COLOR` and `TERM`.

    Raises:
        KeyError: there is no such level.
    """

    def __init__(
        self,
        *,
        level: str = "info",
        style: Style = "auto",
        fd: int = 2,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        terminal = _is_terminal(fd)
        text = style == "console" or (style == "auto" and terminal)
        colour = terminal and not environ.get("NO_COLOR") and environ.get("TERM") != "dumb"
        render = as_text(colour) if text else as_json
        structlog = _structlog()

        def last(_: object, __: str, fields: Fields) -> bytes:
            return fitted({**{k: fields.pop(k) for k in _OWN}, **fields}, render)

        self.dropped = 0
        """Lines given up since the last one that was written."""
        self._writer = LineWriter(fd)
        self._logger = structlog.wrap_logger(
            _Sink(self._writer.write),
            processors=[
                structlog.processors.add_log_level,
                structlog.processors.TimeStamper(fmt="iso", utc=True),
                last,
            ],
            wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
            context_class=dict,
        ).bind()

    def event(self, name: str, level: str, fields: Mapping[str, object]) -> bool:
        """Write one line. False when it was given up; never raises."""
        if self.dropped:
            dropped, self.dropped = self.dropped, 0
            if not self._write(names.LOG_DROPPED, "warning", {"lines": dropped}):
                self.dropped = dropped + 1
                return False
        written = self._write(name, level, fields)
        self.dropped += not written
        return written

    def _write(self, name: str, level: str, fields: Mapping[str, object]) -> bool:
        own = {f"{key}_" if key in _OWN else key: value for key, value in fields.items()}
        try:
            # None: the level says that the line isn't wanted.
            return self._logger.log(LEVELS.get(level, 40), name, **own) is not False
        except Exception:  # noqa: BLE001 - a log line must not end what it tells of
            return False


class _Sink:
    """The end of structlog's chain; it calls a method named for the level."""

    def __init__(self, write: Callable[[bytes], bool]) -> None:
        self.debug = self.info = self.warning = self.error = self.critical = write


def _is_terminal(fd: int) -> bool:
    try:
        return os.isatty(fd)
    except OSError:
        return False


def _structlog() -> ModuleType:
    """Import structlog without rich, which it would take in for tracebacks that we don't print.

    Rich comes with development tools only and would add 3.5 MB to the daemon there.
    """
    if "rich" in sys.modules or "structlog" in sys.modules:
        import structlog

        return structlog
    sys.modules["rich"] = None  # type: ignore[assignment]
    try:
        import structlog
    finally:
        del sys.modules["rich"]
    return structlog


class LibraryLogs(logging.Handler):
    """Passes what libraries log through the standard library on as events.

    A library that can't reach a server may say so at every attempt: the same is passed on once in
    `AGAIN_S`, with how often it came in between.

    Args:
        event: a Telemetry's `event`.
        now: monotonic seconds.
    """

    def __init__(
        self, event: Callable[..., None], now: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__(logging.WARNING)
        self._event = event
        self._now = now
        self._said: dict[tuple[str, str], list[float]] = {}
        """Since when each text is held back, and how often it was."""

    def _held_back(self, record: logging.LogRecord) -> int | None:
        """How often this was held back before it is said now; None: it is to be, too.

        Its template counts, not what is filled in. What tells of an exception is never held back.
        """
        if record.exc_info:
            return 0
        known = self._said.get(key := (record.name, str(record.msg)))
        if known is not None and self._now() - known[0] < AGAIN_S:
            known[1] += 1
            return None
        if len(self._said) >= MOST_SAID:
            self._said.clear()
        self._said[key] = [self._now(), 0]
        return int(known[1]) if known is not None else 0

    def emit(self, record: logging.LogRecord) -> None:
        """Called by the logging module; never raises."""
        repeated = self._held_back(record)
        if repeated is None:
            return
        try:
            message = record.getMessage()
        except Exception:  # noqa: BLE001 - a library's broken format string is not our end
            message = str(record.msg)
        fields: dict[str, str | int] = {"logger": record.name, "message": message}
        if repeated:
            fields["repeated"] = repeated
        if record.exc_info and record.exc_info[0] is not None:
            fields["traceback"] = "".join(traceback.format_exception(*record.exc_info))
        level = record.levelname.lower()
        self._event(names.LIBRARY, level=level if level in LEVELS else "warning", **fields)

    def install(self) -> None:
        """Become the only handler of the root logger."""
        logging.basicConfig(level=logging.WARNING, handlers=[self], force=True)
