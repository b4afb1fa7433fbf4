"""`python -m bench [--quick] [--only NAME] [--json FILE]`: measure, print the table."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from bench import (
    clients,
    decisions,
    dual,
    evaluation,
    footprint,
    host,
    instructions,
    kit,
    load,
    memory,
    publish,
    signals,
    spool,
    spool_memory,
    stalls,
    takeover,
    trip,
)
from bench.table import Row, render
from tests.daemon import DaemonFailed

SECTIONS: dict[str, Callable[..., Iterator[Row]]] = {
    "trip": trip.measure,
    "decisions": decisions.measure,
    "instructions": instructions.measure,
    "stalls": stalls.measure,
    "load": load.measure,
    "memory": memory.measure,
    "spool": spool.measure,
    "publish": publish.measure,
    "dual": dual.measure,
    "spool-memory": spool_memory.measure,
    "clients": clients.measure,
    "footprint": footprint.measure,
    "evaluation": evaluation.measure,
    "signals": signals.measure,
    "kit": kit.measure,
    "takeover": takeover.measure,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the sections one after the other; figures come to stdout, progress to stderr.

    Returns 1 when one of them failed; a missed target is a figure, no failure.
    """
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer samples: to see that it runs")
    parser.add_argument("--only", action="append", choices=SECTIONS, help="this section; repeats")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here too")
    chosen = parser.parse_args(argv)
    machine = host.describe()
    rows: list[Row] = []
    failed = False
    for name in chosen.only or SECTIONS:
        print(f"measuring: {name} …", file=sys.stderr, flush=True)
        try:
            for row in SECTIONS[name](quick=chosen.quick):
                print(f"  {row.what}", file=sys.stderr, flush=True)
                rows.append(row)
        except (host.BenchError, DaemonFailed, OSError, TimeoutError) as fault:
            # What the other sections measured, minutes of it, is not lost.
            failed = True
            rows.append(Row(section=name, what="failed", note=repr(fault)[:900]))
    print("\n".join(f"{key}: {value}" for key, value in machine.items()))
    print(f"\n{render(rows)}")
    if chosen.json is not None:
        figures = {
            "machine": machine,
            "quick": chosen.quick,
            "rows": [row.as_dict() for row in rows],
        }
        chosen.json.write_text(json.dumps(figures, indent=2, ensure_ascii=False) + "\n", "utf-8")
    return 1 if failed else 0


if __name__ == "__main__":
    # What whoever started this left open. A terminal's or an agent's pipe may be watched by way of
    # those who hold it, all the time, and that showed in every p99.
    os.closerange(3, 1024)
    sys.exit(main())
