"""Durations as Go's ``time.ParseDuration`` reads them, and binary sizes.

The source system keeps its durations in YAML that a Go program reads, so the same texts have to
mean the same here.
"""

import re

_NS = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,  # U+00B5 micro sign
    "μs": 1_000,  # U+03BC Greek letter mu
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
}
_NS_MAX = 2**63 - 1  # Go counts nanoseconds in an int64
_TERM = re.compile(r"([0-9]*)(?:\.([0-9]*))?(ns|us|µs|μs|ms|s|m|h)")
_BYTES = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}
_SIZE = re.compile(r"([0-9]+)(?:\.([0-9]+))?(B|KiB|MiB|GiB|TiB)")
_TEXT_MAX = 100  # characters; nothing sensible is longer, and int() is quadratic

SIZE_PATTERN = r"^(0|[0-9]+(\.[0-9]+)?(B|KiB|MiB|GiB|TiB))$"
DURATION_PATTERN = r"^\+?(0|(([0-9]+(\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h))+)$"


class UnitError(ValueError):
    """The text is no duration or no size; its message says why."""


def parse_duration(text: str) -> float:
    """Read a duration into seconds: ``1h30m``, ``1.5h``, ``500ms``, ``-2us`` or a bare ``0``.

    Raises UnitError for anything that Go refuses: no unit, no digits, spaces, above 292 years.
    """
    sign = -1 if text.startswith("-") else 1
    body = text[1:] if text[:1] in ("+", "-") else text
    if body == "0":
        return 0.0
    if not body or len(body) > _TEXT_MAX:
        raise UnitError("is not a duration")
    total = at = 0
    while at < len(body):
        term = _TERM.match(body, at)
        if term is None or not (term[1] or term[2]):
            raise UnitError("is not a duration")
        total += _term_ns(term[1], term[2] or "", _NS[term[3]])
        at = term.end()
    if total > _NS_MAX:
        raise UnitError("is longer than a duration can be")
    return sign * total / _NS["s"]  # of two integers, and so rounded once


def _term_ns(whole: str, fraction: str, unit_ns: int) -> int:
    """One number with its unit in whole nanoseconds, cut off as Go cuts off."""
    scale: int = 10 ** len(fraction)
    part = int(fraction or "0") * unit_ns // scale
    return int(whole or "0") * unit_ns + part


def format_duration(seconds: float) -> str:
    """Write seconds as the shortest duration that reads back as the same float: ``1m30s``."""
    top, bottom = abs(seconds).as_integer_ratio()
    left = (2 * top * 10**9 + bottom) // (2 * bottom)
    if left == 0:
        return "0s"
    parts = ["-"] if seconds < 0 else []
    for unit in ("h", "m", "s"):
        count, left = divmod(left, _NS[unit])
        if count:
            parts.append(f"{count}{unit}")
    if left:
        unit = next(name for name in ("ms", "us", "ns") if left % _NS[name] == 0)
        parts.append(f"{left // _NS[unit]}{unit}")
    return "".join(parts)


def parse_size(text: str) -> int:
    """Read ``64KiB``, ``1.5GiB``, ``100B`` or a bare ``0`` into bytes; raises UnitError."""
    if text == "0":
        return 0
    found = _SIZE.fullmatch(text) if len(text) <= _TEXT_MAX else None
    if found is None:
        raise UnitError("is not a size")
    fraction = found[2] or ""
    scale: int = 10 ** len(fraction)
    total, rest = divmod(int(found[1] + fraction) * _BYTES[found[3]], scale)
    if rest:
        raise UnitError("is not a whole number of bytes")
    return total


def format_size(size: int) -> str:
    """Write bytes in the largest unit that divides them: ``65536`` is ``64KiB``."""
    if size == 0:
        return "0B"
    name = next(unit for unit in reversed(_BYTES) if size % _BYTES[unit] == 0)
    return f"{size // _BYTES[name]}{name}"
