"""`status`, `history` and `watch`: what the fleet is doing, since when, and why."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Iterator
from typing import Any

import click

from sidecar.cli import options
from sidecar.cli.client import Client, NoAnswer, WrongUsage
from sidecar.cli.tables import ago, short_time, span, table
from sidecar.telemetry.lines import printable

_POLL_S = 0.5
_HEADS = ("BREAKER", "STATE", "SINCE", "REASON", "REPORTERS", "EVALUATOR", "NOTES", "DETAIL")
_HISTORY_HEADS = ("AT", "FROM", "TO", "REASON", "SEQ", "EPOCH", "EVALUATOR", "DETAIL")


@click.command()
@options.output
@options.sidecar
def status(output: str, client: Client) -> None:
    """Show every breaker: state, since when, and why."""
    answer = client.get("/v1/status")
    if output == "json":
        click.echo(json.dumps(answer.body))
        return
    click.echo(table(_HEADS, [_row(item) for item in _dicts(answer.get("breakers"))]))
    click.echo()
    click.echo(printable(_daemon(answer.body)))


def _row(item: dict[str, Any]) -> tuple[object, ...]:
    state = str(item.get("state"))
    ratio = item.get("admit_ratio")
    if state == "HALF_OPEN" and isinstance(ratio, int | float):
        state = f"{state} {ratio:.0%}"
    holder, reporters = item.get("evaluator"), item.get("reporters")
    return (
        item.get("name"),
        state,
        ago(item.get("since")),
        item.get("reason"),
        f"{reporters.get('fresh')} fresh, {reporters.get('stale')} stale"
        if isinstance(reporters, dict)
        else None,
        holder.get("instance") if isinstance(holder, dict) else None,
        ", ".join(_notes(item)),
        item.get("detail"),
    )


def _notes(item: dict[str, Any]) -> Iterator[str]:
    """What is out of the ordinary."""
    if item.get("stale"):
        yield "stale"
    if item.get("config_mismatch"):
        yield "config mismatch"
    if item.get("mode") == "shadow":
        yield f"shadow of {item.get('automaton')}"
    if item.get("override"):
        yield "override"


def _daemon(body: object) -> str:
    """One line on the sidecar that was asked."""
    said = body if isinstance(body, dict) else {}
    store, sync = said.get("store"), said.get("sync")
    kind = store.get("kind") if isinstance(store, dict) else store
    age_s = sync.get("age") if isinstance(sync, dict) else None
    read = f"read {span(age_s)} ago" if isinstance(age_s, int | float) else "never read"
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
    answer = client.get(_history_path(name))
    if output == "json":
        click.echo(json.dumps(answer.body))
        return
    entries = _dicts(answer.get("transitions"))
    click.echo(table(_HISTORY_HEADS, [_history_row(entry) for entry in entries]))


def _history_path(name: str | None) -> str:
    return options.path_of("/v1/breakers", name or "default", "history")


def _history_row(entry: dict[str, Any]) -> tuple[object, ...]:
    keys = ("from", "to", "reason", "seq", "epoch", "evaluator", "detail")
    return (short_time(entry.get("at")), *(entry.get(key) for key in keys))


@click.command()
@options.breaker
@options.output
@options.sidecar
def watch(name: str | None, output: str, client: Client) -> None:
    """Print every transition as it happens, until Ctrl-C."""
    known = _snapshot(client, name)
    for item in known.values():
        said = f"{item.get('name')} is {item.get('state')} since {item.get('since')}"
        click.echo(printable(said), err=True)
    try:
        for entry in _transitions(client, name, known):
            click.echo(json.dumps(entry) if output == "json" else _line(entry))
    except KeyboardInterrupt:
        return


def _transitions(
    client: Client, name: str | None, known: dict[str, dict[str, Any]]
) -> Iterator[dict[str, Any]]:
    """Look again and again. A sidecar that is away is told of once and tried again."""
    away = False
    while True:
        threading.Event().wait(_POLL_S)
        try:
            now = _snapshot(client, name)
        except NoAnswer as error:
            if not away:
                click.echo(f"{error.format_message()}\nTrying again.", err=True)
            away = True
            continue
        if away:
            click.echo("the sidecar answers again", err=True)
        away = False
        for breaker, item in now.items():
            if breaker in known:
                yield from _changes(client, known[breaker], item)
        known = now


def _snapshot(client: Client, name: str | None) -> dict[str, dict[str, Any]]:
    if name is None:
        items: Iterable[dict[str, Any]] = _dicts(client.get("/v1/breakers").get("breakers"))
    else:
        items = _dicts([client.get(options.path_of("/v1/breakers", name)).body])
    return {str(item.get("name")): item for item in items}


def _changes(
    client: Client, before: dict[str, Any], after: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    """What happened between two looks: the history knows also what came and went."""
    breaker = str(after.get("name"))
    told = before.get("state")
    if before.get("seq") != after.get("seq"):
        for entry in _since(client, breaker, before.get("seq")):
            told = entry.get("to")
            yield {"breaker": breaker, **entry}
    if after.get("state") != told:
        # No record stands behind it: the store was lost, or the history can't be read.
        keys = ("reason", "detail", "seq", "epoch")
        yield {
            "breaker": breaker,
            "at": after.get("since") if before.get("seq") != after.get("seq") else None,
            "from": told,
            "to": after.get("state"),
            **{key: after.get(key) for key in keys},
        }


def _since(client: Client, breaker: str, seq: object) -> list[dict[str, Any]]:
    try:
        entries = _dicts(client.get(_history_path(breaker)).get("transitions"))
    except (NoAnswer, WrongUsage):
        return []
    newest = seq if isinstance(seq, int) else 0
    return [entry for entry in entries if _seq(entry) > newest]


def _seq(entry: dict[str, Any]) -> int:
    seq = entry.get("seq")
    return seq if isinstance(seq, int) else 0


def _line(entry: dict[str, Any]) -> str:
    at = short_time(entry.get("at")) if entry.get("at") else "now"
    move = f"{entry.get('breaker')} {entry.get('from')} -> {entry.get('to')}"
    why = f"{entry.get('reason')}: {entry.get('detail')} (seq {entry.get('seq')})"
    return printable(f"{at} {move} {why}")


def _dicts(value: object) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []
