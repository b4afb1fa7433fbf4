"""The settings that both clients share; all of them seconds."""

from __future__ import annotations

import re

TIMEOUT_S = 0.5
"""For one question, connecting included. The sidecar is on this machine and answers in 0.1 ms."""
KEEP_S = 2.0
"""A sidecar restarts in less."""
SILENCE_S = 20.0
"""The sidecar sends at least a comment every 15 s; a stream silent for longer is a dead one."""
WATCH_PATH = "/v1/watch"
ANSWER_BYTES = 1024 * 1024
"""An answer of `/allowed` takes a thousandth of it."""
BREAKER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


def checked(timeout_s: float, silence_s: float) -> None:
    """Raises ValueError for what can't work."""
    if timeout_s <= 0 or silence_s <= 0:
        raise ValueError("timeout_s and silence_s must be more than 0")


def ask_path(name: str | None) -> str:
    """Where to ask, spending nothing: the share is spread here.

    Raises:
        ValueError: no breaker can be called so.
    """
    if name is None:
        return "/allowed?peek=1"
    if not BREAKER_NAME.fullmatch(name):
        raise ValueError(f"{name!r} can't be a breaker's name")
    return f"/allowed/{name}?peek=1"
