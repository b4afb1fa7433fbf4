"""The effective configuration as YAML with secrets masked, and its JSON Schema."""

from typing import Any

import msgspec

from sidecar.config import keys, model
from sidecar.config.faults import MASK
from sidecar.config.shapes import Key, Named, Section

_DIALECT = "https://json-schema.org/draft/2020-12/schema"


def show(config: model.Config) -> str:
    """The whole configuration in its long form; the text loads again, but for its secrets."""
    import yaml

    tree = _tree(keys.ROOT, config)
    return str(yaml.safe_dump(tree, sort_keys=False, allow_unicode=True))


def schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of a configuration file, the source system's block included."""
    root = _schema(keys.ROOT, model.Config())
    block = {
        name: keys.block_key(name).kind.schema | {"default": _block_default(name)}
        for name in keys.BLOCK_PATHS
    }
    root["properties"][keys.BLOCK] = _mapping(block)
    passed_over = {"description": f"passed over beside {keys.BLOCK}"}
    ours = root["properties"]["kafka"]
    root["properties"] |= {"server": passed_over, "kafka": {}}
    root["dependentRequired"] = {"server": [keys.BLOCK]}
    root["if"] = {
        "required": [keys.BLOCK, "kafka"],
        "properties": {"kafka": {"not": {"type": "object", "required": ["bootstrap_servers"]}}},
    }
    root["then"] = {"properties": {"kafka": passed_over}}
    root["else"] = {"properties": {"kafka": ours}}
    root["not"] = {"required": [keys.BLOCK, "breakers"]}
    return {"$schema": _DIALECT, "title": "breaker-sidecar", **root}


def _tree(section: Section, struct: Any) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for key in section.keys:
        if isinstance(key, Named):
            named = getattr(struct, key.name)
            tree[key.name] = {name: _tree(key.each, each) for name, each in named.items()}
        elif isinstance(key, Section):
            inner = getattr(struct, key.name)
            if inner is not None:
                tree[key.name] = _tree(key, inner)
        else:
            tree[key.name] = _shown(key, getattr(struct, key.attribute))
    return tree


def _shown(key: Key, value: Any) -> Any:
    if value is None:
        return None
    return MASK if key.secret else key.kind.render(value)


def _schema(section: Section, defaults: Any) -> dict[str, Any]:
    properties: dict[str, Any] = {}
    for key in section.keys:
        if isinstance(key, Named):
            names = dict(key.names.schema)
            names.pop("type")
            if key.reserved:
                names["not"] = {"enum": list(key.reserved)}
            each = _schema(key.each, key.each.struct())
            properties[key.name] = {
                "type": ["object", "null"],
                "propertyNames": names,
                "additionalProperties": each,
            }
        elif isinstance(key, Section):
            inner = getattr(defaults, key.name)
            found = _schema(key, key.struct() if inner is None else inner)
            if key.optional or key.switch:
                found["type"].append("boolean")
            properties[key.name] = found
        else:
            properties[key.name] = _key_schema(key, getattr(defaults, key.attribute))
    return _mapping(properties)


def _key_schema(key: Key, default: Any) -> dict[str, Any]:
    found = key.kind.schema
    if key.nullable:
        found = {"anyOf": [found, {"type": "null"}]}
    return found | {"default": _shown(key, default)}


def _mapping(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": ["object", "null"], "properties": properties, "additionalProperties": False}


def _block_default(name: str) -> Any:
    path, key = keys.BLOCK_PATHS[name], keys.block_key(name)
    struct = model.Consul() if path[0] == "consul" else model.Breaker()
    return _shown(key, msgspec.structs.asdict(struct)[key.attribute])
