"""The standard Consul variables, and how the places that say where Consul is agree.

They say where Consul is, not whether to use it: with the memory store they are not even read.
A flag or a ``BREAKER_SIDECAR__`` variable beats them, and they beat the file, since the machine
(Nomad, an operator's shell) knows its Consul better than a file that is the same everywhere.
"""

from collections.abc import Mapping

import msgspec

from sidecar.config import keys
from sidecar.config.addresses import parse_consul_address
from sidecar.config.faults import Collector, Origin
from sidecar.config.layers import CONSUL_RANK, ENVIRONMENT_RANK, Given, Layer

_ADDRESS = ("consul", "address")
_SCHEME = ("consul", "scheme")
_TOKEN = ("consul", "token")
_TOKEN_FILE = ("consul", "token_file")
_VERIFY = ("consul", "tls_verify")
_PLAIN = {
    "CONSUL_HTTP_ADDR": _ADDRESS,
    "CONSUL_HTTP_TOKEN": _TOKEN,
    "CONSUL_HTTP_TOKEN_FILE": _TOKEN_FILE,
    "CONSUL_CACERT": ("consul", "ca_file"),
    "CONSUL_CLIENT_CERT": ("consul", "client_cert"),
    "CONSUL_CLIENT_KEY": ("consul", "client_key"),
    "CONSUL_NAMESPACE": ("consul", "namespace"),
}
_SWITCHES = {"CONSUL_HTTP_SSL": _SCHEME, "CONSUL_HTTP_SSL_VERIFY": _VERIFY}

# Go's strconv.ParseBool, which Consul's own programs read these with.
_GO_TRUE = ("1", "t", "T", "true", "TRUE", "True")
_GO_FALSE = ("0", "f", "F", "false", "FALSE", "False")


def read_consul_environment(environ: Mapping[str, str], faults: Collector) -> Layer:
    """The layer of the CONSUL_ variables; empty ones say nothing, as for Consul itself."""
    layer = Layer(CONSUL_RANK, faults)
    for variable, path in _PLAIN.items():
        text = environ.get(variable)
        key = keys.find_key(path)
        if text and key is not None:
            layer.put(path, key, Origin(variable, None, ".".join(path), text))
    for variable, path in _SWITCHES.items():
        _switch(layer, path, Origin(variable, None, ".".join(path), environ.get(variable)))
    return layer


def _switch(layer: Layer, path: tuple[str, ...], origin: Origin) -> None:
    if not origin.text:
        return
    if origin.text not in _GO_TRUE + _GO_FALSE:
        layer.refuse(path, origin, "is neither true nor false", "write true or false")
        return
    on = origin.text in _GO_TRUE
    if path == _VERIFY:
        layer.given[path] = Given(on, origin, layer.rank)
    elif on:  # false doesn't take an https:// of the address back
        layer.given[path] = Given("https", origin, layer.rank)


def settle(merged: Layer, faults: Collector) -> None:
    """Make one answer of what several places say about token and scheme, in place."""
    _settle_token(merged)
    _settle_scheme(merged, faults)


def _settle_token(merged: Layer) -> None:
    """A token given here and now beats a file named lower down.

    Not so CONSUL_HTTP_TOKEN: Nomad sets it in every task, to a token that it renews only in the
    file. Where both are left, the file wins, as in Consul's own client.
    """
    token, file = merged.given.get(_TOKEN), merged.given.get(_TOKEN_FILE)
    if token and file and token.rank >= ENVIRONMENT_RANK and file.rank < token.rank:
        del merged.given[_TOKEN_FILE]


def _settle_scheme(merged: Layer, faults: Collector) -> None:
    """The scheme of a URL counts as given where the URL was given."""
    address, scheme = merged.given.get(_ADDRESS), merged.given.get(_SCHEME)
    written = parse_consul_address(address.value)[0] if address else None
    if address is None or written is None:
        return
    wanted = "http" if written == "unix" else written
    if scheme is None or scheme.rank < address.rank:
        merged.given[_SCHEME] = Given(wanted, address.origin, address.rank)
    elif written == "unix":
        merged.given[_SCHEME] = msgspec.structs.replace(scheme, value="http")
    elif scheme.value != written and scheme.rank == address.rank != CONSUL_RANK:
        problem = f"says otherwise than {address.origin.key} ({address.origin.text})"
        faults.add(scheme.rank, scheme.origin, problem, "leave the scheme out of one of them")
