"""`dlq`: what lies on dead-letter topics, put back or deleted. Asks Kafka, not a sidecar."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Callable, Coroutine
from contextlib import aclosing
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

import click

from sidecar.cli import options
from sidecar.cli.client import NoAnswer, WrongUsage
from sidecar.cli.main import load
from sidecar.cli.tables import table
from sidecar.core.words import time_at
from sidecar.telemetry.lines import printable

if TYPE_CHECKING:
    from sidecar.consumer.dlq import DeadLetters, Replayed
    from sidecar.consumer.letters import Letter, Wanted

R = TypeVar("R")
F = TypeVar("F", bound=Callable[..., Any])

_PLACE = re.compile(r"(\d{1,9}):(\d{1,18})")


class Time(click.ParamType[float]):
    """A time, or how long ago it was; seconds since 1970."""

    name = "time"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Seconds since 1970; fails as usage."""
        if isinstance(value, float):
            return value
        at = time_at(value)
        if at is not None:
            return at
        if not re.match(r"\d", str(value)) or "-" in str(value):
            self.fail(
                f"{value!r} is no time: write 2026-11-20T20:00:00Z, or 2h for so long ago",
                param,
                ctx,
            )
        return time.time() - options.Duration().convert(value, param, ctx)


class Place(click.ParamType[tuple[int, int]]):
    """Where a letter lies on its topic."""

    name = "place"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, int]:
        """Partition and offset; fails as usage."""
        if isinstance(value, tuple):
            return value
        found = _PLACE.fullmatch(str(value))
        if found is None:
            self.fail(f"{value!r} is no place: write PARTITION:OFFSET, as ls prints it", param, ctx)
        return int(found[1]), int(found[2])


def filters(command: F) -> F:
    """The options that say which letters are meant, given to the command as one `wanted`."""
    given = [
        click.option(
            "--reason", metavar="TEXT", help="permanent, exhausted, or a part of the error."
        ),
        click.option("--key", metavar="KEY", help="The whole key."),
        click.option("--since", type=Time(), help="Failed then or later; 2h: two hours ago."),
        click.option("--until", type=Time(), help="Failed before."),
        click.option("--min-attempts", type=click.IntRange(0), default=0, help="Tried as often."),
        click.option("--max-attempts", type=click.IntRange(0), help="Tried no more often."),
        click.option(
            "--at", type=Place(), multiple=True, help="Only this letter; may be repeated."
        ),
    ]
    for option in reversed(given):
        command = option(command)
    return command


def kafka(command: F) -> F:
    """`--bootstrap` and `-c`, given to the command as one `letters`."""
    bootstrap = click.option(
        "--bootstrap",
        "letters",
        metavar="HOST:PORT",
        callback=_letters,
        help="Where Kafka is; else kafka.bootstrap_servers, by file or environment.",
    )
    config = click.option(
        "-c",
        "--config",
        metavar="FILE",
        envvar="BREAKER_SIDECAR_CONFIG",
        expose_value=False,
        is_eager=True,
        callback=_keep_path,
        help="The configuration file, of which `kafka` is used; also BREAKER_SIDECAR_CONFIG.",
    )
    return bootstrap(config(command))


def _keep_path(ctx: click.Context, _param: click.Parameter, value: str | None) -> None:
    ctx.meta["config_path"] = value


def _letters(ctx: click.Context, _param: click.Parameter, value: str | None) -> DeadLetters:
    config = load(ctx, ctx.meta["config_path"], {"kafka.bootstrap_servers": value})
    from sidecar import compose
    from sidecar.consumer.dlq import DeadLetters
    from sidecar.core.errors import KafkaDenied

    connection = compose.kafka(config)
    if connection is None:
        raise WrongUsage(
            "nobody says where Kafka is: --bootstrap, kafka.bootstrap_servers in the file, or "
            "BREAKER_SIDECAR__KAFKA__BOOTSTRAP_SERVERS"
        )
    try:
        return DeadLetters(connection.options(), connection.request_timeout_s)
    except KafkaDenied as error:
        raise WrongUsage(printable(str(error))) from error


def _wanted(given: dict[str, Any]) -> Wanted:
    from sidecar.consumer.letters import Wanted

    return Wanted(
        reason=given["reason"],
        key=None if given["key"] is None else given["key"].encode(),
        since_at=given["since"],
        until_at=given["until"],
        min_attempts=given["min_attempts"],
        max_attempts=given["max_attempts"],
        places=frozenset(given["at"]),
    )


def _answer(work: Coroutine[Any, Any, R]) -> R:
    """What Kafka says; exits 2 for a topic that isn't there, 3 without an answer."""
    from sidecar.consumer.dlq import NoSuchTopic, Unreachable

    try:
        return asyncio.run(work)
    except NoSuchTopic as error:
        raise WrongUsage(printable(str(error))) from error
    except Unreachable as error:
        raise NoAnswer(printable(str(error))) from error


@click.group()
def dlq() -> None:
    """Look at dead letters, put them back, delete them.

    Exit 0, 2 wrong usage (no such topic too), 3 no answer of Kafka's.
    """
    # What aiokafka has to say of each connection is no output of a command.
    import logging

    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)


@dlq.command("ls")
@click.argument("topic", required=False)
@filters
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True, help="At most.")
@options.output
@kafka
def ls(letters: DeadLetters, topic: str | None, limit: int, output: str, **given: Any) -> None:
    """List dead-letter topics, or the letters of one (its own name, or that of its events)."""
    if topic is None:
        counts = _answer(letters.topics())
        if output == "json":
            click.echo(json.dumps({"topics": counts}))
        else:
            click.echo(table(["TOPIC", "LETTERS"], list(counts.items())))
        return
    found, more = _answer(_first(letters, topic, _wanted(given), limit))
    if output == "json":
        click.echo(json.dumps([letter.as_json(whole=False) for letter in found]))
    else:
        heads = ["PLACE", "FAILED", "REASON", "ATTEMPTS", "KEY", "ORIGIN", "ERROR"]
        click.echo(table(heads, [_row(letter) for letter in found]))
    if more:
        click.echo(f"there are more; --limit {limit} shows so many", err=True)


async def _first(
    letters: DeadLetters, topic: str, wanted: Wanted, limit: int
) -> tuple[list[Letter], bool]:
    found: list[Letter] = []
    async with aclosing(letters.scan(await letters.find(topic), wanted)) as meant:
        async for letter in meant:
            if len(found) == limit:
                return found, True
            found.append(letter)
    return found, False


def _row(letter: Letter) -> list[object]:
    origin = letter.origin
    return [
        letter.place,
        _time(letter.failed_at),
        letter.reason,
        origin.attempts,
        _text(letter.key),
        f"{origin.topic} {origin.partition}:{origin.offset}",
        (letter.error or "").partition("\n")[0][:120],
    ]


def _time(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _text(data: bytes | None) -> str | None:
    return None if data is None else data.decode("utf-8", "backslashreplace")


@dlq.command()
@click.argument("topic")
@click.argument("place", type=Place())
@options.output
@kafka
def show(letters: DeadLetters, topic: str, place: tuple[int, int], output: str) -> None:
    """Show all of one letter, by its place (PARTITION:OFFSET)."""
    from sidecar.consumer.letters import Wanted

    found, _ = _answer(_first(letters, topic, Wanted(places=frozenset([place])), 1))
    if not found:
        raise WrongUsage(f"no letter lies at {place[0]}:{place[1]}; `dlq ls` says which do")
    letter = found[0]
    if output == "json":
        click.echo(json.dumps(letter.as_json(whole=True)))
        return
    origin = letter.origin
    lines = [
        ("failed", _time(letter.failed_at)),
        ("reason", letter.reason),
        ("attempts", f"{origin.attempts}, by {letter.group or '-'}"),
        ("origin", f"{origin.topic} {origin.partition}:{origin.offset}"),
        ("written", _time(origin.timestamp_ms / 1000)),
        ("replays", origin.replays),
        ("key", _text(letter.key)),
        ("error", letter.error),
    ]
    for name, told in lines:
        click.echo(f"{name:<9} {printable('-' if told is None else str(told))}")
    for name, value in letter.headers:
        if not name.startswith("breaker-"):
            click.echo(f"header    {printable(name)}: {printable(_text(value) or '')}")
    click.echo("stack")
    for line in (letter.stack or "-").splitlines():
        click.echo(f"  {printable(line)}")
    click.echo("value")
    click.echo(printable(_text(letter.value) or "-"))


@dlq.command()
@click.argument("topic")
@filters
@click.option(
    "--rate",
    type=click.FloatRange(0),
    default=100.0,
    show_default=True,
    help="A second; 0: no limit.",
)
@click.option("--to", metavar="TOPIC", help="Another topic than the one they came from.")
@click.option("--dry-run", is_flag=True, help="Only say what would be put back.")
@options.output
@kafka
def replay(  # noqa: PLR0917 - click passes its options by name
    letters: DeadLetters,
    topic: str,
    rate: float,
    to: str | None,
    dry_run: bool,
    output: str,
    **given: Any,
) -> None:
    """Put letters back on the topic they came from. They stay here as well, until `purge`."""

    async def work() -> Replayed:
        sink = letters.sink()
        try:
            return await letters.replay(
                await letters.find(topic), _wanted(given), sink, to=to, rate=rate, dry_run=dry_run
            )
        finally:
            await sink.stop()

    done = _answer(work())
    told = {
        "matched": done.seen,
        "put_back": done.put_back,
        "dry_run": dry_run,
        "topics": done.topics,
    }
    if output == "json":
        click.echo(json.dumps(told))
    else:
        verb = "would be put back" if dry_run else "put back"
        click.echo(f"{done.seen if dry_run else done.put_back} {verb}")
        for name, count in sorted(done.topics.items()):
            click.echo(f"  {count} on {printable(name)}")
    if done.failed is not None:
        raise NoAnswer(f"ended after {done.put_back} of {done.seen} read: {printable(done.failed)}")


@dlq.command()
@click.argument("topic")
@click.option("--before", type=Time(), help="Only letters that failed before; 7d is 168h ago.")
@click.option("--all", "everything", is_flag=True, help="All of them.")
@click.option("--dry-run", is_flag=True, help="Only say how many that would be.")
@options.output
@kafka
def purge(  # noqa: PLR0917 - click passes its options by name
    letters: DeadLetters,
    topic: str,
    before: float | None,
    everything: bool,
    dry_run: bool,
    output: str,
) -> None:
    """Delete letters for good, the oldest of each partition first.

    Kafka deletes from the beginning of a partition on, so a letter that is to stay keeps all
    behind it.
    """
    if (before is None) is not everything:
        raise WrongUsage("say which: --before TIME, or --all")
    count = _answer(_purge(letters, topic, before, dry_run))
    if output == "json":
        click.echo(json.dumps({"deleted": 0 if dry_run else count, "matched": count}))
    else:
        click.echo(f"{count} {'would be deleted' if dry_run else 'deleted'}")


async def _purge(letters: DeadLetters, topic: str, before: float | None, dry_run: bool) -> int:
    return await letters.purge(await letters.find(topic), before, dry_run=dry_run)
