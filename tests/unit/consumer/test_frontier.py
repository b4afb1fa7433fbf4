"""How far producers are, as it is noted and read again."""

from __future__ import annotations

from sidecar.consumer.frontier import MOST_BYTES, MOST_PRODUCERS, Frontier, read
from sidecar.consumer.merge import Stamp


def test_only_what_is_done_is_noted() -> None:
    frontier = Frontier()
    for offset, stamp in enumerate([Stamp("a", 1, 5), Stamp("b/c", 1, 1), Stamp("a", 2, 1)]):
        frontier.add(offset, stamp)
    assert frontier.note == ""
    frontier.until(2)
    assert dict(read(frontier.note)) == {"a": (1, 6), "b/c": (1, 2)}
    frontier.until(3)
    assert dict(read(frontier.note)) == {"a": (2, 2), "b/c": (1, 2)}


def test_what_follows_each_other_is_one_run_and_may_be_done_in_part() -> None:
    frontier = Frontier()
    for offset in range(100):
        frontier.add(offset, Stamp("a", 1, offset + 1))
    for offset in range(100, 200):
        frontier.add(offset, Stamp("a", 1, offset + 2))  # one is missing
    assert len(frontier._given) == 2
    for position, counter in ((1, 2), (50, 51), (100, 101), (101, 103), (150, 152), (200, 202)):
        frontier.until(position)
        assert frontier.note == f"a/1/{counter}"


def test_it_goes_on_from_the_later_of_two_notes() -> None:
    frontier = Frontier()
    for at in ((1, 9), (2, 1), (1, 7)):
        frontier.resume("a", at)
    assert frontier.note == "a/2/1"


def test_the_latest_that_fit_are_noted() -> None:
    frontier = Frontier()
    for number in range(2 * MOST_PRODUCERS):
        frontier.add(number, Stamp(f"producer-{number}", 1_795_000_000_000, 10**9))
    frontier.until(2 * MOST_PRODUCERS)
    assert len(frontier.note) <= MOST_BYTES
    known = [producer for producer, _ in read(frontier.note)]
    assert 50 < len(known) < MOST_PRODUCERS
    assert known[-1] == f"producer-{2 * MOST_PRODUCERS - 1}"


def test_what_is_no_note_says_nothing() -> None:
    assert list(read("")) == []
    assert list(read("somebody else's, a/b/c,x/1/2")) == [("x", (1, 2))]


def test_a_name_that_would_break_the_note_is_left_out() -> None:
    frontier = Frontier()
    frontier.add(0, Stamp("a,b/1", 1, 1))
    frontier.add(1, Stamp("c", 1, 1))
    frontier.until(2)
    assert frontier.note == "c/1/2"
