"""A forced breaker is told of when it begins, every ten minutes, and when it ends."""

from __future__ import annotations

import math

from sidecar.core.override import Mode, placed
from sidecar.loops.narrate import REMIND_S, Narrator
from tests.telemetry import RecordedTelemetry
from tests.unit.core.kit import WALL_AT, Story


class _Told(Story):
    """A story whose first sidecar has a narrator."""

    def __init__(self) -> None:
        super().__init__()
        self.telemetry = RecordedTelemetry()
        self.narrator = Narrator(self.a.board, self.telemetry)

    def force(self, mode: Mode, ttl_s: float, reason: str = "why") -> None:
        at = WALL_AT + self.time.t
        self.store.put_override(placed(mode, ttl_s=ttl_s, reason=reason, author="ann", wall_at=at))

    def look(self) -> list[tuple[str, object]]:
        """What is newly said of overrides: (event, mode)."""
        before = len(self.telemetry.events)
        self.a.settle()
        self.a.board.refresh(self.a.now)
        self.narrator.look(self.a.now)
        new = self.telemetry.events[before:]
        return [(name, fields["mode"]) for name, _, fields in new if "override" in name]


def test_it_is_said_again_every_ten_minutes() -> None:
    story = _Told()
    assert story.look() == []
    assert story.narrator.due == math.inf
    story.force(Mode.OPEN, 3000.0)
    assert story.look() == [("override", "open")]
    assert story.narrator.due == story.a.now + REMIND_S
    said = []
    for _ in range(299):
        story.after(10)
        said += story.look()
    assert said == [("override", "open")] * 4
    story.after(10)
    assert story.look() == [("override_over", "open")]
    assert story.narrator.due == math.inf


def test_it_says_who_why_and_for_how_long() -> None:
    story = _Told()
    story.force(Mode.SHADOW, 900.0)
    story.look()
    _, level, fields = next(e for e in story.telemetry.events if e[0] == "override")
    assert level == "warning"
    assert (fields["author"], fields["why"], fields["left_s"]) == ("ann", "why", 900.0)


def test_another_order_is_said_at_once() -> None:
    story = _Told()
    story.force(Mode.OPEN, 900.0)
    story.look()
    story.after(1)
    story.force(Mode.CLOSED, 900.0)
    assert story.look() == [("override", "closed")]
    story.force(Mode.CLOSED, 60.0, "somebody else's")
    assert story.look() == [("override", "closed")]
