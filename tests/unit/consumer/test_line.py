from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from sidecar.consumer.line import Line
from tests.unit.consumer.records import Rec


def recs(*offsets: int) -> list[Rec]:
    return [Rec(offset=offset) for offset in offsets]


def test_the_position_waits_for_the_first_that_is_not_done() -> None:
    line = Line()
    line.take(recs(10, 11, 12))
    assert [line.begin().offset for _ in range(3)] == [10, 11, 12]

    committable = []
    for offset in (11, 10, 12):
        line.done(offset)
        committable.append(line.to_commit)
    assert committable == [None, 12, 13]
    line.committed(13)
    assert line.to_commit is None


def test_what_was_never_begun_holds_the_position_too() -> None:
    line = Line()
    line.take(recs(5, 8))
    line.begin()
    line.done(5)
    assert (line.position, line.span, line.unfinished) == (8, 1, 1)


def test_what_is_dropped_was_never_taken() -> None:
    line = Line()
    line.take(recs(1, 2, 3))
    line.begin()
    line.drop()
    assert line.position == 1
    line.done(1)
    assert line.position == 2
    line.take(recs(2, 3))
    assert line.position == 2


def test_an_offset_that_was_there_before_is_refused() -> None:
    line = Line()
    line.take(recs(1, 2))
    with pytest.raises(ValueError, match="offset 2 after 2"):
        line.take(recs(2, 3))
    assert line.unfinished == 2


def test_what_is_passed_is_done_and_committed_once() -> None:
    line = Line()
    line.take(recs(5))
    line.begin()
    line.done(5)
    line.passed(9)
    assert (line.to_commit, line.span) == (9, 0)
    line.committed(9)
    line.passed(7)
    assert (line.position, line.to_commit) == (9, None)
    with pytest.raises(ValueError, match="offset 8 after 8"):
        line.take(recs(8))


@pytest.mark.parametrize(("position", "to_commit"), [(0, None), (7, 7)])
def test_what_is_passed_before_the_first_event_does_not_decide_where_that_is(
    position: int, to_commit: int | None
) -> None:
    line = Line()
    line.passed(position)
    assert line.to_commit == to_commit
    line.take(recs(3))  # the topic was made anew
    assert (line.position, line.to_commit) == (3, None)
    line.begin()
    line.done(3)
    assert line.to_commit == 4


class Lines(RuleBasedStateMachine):
    """The position is never beyond what is not done, and never falls, whatever ends when."""

    def __init__(self) -> None:
        super().__init__()
        self.line = Line()
        self.next = 0
        self.taken: list[int] = []
        self.begun: list[int] = []
        self.done: set[int] = set()
        self.last = 0
        self.on_broker = 0

    @rule(gaps=st.lists(st.integers(1, 4), max_size=8))
    def take(self, gaps: list[int]) -> None:
        """Some events, with gaps as compaction leaves them."""
        offsets = []
        for gap in gaps:
            self.next += gap
            offsets.append(self.next)
        self.line.take(recs(*offsets))
        self.taken += offsets

    @precondition(lambda self: self.line.waiting)
    @rule()
    def begin(self) -> None:
        """The first that waits."""
        self.begun.append(self.line.begin().offset)

    @precondition(lambda self: self.begun)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        """Any that was begun."""
        offset = data.draw(st.sampled_from(self.begun))
        self.begun.remove(offset)
        self.done.add(offset)
        self.line.done(offset)

    @rule()
    def commit(self) -> None:
        """What there is to commit, if there is any."""
        position = self.line.to_commit
        if position is not None:
            assert position > self.on_broker or not self.on_broker
            self.on_broker = position
            self.line.committed(position)

    @invariant()
    def never_beyond(self) -> None:
        """At every moment."""
        position = self.line.position
        undone = [offset for offset in self.taken if offset not in self.done]
        assert self.line.unfinished == len(undone)
        if position is None:
            assert not self.taken
            return
        assert position == (undone[0] if undone else self.taken[-1] + 1)
        assert position >= self.last
        self.last = position


TestLines = Lines.TestCase
TestLines.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
