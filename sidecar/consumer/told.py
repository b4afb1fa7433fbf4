"""What goes wrong with events is told in the log: the first at once, what follows by its number."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable

from sidecar.consumer.stack import said_by

log = logging.getLogger(__name__)

EVERY_S = 10.0


class Told:
    """Warnings of a few kinds, each at most once in `EVERY_S`, so that a flood is no flood of them.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._untold: Counter[str] = Counter()
        self._last: dict[str, str] = {}
        self._not_before: dict[str, float] = {}

    def note(self, kind: str, what: str) -> None:
        """It happened."""
        self._untold[kind] += 1
        self._last[kind] = " ".join(
            what.splitlines()
        )  # an event's own words make no line of the log
        self.tell()

    def tell(self, *, at_once: bool = False) -> None:
        """Tell what is due; with `at_once` all that is left."""
        now = self._clock()
        for kind, number in list(self._untold.items()):
            if not at_once and now < self._not_before.get(kind, now):
                continue
            more = "" if number == 1 else f"{number} more, the last: "
            log.warning("%s: %s%s", kind, more, self._last.pop(kind))
            self._not_before[kind] = now + EVERY_S
            del self._untold[kind]


def words(error: BaseException) -> str:
    """An error in one line, with its kind."""
    said, kind = said_by(error), type(error).__name__
    if "Unable to bootstrap" in said:
        said = "none of the bootstrap servers can be reached"  # aiokafka lists objects of its own
    return said if said.startswith(kind) else f"{kind}: {said}".removesuffix(": ")
