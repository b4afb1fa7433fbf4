"""What each place says: the file, the environment and the flags, each checked for itself.

A layer maps paths such as ("consul", "address") to values. Precedence is the order of merging:
a flag beats the environment, that the file, and that the model's default. Every layer is checked
whole, so that a bad value is told even where another place overrides it.
"""

from collections.abc import Iterable
from typing import Any

import msgspec

from sidecar.config.addresses import with_scheme
from sidecar.config.document import FILE_RANK
from sidecar.config.faults import MASK, Collector, Origin, Unfit
from sidecar.config.shapes import Key, Named, Path

CONSUL_RANK = FILE_RANK + 1  # Consul's own variables: the machine's say on where Consul is
ENVIRONMENT_RANK = FILE_RANK + 2
FLAG_RANK = FILE_RANK + 3


class Given(msgspec.Struct, frozen=True):
    """A value that somebody wrote, where, and how much that place counts."""

    value: Any
    origin: Origin
    rank: int


class Layer:
    """The good values of one place, the sections it has, and the paths it has wrong."""

    def __init__(self, rank: int, faults: Collector) -> None:
        self.rank = rank
        self.given: dict[Path, Given] = {}
        self.sections: dict[Path, Origin] = {}
        self.bad: set[Path] = set()
        self._faults = faults

    def put(self, path: Path, key: Key, origin: Origin) -> None:
        """Take the text of one key in, null being None; note it where it doesn't fit."""
        shown = origin
        if key.secret and origin.text is not None:
            shown = msgspec.structs.replace(origin, text=MASK)
        self.open(path[:-1], origin)
        try:
            value = _read(key, origin.text)
        except Unfit as unfit:
            if unfit.shown is not None:
                shown = msgspec.structs.replace(origin, text=unfit.shown)
            self.refuse(path, shown, unfit.problem, unfit.fix)
            return
        before = self.given.get(path)
        if before is not None and not _same(path, before.value, value):
            other = before.origin
            name = other.key if other.key != origin.key else other.source
            problem = f"says otherwise than {name} ({other.text})"
            self.refuse(path, shown, problem, "keep one of the two")
            return
        self.given[path] = Given(value, shown, self.rank)

    def open(self, path: Path, origin: Origin) -> None:
        """Note a section as written, with all around it."""
        for depth in range(1, len(path) + 1):
            self.sections.setdefault(path[:depth], origin)

    def refuse(self, path: Path, origin: Origin, problem: str, fix: str) -> None:
        """Note a fault and leave the path out."""
        self.bad.add(path)
        self._faults.add(self.rank, origin, problem, fix)

    def add(self, named: Named, path: Path, origin: Origin) -> bool:
        """Open the section of a name; False, with a fault noted, where it can't be one."""
        name = path[-1]
        if path in self.sections:
            return True
        try:
            if name in named.reserved:
                raise Unfit("is a reserved name", f"name it otherwise, such as {name}-flow")
            named.names.parse(name)
        except Unfit as unfit:
            self.refuse(path, origin, unfit.problem, unfit.fix)
            return False
        self.sections[path] = origin
        return True

    def has(self, section: Path) -> bool:
        """Whether anybody wrote this section or a key of it."""
        here = len(section)
        return section in self.sections or any(path[:here] == section for path in self.given)

    def names(self, below: Path = ("breakers",)) -> list[str]:
        """The names that this layer has below a path, in order; the breakers' by default."""
        return [path[-1] for path in self.sections if path[:-1] == below]


def merge(layers: Iterable[Layer], faults: Collector) -> Layer:
    """One layer out of many, a later one winning over an earlier."""
    merged = Layer(FILE_RANK, faults)
    for layer in layers:
        merged.given.update(layer.given)
        merged.bad |= layer.bad
        for path, origin in layer.sections.items():
            merged.sections.setdefault(path, origin)
    return merged


def hint(name: str, known: Iterable[str]) -> str:
    """What was probably meant by an unknown name."""
    from difflib import get_close_matches  # here, since a sound configuration needs no hints

    names = list(known)
    close = get_close_matches(name[:64].lower(), names, 1)
    return f"did you mean {close[0]}?" if close else f"known here: {', '.join(names)}"


def _read(key: Key, text: str | None) -> Any:
    if text is None or (key.nullable and text == "null"):
        if not key.nullable:
            raise Unfit("has no value", "write one, or leave the key out for the default")
        return None
    if key.kind.many:
        return tuple(key.kind.parse(part) for part in _parts(text))
    return key.kind.parse(text)


def _parts(text: str) -> Iterable[str]:
    """What a list holds: commas between, and where a variable is written as YAML its brackets."""
    text = text.strip()
    if text.startswith("[") and text.endswith("]"):
        return (bare for part in text[1:-1].split(",") if (bare := part.strip(" \t'\"")))
    return (part for part in text.split(",") if part.strip())


def _same(path: Path, one: Any, other: Any) -> bool:
    if path == ("consul", "address"):
        return with_scheme(one, "http") == with_scheme(other, "http")
    return bool(one == other)
