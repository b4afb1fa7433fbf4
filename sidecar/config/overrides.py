"""The layers above the file: variables ``BREAKER_SIDECAR__…`` and the command line's flags."""

from collections.abc import Callable, Iterable, Mapping

from sidecar.config import keys
from sidecar.config.faults import Collector, Origin
from sidecar.config.layers import ENVIRONMENT_RANK, FLAG_RANK, Layer, hint
from sidecar.config.shapes import Key, Named, Path, Section

PREFIX = "BREAKER_SIDECAR__"
_BETWEEN = "__"


def read_environment(
    environ: Mapping[str, str], breakers: Iterable[str], faults: Collector
) -> Layer:
    """The layer of the variables; ``breakers`` are the names that a variable may mean.

    ``BREAKER_SIDECAR__BREAKERS__ORDERS_EU__MODE`` is the mode of ``orders-eu`` where there is
    such a breaker (variables have no case and no dashes or dots), else of a new ``orders_eu``.
    An empty variable says nothing.
    """
    layer = Layer(ENVIRONMENT_RANK, faults)
    known = list(breakers)
    for variable in sorted(name for name in environ if name.upper().startswith(PREFIX)):
        text = environ[variable]
        parts = tuple(variable[len(PREFIX) :].lower().split(_BETWEEN))
        if text:
            _put(layer, parts, Origin(variable, None, variable, text), _matcher(known), _BETWEEN)
    return layer


def read_flags(flags: Mapping[str, object], breakers: Iterable[str], faults: Collector) -> Layer:
    """The layer of flags by their dotted keys, such as ``listen.address``; None is not given."""
    layer = Layer(FLAG_RANK, faults)
    known = list(breakers)
    for name, value in flags.items():
        if value is not None:
            origin = Origin(f"flag {name}", None, name, _flag_text(value))
            _put(layer, tuple(name.split(".")), origin, _matcher(known), ".")
    return layer


def _put(
    layer: Layer, parts: Path, origin: Origin, named: Callable[[str], list[str]], between: str
) -> None:
    """Find the key that the parts mean and give it the text."""
    if parts[0] == keys.BLOCK and len(parts) == 2 and parts[1] in keys.BLOCK_PATHS:
        origin = Origin(origin.source, None, ".".join(parts), origin.text)
        layer.sections.setdefault((keys.BLOCK,), origin)
        layer.put(keys.BLOCK_PATHS[parts[1]], keys.block_key(parts[1]), origin)
        return
    path = _resolve(parts, between)
    if path is None:
        layer.refuse(parts, _valueless(origin, parts), *_unknown(parts))
        return
    if path[0] == keys.BREAKERS.name:
        names = named(path[1])
        if len(names) > 1:
            fix = "set it in the file"
            problem = f"may mean the breakers {' or '.join(names)}"
            layer.refuse(path, _valueless(origin, parts), problem, fix)
            return
        path = (path[0], *names, *path[2:])
    named_at = keys.find_named(path)
    if named_at is not None:
        among, step = named_at
        section = path[: step + 1]
        if not layer.add(among, section, Origin(origin.source, None, ".".join(section))):
            return
    origin = Origin(origin.source, None, ".".join(path), origin.text)
    key = keys.find_key(path)
    whole = keys.find_switched(path)
    if key is not None:
        layer.put(path, key, origin)
    elif whole is not None:
        _switch(layer, whole, path, origin)


def _switch(layer: Layer, section: Section, path: Path, origin: Origin) -> None:
    """A section as a whole: its defaults, or the key that says whether it is on."""
    if section.switch is not None:
        layer.put((*path, section.switch.name), section.switch, origin)
    elif origin.text in ("{}", "true"):
        layer.open(path, origin)
    else:
        fix = "write {} for its defaults, or name one key of it"
        layer.refuse(path, origin, "is a section", fix)


def _resolve(parts: Path, between: str) -> Path | None:
    """The path of a key, or of a section that can be switched on; a breaker's name may itself hold
    what stands between the parts."""
    if parts[0] != keys.BREAKERS.name:
        return parts if keys.find_key(parts) or keys.find_switched(parts) else None
    for end in range(2, len(parts)):
        path = (parts[0], between.join(parts[1:end]), *parts[end:])
        if path[1] and (keys.find_key(path) or keys.find_switched(path)):
            return path
    return None


def _matcher(known: list[str]) -> Callable[[str], list[str]]:
    """Which known breakers a name means; a name that means none is a new breaker's."""

    def match(name: str) -> list[str]:
        if name in known:
            return [name]
        for fold in (str.lower, _as_variable):
            found = [other for other in known if fold(other) == fold(name)]
            if found:
                return found
        return [name]

    return match


def _as_variable(name: str) -> str:
    return name.lower().replace("-", "_").replace(".", "_")


def _unknown(parts: Path) -> tuple[str, str]:
    """The problem and the mend for a name that leads to no key."""
    here: Key | Section | Named | None = keys.ROOT
    for depth, part in enumerate(parts):
        if isinstance(here, Named):
            here = here.each
        elif isinstance(here, Section):
            known = [key.name for key in here.keys]
            here = here.find(part)
            if here is None:
                known += [keys.BLOCK] if depth == 0 else []
                return "is an unknown key", hint(part, known or ["(nothing yet)"])
        else:
            return "goes on after a key", f"end it at {parts[depth - 1]}"
    return "is a section", "name one key of it"


def _valueless(origin: Origin, parts: Path) -> Origin:
    """Without the value, since a mistyped name may be a secret's."""
    return Origin(origin.source, None, ".".join(parts))


def _flag_text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (list, tuple)):
        return ",".join(str(item) for item in value)
    return str(value)
