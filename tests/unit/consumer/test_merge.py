"""Two copies made one: whatever each cluster lacks or brings twice, and however they interleave."""

from __future__ import annotations

from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st

from sidecar.consumer.merge import Copy, Gap, Given, Late, Merge, Outcome, Stamp, stamp_of

WAIT_S = 5.0
A, B = 0, 1


def at(counter: int, incarnation: int = 1, producer: str = "p") -> Stamp:
    return Stamp(producer, incarnation, counter)


class Reader:
    """A merge, and what came of it."""

    def __init__(self) -> None:
        self.merge: Merge[Stamp] = Merge(WAIT_S)
        self.now = 100.0
        self.given: list[Stamp] = []
        self.gaps: list[Gap] = []
        self.late: list[Stamp] = []
        self.copies = 0

    def take(self, side: int, *stamps: Stamp) -> None:
        for stamp in stamps:
            self._note(self.merge.take(side, stamp, stamp, self.now))

    def wait(self, for_s: float) -> None:
        self.now += for_s
        self._note(self.merge.tick(self.now))

    def _note(self, outcomes: Iterable[Outcome[Stamp]]) -> None:
        for outcome in outcomes:
            if isinstance(outcome, Given):
                self.given.append(outcome.item)
            elif isinstance(outcome, Gap):
                self.gaps.append(outcome)
            elif isinstance(outcome, Late):
                self.late.append(outcome.item)
            else:
                assert isinstance(outcome, Copy)
                self.copies += 1


def test_the_second_copy_is_dropped_and_the_first_isnt_waited_for() -> None:
    reader = Reader()
    reader.take(A, at(1))
    reader.take(B, at(1))
    reader.take(B, at(2), at(3))
    reader.take(A, at(2), at(3), at(4))
    assert reader.given == [at(1), at(2), at(3), at(4)]
    assert reader.copies == 3
    assert reader.merge.due_at is None


def test_what_one_cluster_lacks_is_waited_for_and_comes_from_the_other() -> None:
    reader = Reader()
    reader.take(A, at(1), at(3))
    reader.take(B, at(1))
    assert reader.given == [at(1)]
    assert reader.merge.due_at == reader.now + WAIT_S
    reader.take(B, at(2))
    assert reader.given == [at(1), at(2), at(3)]
    assert reader.gaps == []
    assert reader.merge.due_at is None


def test_what_both_lack_is_reported_at_once_when_both_are_past_it() -> None:
    reader = Reader()
    reader.take(A, at(1), at(4))
    reader.take(B, at(1), at(4))
    assert reader.given == [at(1), at(4)]
    assert reader.gaps == [Gap("p", 1, 2, 3)]


def test_a_cluster_that_is_away_is_waited_for_a_bounded_time_and_its_copy_is_late_then() -> None:
    reader = Reader()
    reader.take(A, at(1))
    reader.take(B, at(1))
    reader.take(A, at(3))
    reader.wait(WAIT_S - 0.1)
    assert reader.given == [at(1)]
    reader.wait(0.1)
    assert reader.given == [at(1), at(3)]
    assert reader.gaps == [Gap("p", 1, 2, 2)]
    reader.take(B, at(2), at(3))
    assert reader.late == [at(2)]
    assert reader.given == [at(1), at(3)]


def test_another_incarnation_waits_for_the_end_of_the_one_before() -> None:
    reader = Reader()
    reader.take(A, at(1), at(1, 2))
    reader.take(B, at(1))
    assert reader.given == [at(1)]
    reader.take(B, at(2), at(1, 2))
    assert reader.given == [at(1), at(2), at(1, 2)]
    assert reader.gaps == []


def test_an_incarnation_that_comes_when_the_next_has_begun_is_late_and_no_copy() -> None:
    reader = Reader()
    reader.take(A, at(1))
    reader.take(B, at(1))
    reader.take(A, at(1, 3))
    reader.wait(WAIT_S)
    assert reader.given == [at(1), at(1, 3)]
    assert reader.gaps == []
    reader.take(B, at(2), at(1, 2), at(1, 3))
    assert reader.late == [at(2), at(1, 2)]
    assert reader.copies == 2


def test_producers_dont_wait_for_each_other_and_what_has_no_stamp_waits_for_nobody() -> None:
    reader = Reader()
    reader.take(A, at(1))
    reader.take(A, at(1, producer="q"))
    reader.take(B, at(1, producer="q"))
    assert reader.given == [at(1, producer="q")]
    assert list(reader.merge.take(A, None, at(9), reader.now)) == [Given(at(9))]


def test_the_header_is_read_from_its_end() -> None:
    assert stamp_of([("breaker-sequence", b"alloc/7/12")]) == Stamp("alloc", 7, 12)
    for value in (b"", b"a/1", b"a/b/1", b"a/1/x", b"\xff/1/1"):
        assert stamp_of([("breaker-sequence", value)]) is None
    assert stamp_of([("other", b"a/1/1")]) is None


@st.composite
def flows(draw: st.DrawFn) -> tuple[list[tuple[int, Stamp]], list[Stamp]]:
    """Records in the order in which clusters bring them, and all that were written, in theirs."""
    written: list[Stamp] = []
    for producer in draw(st.sampled_from([["p"], ["p", "q"]])):
        for incarnation in range(1, draw(st.integers(1, 3)) + 1):
            count = draw(st.integers(0, 6))
            written += [Stamp(producer, incarnation, n) for n in range(1, count + 1)]
    sides: list[list[Stamp]] = []
    for _ in (A, B):
        kept = [stamp for stamp in written if draw(st.integers(0, 3))]
        for _ in range(draw(st.integers(0, 2))):
            if kept:  # a part of it is written again, as a replay may
                first = draw(st.integers(0, len(kept) - 1))
                last = draw(st.integers(first, len(kept)))
                kept[last:last] = kept[first:last]
        sides.append(kept)
    came: list[tuple[int, Stamp]] = []
    while sides[A] or sides[B]:
        side = draw(st.sampled_from([side for side in (A, B) if sides[side]]))
        came.append((side, sides[side].pop(0)))
    return came, written


def in_order(reader: Reader) -> None:
    for producer in ("p", "q"):
        mine = [stamp[1:] for stamp in reader.given if stamp.producer == producer]
        assert mine == sorted(set(mine)), "each at most once, in order"


@given(flows())
def test_while_nothing_is_waited_for_too_long_all_is_given_and_exactly_what_both_lack_is_missed(
    flow: tuple[list[tuple[int, Stamp]], list[Stamp]],
) -> None:
    came, written = flow
    reader = Reader()
    for side, stamp in came:
        reader.take(side, stamp)
    reader.wait(WAIT_S)
    arrived = {stamp for _, stamp in came}
    in_order(reader)
    assert set(reader.given) == arrived
    assert reader.late == []
    lost = {
        Stamp(gap.producer, gap.incarnation, counter)
        for gap in reader.gaps
        for counter in range(gap.first, gap.last + 1)
    }
    expected = set()
    for stamp in written:
        others = [other for other in arrived if other.producer == stamp.producer]
        known = any(other < stamp for other in others)
        after = any(o.incarnation == stamp.incarnation and o > stamp for o in others)
        if stamp not in arrived and known and after:
            expected.add(stamp)
    assert lost == expected
    assert sum(reader.merge.withheld) == 0


@given(flows(), st.lists(st.floats(0.0, 2 * WAIT_S), min_size=1, max_size=40))
def test_however_late_a_cluster_is_nothing_comes_twice_or_waits_beyond_the_bound(
    flow: tuple[list[tuple[int, Stamp]], list[Stamp]], pauses: list[float]
) -> None:
    came, _ = flow
    reader, taken = Reader(), dict[Stamp, float]()
    for number, (side, stamp) in enumerate(came):
        taken.setdefault(stamp, reader.now)
        reader.take(side, stamp)
        reader.wait(pauses[number % len(pauses)])
        settled = {*reader.given, *reader.late}
        assert all(s in settled for s, since in taken.items() if since + WAIT_S <= reader.now)
        assert reader.merge.due_at is None or reader.merge.due_at > reader.now
    reader.wait(WAIT_S)
    in_order(reader)
    assert {*reader.given, *reader.late} == {stamp for _, stamp in came}
    assert not {*reader.given} & {*reader.late}
    assert sum(reader.merge.withheld) == 0
