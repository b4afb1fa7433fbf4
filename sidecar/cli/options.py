"""Arguments and options that several commands share."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar
from urllib.parse import quote

import click

from sidecar.cli.client import DEADLINE_S, Client
from sidecar.client.address import ADDRESS_VARIABLE, AddressError, places
from sidecar.config.units import UnitError, parse_duration
from sidecar.core.naming import BREAKER_NAME, RESERVED_NAMES

F = TypeVar("F", bound=Callable[..., Any])


class Duration(click.ParamType[float]):
    """A duration as Go reads it; seconds.

    Args:
        above: it must be longer than that; None: 0 will do.
    """

    name = "duration"

    def __init__(self, *, above: float | None = None) -> None:
        self._above = above

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Seconds; fails as usage."""
        if isinstance(value, float):
            return value
        try:
            seconds = parse_duration(str(value))
        except UnitError as error:
            self.fail(f"{value!r} {error}: write 500ms, 5s or 1m30s", param, ctx)
        if seconds < 0:
            self.fail(f"{value!r} is negative", param, ctx)
        if self._above is not None and seconds <= self._above:
            self.fail(f"{value!r} must be longer than {self._above:g}", param, ctx)
        return seconds


class BreakerName(click.ParamType[str]):
    """A breaker's name."""

    name = "name"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The name as it is; fails as usage."""
        if not re.fullmatch(BREAKER_NAME, str(value)):
            self.fail(f"{value!r} can't be a breaker's name", param, ctx)
        if value in RESERVED_NAMES:
            self.fail(f"{value!r} is a reserved name; no breaker is called so", param, ctx)
        return str(value)


breaker = click.argument("name", required=False, type=BreakerName())
"""`[NAME]`; without it the default breaker is meant."""

output = click.option(
    "-o",
    "--output",
    type=click.Choice(["table", "json"]),
    default="table",
    show_default=True,
    help="How to print.",
)

config_file = click.option(
    "-c",
    "--config",
    "path",
    metavar="FILE",
    envvar="BREAKER_SIDECAR_CONFIG",
    help="The configuration file; also BREAKER_SIDECAR_CONFIG.",
)


def sidecar(command: F) -> F:
    """`--address` and `--deadline`, given to the command as one `client`."""
    address = click.option(
        "--address",
        "client",
        metavar="ADDRESS",
        envvar=ADDRESS_VARIABLE,
        callback=_client,
        help="Where the sidecar is: host:port, URL or unix:PATH. Else BREAKER_SIDECAR_ADDRESS, "
        "NOMAD_PORT_breaker, localhost:9100.",
    )
    deadline = click.option(
        "--deadline",
        type=Duration(),
        default=DEADLINE_S,
        metavar="DURATION",
        expose_value=False,
        is_eager=True,
        callback=_keep_deadline,
        help="How long one request may take (2s).",
    )
    return address(deadline(command))


def _keep_deadline(ctx: click.Context, _param: click.Parameter, value: float) -> None:
    ctx.meta["deadline_s"] = max(0.001, value)


def _client(ctx: click.Context, param: click.Parameter, value: str | None) -> Client:
    try:
        return Client(places(value), ctx.meta["deadline_s"])
    except AddressError as error:
        raise click.BadParameter(str(error), ctx, param) from error


@contextmanager
def sigterm_is_ctrl_c() -> Iterator[None]:
    """Whoever goes on until Ctrl-C ends as well in good order when a supervisor stops it."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def path_of(prefix: str, name: str | None, *more: str) -> str:
    """A path with the breaker's name in it, if there is one."""
    return "/".join([prefix, *(quote(part, safe="") for part in (name, *more) if part)])
