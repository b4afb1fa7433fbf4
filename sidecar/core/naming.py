"""What a breaker may be called, and a topic; all that reads names goes by it."""

from __future__ import annotations

from typing import Final

BREAKER_NAME: Final = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}"
"""A pattern for the whole name."""
RESERVED_NAMES: Final = ("state", "override", "leader")
"""Breakers may not be called so: with the default's short keys there would be two readings."""
TOPIC_NAME: Final = r"(?!\.{1,2}$)[A-Za-z0-9._-]{1,249}"
"""Kafka's own rule, as a pattern for the whole name."""
DEFAULT_NAME: Final = "default"
"""The breaker meant where none is named."""
