"""The outage and its cure, twice: with the breaker, then without. Takes less than four minutes.

Ends with 0 where the breaker kept its promise or the key q ended it, 1 where it didn't or something
failed, and 130 on Ctrl-C.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import termios
import tty
from collections.abc import Callable, Iterator
from dataclasses import asdict

import aiohttp
from aiokafka.errors import KafkaError

from tools.demo import numbers, script
from tools.demo.numbers import Column
from tools.demo.stage import Failed, Stage
from tools.demo.story import Story
from tools.demo.view import Picture, Plain, View, opening

FAULTS = (aiohttp.ClientError, KafkaError, OSError, subprocess.SubprocessError)
"""Of Kafka, Consul, and those on stage, where they can't be reached or started."""


async def play(stage: Stage, view: View, *, steered: bool) -> tuple[Column, Column]:
    """Both runs. `q` cancels this task."""
    me = asyncio.current_task()
    playing: list[Story] = []

    def pressed(key: str) -> None:
        if key == "n" and playing:
            playing[-1].next_act.set()
        elif key == "q" and me is not None:
            me.cancel()

    columns = []
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        with listening(pressed, wanted=isinstance(view, Picture)):
            for breaker in (True, False):
                playing.append(Story(stage, view, session, breaker=breaker, steered=steered))
                columns.append(await playing[-1].play())
    return columns[0], columns[1]


@contextlib.contextmanager
def listening(pressed: Callable[[str], None], *, wanted: bool) -> Iterator[None]:
    """Hear single keys of the terminal while the block runs."""
    if not wanted or not sys.stdin.isatty():
        yield
        return
    stdin, loop = sys.stdin.fileno(), asyncio.get_running_loop()
    before = termios.tcgetattr(stdin)
    tty.setcbreak(stdin)
    loop.add_reader(stdin, lambda: pressed(os.read(stdin, 1).decode("ascii", "ignore")))
    try:
        yield
    finally:
        loop.remove_reader(stdin)
        termios.tcsetattr(stdin, termios.TCSADRAIN, before)


def summary(with_it: Column, without: Column) -> dict[str, object]:
    """What a program makes of it."""
    found = numbers.broken(with_it)
    return {
        "ok": not found,
        "broken": found,
        "settings": {
            "requests_per_s": script.RATE,
            "client_timeout_s": script.CLIENT_TIMEOUT_S,
            "database_down_s": script.DOWN_S,
            "api": script.API,
            "workers": script.WORKER,
            "database": script.DATABASE,
            "breaker": script.FLOW,
        },
        "with_breaker": asdict(with_it),
        "without_breaker": asdict(without),
    }


def run(view: View, *, steered: bool) -> tuple[Column, Column]:
    """Everything between the first line and the table. Raises Failed, AssertionError."""
    try:
        view.say(*opening(), "", "Starting Kafka, Consul, three sidecars and a database …")
        stage = Stage()
        with stage:
            try:
                return asyncio.run(play(stage, view, steered=steered))
            except BaseException:
                stage.hurry = True
                raise
    finally:
        view.close()


def main(argv: list[str] | None = None) -> int:
    """Show it."""
    parser = argparse.ArgumentParser(prog="demo", description=__doc__.partition("\n")[0])
    parser.add_argument("--plain", action="store_true", help="text only; JSON as the last line")
    parser.add_argument("--steer", action="store_true", help="acts end at the key n alone")
    given = parser.parse_args(argv)
    plain = given.plain or not sys.stdout.isatty()
    if plain and given.steer:
        parser.error("--steer needs a terminal")
    view: View = Plain() if plain else Picture()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with_it, without = run(view, steered=given.steer)
    except (KeyboardInterrupt, asyncio.CancelledError) as end:
        print("Stopped.", file=sys.stderr)
        return 130 if isinstance(end, KeyboardInterrupt) else 0
    except (*FAULTS, Failed, AssertionError) as fault:
        print(f"The demo failed: {fault}", file=sys.stderr)
        return 1
    found = numbers.broken(with_it)
    view.say("", *numbers.table(with_it, without), "")
    view.say(
        *(f"NOT KEPT: {each}." for each in found) if found else ("The breaker kept its promise.",)
    )
    if plain:
        view.say(json.dumps(summary(with_it, without)))
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
