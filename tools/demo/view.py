"""Two ways to show the story: a picture that is drawn anew, and plain lines.

The picture is plain ANSI. It fits whatever terminal there is, and has no colours where NO_COLOR
asks for none.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from typing import Protocol, TextIO

from tools.demo import script
from tools.demo.scene import Scene

BARS = "▁▂▃▄▅▆▇█"
COLOURS = {
    "CLOSED": "32",
    "healthy": "32",
    "OPEN": "31",
    "down": "31",
    "HALF_OPEN": "33",
    "slow": "33",
}
PLAIN_EVERY_S = 2.0
KEYS = "n next act   q quit"


class View(Protocol):
    """Shows scenes, and says what happens in between."""

    def show(self, scene: Scene) -> None:
        """A moment."""

    def say(self, *lines: str) -> None:
        """Something to keep."""

    def close(self) -> None:
        """Leave the terminal as it was."""


class Plain:
    """A line now and then."""

    def __init__(self, out: TextIO | None = None) -> None:
        self._out = out or sys.stdout
        self._shown: tuple[str, str, str | None, int] | None = None

    def show(self, scene: Scene) -> None:
        """A line where something has changed, and every other second."""
        shown = (scene.run, scene.act, scene.state, int(scene.at / PLAIN_EVERY_S))
        if shown == self._shown:
            return
        if self._shown is None or shown[:2] != self._shown[:2]:
            self.say(f"{scene.run}, {scene.act}: {scene.what}")
        self._shown = shown
        self.say(
            f"{scene.at:6.1f} s  accepted {scene.accepted_rate:5.0f}/s  other"
            f" {scene.other_rate:5.0f}/s  p99 {scene.p99_ms:6.1f} ms  lag {scene.lag:6d}  database"
            f" {scene.database:7}  breaker {_state(scene)}"
        )

    def say(self, *lines: str) -> None:
        """Print."""
        print("\n".join(lines), file=self._out, flush=True)

    def close(self) -> None:
        """Nothing is to be mended."""


class Picture:
    """The whole terminal, drawn anew several times a second."""

    def __init__(self, out: TextIO | None = None, *, colour: bool | None = None) -> None:
        self._out = out or sys.stdout
        self._colour = "NO_COLOR" not in os.environ if colour is None else colour
        self._said: list[str] = []
        self._drawing = False

    def show(self, scene: Scene) -> None:
        """Draw."""
        columns, rows = shutil.get_terminal_size()
        if not self._drawing:
            self._drawing = True
            self._out.write("\x1b[?1049h\x1b[?25l\x1b[2J")  # another screen, without a cursor
        drawn = [self._coloured(line) for line in picture(scene, columns, rows)]
        self._out.write("\x1b[H" + "".join(f"{line}\x1b[K\r\n" for line in drawn[:-1]))
        self._out.write(f"{drawn[-1]}\x1b[K\x1b[J")
        self._out.flush()

    def _coloured(self, line: str) -> str:
        if not self._colour:
            return line
        words = [
            f"\x1b[{COLOURS[word]}m{word}\x1b[0m" if word in COLOURS else word
            for word in line.split(" ")
        ]
        return " ".join(words)

    def say(self, *lines: str) -> None:
        """Print where there is no picture; else once it is gone."""
        if self._drawing:
            self._said += lines
        else:
            print("\n".join(lines), file=self._out, flush=True)

    def close(self) -> None:
        """Back to the screen that was, with what was said meanwhile."""
        if self._drawing:
            self._drawing = False
            self._out.write("\x1b[?25h\x1b[?1049l")
            self._out.flush()
        said, self._said = self._said, []
        if said:
            self.say(*said)


def picture(scene: Scene, columns: int, rows: int) -> list[str]:
    """The lines that fit, the most telling first where not all do."""
    width = max(20, min(columns, 100) - 1)
    left = "" if scene.left_s is None else f"  {max(0.0, scene.left_s):.0f} s left"
    graph = bars(scene.lags, width - 8)
    lines = [
        f"{scene.run}: {scene.act}{left}",
        f"breaker  {_state(scene)}",
        f"lag      {scene.lag}",
        f"requests {scene.accepted_rate:.0f}/s accepted, {scene.other_rate:.0f}/s not",
        f"API p99  {scene.p99_ms:.1f} ms",
        f"database {scene.database}",
        f"events   {scene.accepted} accepted, {scene.handled} handled",
        f"lag {max(scene.lags, default=0)} ┐",
        f"    {graph}",
        scene.what,
        KEYS,
    ]
    if rows > len(lines) + 4:
        lines = [lines[0], "", *lines[1:7], "", *lines[7:9], "", lines[9], "", lines[10]]
    return [line[:width] for line in lines[: max(1, rows)]]


def bars(values: Sequence[int], width: int) -> str:
    """The latest of a row of numbers as a row of bars, the highest of all as the full one."""
    shown = list(values)[-max(1, width) :]
    most = max(values, default=0) or 1
    return "".join(BARS[min(len(BARS) - 1, value * len(BARS) // (most + 1))] for value in shown)


def _state(scene: Scene) -> str:
    if scene.state is None:
        return "none: the API doesn't ask"
    share = f" admits {scene.admit_ratio:.0%}" if scene.state == "HALF_OPEN" else ""
    return f"{scene.state}{share}"


def opening() -> list[str]:
    """What the person is told before anything is shown."""
    return [
        "An outage with the breaker, and the same without it. The settings of both:",
        *script.told(),
    ]
