"""`spool …`: what waits for Kafka, by the running sidecar or straight from its folder."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from time import time as wall
from typing import IO, TYPE_CHECKING, Any, TypeVar

import click

from sidecar.cli import options
from sidecar.cli.client import Client, NoAnswer, WrongUsage
from sidecar.cli.forcing import through
from sidecar.cli.letters import dead_letters
from sidecar.cli.tables import table
from sidecar.cli.watching import dicts
from sidecar.core.errors import SpoolFault, SpoolFormat
from sidecar.core.placing import placed
from sidecar.core.words import span
from sidecar.telemetry.lines import printable

if TYPE_CHECKING:
    from sidecar.spool.offline import Verified

T = TypeVar("T")

_HEADS = ("TOPIC", "PARTITION", "RECORDS", "BYTES", "OLDEST", "FLOW", "NOTES")
_KEPT_HEADS = ("SPOOL", "TOPIC", "PARTITION", "RECORDS", "BYTES", "OLDEST", "NOTES")
_VERIFY_HEADS = ("SPOOL", "TOPIC", "PARTITION", "SEGMENT", "RECORDS", "BYTES", "VERDICT")

folder = click.argument("folder", type=click.Path(path_type=Path))
"""`spool.dir`, or one spool in it."""
token_file = click.option(
    "--token-file",
    metavar="FILE",
    help="Has the token of the sidecar's admin.token_file; else BREAKER_SIDECAR_TOKEN.",
)


@click.group()
def spool() -> None:
    """Look at the durable spool, and give it orders."""


spool.add_command(dead_letters)


@spool.command()
@click.option(
    "--folder",
    type=click.Path(path_type=Path),
    help="Read this folder instead (spool.dir, or one spool in it), without a sidecar.",
)
@options.output
@options.sidecar
def ls(folder: Path | None, output: str, client: Client) -> None:
    """List what waits for Kafka, by topic and partition."""
    if folder is not None:
        if not _ls_folder(folder, output):
            click.get_current_context().exit(3)
        return
    answer = client.get("/v1/spool")
    if output == "json":
        click.echo(json.dumps(answer.body))
        return
    topics = dicts(answer.get("topics"))
    rows = [row for topic in topics for row in _rows(topic)]
    if rows:
        click.echo(table(_HEADS, rows))
    click.echo(printable(_whole(answer.body)), err=not rows)


def _rows(topic: dict[str, Any]) -> Iterator[tuple[object, ...]]:
    flow = "direct" if topic.get("direct") else "spooled"
    notes = "paused" if topic.get("paused") else ""
    if isinstance(missing_s := topic.get("missing_for_s"), int | float):
        notes = f"{notes} no such topic for {span(missing_s)}".strip()
    parts = dicts(topic.get("backlogs"))
    for part in parts or [{"records": 0, "bytes": 0}]:
        yield (
            topic.get("topic"),
            part.get("partition"),
            part.get("records"),
            part.get("bytes"),
            _span(part.get("oldest_age_s")),
            flow,
            notes,
        )


def _whole(body: object) -> str:
    said = body if isinstance(body, dict) else {}
    words = [f"{said.get('records')} records wait, {said.get('bytes')} bytes"]
    letters = said.get("dead_letters")
    if isinstance(letters, dict) and letters.get("bytes"):
        words.append(f"{letters.get('bytes')} bytes of dead letters")
    left_s = said.get("left_s")
    if said.get("records") and isinstance(left_s, int | float):
        words.append(f"about {span(left_s)} to go at {said.get('replay_rate')} a second")
    if said.get("orphans"):
        words.append(f"{said.get('orphans')} spools beside it can't be adopted")
    if said.get("fault"):
        words.append(f"IT TAKES NOTHING MORE: {said.get('fault')}")
    return "; ".join(words)


def _span(seconds: object) -> str:
    return span(seconds) if isinstance(seconds, int | float) else "-"


def _ls_folder(folder: Path, output: str) -> bool:
    """Whether all of it could be read."""
    from sidecar.spool.offline import kept_at

    kept = _read(lambda: list(kept_at(folder)))
    whole = all(one.fault is None for one in kept)
    if output == "json":
        said = [
            {
                "spool": one.name,
                "in_use": one.backlogs is None,
                "fault": one.fault,
                "backlogs": [
                    {
                        "topic": b.topic,
                        "partition": placed(b.partition),
                        "records": b.records,
                        "bytes": b.bytes,
                        "oldest_at": b.oldest_at,
                        "done_sequence": b.done_seq,
                        "last_sequence": b.last_seq,
                    }
                    for b in one.backlogs or ()
                ],
            }
            for one in kept
        ]
        click.echo(json.dumps({"spools": said}))
        return whole
    rows: list[tuple[object, ...]] = []
    for one in kept:
        for b in one.backlogs or ():
            age = "-" if b.oldest_at is None else span(wall() - b.oldest_at)
            rows.append((one.name, b.topic, placed(b.partition), b.records, b.bytes, age, ""))
        if not one.backlogs:
            note = one.fault or ("in use: ask its sidecar" if one.backlogs is None else "empty")
            rows.append((one.name, "", "", "", "", "", note))
    click.echo(table(_KEPT_HEADS, rows))
    return whole


@spool.command()
@click.argument("topic")
@token_file
@options.sidecar
def pause(topic: str, token_file: str | None, client: Client) -> None:
    """Let a topic's replay stand still; what comes in is taken all the same."""
    through(client, token_file, "POST", options.path_of("/v1/spool", topic, "pause"))
    click.echo(f"the replay of {printable(topic)} stands still until it is resumed", err=True)


@spool.command()
@click.argument("topic")
@token_file
@options.sidecar
def resume(topic: str, token_file: str | None, client: Client) -> None:
    """Let a topic's replay go on."""
    through(client, token_file, "POST", options.path_of("/v1/spool", topic, "resume"))
    click.echo(f"the replay of {printable(topic)} goes on", err=True)


@spool.command()
@folder
@options.output
@click.pass_context
def verify(ctx: click.Context, folder: Path, output: str) -> None:
    """Read every record in a folder and say what is damaged; changes nothing.

    Exit 0 when all is whole, 3 when something isn't.
    """
    from sidecar.spool import offline

    found = _read(lambda: list(offline.verify(folder)))
    if output == "json":
        click.echo(json.dumps({"segments": [_verified(one) for one in found]}))
    else:
        rows = [
            (
                one.spool,
                one.topic,
                placed(one.partition),
                one.segment,
                one.records,
                one.bytes,
                _words(one),
            )
            for one in found
        ]
        if rows:
            click.echo(table(_VERIFY_HEADS, rows))
        bad = sum(not one.whole for one in found)
        records = sum(one.records for one in found)
        said = f"{bad} of {len(found)} segments are damaged" if bad else "all of it is whole"
        click.echo(f"{records} records in {len(found)} segments: {said}", err=True)
    if any(not one.whole for one in found):
        ctx.exit(3)


def _verified(one: Verified) -> dict[str, object]:
    return {
        "spool": one.spool,
        "topic": one.topic,
        "partition": placed(one.partition),
        "segment": one.segment,
        "records": one.records,
        "bytes": one.bytes,
        "damaged": [{"start": start, "end": end} for start, end in one.damaged],
        "missing": one.missing,
        "unfinished": one.unfinished,
        "whole": one.whole,
    }


def _words(one: Verified) -> str:
    said = []
    if one.damaged:
        size = sum(end - start for start, end in one.damaged)
        said.append(f"DAMAGED: {size} bytes in {len(one.damaged)} places")
    if one.missing:
        said.append(f"{one.missing} records are missing")
    if one.unfinished:
        said.append("ends with a piece of a record")
    return ", ".join(said) or "whole"


@spool.command("export")
@folder
def export_(folder: Path) -> None:
    """Write all that waits in a folder to standard output, a line of JSON a record.

    Nobody may be using it, and it stays as it is: delete it when the records are elsewhere.
    """
    from sidecar.spool.lines import to_line
    from sidecar.spool.offline import Exported, export

    outcome = Exported()
    with click.open_file("-", "w", encoding="utf-8") as out:

        def write() -> None:
            for topic, partition, stored in export(folder, outcome):
                out.write(to_line(topic, partition, stored) + "\n")

        _read(write)
    lost = f"; {outcome.lost} are damaged and lost" if outcome.lost else ""
    click.echo(f"{outcome.records} records of {len(outcome.spools)} spools{lost}", err=True)


@spool.command("import")
@folder
@click.argument("lines", type=click.File(encoding="utf-8"), default="-")
def import_(folder: Path, lines: IO[str]) -> None:
    """Put exported records beside the spools in FOLDER (spool.dir), from LINES or standard input.

    The sidecar there adopts them at its start. All of them are there, or none.
    """
    from sidecar.spool.lines import BadLine, from_lines
    from sidecar.spool.offline import NoRecords, import_into

    def put() -> tuple[str, int]:
        return import_into(folder, from_lines(lines))

    try:
        name, count = _read(put)
    except NoRecords as fault:
        given = "standard input" if lines.name == "<stdin>" else printable(lines.name)
        raise WrongUsage(
            f"{given} holds no records: LINES must be what `spool export` writes, a line of JSON a "
            "record; nothing was imported"
        ) from fault
    except (BadLine, ValueError) as fault:
        raise WrongUsage(f"{printable(str(fault))}; nothing was imported") from fault
    click.echo(f"{count} records are in {printable(str(folder / name))}", err=True)


def _read(work: Callable[[], T]) -> T:
    """What it returns; a fault of the spool's ends the command with 2 or 3."""
    try:
        return work()
    except SpoolFormat as fault:
        raise WrongUsage(printable(str(fault))) from fault
    except SpoolFault as fault:
        raise NoAnswer(printable(str(fault))) from fault
