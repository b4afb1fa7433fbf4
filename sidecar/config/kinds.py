"""What a key can hold: how its text is read, how it is written back, and its JSON Schema."""

import re
from collections.abc import Callable
from typing import Any

import msgspec

from sidecar.config.addresses import (
    AddressError,
    join_host_port,
    parse_consul_address,
    split_host_port,
)
from sidecar.config.faults import Unfit
from sidecar.config.model import OWN_CHECKS
from sidecar.config.units import (
    DURATION_PATTERN,
    SIZE_PATTERN,
    UnitError,
    format_duration,
    format_size,
    parse_duration,
    parse_size,
)
from sidecar.core.naming import TOPIC_NAME

_TRUE = ("1", "t", "true", "yes", "on")
_FALSE = ("0", "f", "false", "no", "off")
_PREFIX = r"^[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)*$"
KAFKA_PORT = 9092
_SERVICE = r"^[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?$"
_HOST = r"^[A-Za-z0-9_.:-]{1,255}$"
_SOCKET_MAX = 107  # bytes of a unix socket's path on Linux, without the closing zero


class Kind(msgspec.Struct, frozen=True):
    """One sort of value. ``parse`` raises Unfit; ``render`` gives what YAML should hold."""

    parse: Callable[[str], Any]
    schema: dict[str, Any]
    render: Callable[[Any], Any] = lambda value: value
    many: bool = False  # a list, or one text with commas between


def duration(
    least_s: float, most_s: float | None = None, *, or_zero: bool = False, bare_s: bool = False
) -> Kind:
    """A duration between two bounds in seconds; or_zero lets 0 say "never".

    ``bare_s`` is for a key whose name says that it is in seconds: a number needs no unit there.
    """

    def parse(text: str) -> float:
        bare = re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", text)
        try:
            seconds = float(text) if bare and bare_s else parse_duration(text)
        except UnitError as error:
            fix = f"write {text}s" if bare else "write a number with its unit: 500ms, 5s or 1m30s"
            raise Unfit(f"{error}: it has no unit" if bare else str(error), fix) from error
        if or_zero and seconds == 0:
            return seconds
        if seconds < least_s:
            fix = f"write {format_duration(least_s)} or more" + (", or 0 for never" * or_zero)
            raise Unfit("is too short", fix)
        if most_s is not None and seconds > most_s:
            raise Unfit("is too long", f"write {format_duration(most_s)} or less")
        return seconds

    number = {"type": "number", "minimum": least_s} if bare_s else {"const": 0}
    schema = {"anyOf": [{"type": "string", "pattern": DURATION_PATTERN}, number]}
    return Kind(parse, schema, format_duration)


def size(least: int, most: int) -> Kind:
    """A size between two bounds in bytes."""

    def parse(text: str) -> int:
        try:
            found = parse_size(text)
        except UnitError as error:
            raise Unfit(str(error), "write a number with its unit: 64KiB, 8MiB or 1GiB") from error
        if not least <= found <= most:
            raise Unfit(
                "is out of range", f"write a size from {format_size(least)} to {format_size(most)}"
            )
        return found

    return Kind(parse, {"type": "string", "pattern": SIZE_PATTERN}, format_size)


def choice(*values: str) -> Kind:
    """One of a few words."""

    def parse(text: str) -> str:
        if text not in values:
            raise Unfit("is none of its values", f"write {_either(values)}")
        return text

    return Kind(parse, {"enum": list(values)})


def number_of(*values: int) -> Kind:
    """One of a few whole numbers."""

    def parse(text: str) -> int:
        if text not in map(str, values):
            raise Unfit("is none of its values", f"write {_either([str(v) for v in values])}")
        return int(text)

    return Kind(parse, {"enum": list(values)})


def count(least: int, most: int) -> Kind:
    """A whole number between two bounds."""

    def parse(text: str) -> int:
        if not re.fullmatch(r"[+-]?[0-9]{1,19}", text):
            raise Unfit("is not a whole number", f"write a number of {least} or more")
        if not least <= int(text) <= most:
            raise Unfit("is out of range", f"write a number from {least} to {most}")
        return int(text)

    return Kind(parse, {"type": "integer", "minimum": least, "maximum": most})


def count_or(word: str, least: int, most: int) -> Kind:
    """A whole number between two bounds, or one word."""
    number = count(least, most)

    def parse(text: str) -> int | str:
        if text == word:
            return word
        try:
            return int(number.parse(text))
        except Unfit as unfit:
            raise Unfit(unfit.problem, f"{unfit.fix}, or {word}") from unfit

    return Kind(parse, {"anyOf": [number.schema, {"const": word}]})


def pattern(regex: str, problem: str, fix: str) -> Kind:
    """Text that a regular expression describes whole."""

    def parse(text: str) -> str:
        if not re.fullmatch(regex, text):
            raise Unfit(problem, fix)
        return text

    return Kind(parse, {"type": "string", "pattern": regex})


def _either(values: "list[str] | tuple[str, ...]") -> str:
    return f"{', '.join(values[:-1])} or {values[-1]}"


def _ratio(text: str) -> float:
    if not re.fullmatch(r"[+]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,3})?", text):
        raise Unfit("is not a ratio", "write a number above 0 and up to 1, such as 0.05")
    if not 0 < float(text) <= 1:
        raise Unfit("is out of range", "write a number above 0 and up to 1, such as 0.05")
    return float(text)


def _boolean(text: str) -> bool:
    if text.lower() in _TRUE:
        return True
    if text.lower() not in _FALSE:
        raise Unfit("is neither true nor false", "write true or false")
    return False


def _text(text: str) -> str:
    if not text.strip() or not text.isprintable():
        raise Unfit("is empty or has control characters", "write plain text, or null for none")
    return text


def _path(text: str) -> str:
    if not text or "\0" in text or "\n" in text:
        raise Unfit("is not a path", "write a path, or null for none")
    return text


def _socket(text: str) -> str:
    if text.startswith("unix:"):
        raise Unfit("is not a path", f"write {text.removeprefix('unix:').removeprefix('//')}")
    if len(_path(text).encode("utf-8", "surrogatepass")) > _SOCKET_MAX:
        raise Unfit("is too long", f"a unix socket's path has at most {_SOCKET_MAX} bytes")
    return text


def _mode(text: str) -> int:
    if not re.fullmatch(r"(0o|0)?[0-7]{3}", text):
        raise Unfit("is not a file mode", "write three octal digits, such as 0600 or 0660")
    return int(text.removeprefix("0o"), 8)


def _listen(text: str) -> str:
    try:
        split_host_port(text)
    except AddressError as error:
        fix = f"write localhost:{text}" if text.isdigit() else "write host:port, as localhost:9100"
        raise Unfit(str(error), fix) from error
    if text.isdigit() and int(text) <= 65535:
        raise Unfit("is a port without a host", f"write localhost:{text}")
    return text


def _diagnostics(text: str) -> str:
    if split_host_port(_listen(text))[1] is None:
        raise Unfit("has no port", f"write {text}:9101")
    return text


def _consul(text: str) -> str:
    if "@" in text:
        fix = "leave the user out; Consul knows tokens: consul.token_file"
        raise Unfit("has a user in it", fix, shown="***@" + text.rpartition("@")[2])
    try:
        parse_consul_address(text)
    except AddressError as error:
        fix = "write host:port, http(s)://host:port or unix:///path/to/socket"
        raise Unfit(str(error), fix) from error
    return text


def _prefix(text: str) -> str:
    if text != text.strip("/"):
        raise Unfit("has a slash at an end", f"write {text.strip('/') or 'a name'}")
    if not re.fullmatch(_PREFIX, text) or len(text) > 256:
        # Consul answers a key with // by a redirect, and some releases refuse other characters.
        raise Unfit("is not a key prefix", "use letters, digits, _ . - and single / between")
    if ".." in text or "." in text.split("/"):
        raise Unfit("has . or .. as a step", "name the keys directly")
    return text


def _host(text: str) -> str:
    host = text.strip()
    if not re.fullmatch(_HOST, host):
        raise Unfit("has what is no host", "write host names without scheme, port or path")
    if ":" in host and host.count(":") < 2:
        raise Unfit("has a host with a port", f"write {host.partition(':')[0]}")
    return host.lower()


def _server(text: str) -> str:
    try:
        host, port = split_host_port(text.strip())
    except AddressError as error:
        raise Unfit(str(error), "write host:port, as kafka-1:9092") from error
    if "://" in text or not re.fullmatch(_HOST, host):
        raise Unfit("has what is no host", "write host:port without scheme or path")
    return join_host_port(host, KAFKA_PORT if port is None else port)


def _tag(text: str) -> str:
    if not _text(text) or len(text) > 128:
        raise Unfit("is too long for a tag", "write at most 128 characters")
    return text.strip()


def _check(text: str) -> str:
    if text in OWN_CHECKS:
        return text
    if not re.fullmatch(r"https?://[^\s/?#@]+(/\S*)?", text):
        raise Unfit("is no check", "write readyz, livez or a URL as http://127.0.0.1:8080/health")
    return text


_STRING = {"type": "string", "minLength": 1}

BOOLEAN = Kind(_boolean, {"type": "boolean"})
RATIO = Kind(_ratio, {"type": "number", "exclusiveMinimum": 0, "maximum": 1})
TEXT = Kind(_text, _STRING)
PATH = Kind(_path, _STRING)
SOCKET = Kind(_socket, _STRING | {"maxLength": _SOCKET_MAX})
MODE = Kind(
    _mode,
    {"anyOf": [{"type": "string", "pattern": "^(0o|0)?[0-7]{3}$"}, {"type": "integer"}]},
    lambda mode: f"{mode:04o}",
)
LISTEN_ADDRESS = Kind(_listen, _STRING)
DIAGNOSTICS_ADDRESS = Kind(_diagnostics, _STRING)
CONSUL_ADDRESS = Kind(_consul, _STRING)
PREFIX = Kind(_prefix, {"type": "string", "pattern": _PREFIX, "maxLength": 256})
TOPIC = pattern(
    f"^{TOPIC_NAME}$", "is not a topic's name", "use up to 249 letters, digits, _ . and -"
)
SERVICE = pattern(
    _SERVICE, "is not a service's name", "use up to 63 letters, digits and - between, as DNS does"
)
HOST = pattern(_HOST, "is not a host", "write a host name or an IP address, without a port")
TAGS = Kind(_tag, {"type": "array", "items": _STRING}, list, True)
CHECK = Kind(_check, _STRING)
TOPIC_OR_ANY = pattern(
    rf"^({TOPIC_NAME}|\*)$",
    "is not a topic's name",
    'use up to 249 letters, digits, _ . and -, or "*" for every other topic',
)
HOSTS = Kind(_host, {"type": "array", "items": {"type": "string", "pattern": _HOST}}, list, True)
SERVERS = Kind(_server, {"type": "array", "items": _STRING}, list, True)
