"""The commands, and those that make or look at a configuration."""

from __future__ import annotations

import importlib
import json
import os
from typing import TYPE_CHECKING, Any

import click

from sidecar import __version__
from sidecar.cli import options

if TYPE_CHECKING:
    from sidecar.config.model import Config
    from sidecar.telemetry.logging import Style

_CLIENTS = {
    "allowed": "sidecar.cli.asking",
    "report": "sidecar.cli.asking",
    "wait": "sidecar.cli.asking",
    "status": "sidecar.cli.watching",
    "watch": "sidecar.cli.watching",
    "history": "sidecar.cli.watching",
    "force": "sidecar.cli.forcing",
    "release": "sidecar.cli.forcing",
    "forget": "sidecar.cli.forcing",
    "spool": "sidecar.cli.spooling",
    "doctor": "sidecar.cli.doctor",
    "dlq": "sidecar.cli.dlq",
}
"""Commands of a running sidecar's clients, by the module that has them: the daemon needs none."""


class Commands(click.Group):
    """Loads a client's command when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The daemon's own commands first."""
        return [*super().list_commands(ctx), *_CLIENTS]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name; None where there is none."""
        if cmd_name not in _CLIENTS:
            return super().get_command(ctx, cmd_name)
        command: click.Command = getattr(importlib.import_module(_CLIENTS[cmd_name]), cmd_name)
        return command


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="breaker-sidecar", message="%(prog)s %(version)s")
@click.pass_context
def cli(ctx: click.Context) -> None:
    """One fleet-wide circuit breaker for each Kafka flow, answered over localhost."""
    if os.environ.get("NO_COLOR"):
        ctx.color = False


@cli.command()
@options.config_file
@click.option("--listen", metavar="ADDRESS", help="Overrides listen.address.")
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="info",
    show_default=True,
    envvar="BREAKER_SIDECAR_LOG_LEVEL",
    help="The lowest level that is written; also BREAKER_SIDECAR_LOG_LEVEL.",
)
@click.option(
    "--log-format",
    type=click.Choice(["auto", "json", "console"]),
    default="auto",
    show_default=True,
    envvar="BREAKER_SIDECAR_LOG_FORMAT",
    help="auto: JSON unless standard error is a terminal; also BREAKER_SIDECAR_LOG_FORMAT.",
)
@click.pass_context
def run(
    ctx: click.Context, path: str | None, listen: str | None, log_level: str, log_format: Style
) -> None:
    """Run the daemon.

    Without a file: in memory, one breaker `default`, on localhost:9100.
    """
    flags = {"listen.address": listen}
    config = load(ctx, path, flags)
    from sidecar import lean

    lean.begin()
    from sidecar.app import run as run_daemon
    from sidecar.config.lint import warnings
    from sidecar.telemetry import names
    from sidecar.telemetry.logging import Log

    log = Log(level=log_level, style=log_format)
    for warning in warnings(config):
        log.event(names.CONFIG_WARNING, "warning", {"warning": warning})
    ctx.exit(run_daemon(config, path=path, flags=flags, log=log))


@cli.command()
@options.config_file
@click.pass_context
def check(ctx: click.Context, path: str | None) -> None:
    """Validate a configuration.

    Tells every fault at once, and warns of what is legal and unwise.
    """
    config = load(ctx, path, {})
    from sidecar.config.lint import warnings

    for warning in warnings(config):
        click.echo(f"warning: {warning}", err=True)
    count = len(config.breakers)
    click.echo(f"OK: store {config.store}, {count} breaker{'s' * (count != 1)}")


@cli.group()
def config() -> None:
    """Show the configuration in effect, or its schema."""


@config.command()
@options.config_file
@click.pass_context
def show(ctx: click.Context, path: str | None) -> None:
    """Print the effective configuration as YAML, secrets masked."""
    config = load(ctx, path, {})
    from sidecar.config import render

    click.echo(render.show(config), nl=False)


@config.command()
def schema() -> None:
    """Print the JSON Schema of the configuration file."""
    from sidecar.config import render

    click.echo(json.dumps(render.schema(), indent=2))


def load(ctx: click.Context, path: str | None, flags: dict[str, Any]) -> Config:
    """The configuration; ends the command with 2 and every fault on standard error."""
    from sidecar.config.faults import ConfigFaults
    from sidecar.config.load import load_file
    from sidecar.telemetry.lines import printable

    try:
        return load_file(path, os.environ, flags)
    except ConfigFaults as faults:
        for fault in faults.faults:
            click.echo(f"error: {printable(str(fault))}", err=True)
        ctx.exit(2)
