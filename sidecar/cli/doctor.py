"""`doctor`: what is wrong with this machine, this configuration and this Consul, and the mend."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import click

from sidecar.cli import options
from sidecar.cli.client import DEADLINE_S, Client, NoAnswer
from sidecar.client.address import ADDRESS_VARIABLE, AddressError, places
from sidecar.telemetry.lines import printable

if TYPE_CHECKING:
    from sidecar.config.model import Config
    from sidecar.doctor.findings import Finding

_MARKS = {"ok": ("ok", "green"), "warning": ("WARNING", "yellow"), "fault": ("FAULT", "red")}
_WIDTH = max(len(mark) for mark, _ in _MARKS.values())


@click.command()
@options.config_file
@options.output
@click.option(
    "--address",
    metavar="ADDRESS",
    envvar=ADDRESS_VARIABLE,
    help="Where the running sidecar is, if it isn't where the configuration says.",
)
@click.pass_context
def doctor(ctx: click.Context, path: str | None, output: str, address: str | None) -> None:
    """Look for what is wrong, and say the mend.

    Checks configuration, files, ports, Consul and the rights there, the running sidecar and its
    reporters. Changes nothing. Exit 0, or 1 when there is a fault.
    """
    from sidecar.config.faults import ConfigFaults
    from sidecar.config.load import load_file
    from sidecar.doctor.examine import examine

    try:
        config = load_file(path, os.environ, {})
    except ConfigFaults as refused:
        failed = _tell(_of_configuration(refused), output)
    else:
        status = _status(ctx, config, address)
        failed = _tell(examine(config, path=path, status=status), output)
    ctx.exit(1 if failed else 0)


def _of_configuration(refused: Any) -> Iterable[Finding]:
    """The faults of a configuration; nothing else can be looked at."""
    from sidecar.doctor.findings import fault

    for each in refused.faults:
        where = each.source if each.line is None else f"{each.source}:{each.line}"
        said = f"{each.problem} ({where})"
        yield fault("configuration", said, each.fix, each.key or None, each.value)


def _status(ctx: click.Context, config: Config, address: str | None) -> Mapping[str, Any] | None:
    """What the running sidecar says; None where none answers."""
    try:
        client = Client(places(address or _where(config)), DEADLINE_S)
    except AddressError as error:
        raise click.BadParameter(str(error), ctx, param_hint="--address") from error
    try:
        answer = client.request("GET", "/v1/status")
    except NoAnswer:
        return None
    body = answer.body
    ours = answer.status == 200 and isinstance(body, dict) and "breakers" in body
    return body if ours and isinstance(body, dict) else None


def _where(config: Config) -> str:
    """Where a sidecar of this configuration answers, from here."""
    from sidecar.config.addresses import join_host_port, split_host_port

    host, port = split_host_port(config.listen.address)
    here = host if host not in {"", "0.0.0.0", "::"} else "localhost"  # noqa: S104 - compared
    return join_host_port(here, port or 0)


def _tell(findings: Iterable[Finding], output: str) -> bool:
    """Print them; True where one is a fault."""
    if output == "json":
        listed = [finding.as_dict() for finding in findings]
        levels = [str(each["level"]) for each in listed]
        faults, warned = levels.count("fault"), levels.count("warning")
        body = {"ok": not faults, "faults": faults, "warnings": warned, "findings": listed}
        click.echo(json.dumps(body))
        return bool(faults)
    levels = []
    for finding in findings:
        levels.append(str(finding.level))
        click.echo(_line(finding))
    faults, warned = levels.count("fault"), levels.count("warning")
    click.echo(f"\n{_number(faults, 'fault')}, {_number(warned, 'warning')}", err=True)
    return bool(faults)


def _line(finding: Finding) -> str:
    mark, colour = _MARKS[finding.level]
    about = finding.key or ""
    if finding.value is not None:
        about += f" = {finding.value}"
    words = (
        f"{finding.check}: {about}: {finding.said}" if about else f"{finding.check}: {finding.said}"
    )
    lines = [f"{click.style(mark.ljust(_WIDTH), fg=colour)}  {printable(words)}"]
    if finding.mend:
        lines.append(f"{' ' * _WIDTH}  mend: {printable(finding.mend)}")
    return "\n".join(lines)


def _number(count: int, noun: str) -> str:
    return f"{count} {noun}{'s' * (count != 1)}"
