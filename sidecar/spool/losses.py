"""Tells of records that were given up: whoever replays them knows which are on their way."""

from __future__ import annotations

from collections.abc import Callable

from sidecar.core.ports import Telemetry
from sidecar.core.spooling import GivenUp
from sidecar.telemetry import names

Hear = Callable[[GivenUp], None]


class Losses:
    """Hands them on, or counts them where nobody listens.

    Args:
        soon: calls on the event loop, in order, from any thread.
    """

    def __init__(self, telemetry: Telemetry, soon: Callable[..., object]) -> None:
        self._telemetry = telemetry
        self._soon = soon
        self._heard_by: dict[tuple[str, int], Hear] = {}

    def hear(self, topic: str, partition: int, hear: Hear | None) -> None:
        """See the port `Spool`."""
        if hear is None:
            self._heard_by.pop((topic, partition), None)
        else:
            self._heard_by[topic, partition] = hear

    def gave_up(self, topic: str, partition: int, given: GivenUp) -> None:
        """May be called from any thread."""
        self._soon(self._tell, topic, partition, given)

    def _tell(self, topic: str, partition: int, given: GivenUp) -> None:
        hear = self._heard_by.get((topic, partition))
        if hear is not None:
            hear(given)
        else:
            self._telemetry.count(
                names.SPOOL_DROPPED, given.records, topic=topic, reason=given.reason
            )


def at_once(what: Callable[..., object], *args: object) -> None:
    """For who has no event loop."""
    what(*args)
