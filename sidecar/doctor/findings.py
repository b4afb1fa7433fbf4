"""What a check found: one thing that is in order, unwise, or wrong, and then how it is mended."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """How bad it is. Only a fault makes the command fail."""

    OK = "ok"
    WARNING = "warning"
    FAULT = "fault"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One result.

    Args:
        check: what was looked at, of a short list: `consul`, `rights`, `data_dir`, …
        said: what is the case.
        key: the configuration key it is about.
        value: what that key holds; never a secret.
        mend: what to do about it; only something in order needs none.
    """

    check: str
    level: Level
    said: str
    key: str | None = None
    value: str | None = None
    mend: str | None = None

    def as_dict(self) -> dict[str, str | None]:
        """For JSON."""
        return {
            "check": self.check,
            "level": self.level,
            "key": self.key,
            "value": self.value,
            "said": self.said,
            "mend": self.mend,
        }


def fine(check: str, said: str, key: str | None = None, value: object = None) -> Finding:
    """Something is as it should be."""
    return Finding(check=check, level=Level.OK, said=said, key=key, value=_text(value))


def warning(
    check: str, said: str, mend: str, key: str | None = None, value: object = None
) -> Finding:
    """Something works, and is unwise or about to go wrong."""
    level = Level.WARNING
    return Finding(check=check, level=level, said=said, mend=mend, key=key, value=_text(value))


def fault(
    check: str, said: str, mend: str, key: str | None = None, value: object = None
) -> Finding:
    """Something keeps the sidecar from doing its work."""
    level = Level.FAULT
    return Finding(check=check, level=level, said=said, mend=mend, key=key, value=_text(value))


def count(findings: Iterable[Finding], level: Level) -> int:
    """How many there are of a level."""
    return sum(finding.level is level for finding in findings)


def _text(value: object) -> str | None:
    return None if value is None else str(value)
