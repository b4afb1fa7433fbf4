"""`python -m tools.dashboard` writes monitoring/dashboard.json, and its panels into the docs.

With `--check` it only says whether both are up to date (exit 1 if not), which a unit test does too.
"""

import argparse
import sys

from tools import pages
from tools.dashboard.grafana import ALL_ROWS, render
from tools.programs import ROOT

FILE = ROOT / "monitoring" / "dashboard.json"
PAGE = ROOT / "docs" / "monitoring.md"
BEGIN = "<!-- made from tools/dashboard by `make dashboard`: begin -->"
END = "<!-- end -->"


def table() -> str:
    """Every row with its panels and what each says."""
    lines: list[str] = []
    for title, panels in ALL_ROWS:
        lines += [f"**{title}**", "", "| panel | says |", "|---|---|"]
        lines += [f"| {panel.title} | {panel.says} |" for panel in panels]
        lines.append("")
    return "\n".join(lines)


def render_page(page: str) -> str:
    """The page with the panels of now between its marks.

    Raises:
        PageBrokenError: a mark is missing.
    """
    return pages.between(page, BEGIN, END, f"\n{table()}")


def main(argv: list[str] | None = None) -> int:
    """Write both files, or check them."""
    parser = argparse.ArgumentParser(prog="dashboard", description=__doc__.partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if outdated")
    chosen = parser.parse_args(argv)
    page = PAGE.read_text(encoding="utf-8")
    wanted = {FILE: render(), PAGE: render_page(page)}
    if not chosen.check:
        for path, text in wanted.items():
            path.write_text(text, encoding="utf-8")
        return 0
    outdated = [
        path.name
        for path, text in wanted.items()
        if not path.exists() or path.read_text(encoding="utf-8") != text
    ]
    if outdated:
        print(f"outdated: {', '.join(outdated)}: run `make dashboard`", file=sys.stderr)
    return int(bool(outdated))


if __name__ == "__main__":
    sys.exit(main())
