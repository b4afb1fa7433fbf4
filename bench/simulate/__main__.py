"""`python -m bench.simulate [--json] [--seeds N] [--plots FOLDER]`: the policies in one table."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from bench.simulate.day import day
from bench.simulate.plots import draw
from bench.simulate.policies import FULL_S, START_S
from bench.simulate.scenarios import POLICIES, SCENARIOS, Figures, Run, run, summed_up
from bench.simulate.table import render, told

AUTO = "auto"


def main(argv: Sequence[str] | None = None) -> int:
    """Simulate; figures come to stdout, progress to stderr."""
    parser = argparse.ArgumentParser(prog="bench.simulate", description=__doc__)
    parser.add_argument("--json", action="store_true", help="figures as JSON")
    parser.add_argument("--seeds", type=int, default=20, help="stories of each kind")
    parser.add_argument("--only", action="append", choices=[*SCENARIOS, AUTO], help="this; repeats")
    parser.add_argument("--plots", type=Path, metavar="FOLDER", help="draw the first seed there")
    chosen = parser.parse_args(argv)
    if chosen.seeds < 1:
        parser.error("--seeds: at least one")
    wanted = chosen.only or [*SCENARIOS, AUTO]
    rows: list[Figures] = []
    for scenario in SCENARIOS:
        if scenario in wanted:
            rows += _compared(scenario, chosen.seeds, chosen.plots)
    learned = None
    if AUTO in wanted:
        print("simulating: a day …", file=sys.stderr, flush=True)
        learned = day(1)
    if chosen.json:
        figures = {
            "shed": {"start_s": START_S, "full_s": FULL_S},
            "policies": [asdict(row) for row in rows],
            "auto": asdict(learned) if learned is not None else None,
        }
        print(json.dumps(figures, indent=1))
    else:
        said = [render(rows)] if rows else []
        print("\n\n".join([*said, told(learned)] if learned is not None else said))
    return 0


def _compared(scenario: str, seeds: int, plots: Path | None) -> Iterator[Figures]:
    """Every policy in a scenario; the first seed is drawn."""
    print(f"simulating: {scenario} …", file=sys.stderr, flush=True)
    first: dict[str, Run] = {}
    for policy, made in POLICIES.items():
        runs = [run(SCENARIOS[scenario], made(), seed) for seed in range(seeds)]
        first[policy] = runs[0]
        yield summed_up(scenario, policy, runs)
    if plots is not None:
        plots.mkdir(parents=True, exist_ok=True)
        (plots / f"{scenario}.svg").write_text(draw(scenario, first), "utf-8")


if __name__ == "__main__":
    sys.exit(main())
