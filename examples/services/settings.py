"""A program's settings: one YAML file, checked whole, and a log that says what happens."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path
from typing import TypeVar

import msgspec
import yaml

T = TypeVar("T")


def load(kind: type[T], what: str, argv: list[str] | None = None) -> T:
    """The settings of the file behind `-c`; the defaults without one. Exits with 2 if it is bad."""
    parser = argparse.ArgumentParser(description=what)
    parser.add_argument("-c", "--config", type=Path, help="a YAML file")
    path: Path | None = parser.parse_args(argv).config
    try:
        text = "" if path is None else path.read_text("utf-8")
        return msgspec.convert(yaml.safe_load(text) or {}, kind)
    except (OSError, yaml.YAMLError, msgspec.ValidationError) as fault:
        print(f"{path}: {fault}", file=sys.stderr)
        raise SystemExit(2) from fault


def log_to_stderr() -> None:
    """One line an event, with its time."""
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s", force=True
    )
    logging.getLogger("aiohttp.access").setLevel(logging.WARNING)


def host_port(address: str) -> tuple[str, int]:
    """`127.0.0.1:8080` in its two parts."""
    host, _, port = address.rpartition(":")
    return host, int(port)
