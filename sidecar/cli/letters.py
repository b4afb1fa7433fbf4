"""`spool dead-letters …`: what Kafka would never take of a spool, straight from its folder."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from time import time as wall
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import click

from sidecar.cli import options
from sidecar.cli.client import NoAnswer, WrongUsage
from sidecar.cli.tables import table
from sidecar.core.errors import SpoolFault
from sidecar.core.placing import UNPLACED
from sidecar.core.spooling import NewRecord
from sidecar.core.words import clock
from sidecar.telemetry.lines import printable

if TYPE_CHECKING:
    from sidecar.publish.deadletters import Walked
    from sidecar.publish.letters import Letter

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])

_HEADS = ("ID", "SET ASIDE", "TOPIC", "PARTITION", "REASON", "KEY", "BYTES", "DETAIL")

folder = click.argument("folder", type=click.Path(path_type=Path))
"""`spool.dir`, in which the file of dead letters lies."""
everything = click.option("--all", "everything", is_flag=True, help="All of them.")
dry_run = click.option("--dry-run", is_flag=True, help="Only say how many that would be.")


class Wanted(NamedTuple):
    """Which letters are meant."""

    topic: str | None
    reason: str | None
    ids: frozenset[str]

    def meant(self, name: str, letter: Letter) -> bool:
        """Whether this one is."""
        return (
            self.topic in {None, letter.topic}
            and (self.reason is None or self.reason in {letter.reason, letter.detail})
            and (not self.ids or name in self.ids)
        )

    @property
    def all(self) -> bool:
        """Nothing is said that would leave any out."""
        return self == Wanted(None, None, frozenset())


def filters(command: F) -> F:
    """The options that say which letters are meant, given to the command as one `wanted`."""
    given = [
        click.option("--topic", metavar="TOPIC", help="The whole name."),
        click.option("--reason", metavar="REASON", help="As ls prints it."),
        click.option("--id", "ids", metavar="ID", multiple=True, help="May be repeated."),
    ]
    for option in reversed(given):
        command = option(command)
    return command


@click.group("dead-letters")
def dead_letters() -> None:
    """Look at what Kafka would never take of a spool, put it back, delete it.

    FOLDER is spool.dir. Its sidecars may be running. Exit 0, 2 wrong usage, 3 the file can't be
    read or written.
    """


@dead_letters.command("ls")
@folder
@filters
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True, help="At most.")
@options.output
def ls(folder: Path, limit: int, output: str, **given: Any) -> None:
    """List dead letters, oldest first."""
    wanted, more = _wanted(given), 0
    found: list[dict[str, object]] = []
    for name, letter in _walk(folder):
        if not wanted.meant(name, letter):
            continue
        if len(found) < limit:
            found.append(_brief(name, letter))
        else:
            more += 1
    if output == "json":
        click.echo(json.dumps({"letters": found, "more": more}))
    elif found:
        click.echo(table(_HEADS, [_row(one) for one in found]))
    if more:
        click.echo(f"there are {more} more; --limit {limit} shows so many", err=True)
    elif not found:
        click.echo("there are none", err=True)


@dead_letters.command()
@folder
@click.argument("name", metavar="ID")
@options.output
def show(folder: Path, name: str, output: str) -> None:
    """Show all of one letter, by its id."""
    letter = next((found for one, found in _walk(folder) if one == name), None)
    if letter is None:
        raise WrongUsage(f"no letter is called {printable(name)}; `dead-letters ls` says which are")
    if output == "json":
        from sidecar.publish.letters import to_line

        click.echo(json.dumps({"id": name, **json.loads(to_line(letter))}))
        return
    record = letter.record
    lines = [
        ("set aside", _time(letter.at)),
        ("reason", letter.reason),
        ("detail", letter.detail),
        ("topic", letter.topic),
        ("partition", _partition(letter)),
        ("written", _time(record.timestamp_ms / 1000)),
        ("accepted", _time(record.accepted_at)),
        ("key", _text(record.key)),
    ]
    for title, told in lines:
        click.echo(f"{title:<9} {printable('-' if told is None else str(told))}")
    for header, value in record.headers:
        click.echo(f"header    {printable(header)}: {printable(_text(value) or '')}")
    click.echo("value")
    click.echo(printable(_text(record.value) or "-"))


@dead_letters.command("put-back")
@folder
@filters
@everything
@click.option(
    "--by-key",
    is_flag=True,
    help="Choose their partitions anew, once Kafka says how many there are.",
)
@dry_run
@options.output
def put_back(
    folder: Path,
    everything: bool,
    by_key: bool,
    dry_run: bool,
    output: str,
    **given: Any,
) -> None:
    """Put letters back into the spool, behind what is there; here they are gone then.

    A sidecar of this folder takes them up within a minute, or at its start. What Kafka still
    doesn't take is set aside again.
    """
    wanted = _meant(_wanted(given), everything)
    matched = _count(folder, wanted)
    if dry_run or not matched:
        _told("put back", matched, output, dry_run=dry_run)
        return
    from sidecar.publish.deadletters import take_out
    from sidecar.publish.letters import once_more
    from sidecar.spool.offline import import_into

    def records() -> Iterator[tuple[str, int, NewRecord]]:
        now = wall()
        for name, letter in _walk(folder):
            if wanted.meant(name, letter):
                partition = UNPLACED if by_key else letter.partition
                yield letter.topic, partition, once_more(letter.record, now)

    def first() -> None:
        if _count(folder, wanted):
            import_into(folder, records())

    try:
        count = _read(lambda: take_out(folder, wanted.meant, first))
    except ValueError as fault:
        raise WrongUsage(f"{printable(str(fault))}; nothing was put back") from fault
    _told("put back", count, output)


@dead_letters.command()
@folder
@filters
@everything
@dry_run
@options.output
def purge(
    folder: Path,
    everything: bool,
    dry_run: bool,
    output: str,
    **given: Any,
) -> None:
    """Delete letters for good; with --all also lines that are none."""
    wanted = _meant(_wanted(given), everything)
    matched = _count(folder, wanted, unreadable=everything)
    if dry_run or not matched:
        _told("deleted", matched, output, dry_run=dry_run)
        return
    from sidecar.publish.deadletters import take_out

    count = _read(lambda: take_out(folder, wanted.meant, unreadable=everything))
    _told("deleted", count, output)


def _wanted(given: dict[str, Any]) -> Wanted:
    return Wanted(given["topic"], given["reason"], frozenset(given["ids"]))


def _meant(wanted: Wanted, everything: bool) -> Wanted:
    if wanted.all is not everything:
        raise WrongUsage("say which: --topic, --reason or --id, or else --all")
    return wanted


def _walk(folder: Path, walked: Walked | None = None) -> Iterator[tuple[str, Letter]]:
    """The letters; says at the end what else was there, unless the caller counts that."""
    from sidecar.publish.deadletters import Walked, walk

    if not folder.is_dir():
        raise WrongUsage(f"{printable(str(folder))} is no folder: name spool.dir")
    met = walked or Walked()
    try:
        yield from walk(folder, met)
    except OSError as fault:
        raise NoAnswer(printable(str(fault))) from fault
    if walked is None and met.unreadable:
        click.echo(f"{met.unreadable} lines are no letters; purge --all deletes them too", err=True)


def _count(folder: Path, wanted: Wanted, *, unreadable: bool = False) -> int:
    from sidecar.publish.deadletters import Walked

    walked = Walked()
    count = sum(wanted.meant(name, letter) for name, letter in _walk(folder, walked))
    return count + (walked.unreadable if unreadable else 0)


def _told(verb: str, count: int, output: str, *, dry_run: bool = False) -> None:
    if output == "json":
        done = 0 if dry_run else count
        click.echo(json.dumps({"matched": count, verb.replace(" ", "_"): done}))
    else:
        click.echo(f"{count} {f'would be {verb}' if dry_run else verb}")


def _brief(name: str, letter: Letter) -> dict[str, object]:
    record = letter.record
    return {
        "id": name,
        "topic": letter.topic,
        "partition": _partition(letter),
        "reason": letter.reason,
        "detail": letter.detail,
        "set_aside_at": letter.at,
        "timestamp": record.timestamp_ms,
        "key": _text(record.key),
        "value_bytes": None if record.value is None else len(record.value),
    }


def _row(one: dict[str, Any]) -> list[object]:
    return [
        one["id"],
        _time(one["set_aside_at"]),
        one["topic"],
        one["partition"],
        one["reason"],
        one["key"],
        one["value_bytes"],
        one["detail"][:120],
    ]


def _time(at: float) -> str:
    try:
        return clock(at)
    except (ValueError, OverflowError, OSError):
        return f"{at:g}"  # a timestamp may be any number


def _partition(letter: Letter) -> int | None:
    return None if letter.partition == UNPLACED else letter.partition


def _text(data: bytes | None) -> str | None:
    return None if data is None else data.decode("utf-8", "backslashreplace")


def _read(work: Callable[[], T]) -> T:
    try:
        return work()
    except (SpoolFault, OSError) as fault:
        raise NoAnswer(printable(str(fault))) from fault
