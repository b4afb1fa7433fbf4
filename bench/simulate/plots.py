"""A scenario as an SVG: how long the oldest message waits, and what is admitted, over the time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape

from bench.simulate.policies import FULL_S, START_S
from bench.simulate.scenarios import BEGIN, END, LENGTH, Run

WIDTH, HEIGHT = 860, 452
LEFT, RIGHT, WAIT_TOP, WAIT_HEIGHT, RATIO_TOP, RATIO_HEIGHT = 64, 30, 56, 210, 310, 110
MOST_S = 240.0
"""Longer waits leave the picture: what matters is where the others are."""
EVERY_S = 10
"""One point in so many seconds."""
COLOURS = ("#9a9a9a", "#c8761e", "#3b6fb6", "#1f8a4c")
DASHES = ("2 3", "7 3", "", "")
HEAD = (
    f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}"'
    f' width="{WIDTH}" height="{HEIGHT}" role="img" font-family="sans-serif" font-size="12">'
)


def draw(scenario: str, runs: Mapping[str, Run]) -> str:
    """The whole picture."""
    return "\n".join(
        [
            HEAD,
            f"<title>{escape(scenario)}: wait and admitted share, by policy</title>",
            f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
            *_trouble(),
            *_legend(runs),
            *_panel(
                "the oldest message waits",
                WAIT_TOP,
                WAIT_HEIGHT,
                ("0 s", "60 s", "120 s", "180 s", "240 s"),
            ),
            *_mark(START_S, "start"),
            *_mark(FULL_S, "full"),
            *_panel("admitted", RATIO_TOP, RATIO_HEIGHT, ("0", "0.5", "1")),
            *_times(),
            *_lines(runs),
            "</svg>\n",
        ]
    )


def _x(second: float) -> float:
    return LEFT + second / LENGTH * (WIDTH - LEFT - RIGHT)


def _y(value: float, most: float, top: int, height: int) -> float:
    return top + height * (1 - min(value, most) / most)


def _trouble() -> Iterator[str]:
    """The time in which something is wrong."""
    x, width = _x(BEGIN), _x(END) - _x(BEGIN)
    for top, height in ((WAIT_TOP, WAIT_HEIGHT), (RATIO_TOP, RATIO_HEIGHT)):
        yield (
            f'<rect x="{x:.1f}" y="{top}" width="{width:.1f}" height="{height}" fill="#f7efe2"/>'
        )


def _legend(runs: Mapping[str, Run]) -> Iterator[str]:
    for i, name in enumerate(runs):
        x = LEFT + i * 150
        yield (
            f'<path d="M{x} 24h28" stroke="{COLOURS[i]}" stroke-width="2.5"'
            f' stroke-dasharray="{DASHES[i]}"/><text x="{x + 34}" y="28">{escape(name)}</text>'
        )


def _panel(title: str, top: int, height: int, labels: Sequence[str]) -> Iterator[str]:
    """A frame, its title, and numbers beside it, evenly spread from the bottom up."""
    yield f'<text x="{LEFT}" y="{top - 6}" fill="#555555">{title}</text>'
    for i, label in enumerate(labels):
        y = top + height * (1 - i / (len(labels) - 1))
        yield f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" stroke="#dddddd"/>'
        yield f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{label}</text>'


def _mark(seconds: float, name: str) -> Iterator[str]:
    y = _y(seconds, MOST_S, WAIT_TOP, WAIT_HEIGHT)
    yield f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" stroke="#1f8a4c" stroke-dasharray="1 4"/>'
    yield (
        f'<text x="{WIDTH - RIGHT}" y="{y - 3:.1f}" text-anchor="end" fill="#1f8a4c">{name}</text>'
    )


def _times() -> Iterator[str]:
    for minute in range(0, LENGTH // 60 + 1, 5):
        yield (
            f'<text x="{_x(60 * minute):.1f}" y="{RATIO_TOP + RATIO_HEIGHT + 20}"'
            f' text-anchor="middle">{minute} min</text>'
        )


def _lines(runs: Mapping[str, Run]) -> Iterator[str]:
    for i, one in enumerate(runs.values()):
        for values, most, top, height in (
            (one.lag, MOST_S, WAIT_TOP, WAIT_HEIGHT),
            (one.ratio, 1.0, RATIO_TOP, RATIO_HEIGHT),
        ):
            yield (
                f'<polyline fill="none" stroke="{COLOURS[i]}" stroke-width="2"'
                f' stroke-dasharray="{DASHES[i]}" points="{_points(values, most, top, height)}"/>'
            )


def _points(values: Sequence[float], most: float, top: int, height: int) -> str:
    return " ".join(
        f"{_x(second):.1f},{_y(values[second], most, top, height):.1f}"
        for second in range(0, len(values), EVERY_S)
    )
