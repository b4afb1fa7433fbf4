"""The reference page names every command and every option there is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from sidecar.cli.main import cli

PAGE = (Path(__file__).parents[3] / "docs" / "reference" / "cli.md").read_text()


def commands(group: click.Group, path: str = "") -> Iterator[tuple[str, click.Command]]:
    with click.Context(group) as ctx:
        for name in group.list_commands(ctx):
            command = group.get_command(ctx, name)
            assert command is not None
            if isinstance(command, click.Group):
                yield from commands(command, f"{path}{name} ")
            else:
                yield f"{path}{name}", command


def test_every_command_and_option_is_there() -> None:
    rows = [line for line in PAGE.splitlines() if line.startswith("| `")]
    for name, command in commands(cli):
        assert any(row.startswith((f"| `{name}`", f"| `{name} ")) for row in rows), name
        for param in command.params:
            long = [option for option in param.opts if option.startswith("--")]
            for option in long:
                found = [row for row in rows if f"`{option}" in row]
                assert found, option
                assert any(f"`{name}`" in row or "all of them" in row for row in found), option


def test_no_option_is_there_that_is_not() -> None:
    known = {option for _, command in commands(cli) for p in command.params for option in p.opts}
    for row in PAGE.splitlines():
        if row.startswith(("| `-",)):
            for part in row.split("|")[1].replace("`", "").split(","):
                assert part.split()[0] in known, row
