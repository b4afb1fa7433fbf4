"""Budgets: how many bytes may wait, and whether there is room for more."""

from __future__ import annotations

from collections.abc import Iterable

from sidecar.core.spooling import Backlog, SpoolSettings


class Space:
    """Bytes that wait, by topic and altogether, while records are taken in."""

    def __init__(self, settings: SpoolSettings, backlogs: Iterable[Backlog]) -> None:
        self._settings = settings
        self._topics: dict[str, int] = {}
        self._total = 0
        for backlog in backlogs:
            if backlog.bytes:
                self.add(backlog.topic, backlog.bytes)

    def add(self, topic: str, size: int) -> None:
        """So much more of a topic; less than 0 where some was dropped."""
        self._topics[topic] = self._topics.get(topic, 0) + size
        self._total += size

    def over(self, topic: str, size: int) -> int:
        """By how many bytes so many more would be too many; 0 or less where they fit."""
        of_topic = self._topics.get(topic, 0) + size - self._settings.budget(topic).max_bytes
        return max(of_topic, self._total + size - self._settings.max_bytes)

    def words(self, topic: str, size: int) -> str:
        """Why so many bytes more don't fit."""
        used, most, what = (
            self._topics.get(topic, 0),
            self._settings.budget(topic),
            f"topic {topic}",
        )
        bound = most.max_bytes
        if used + size <= bound:
            used, bound, what = self._total, self._settings.max_bytes, "the spool"
        return f"{size} bytes more are too many for {what}: {used} of its {bound} wait already"


def segment_bytes(settings: SpoolSettings, topic: str) -> int:
    """How large a topic's segments get: small budgets get small ones, to give room back in time."""
    return max(65_536, min(settings.segment_bytes, settings.budget(topic).max_bytes // 16))
