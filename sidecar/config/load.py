"""Text, environment and flags become one Config, or every fault at once."""

from collections.abc import Mapping
from pathlib import Path as FilePath
from typing import Any

from sidecar.config import keys, model
from sidecar.config.addresses import join_host_port, split_host_port
from sidecar.config.consul_env import read_consul_environment, settle
from sidecar.config.document import FILE_RANK, TEXT_MAX, read_document
from sidecar.config.faults import Collector, ConfigFaults, Fault, Origin, Unfit
from sidecar.config.file_layer import read_file
from sidecar.config.kinds import count
from sidecar.config.layers import ENVIRONMENT_RANK, Layer, merge
from sidecar.config.model import Config
from sidecar.config.overrides import read_environment, read_flags
from sidecar.config.relations import clashes
from sidecar.config.shapes import Key, Named, Path, Section
from sidecar.core.naming import DEFAULT_NAME

PORT_VARIABLE = "NOMAD_PORT_breaker"
_NO_FILE = "configuration"
_ADDRESS: Path = ("listen", "address")
_PORT = count(1, 65535)


def load_file(
    path: str | None, environ: Mapping[str, str], flags: Mapping[str, object] | None = None
) -> Config:
    """Read the file, if one is named, and load it; raises ConfigFaults."""
    if path is None:
        return load(None, environ=environ, flags=flags)
    try:
        with FilePath(path).open("rb") as file:
            text = file.read(TEXT_MAX + 1).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        fault = Fault("", None, None, "is not UTF-8 text", "save it as UTF-8", path)
        raise ConfigFaults([fault]) from error
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
        fault = Fault("", None, None, f"can't be read: {why}", "name a readable file", path)
        raise ConfigFaults([fault]) from error
    return load(text, path=path, environ=environ, flags=flags)


def load(
    text: str | None,
    *,
    path: str | None = None,
    environ: Mapping[str, str],
    flags: Mapping[str, object] | None = None,
) -> Config:
    """Make the configuration of a YAML text (None: no file), variables and flags by dotted key.

    ``path`` only names the file in messages. Raises ConfigFaults, and nothing else, for whatever
    the text, the environment and the flags hold.
    """
    faults = Collector()
    source = path or _NO_FILE
    root = None if text is None else read_document(text, source, faults)
    file = read_file(root, source, faults)
    variables = read_environment(environ, file.names(), faults)
    given_flags = read_flags(flags or {}, file.names() + variables.names(), faults)
    if text is not None and root is None:
        faults.raise_any()  # without the file, what the rest amounts to is not known
    _one_form(file, variables, given_flags)
    above = [variables, given_flags]
    merged = merge([file, *above], faults)
    store = _store(merged)
    if store == "consul":
        merged = merge([file, read_consul_environment(environ, faults), *above], faults)
    settle(merged, faults)
    config = _build(merged, store, _address(merged, environ, faults))
    _relate(config, merged, source, faults)
    faults.raise_any()
    return config


def _one_form(file: Layer, *above: Layer) -> None:
    """The source's block is one breaker's whole configuration: no variable adds it to a file's."""
    for layer in above:
        block = layer.sections.get((keys.BLOCK,))
        if block is not None and ("breakers",) in file.sections and not _has_block(file):
            fix = "name the breaker's own key instead"
            layer.refuse((keys.BLOCK,), block, "stands beside the file's breakers", fix)


def _has_block(layer: Layer) -> bool:
    return (keys.BLOCK,) in layer.sections


def _store(merged: Layer) -> str:
    """Consul where somebody configures Consul and nobody says otherwise."""
    given = merged.given.get(("store",))
    if given is not None:
        return str(given.value)
    there = ("consul",) in merged.sections or _has_block(merged)
    return "consul" if there else model.Config().store


def _address(merged: Layer, environ: Mapping[str, str], faults: Collector) -> str:
    """The listen address with its port: the one written, else Nomad's, else the default."""
    given = merged.given.get(_ADDRESS)
    host, port = split_host_port(given.value if given else model.Listen().address)
    if given is not None and port is not None:
        return str(given.value)
    text = environ.get(PORT_VARIABLE)
    try:
        port = _PORT.parse(text) if text else model.DEFAULT_PORT
    except Unfit as unfit:
        port = model.DEFAULT_PORT
        origin = Origin(PORT_VARIABLE, None, ".".join(_ADDRESS), text)
        faults.add(ENVIRONMENT_RANK, origin, unfit.problem, unfit.fix)
    return join_host_port(host, port)


def _build(merged: Layer, store: str, address: str) -> Config:
    """The structs of the model, every path that nobody gave well left at its default."""
    values = _values(keys.ROOT, (), merged)
    values["store"] = store
    values["listen"] = model.Listen(**_values(keys.LISTEN, ("listen",), merged, address=address))
    names = merged.names() or [DEFAULT_NAME]
    values["breakers"] = {name: _breaker(name, merged) for name in names}
    return Config(**values)


def _values(section: Section, path: Path, merged: Layer, **more: Any) -> dict[str, Any]:
    """The fields of one struct, and the structs below it."""
    values: dict[str, Any] = {}
    for key in section.keys:
        here = (*path, key.name)
        if isinstance(key, Key):
            if here in merged.given:
                values[key.attribute] = merged.given[here].value
        elif isinstance(key, Section) and (not key.optional or merged.has(here)):
            inner = _values(key, here, merged)
            if inner and key.switch is not None:
                inner.setdefault(key.switch.attribute, True)
            values[key.name] = key.struct(**inner)
        elif isinstance(key, Named) and key is not keys.BREAKERS:
            values[key.name] = {
                name: key.each.struct(**_values(key.each, (*here, name), merged))
                for name in merged.names(here)
            }
    return values | more


def _breaker(name: str, merged: Layer) -> model.Breaker:
    path: Path = ("breakers", name)
    values = _values(keys.BREAKER, path, merged, name=name)
    if _has_block(merged) and name == DEFAULT_NAME and "open_duration_s" in values:
        # The block has no key for the longest open time, so that any open_duration must do.
        longest = max(values["open_duration_s"], model.Breaker().max_open_duration_s)
        values.setdefault("max_open_duration_s", longest)
    return model.Breaker(**values)


def _around(merged: Layer, path: Path, source: str) -> Origin:
    """Where something is missing: the line of the innermost section that is there."""
    above = (merged.sections.get(path[:depth]) for depth in range(len(path) - 1, 0, -1))
    line = next((origin.line for origin in above if origin is not None), None)
    return Origin(source, line, ".".join(path))


def _relate(config: Config, merged: Layer, source: str, faults: Collector) -> None:
    """Note the rules between settings that are broken, but for those around a bad value."""
    for clash in clashes(config):
        if merged.bad.isdisjoint(clash.paths):
            written = [merged.given[path] for path in clash.paths if path in merged.given]
            origin = written[0].origin if written else _around(merged, clash.paths[0], source)
            rank = written[0].rank if written else FILE_RANK
            faults.add(rank, origin, clash.problem, clash.fix)
