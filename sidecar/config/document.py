"""YAML text as a tree that knows its lines, bounded in size, depth and aliases.

Scalars stay text: what ``off``, ``0600`` or ``1:30`` means is for the key to say, not for YAML.
The parser's events are read rather than its objects because those keep neither lines nor
repeated keys. Where yaml itself trips over a text, that is a fault of the text too.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import msgspec

from sidecar.config.faults import Collector, Origin

if TYPE_CHECKING:
    import yaml

TEXT_MAX = 1 << 20  # bytes
NODES_MAX = 50_000  # with every alias written out, so that a few lines can't grow without end
DEPTH_MAX = 32
FILE_RANK = 0

_NULLS = ("", "~", "null", "Null", "NULL")
_TAG = "tag:yaml.org,2002:"
_TAGS = {None, "!", *(_TAG + t for t in ("str", "int", "float", "bool", "null", "map", "seq"))}


class Scalar(msgspec.Struct):
    """One value as it is written; ``null`` where it says that there is none."""

    line: int
    text: str
    null: bool = False
    size: int = 1


class Entry(msgspec.Struct):
    """A key's value with the line of the key."""

    line: int
    node: "Node"


class Table(msgspec.Struct):
    """A mapping in the order of the text."""

    line: int
    entries: dict[str, Entry]
    size: int = 1


class Sequence(msgspec.Struct):
    """A list."""

    line: int
    items: "list[Node]"
    size: int = 1


Node = Scalar | Table | Sequence


class _Refused(Exception):
    """The text can't be read any further."""

    def __init__(self, line: int | None, problem: str, fix: str) -> None:
        self.line, self.problem, self.fix = line, problem, fix


def read_document(text: str, source: str, faults: Collector) -> Node | None:
    """Parse a configuration text; None with faults noted where it can't be read."""
    try:
        if len(text) > TEXT_MAX or len(text.encode("utf-8", "surrogatepass")) > TEXT_MAX:
            raise _Refused(None, "is larger than 1MiB", "a configuration is a few KiB")
        return _Builder(_events(text), source, faults).document()
    except _Refused as refused:
        faults.add(FILE_RANK, Origin(source, refused.line, ""), refused.problem, refused.fix)
        return None


def _events(text: str) -> "Iterator[yaml.Event]":
    import yaml  # here, since the daemon needs it only while it loads

    fix = "mend the YAML"
    try:
        yield from yaml.parse(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = f"is not YAML: {error.problem or error.context}"
        raise _Refused(mark.line + 1 if mark else None, problem, fix) from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise _Refused(line, f"is not YAML: {error.reason}", fix) from error
    except (yaml.YAMLError, ValueError, OverflowError, IndexError) as error:
        raise _Refused(None, f"is not YAML: {error}", fix) from error


class _Builder:
    """Turns events into nodes, noting what is wrong inside and refusing what has no bound."""

    def __init__(self, events: "Iterator[yaml.Event]", source: str, faults: Collector) -> None:
        self._events, self._source, self._faults = events, source, faults
        self._anchors: dict[str, Node | None] = {}
        self._nodes = 0

    def document(self) -> Node:
        """The only document of the stream; an empty stream is an empty table."""
        found: Node | None = None
        for event in self._events:
            kind = type(event).__name__
            if kind == "DocumentStartEvent":
                if found is not None:
                    fix = "keep one configuration in the file"
                    raise _Refused(_line(event), "is a second YAML document", fix)
                found = self._node(next(self._events), ())
        return Table(1, {}) if found is None else found

    def _node(self, event: Any, path: tuple[str, ...]) -> Node:
        kind = type(event).__name__
        if len(path) > DEPTH_MAX:
            raise _Refused(_line(event), "is nested too deep", "a configuration has five levels")
        if kind == "AliasEvent":
            return self._alias(event)
        if event.tag not in _TAGS:
            # Not shown: an unquoted secret may begin with a ! and look like one.
            origin = Origin(self._source, _line(event), ".".join(path))
            problem = "is a tag that means nothing here"
            self._faults.add(FILE_RANK, origin, problem, "leave it out, or quote the value")
        if event.anchor is not None:
            self._anchors[event.anchor] = None
        node: Node
        if kind == "ScalarEvent":
            plain = event.implicit[0] or event.tag == f"{_TAG}null"
            node = Scalar(_line(event), event.value, null=plain and event.value in _NULLS)
        elif kind == "SequenceStartEvent":
            node = self._sequence(event, path)
        else:
            node = self._table(event, path)
        self._count(event, 1)
        if event.anchor is not None:
            self._anchors[event.anchor] = node
        return node

    def _alias(self, event: Any) -> Node:
        node = self._anchors.get(event.anchor)
        if node is None:
            # Not shown: an unquoted secret may begin with a * and look like one.
            fix = "define the anchor before it, and not around it, or quote the value"
            raise _Refused(_line(event), "an alias (*) names no anchor", fix)
        self._count(event, node.size)
        return node

    def _count(self, event: Any, nodes: int) -> None:
        self._nodes += nodes
        if self._nodes > NODES_MAX:
            fix = "a configuration has a few thousand, every alias written out"
            raise _Refused(_line(event), f"has more than {NODES_MAX} values", fix)

    def _sequence(self, start: Any, path: tuple[str, ...]) -> Sequence:
        items: list[Node] = []
        for event in self._events:
            if type(event).__name__ == "SequenceEndEvent":
                break
            items.append(self._node(event, (*path, str(len(items)))))
        return Sequence(_line(start), items, 1 + sum(item.size for item in items))

    def _table(self, start: Any, path: tuple[str, ...]) -> Table:
        entries: dict[str, Entry] = {}
        merged: list[Table] = []
        for event in self._events:
            if type(event).__name__ == "MappingEndEvent":
                break
            line = _line(event)
            key = self._node(event, (*path, "?"))
            name = key.text if isinstance(key, Scalar) else "?"
            value = self._node(next(self._events), (*path, name))
            if not isinstance(key, Scalar):
                self._note(line, path, "has a key that is no text", "write a plain key")
            elif key.text == "<<":
                merged += self._merge(line, path, value)
            elif key.text in entries:
                first = entries[key.text].line
                fix = f"keep one of the two; the first is on line {first}"
                self._note(line, (*path, name), "is given twice", fix)
            else:
                entries[key.text] = Entry(line, value)
        for table in merged:  # an entry of its own wins over a merged one, an earlier over a later
            entries = {**table.entries, **entries}
        return Table(_line(start), entries, 1 + sum(e.node.size for e in entries.values()))

    def _merge(self, line: int, path: tuple[str, ...], value: Node) -> list[Table]:
        """The tables that ``<<`` brings in."""
        tables = value.items if isinstance(value, Sequence) else [value]
        good = [table for table in tables if isinstance(table, Table)]
        if len(good) != len(tables):
            self._note(
                line, (*path, "<<"), "merges what is no mapping", "name mappings: <<: *anchor"
            )
        return good

    def _note(self, line: int, path: tuple[str, ...], problem: str, fix: str) -> None:
        origin = Origin(self._source, line, ".".join(path))
        self._faults.add(FILE_RANK, origin, problem, fix)


def _line(event: Any) -> int:
    return int(event.start_mark.line) + 1
