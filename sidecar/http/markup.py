"""HTML that can't be forgotten to be escaped: text becomes markup in one place alone."""

from __future__ import annotations

import html
from typing import Final

_VOID: Final = frozenset({"link", "meta"})


class Markup(str):
    """Text that is HTML already. Anything else is escaped when it becomes part of one."""

    __slots__ = ()


Child = Markup | str | None
"""What an element may hold: text is escaped, and None is nothing."""


def element(name: str, /, *children: Child, **attributes: str | None) -> Markup:
    """One element.

    Args:
        attributes: by name; a trailing underscore is dropped (`class_`), others become hyphens,
            and None leaves one out. Values are quoted and escaped.
    """
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in _VOID:
        return Markup(f"<{name}{given}>")
    return Markup(f"<{name}{given}>{joined(*children)}</{name}>")


def joined(*children: Child) -> Markup:
    """One after the other."""
    return Markup("".join(_escaped(child) for child in children if child is not None))


def told(value: object) -> Markup:
    """Somebody else's words: a text of its own direction, that can't turn what stands around it."""
    return element("bdi", _plain(str(value)))


def _escaped(child: str) -> str:
    return child if isinstance(child, Markup) else html.escape(_plain(child))


def _plain(text: str) -> str:
    """Without what a page can't hold: control characters and halves of characters."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in text)
