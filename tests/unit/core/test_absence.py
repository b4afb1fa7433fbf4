"""When a topic counts as gone: absent, conflicting and unreachable are three things."""

from __future__ import annotations

import pytest

from sidecar.core.absence import GAP_S, Absence, Presence, agreed, in_both

AFTER_S = 3600.0
STEP_S = 5.0


def told(absence: Absence, presence: Presence, since: float, for_s: float) -> bool:
    """The same word again and again, from `since` on; whether it is certain at the end."""
    steps = int(for_s / STEP_S)
    return [absence.heard(presence, since + n * STEP_S, AFTER_S) for n in range(steps + 1)][-1]


@pytest.mark.parametrize(
    ("answers", "presence"),
    [
        ([], Presence.UNREACHABLE),
        ([None, None], Presence.UNREACHABLE),
        ([False, None], Presence.UNREACHABLE),
        ([False, False], Presence.ABSENT),
        ([True, False], Presence.CONFLICTING),
        ([True, False, None], Presence.CONFLICTING),
        ([True, None], Presence.PRESENT),
        ([True], Presence.PRESENT),
    ],
)
def test_what_brokers_say_together(answers: list[bool | None], presence: Presence) -> None:
    assert agreed(answers) is presence


@pytest.mark.parametrize(
    ("one", "other", "presence"),
    [
        (Presence.ABSENT, Presence.ABSENT, Presence.ABSENT),
        (Presence.ABSENT, Presence.UNREACHABLE, Presence.UNREACHABLE),
        (Presence.ABSENT, Presence.PRESENT, Presence.CONFLICTING),
        (Presence.ABSENT, Presence.CONFLICTING, Presence.CONFLICTING),
        (Presence.PRESENT, Presence.PRESENT, Presence.PRESENT),
        (Presence.PRESENT, Presence.UNREACHABLE, Presence.PRESENT),
        (Presence.PRESENT, Presence.CONFLICTING, Presence.PRESENT),
        (Presence.CONFLICTING, Presence.UNREACHABLE, Presence.CONFLICTING),
        (Presence.CONFLICTING, Presence.CONFLICTING, Presence.CONFLICTING),
        (Presence.UNREACHABLE, Presence.UNREACHABLE, Presence.UNREACHABLE),
    ],
)
def test_what_two_clusters_say_together(one: Presence, other: Presence, presence: Presence) -> None:
    assert in_both(one, other) is in_both(other, one) is presence


def test_it_is_certain_after_its_time_and_not_before() -> None:
    absence = Absence()
    assert not told(absence, Presence.ABSENT, 0.0, AFTER_S - STEP_S)
    assert absence.for_s(AFTER_S) == AFTER_S
    assert absence.heard(Presence.ABSENT, AFTER_S, AFTER_S)


@pytest.mark.parametrize("word", [p for p in Presence if p is not Presence.ABSENT])
def test_any_other_word_begins_the_time_anew(word: Presence) -> None:
    absence = Absence()
    assert not told(absence, Presence.ABSENT, 0.0, AFTER_S - STEP_S)
    assert not absence.heard(word, AFTER_S, AFTER_S)
    assert absence.for_s(AFTER_S) is None
    assert not told(absence, Presence.ABSENT, AFTER_S, AFTER_S - STEP_S)
    assert absence.heard(Presence.ABSENT, 2 * AFTER_S, AFTER_S)


def test_time_in_which_nobody_looked_is_no_proof() -> None:
    absence = Absence()
    assert not absence.heard(Presence.ABSENT, 0.0, AFTER_S)
    assert not absence.heard(Presence.ABSENT, 2 * AFTER_S, AFTER_S)
    assert absence.for_s(2 * AFTER_S) == 0.0
    assert not absence.heard(Presence.ABSENT, 2 * AFTER_S + GAP_S, AFTER_S)
    assert absence.for_s(2 * AFTER_S + GAP_S) == GAP_S


@pytest.mark.parametrize("word", [p for p in Presence if p is not Presence.ABSENT])
def test_certainty_lasts_until_another_word(word: Presence) -> None:
    absence = Absence()
    assert told(absence, Presence.ABSENT, 0.0, AFTER_S)
    assert absence.heard(Presence.ABSENT, 10 * AFTER_S, AFTER_S), "however long nobody asked"
    assert not absence.heard(word, 10 * AFTER_S + 1, AFTER_S)
    assert not absence.heard(Presence.ABSENT, 10 * AFTER_S + 2, AFTER_S)


def test_it_may_be_switched_off() -> None:
    absence = Absence()
    assert told(absence, Presence.ABSENT, 0.0, AFTER_S)
    assert not absence.heard(Presence.ABSENT, AFTER_S + 1, 0.0)
    assert absence.for_s(AFTER_S + 1) is None
