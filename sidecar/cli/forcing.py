"""`force`, `release` and `forget`: a person's orders, through the sidecar or straight to Consul."""

from __future__ import annotations

import asyncio
import getpass
import math
import os
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sidecar.cli import options
from sidecar.cli.client import Client, NoAnswer, WrongUsage
from sidecar.core.naming import DEFAULT_NAME
from sidecar.core.override import MAX_TEXT, MAX_TTL_S, Mode, placed
from sidecar.telemetry.lines import printable

if TYPE_CHECKING:
    from sidecar.config.model import Config
    from sidecar.core.types import Scalar
    from sidecar.loops.books import Books

TOKEN_VARIABLE = "BREAKER_SIDECAR_TOKEN"  # noqa: S105 - a variable's name
DEADLINE_S = 8.0
"""For an order: longer than the sidecar's own deadline, so that its words arrive."""


class _Ttl(options.Duration):
    """A duration, or `none` typed out."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        if value == "none":
            return math.inf
        seconds = super().convert(value, param, ctx)
        if seconds <= 0:
            self.fail("it must be longer than 0, or none", param, ctx)
        if seconds > MAX_TTL_S:
            self.fail(f"it must be at most {MAX_TTL_S / 3600:.0f}h, or none", param, ctx)
        return seconds


class _Text(click.ParamType[str]):
    """Words for people, as sidecars take them."""

    name = "text"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The text without space around it; fails as usage."""
        text = str(value).strip()
        if not 0 < len(text) <= MAX_TEXT:
            self.fail(f"it must have 1 to {MAX_TEXT} characters", param, ctx)
        try:
            text.encode()
        except UnicodeEncodeError:
            self.fail("it is no valid UTF-8", param, ctx)
        return text


def _order(command: options.F) -> options.F:
    """What every order can be given."""
    for option in (
        click.option(
            "--consul",
            is_flag=True,
            help="Write to Consul itself, with your own token (CONSUL_HTTP_TOKEN and the other "
            "CONSUL_* variables; the state prefix from --config).",
        ),
        options.config_file,
        click.option(
            "--token-file",
            metavar="FILE",
            help=f"Has the token of the sidecar's admin.token_file; else {TOKEN_VARIABLE}.",
        ),
    ):
        command = option(command)
    return options.sidecar(command)


def _author() -> str:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    return f"{user}@{os.uname().nodename}"


@click.command()
@click.argument("mode", type=click.Choice([str(mode) for mode in Mode]))
@options.breaker
@click.option(
    "--ttl",
    type=_Ttl(),
    required=True,
    metavar="DURATION",
    help="How long: 15m, 1h30m; `none` for no end, which has to be typed out.",
)
@click.option(
    "--reason",
    type=_Text(),
    required=True,
    metavar="TEXT",
    help="Why, for whoever finds it at three in the morning.",
)
@click.option("--author", type=_Text(), default=_author, metavar="WHO", help="Who; else user@host.")
@click.option("--replace", is_flag=True, help="Also lift an `open` that somebody has forced.")
@_order
def force(  # noqa: PLR0917 - click passes its options by name
    mode: str,
    name: str | None,
    ttl: float,
    reason: str,
    author: str,
    replace: bool,
    consul: bool,
    path: str | None,
    token_file: str | None,
    client: Client,
) -> None:
    """Force a breaker fleet-wide: open rejects all, closed admits all, shadow admits and counts."""
    if consul:
        override = placed(Mode(mode), ttl_s=ttl, reason=reason, author=author, wall_at=time.time())
        name = _directly(path, name, lambda books, who: books.force(who, override, replace=replace))
    else:
        body = {
            "mode": mode,
            "ttl_s": "none" if math.isinf(ttl) else ttl,
            "reason": reason,
            "author": author,
            "replace": replace,
        }
        through(client, token_file, "PUT", _path(name, "override"), body)
    until = "until somebody releases it" if math.isinf(ttl) else f"for {ttl:g} s"
    click.echo(f"{name or DEFAULT_NAME} is forced {mode} {until}", err=True)


@click.command()
@options.breaker
@_order
def release(
    name: str | None,
    consul: bool,
    path: str | None,
    token_file: str | None,
    client: Client,
) -> None:
    """End an override: the breaker is its own master again."""
    if consul:
        name = _directly(path, name, lambda books, who: books.release(who))
    else:
        through(client, token_file, "DELETE", _path(name, "override"))
    click.echo(f"{name or DEFAULT_NAME} is not forced any more", err=True)


@click.command()
@click.argument("name", type=options.BreakerName())
@_order
def forget(
    name: str,
    consul: bool,
    path: str | None,
    token_file: str | None,
    client: Client,
) -> None:
    """Close a breaker that is no longer used, then delete all its keys.

    Take it out of every sidecar's configuration first: one that still evaluates it writes its
    state again. A breaker that no sidecar knows any more is forgotten with --consul.
    """
    if consul:
        _directly(path, name, lambda books, who: books.forget(who))
    else:
        through(client, token_file, "DELETE", _path(name))
    click.echo(f"{name} is forgotten", err=True)


def _path(name: str | None, *more: str) -> str:
    return options.path_of("/v1/breakers", name or DEFAULT_NAME, *more)


def through(
    client: Client, token_file: str | None, method: str, path: str, body: object = None
) -> None:
    """Give an order to the sidecar, with the token that orders need.

    Raises:
        WrongUsage: the file can't be read, or the sidecar refuses it.
        NoAnswer: as `Client.request`.
    """
    token = os.environ.get(TOKEN_VARIABLE)
    if token_file is not None:
        try:
            token = Path(token_file).read_text(encoding="utf-8").strip()
        except (OSError, ValueError) as fault:
            why = getattr(fault, "strerror", None) or "it is no text"
            raise WrongUsage(f"--token-file {printable(token_file)}: {why}") from fault
    client.checked(
        client.request(
            method, path, body, token=token, deadline_s=max(client.deadline_s, DEADLINE_S)
        )
    )


class _Silent:
    """A command's telemetry: what went wrong is told by its error."""

    def count(self, metric: str, amount: float = 1, /, **labels: str) -> None:
        """Nobody reads it."""

    def observe(self, metric: str, value: float, /, **labels: str) -> None:
        """Nobody reads it."""

    def event(self, name: str, /, *, level: str = "info", **fields: Scalar | Sequence[str]) -> None:
        """Nobody reads it."""


def _directly(
    path: str | None, name: str | None, work: Callable[[Books, str], Awaitable[None]]
) -> str:
    """Carry out an order in Consul, with the caller's own rights; returns the breaker's name."""
    from sidecar.cli.main import load
    from sidecar.config.model import default_breaker
    from sidecar.core.errors import Contradicted, StillEvaluated, StoreDenied, StoreError

    config = load(click.get_current_context(), path, {"store": "consul"})
    name = name or default_breaker(config)
    if name is None:
        there = ", ".join(sorted(config.breakers))
        raise WrongUsage(f"no breaker is the default, name one; there are: {there}")
    try:
        asyncio.run(_carried_out(config, name, work))
    except Contradicted as fault:
        raise WrongUsage(
            f"{printable(str(fault))}; say --replace if you mean to lift that"
        ) from fault
    except (StillEvaluated, StoreDenied) as fault:
        raise WrongUsage(printable(str(fault))) from fault
    except (StoreError, TimeoutError) as fault:
        why = printable(str(fault)) or "it took too long"
        raise NoAnswer(f"no usable answer from Consul at {config.consul.address}: {why}") from fault
    return name


async def _carried_out(
    config: Config, name: str, work: Callable[[Books, str], Awaitable[None]]
) -> None:
    from sidecar import compose
    from sidecar.loops.around import Clock
    from sidecar.loops.books import Books
    from sidecar.store.codec import JsonWire

    store = compose.store(config, time.monotonic, _Silent())
    try:
        async with asyncio.timeout(DEADLINE_S):
            await work(Books(store, JsonWire(config.consul.state_prefix), Clock(), _author()), name)
    finally:
        await store.close()
