"""What tables of keys are made of."""

from typing import Any

import msgspec

from sidecar.config.kinds import Kind

Path = tuple[str, ...]

TIMER_LEAST_S = 0.1  # no timer of a breaker may turn faster
DAY_S = 86_400.0
COUNT_MAX = 2**63 - 1  # an int64 in the source system


class Key(msgspec.Struct, frozen=True):
    """One setting; ``nullable`` ones can be null, ``secret`` ones are never repeated."""

    name: str
    kind: Kind
    nullable: bool = False
    secret: bool = False
    field: str = ""

    @property
    def attribute(self) -> str:
        """The model's field: the key's own name, with _s for a duration."""
        return self.field or self.name


class Section(msgspec.Struct, frozen=True):
    """A mapping of known keys that becomes one struct of the model.

    An ``optional`` one that nobody writes, or that is null or false, leaves its field None; true
    stands for all of its defaults. One with a key ``enabled`` may be written as that key's value,
    and is on where any other key of it is written.
    """

    name: str
    struct: type[Any]
    keys: "tuple[Key | Section | Named, ...]"
    optional: bool = False

    def find(self, name: str) -> "Key | Section | Named | None":
        """The key of that name, None where there is none."""
        return next((key for key in self.keys if key.name == name), None)

    @property
    def switch(self) -> Key | None:
        """The key that a bare true or false in the section's place is meant for."""
        key = self.find("enabled")
        return key if isinstance(key, Key) else None


class Named(msgspec.Struct, frozen=True):
    """A mapping of names, each to a section of the same keys."""

    name: str
    each: Section
    names: Kind
    reserved: tuple[str, ...] = ()


def timer(name: str, kind: Kind) -> Key:
    """A duration; its field is in seconds."""
    return Key(name, kind, field=f"{name}_s")


def nullable_timer(name: str, kind: Kind) -> Key:
    """One that can be null."""
    return Key(name, kind, nullable=True, field=f"{name}_s")
