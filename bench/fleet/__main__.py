"""`python -m bench.fleet [--quick] [--json FILE] [--write]`: measure a fleet, print the table."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from bench import host
from bench.fleet import page
from bench.fleet.figures import QUICK, Plan
from bench.fleet.measure import measure
from bench.fleet.model import costs
from bench.fleet.rows import rows
from bench.table import render
from tests.daemon import DaemonFailed


def main(argv: Sequence[str] | None = None) -> int:
    """Figures come to stdout, progress to stderr. 1 when it failed; a missed target is a figure."""
    parser = argparse.ArgumentParser(prog="bench.fleet", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few followers: to see that it runs")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here too")
    parser.add_argument("--write", action="store_true", help="renew the tables in docs/scale.md")
    chosen = parser.parse_args(argv)
    if chosen.quick and chosen.write:
        parser.error("--write takes a whole measurement: leave --quick out")
    machine = host.describe()
    try:
        measured = measure(QUICK if chosen.quick else Plan(), _tell)
    except (host.BenchError, DaemonFailed, OSError, TimeoutError, AssertionError) as fault:
        print(f"failed: {fault}", file=sys.stderr)
        return 1
    slopes = costs(measured)
    made = rows(measured, slopes)
    print("\n".join(f"{key}: {value}" for key, value in machine.items()))
    print(f"\n{render(made)}")
    if chosen.json is not None:
        figures = {
            "machine": machine,
            "quick": chosen.quick,
            "rows": [row.as_dict() for row in made],
        }
        chosen.json.write_text(json.dumps(figures, indent=2, ensure_ascii=False) + "\n", "utf-8")
    if chosen.write:
        print(f"written: {page.write(measured, slopes, machine)}", file=sys.stderr)
    return 0


def _tell(what: str) -> None:
    print(f"measuring: {what} …", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
