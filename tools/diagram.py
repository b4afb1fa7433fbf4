"""The state diagram of the documentation, made from the table the breaker runs on.

`python -m tools.diagram` writes it into docs/state-machine.md; with `--check` it only says whether
the page is up to date (exit 1 if not), which a unit test does too.
"""

import argparse
import sys
from pathlib import Path

from sidecar.core.table import SIGNALS, TABLE
from sidecar.core.types import Reason, State
from tools import pages

PAGE = Path(__file__).resolve().parent.parent / "docs" / "state-machine.md"
BEGIN = "<!-- made from sidecar/core/table.py by `python -m tools.diagram`: begin -->"
END = "<!-- end -->"

MEANINGS: dict[Reason, str] = {
    Reason.CREATED: "the record was deleted",
    Reason.OPEN_ELAPSED: "the open time is over",
    Reason.RECOVERED: "healthy to the end of the ramp",
    Reason.FOREIGN: "written by something else, and adopted",
}
"""What the reader of an arrow is told of each reason but the signals, which share their arrows."""
SIGNAL = "a signal"


def diagram() -> str:
    """The transition table as a Mermaid state diagram, one arrow for every edge and reason."""
    lines = ["```mermaid", "stateDiagram-v2", f"    [*] --> {State.CLOSED}: {Reason.CREATED}"]
    for before, after in sorted(TABLE):
        lines += [f"    {before} --> {after}: {reason}" for reason, _ in _arrows(before, after)]
    return "\n".join([*lines, "```"])


def table() -> str:
    """The same for who reads words rather than arrows."""
    rows = [
        f"| {before} | {after} | {_names(reason)} | {meaning} |"
        for before, after in sorted(TABLE)
        for reason, meaning in _arrows(before, after)
    ]
    return "\n".join(["| from | to | reason | when |", "|---|---|---|---|", *rows])


def _arrows(before: State, after: State) -> list[tuple[str, str]]:
    """The edge's reasons and what each means, all signals as one."""
    reasons = TABLE[before, after]
    arrows = [(str(reason), MEANINGS[reason]) for reason in sorted(reasons - SIGNALS)]
    if reasons >= SIGNALS:
        arrows.insert(0, (SIGNAL, "it is unhealthy"))
    return arrows


def _names(reason: str) -> str:
    return ", ".join(f"`{name}`" for name in (sorted(SIGNALS) if reason == SIGNAL else [reason]))


def render(page: str) -> str:
    """The page with the diagram and the table of now between its marks.

    Raises:
        PageBrokenError: a mark is missing.
    """
    return pages.between(page, BEGIN, END, f"{diagram()}\n\n{table()}")


def main(argv: list[str] | None = None) -> int:
    """Write the page, or check it."""
    parser = argparse.ArgumentParser(prog="diagram", description=__doc__.partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if outdated")
    chosen = parser.parse_args(argv)
    page = PAGE.read_text(encoding="utf-8")
    current = render(page)
    if chosen.check:
        if page == current:
            return 0
        print(f"{PAGE.name} is outdated: run `python -m tools.diagram`", file=sys.stderr)
        return 1
    PAGE.write_text(current, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
