"""What the demo shows: in any terminal, and where there is none."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest

from tools.demo.scene import Scene
from tools.demo.view import Picture, Plain, bars, picture

SCENE = Scene(
    run="with breaker",
    act="down",
    what="the database is down: handlers fail, workers report it",
    at=12.0,
    left_s=7.4,
    database="down",
    state="OPEN",
    admit_ratio=0.0,
    accepted_rate=0.0,
    other_rate=120.0,
    p99_ms=4.04,
    lag=310,
    lags=[60, 120, 310],
    handled=900,
    accepted=1000,
)


@pytest.mark.parametrize(("columns", "rows"), [(80, 24), (120, 60), (44, 8), (20, 3), (1, 1)])
def test_it_fits(columns: int, rows: int) -> None:
    lines = picture(SCENE, columns, rows)
    assert len(lines) <= rows
    assert max(map(len, lines)) < max(columns, 21)
    assert lines[0].startswith("with breaker: down"[: columns - 1])


def test_a_small_terminal_keeps_what_tells_most() -> None:
    text = "\n".join(picture(SCENE, 60, 5))
    for word in ("OPEN", "310", "120/s", "4.0 ms"):
        assert word in text


def test_half_open_says_how_much_it_admits() -> None:
    half = replace(SCENE, state="HALF_OPEN", admit_ratio=0.11)
    assert "HALF_OPEN admits 11%" in "\n".join(picture(half, 80, 24))
    none = replace(SCENE, state=None)
    assert "the API doesn't ask" in "\n".join(picture(none, 80, 24))


@pytest.mark.parametrize("colour", [True, False])
def test_colours_only_where_they_are_wanted(colour: bool) -> None:
    out = io.StringIO()
    view = Picture(out, colour=colour)
    view.show(SCENE)
    assert ("\x1b[31mOPEN" in out.getvalue()) is colour
    view.close()


def test_no_color_is_honoured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    out = io.StringIO()
    Picture(out).show(SCENE)
    assert "\x1b[3" not in out.getvalue()


def test_the_terminal_is_left_as_it_was_and_what_was_said_stays() -> None:
    out = io.StringIO()
    view = Picture(out, colour=False)
    view.say("before")
    view.show(SCENE)
    view.say("a word in between")
    assert "a word" not in out.getvalue(), "not into the picture"
    view.close()
    assert out.getvalue().startswith("before\n\x1b[?1049h")
    assert out.getvalue().endswith("\x1b[?1049l" + "a word in between\n")
    view.close()


def test_plain_lines_come_when_something_changes_and_now_and_then() -> None:
    out = io.StringIO()
    view = Plain(out)
    for tenth in range(100):
        view.show(replace(SCENE, at=tenth / 10))
    lines = out.getvalue().splitlines()
    assert len(lines) == 6, "the act's sentence, and five times two seconds"
    view.show(replace(SCENE, at=9.9, state="HALF_OPEN", admit_ratio=0.05))
    assert out.getvalue().splitlines()[-1].endswith("breaker HALF_OPEN admits 5%")
    assert "\x1b" not in out.getvalue()


def test_bars() -> None:
    assert bars([0, 50, 100], 10) == "▁▄█"
    assert bars([100, 1, 1], 2) == "▁▁", "the highest of all is the full one, also when it is gone"
    assert bars([], 10) == ""
