"""The layer of the file: its tree walked along the tables of keys."""

from collections.abc import Iterable

from sidecar.config import keys
from sidecar.config.document import FILE_RANK, Entry, Node, Scalar, Sequence, Table
from sidecar.config.faults import Collector, Origin, Unfit
from sidecar.config.kinds import BOOLEAN
from sidecar.config.layers import Layer, hint
from sidecar.config.shapes import Key, Named, Path, Section
from sidecar.config.signal_keys import SIGNALS


def read_file(root: Node | None, source: str, faults: Collector) -> Layer:
    """The file's layer; None stands for no file."""
    reader = _FileReader(source, Layer(FILE_RANK, faults))
    if root is not None:
        reader.root(root)
    return reader.layer


class _FileReader:
    """Walks the file's tree along the tables of keys."""

    def __init__(self, source: str, layer: Layer) -> None:
        self.source, self.layer = source, layer

    def root(self, root: Node) -> None:
        table = self._table(root, root.line, ())
        if table is None:
            return
        block = table.entries.pop(keys.BLOCK, None) if keys.BLOCK in table.entries else None
        if block is not None:
            for name in keys.BLOCK_SIBLINGS:
                if name in table.entries and not _is_ours(name, table.entries[name].node):
                    del table.entries[name]
            if "breakers" in table.entries:
                fix = "move its settings to breakers.default and consul.address"
                self._refuse((), block.line, keys.BLOCK, "stands beside breakers", fix)
            else:
                self._block(block)
        self._section(keys.ROOT, table, (), extra=(keys.BLOCK,))

    def _block(self, block: Entry) -> None:
        origin = Origin(self.source, block.line, keys.BLOCK)
        table = self._table(block.node, block.line, (keys.BLOCK,))
        for path in ((keys.BLOCK,), ("consul",), ("breakers",), ("breakers", "default")):
            self.layer.sections[path] = origin
        for name, entry in table.entries.items() if table else ():
            shown = (keys.BLOCK, name)
            if name in keys.BLOCK_PATHS:
                self._leaf(keys.block_key(name), entry, keys.BLOCK_PATHS[name], shown)
            else:
                self._unknown(entry, shown, keys.BLOCK_PATHS)

    def _section(
        self, section: Section, table: Table, path: Path, extra: tuple[str, ...] = ()
    ) -> None:
        for name, entry in table.entries.items():
            here = (*path, name)
            key = section.find(name)
            if isinstance(key, Key):
                self._leaf(key, entry, here, here)
            elif key is None:
                self._unknown(entry, here, [*(k.name for k in section.keys), *extra])
            elif isinstance(key, Section) and key.switch and _switched(entry.node) is not None:
                self._leaf(key.switch, entry, (*here, key.switch.name), here)
            elif not (isinstance(key, Section) and key.optional and _is_off(entry.node)):
                self.layer.sections[here] = self._origin(entry.line, here)
                on = isinstance(key, Section) and key.optional and _switched(entry.node)
                inner = self._table(Table(entry.line, {}) if on else entry.node, entry.line, here)
                if inner is not None and isinstance(key, Named):
                    self._named(key, inner, here)
                elif inner is not None and isinstance(key, Section):
                    self._section(key, inner, here)

    def _named(self, named: Named, table: Table, path: Path) -> None:
        for name, entry in table.entries.items():
            here = (*path, name)
            if not self.layer.add(named, here, self._origin(entry.line, here)):
                continue
            inner = self._table(entry.node, entry.line, here)
            if inner is not None:
                self._section(named.each, inner, here)

    def _leaf(self, key: Key, entry: Entry, path: Path, shown: Path) -> None:
        node = entry.node
        items = node.items if isinstance(node, Sequence) and key.kind.many else [node]
        texts = [item.text for item in items if isinstance(item, Scalar) and not item.null]
        if isinstance(node, Scalar):
            text = None if node.null else node.text
        elif len(texts) == len(items):
            text = ",".join(texts)
        else:
            what = "a list of texts" if key.kind.many else "one value"
            self._refuse(path, entry.line, ".".join(shown), f"is not {what}", f"write {what}")
            return
        self.layer.put(path, key, self._origin(entry.line, shown, text))

    def _table(self, node: Node, line: int, path: Path) -> Table | None:
        """A section's mapping; one with nothing in it may be null."""
        if isinstance(node, Table):
            return Table(node.line, dict(node.entries))
        if isinstance(node, Scalar) and node.null:
            return Table(node.line, {})
        fix = "write its keys below it, indented" if path else "write key: value lines"
        self._refuse(path, line, ".".join(path), "is no mapping", fix)
        return None

    def _unknown(self, entry: Entry, path: Path, known: Iterable[str]) -> None:
        what = "signal" if path[-2:-1] == (SIGNALS.name,) else "key"
        fix = hint(path[-1], known)
        if path in _SOURCES_OWN:
            fix = f"{_SOURCES_OWN[path]}; only beside {keys.BLOCK} is it passed over"
        self._refuse(path, entry.line, ".".join(path), f"is an unknown {what}", fix)

    def _origin(self, line: int, path: Path, text: str | None = None) -> Origin:
        return Origin(self.source, line, ".".join(path), text)

    def _refuse(self, path: Path, line: int, key: str, problem: str, fix: str) -> None:
        self.layer.refuse(path, Origin(self.source, line, key), problem, fix)


_SOURCES_OWN = {("server",): "leave it out", ("kafka", "brokers"): "write bootstrap_servers"}
"""What the source system's own file has, and nobody else's; and what to do without its block."""


def _is_ours(name: str, node: Node) -> bool:
    """Whether what stands beside the source system's block is a section of this program's."""
    has = isinstance(node, Table) and "bootstrap_servers" in node.entries
    return name == keys.KAFKA.name and has


def _switched(node: Node) -> bool | None:
    """What a bare true or false in a section's place says; None for anything else."""
    if not isinstance(node, Scalar) or node.null:
        return None
    try:
        return bool(BOOLEAN.parse(node.text))
    except Unfit:
        return None


def _is_off(node: Node) -> bool:
    return (isinstance(node, Scalar) and node.null) or _switched(node) is False
