"""What is wrong with a configuration: every fault with its key, value, place and mend."""

from collections.abc import Iterable

import msgspec

MASK = "***"
_SHOWN = 80  # characters of a key or value that a message repeats
_FAULTS_MAX = 1000  # past this a file is no configuration, and the rest is counted only


class Origin(msgspec.Struct, frozen=True):
    """Where a value was written: the file and line, the variable or the flag, and the key."""

    source: str
    line: int | None
    key: str
    text: str | None = None


class Fault(msgspec.Struct, frozen=True):
    """One thing that must be mended before the configuration can be used."""

    key: str
    value: str | None
    line: int | None
    problem: str
    fix: str
    source: str = "configuration"

    def __str__(self) -> str:
        where = self.source if self.line is None else f"{self.source}:{self.line}"
        key = f"{self.key}: " if self.key else ""
        got = "" if self.value is None else f" (got {self.value!r})"
        sentence = f"{where}: {key}{self.problem}{got}; {self.fix}"
        return "".join(char if char.isprintable() else "�" for char in sentence)


class ConfigFaults(Exception):
    """The configuration is refused whole; its text lists every fault, one a line."""

    def __init__(self, faults: Iterable[Fault]) -> None:
        self.faults = list(faults)
        super().__init__("\n".join(str(fault) for fault in self.faults))


class Unfit(ValueError):
    """A value that its key can't take. ``shown`` stands for it in messages where it has secrets."""

    def __init__(self, problem: str, fix: str, shown: str | None = None) -> None:
        self.problem, self.fix, self.shown = problem, fix, shown
        super().__init__(problem)


class Collector:
    """Gathers faults, so that one run tells them all."""

    def __init__(self) -> None:
        self._faults: list[tuple[int, Fault]] = []
        self._dropped = 0

    def add(self, rank: int, origin: Origin, problem: str, fix: str) -> None:
        """Note a fault; rank is the precedence of the place it was written in."""
        if len(self._faults) >= _FAULTS_MAX:
            self._dropped += 1
            return
        value = None if origin.text is None else _clip(origin.text)
        # The source stands whole: it is where the reader goes next, and as long as a path may be.
        fault = Fault(_clip(origin.key), value, origin.line, problem, fix, origin.source)
        self._faults.append((rank, fault))

    def __bool__(self) -> bool:
        return bool(self._faults)

    def raise_any(self) -> None:
        """Raise ConfigFaults, in the order of the file and then of the environment, if any."""
        if not self._faults:
            return
        ordered = sorted(self._faults, key=lambda item: (item[0], item[1].line or 0))
        faults = [fault for _, fault in ordered]
        if self._dropped:
            more = f"and {self._dropped} more faults"
            faults.append(Fault("", None, None, more, "mend these first", faults[-1].source))
        raise ConfigFaults(faults)


def _clip(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
