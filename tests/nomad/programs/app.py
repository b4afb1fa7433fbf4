"""Stands for an application: asks once, as its first deed, prints the status, and stays."""

from __future__ import annotations

import os
import signal
import sys
import urllib.request


def main() -> None:
    """Ask, say, stay."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    with urllib.request.urlopen(f"{os.environ['BREAKER_URL']}/allowed", timeout=5) as answer:
        sys.stdout.write(f"{answer.status}\n")
        sys.stdout.flush()
    signal.pause()


if __name__ == "__main__":
    main()
