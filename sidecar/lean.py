"""A start that costs little and a process that stays small: one runs beside every allocation."""

from __future__ import annotations

import gc
import importlib
import ssl
import sys

SWITCH_S = 0.0005
"""How long another thread (the spool's) may go on while the event loop has something to do: Python
lets it go on for ten times as long."""


def begin() -> None:
    """Prepare the start, before the daemon's parts are imported.

    The collector rests until `begun`: what imports make is there to stay.
    """
    gc.disable()
    if "aiohttp" not in sys.modules:
        _import_aiohttp()


def begun() -> None:
    """The daemon has started: collect as usual, but don't walk what is there for good."""
    gc.collect()
    gc.freeze()
    gc.enable()
    sys.setswitchinterval(SWITCH_S)


def _import_aiohttp() -> None:
    """Import aiohttp without the certificates that it would load for everybody.

    It makes two TLS contexts for clients that bring none and fills them with every authority the
    machine trusts: 2 MB and a tenth of the start. Our one client brings its own
    (`store.transport.tls_context`). Whoever used those all the same would trust nobody: they fail
    closed.
    """
    context = ssl.SSLContext
    kept = context.load_default_certs, context.set_default_verify_paths
    context.load_default_certs = _trust_none  # type: ignore[method-assign, assignment]
    context.set_default_verify_paths = _trust_none  # type: ignore[method-assign, assignment]
    try:
        importlib.import_module("aiohttp")
    finally:
        context.load_default_certs, context.set_default_verify_paths = kept  # type: ignore[method-assign]


def _trust_none(_context: ssl.SSLContext, _purpose: object = None) -> None:
    """Load no certificate."""
