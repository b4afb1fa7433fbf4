"""`allowed`, `report` and `wait`: one question or one message to the local sidecar."""

from __future__ import annotations

import json
import os
import re
import threading
import time
from typing import Any

import click

from sidecar.cli import options
from sidecar.cli.client import Answer, Client, NoAnswer, WrongUsage
from sidecar.core.reports import INSTANCE
from sidecar.telemetry.lines import printable

_POLL_S = 0.2


@click.command()
@options.breaker
@click.option("--peek", is_flag=True, help="Only look: spend nothing of a half-open share.")
@click.option("--explain", is_flag=True, help="Say what the decision rests on.")
@options.output
@options.sidecar
@click.pass_context
def allowed(  # noqa: PLR0917 - click passes its options by name
    ctx: click.Context, name: str | None, peek: bool, explain: bool, output: str, client: Client
) -> None:
    """Ask whether a producer may send.

    Exit 0 is yes, 1 no, 2 wrong usage (an unknown name too), 3 nobody knows.
    """
    asked = "&".join(flag for flag, on in (("peek=1", peek), ("explain=1", explain)) if on)
    path = options.path_of("/allowed", name) + (f"?{asked}" if asked else "")
    answer = client.request("GET", path)
    admitted = answer.get("allowed")
    if not isinstance(admitted, bool):
        client.checked(answer)
        raise NoAnswer("the answer says neither yes nor no; is that a sidecar?")
    if output == "json":
        click.echo(json.dumps(answer.body))
    else:
        click.echo(printable(_decision(answer, admitted)))
        if explain:
            from sidecar.cli.explaining import lines

            for line in lines(answer.get("explain")):
                click.echo(line)
    ctx.exit(0 if admitted else 1)


def _decision(answer: Answer, admitted: bool) -> str:
    words = ["admit" if admitted else "reject", str(answer.get("breaker"))]
    words += [str(answer.get("state")), f"{answer.get('reason')}: {answer.get('detail')}"]
    if answer.get("retry_after") is not None:
        words.append(f"(retry after {answer.get('retry_after')} s)")
    if answer.get("stale"):
        words.append("(stale)")
    return " ".join(words)


def _instance(ctx: click.Context, param: click.Parameter, value: str | None) -> str:
    if value is None:
        host = re.sub(r"[^A-Za-z0-9_.-]", "-", os.uname().nodename).lstrip("_.-")
        return f"{host[:110] or 'host'}-cli"
    if not INSTANCE.fullmatch(value):
        raise click.BadParameter(f"{value!r} must match {INSTANCE.pattern}", ctx, param)
    return value


@click.command()
@options.breaker
@click.option("--ok", type=click.FloatRange(0), default=0, help="Messages handled.")
@click.option("--fail", type=click.FloatRange(0), default=0, help="Messages that failed.")
@click.option("--instance", callback=_instance, help="Who reports; <host>-cli.")
@click.option(
    "--every",
    type=options.Duration(above=0),
    metavar="DURATION",
    help="Go on until Ctrl-C.",
)
@options.sidecar
def report(  # noqa: PLR0917 - click passes its options by name
    name: str | None, ok: float, fail: float, instance: str, every: float | None, client: Client
) -> None:
    """Report how the last interval went.

    With --every it goes on until Ctrl-C or SIGTERM, and then withdraws.
    """
    post = {"instance": instance, "count_ok": _plain(ok), "count_fail": _plain(fail)}
    if every is None:
        _send(client, name, post)
        click.echo(f"reported {post['count_ok']} ok, {post['count_fail']} failed", err=True)
        return
    try:
        with options.sigterm_is_ctrl_c():
            _repeat(client, name, post, max(every, 0.05))
    except KeyboardInterrupt:
        _goodbye(client, name, instance)


def _plain(number: float) -> float | int:
    return int(number) if number == int(number) else number


def _send(client: Client, name: str | None, post: dict[str, Any]) -> None:
    client.checked(client.request("POST", options.path_of("/v1/report", name), post))


def _repeat(client: Client, name: str | None, post: dict[str, Any], every_s: float) -> None:
    """Report for ever. A sidecar that is away is told of once and tried again; usage ends it."""
    away = False
    due = time.monotonic()
    while True:
        try:
            _send(client, name, post)
            if away:
                click.echo("the sidecar answers again", err=True)
            away = False
        except NoAnswer as error:
            if not away:
                click.echo(f"{error.format_message()}\nTrying again.", err=True)
            away = True
        due = max(due + every_s, time.monotonic())
        threading.Event().wait(due - time.monotonic())


def _goodbye(client: Client, name: str | None, instance: str) -> None:
    """Withdraw, as a reporter that stops in good order does; best effort."""
    try:
        path = options.path_of("/v1/report", name or "default", instance)
        client.checked(client.request("DELETE", path))
    except (NoAnswer, WrongUsage) as error:
        click.echo(f"not withdrawn: {error.format_message()}", err=True)


@click.command()
@click.option(
    "--timeout",
    type=options.Duration(),
    default=60.0,
    metavar="DURATION",
    help="How long to wait (60s).",
)
@options.sidecar
@click.pass_context
def wait(ctx: click.Context, timeout: float, client: Client) -> None:
    """Return when the sidecar is ready.

    Exit 0, or 1 when it wasn't in time.
    """
    ends = time.monotonic() + timeout
    why = ""
    while True:
        left_s = max(_POLL_S, ends - time.monotonic())
        try:
            answer = client.request("GET", "/readyz", deadline_s=min(client.deadline_s, left_s))
            if answer.status == 200 and answer.get("ready") is True:
                return
            why = f"it answers {answer.status} to /readyz"
        except NoAnswer as error:
            why = error.format_message()
        if time.monotonic() + _POLL_S >= ends:
            break
        threading.Event().wait(_POLL_S)
    click.echo(f"not ready within {timeout:g} s: {why}", err=True)
    ctx.exit(1)
