"""`status`, `history` and `watch`: what the fleet is doing, since when, and why."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from time import time as wall
from typing import Any

import click

from sidecar.cli import options
from sidecar.cli.client import Client, WrongUsage
from sidecar.cli.following import Follower
from sidecar.cli.tables import ago, loud, passed, short_time, table
from sidecar.core import words
from sidecar.telemetry.lines import printable

_HEADS = (
    "BREAKER",
    "STATE",
    "SINCE",
    "REASON",
    "EVIDENCE",
    "REPORTERS",
    "EVALUATOR",
    "NOTES",
    "DETAIL",
)
_HISTORY_HEADS = ("AT", "AGO", "FROM", "TO", "REASON", "SEQ", "EPOCH", "EVALUATOR", "DETAIL")


@click.command()
@options.breaker
@options.output
@options.sidecar
def status(name: str | None, output: str, client: Client) -> None:
    """Show every breaker, or one: state, since when, and why."""
    answer = client.get("/v1/status")
    if name == "default":
        name = str(answer.get("default") or name)  # the only one is meant by it, too
    items = _asked_for(name, dicts(answer.get("breakers")))
    if output == "json":
        body = answer.body if isinstance(answer.body, dict) else {}
        click.echo(json.dumps({**body, "breakers": items}))
        return
    click.echo(table(_HEADS, [_row(item) for item in items]))
    click.echo()
    for line in _concerns(items, answer.get("sync")):
        click.echo(line)
    click.echo(printable(_daemon(answer.body)))


def _asked_for(name: str | None, items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    names = [str(item.get("name")) for item in items]
    if name is None:
        return items
    if name not in names:
        raise WrongUsage(f'no breaker is called "{name}"; there are: {", ".join(names)}')
    return [items[names.index(name)]]


def _row(item: dict[str, Any]) -> tuple[object, ...]:
    holder = words.evaluator(item)
    return (
        item.get("name"),
        words.state(item),
        passed(words.since_at(item)),
        item.get("reason"),
        words.numbers(item),
        words.reporters(item) or "unknown here",
        holder.get("instance") if holder is not None else "nobody",
        ", ".join(words.notes(item)),
        item.get("detail"),
    )


def _concerns(items: list[dict[str, Any]], sync: object) -> Iterator[str]:
    """What should be known beside the table. What is true of many breakers is said once."""
    shared: dict[str, list[str]] = {}
    for item in items:
        name, forced = str(item.get("name")), words.forced(item)
        for said in words.concerns(item, sync, wall()):
            if said == forced:
                yield loud(f"{name} is {said}")
            else:
                shared.setdefault(said, []).append(name)
    for said, names in shared.items():
        yield printable(f"{', '.join(names)}: {said}")


def _daemon(body: object) -> str:
    """One line on the sidecar that was asked."""
    said = body if isinstance(body, dict) else {}
    store, sync = said.get("store"), said.get("sync")
    kind = store.get("kind") if isinstance(store, dict) else store
    age_s = words.number(sync.get("age")) if isinstance(sync, dict) else None
    read = f"read {words.span(age_s)} ago" if age_s is not None else "never read"
    return (
        f"sidecar {said.get('instance')}, version {said.get('version')}, "
        f"role {said.get('role')}, store {kind} ({read})"
    )


@click.command()
@options.breaker
@options.output
@options.sidecar
def history(name: str | None, output: str, client: Client) -> None:
    """Show a breaker's last transitions, newest last."""
    answer = client.get(options.path_of("/v1/breakers", name or "default", "history"))
    if output == "json":
        click.echo(json.dumps(answer.body))
        return
    entries = dicts(answer.get("transitions"))
    if not entries:
        click.echo(printable(f"{answer.get('breaker')} has had no transition yet"), err=True)
        return
    click.echo(table(_HISTORY_HEADS, [_history_row(entry) for entry in entries]))


def _history_row(entry: dict[str, Any]) -> tuple[object, ...]:
    keys = ("from", "to", "reason", "seq", "epoch", "evaluator", "detail")
    at = entry.get("at")
    return (short_time(at), ago(at), *(entry.get(key) for key in keys))


@click.command()
@options.breaker
@options.output
@options.sidecar
def watch(name: str | None, output: str, client: Client) -> None:
    """Print every transition and every override's begin and end as they happen, until Ctrl-C."""
    with suppress(KeyboardInterrupt), options.sigterm_is_ctrl_c():
        follower = Follower(client, name)
        for item in follower.known.values():
            said = f"{item.get('name')} is {words.state(item)} since {item.get('since')}"
            click.echo(printable(said), err=True)
            if (forced := words.forced(item)) is not None:
                click.echo(loud(f"{item.get('name')} is {forced}"), err=True)
        for entry in follower.events():
            click.echo(json.dumps(entry) if output == "json" else _line(entry))


def _line(entry: dict[str, Any]) -> str:
    at = short_time(entry.get("at")) if entry.get("at") else "now"
    breaker, moved = entry.get("breaker"), entry.get("from") != entry.get("to")
    move = f"{entry.get('from')} -> {entry.get('to')}" if moved else f"stays {entry.get('to')}"
    if entry.get("event") == "override_begins":
        return loud(f"{at} {breaker} {move} {words.forced(entry)}")
    if entry.get("event") == "override_ends":
        return loud(f"{at} {breaker} {move} not FORCED {entry.get('mode')} any more")
    under = "" if entry.get("in_force", True) else " underneath"
    why = f"{entry.get('reason')}: {entry.get('detail')} (seq {entry.get('seq')})"
    return printable(f"{at} {breaker} {move}{under} {why}")


def dicts(value: object) -> list[dict[str, Any]]:
    """The objects in a list; none where it is no list."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []
