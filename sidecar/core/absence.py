"""Whether a topic is gone: what the brokers say of it, and for how long they have all said so.

A topic that is being made again, a cluster that has only just started, and one that can't be
reached look alike at a glance. What waits for the topic is safe, so there is time to be sure.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Final

GAP_S: Final = 30.0
"""Words that are further apart than this are no unbroken row: nobody looked in between."""


class Presence(StrEnum):
    """What the brokers that were asked say of a topic together."""

    PRESENT = "present"
    ABSENT = "absent"
    """Each of them answered, and none has it."""
    CONFLICTING = "conflicting"
    """Some have it and some don't: it is being made, or deleted."""
    UNREACHABLE = "unreachable"
    """Nobody has it, and not all said so: nothing is known."""


def agreed(answers: Iterable[bool | None]) -> Presence:
    """What single answers come to; True: it has the topic, None: no answer, or no clear one."""
    said = list(answers)
    if True in said:
        return Presence.CONFLICTING if False in said else Presence.PRESENT
    return Presence.ABSENT if said and None not in said else Presence.UNREACHABLE


def in_both(first: Presence, second: Presence) -> Presence:
    """What two clusters come to that get a copy each: it is absent where neither has it.

    In one of them alone it is conflicting, and where nobody has it and one of them isn't sure,
    nothing is known.
    """
    said = {first, second}
    if len(said) == 1:
        return first
    if said == {Presence.ABSENT, Presence.UNREACHABLE}:
        return Presence.UNREACHABLE
    there = Presence.PRESENT in said and Presence.ABSENT not in said
    return Presence.PRESENT if there else Presence.CONFLICTING


class Absence:
    """How long one topic has been absent by every word heard. `now` is monotonic seconds."""

    __slots__ = ("_at", "_since", "certain")

    def __init__(self) -> None:
        self._since: float | None = None
        self._at = 0.0
        self.certain = False
        """It has been for long enough; any other word takes that back."""

    def heard(self, presence: Presence, now: float, after_s: float) -> bool:
        """A word came; whether the absence is certain now.

        Args:
            after_s: how long nothing else may have been heard for that; 0: it never is certain.
        """
        if presence is not Presence.ABSENT or after_s <= 0:
            self._since, self.certain = None, False
            return False
        if self._since is None or (now - self._at > GAP_S and not self.certain):
            self._since = now
        self._at = now
        self.certain = self.certain or now - self._since >= after_s
        return self.certain

    def for_s(self, now: float) -> float | None:
        """Seconds since it was first said to be absent; None: it isn't, or nobody knows."""
        return None if self._since is None else now - self._since
