"""Every alert has its runbook, and what a runbook says to type can be typed."""

from __future__ import annotations

import itertools
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from sidecar.cli.main import cli
from sidecar.core.types import Reason
from sidecar.http.openapi import document
from sidecar.telemetry.names import EVENTS
from tests.monitoring.promql import asked
from tests.monitoring.sources import rules
from tests.monitoring.test_names import labels_of
from tests.servers import ROOT, consul_binary

ALERTS = rules("alert")
FOLDER = ROOT / "docs" / "runbooks"
PAGES = sorted(FOLDER.glob("Breaker*.md"))
IDS = [page.stem for page in PAGES]
SECTIONS = ["What it means", "What users see", "Check first", "Mend", "How it ends"]
EXTERNAL = {
    "consul": (
        "acl token read",
        "info",
        "kv delete",
        "kv get",
        "kv put",
        "members",
        "operator raft",
    ),
    "journalctl": ("-u breaker-sidecar",),
    "nomad": (
        *("alloc exec -task breaker ALLOC breaker-sidecar", "alloc logs", "alloc restart"),
        *("alloc signal", "alloc status", "job status"),
    ),
    "promtool": ("check config",),
    "systemctl": ("reload breaker-sidecar", "restart breaker-sidecar"),
}
"""What other programs are asked for, by how it begins."""
HELP_DEADLINE_S = 60.0
CONSUL_API = re.compile(r"http://127\.0\.0\.1:8500/v1/(status/leader|session/destroy/SESSION)")


def fenced(page: Path, language: str) -> Iterator[str]:
    """The lines of a page's code blocks in that language."""
    for block in re.findall(rf"^```{language}\n(.*?)^```$", page.read_text("utf-8"), re.M | re.S):
        yield from block.splitlines()


def spoken(page: Path) -> list[list[str]]:
    """Every command: those in blocks, and those in the text that have arguments."""
    lines = list(fenced(page, "console"))
    assert all(line.startswith("$ ") for line in lines)
    programs = "|".join(["breaker-sidecar", "curl", *EXTERNAL])
    inline = re.findall(rf"`((?:{programs})\s[^`]+)`", page.read_text("utf-8"))
    return [shlex.split(line) for line in [*(line[2:] for line in lines), *inline]]


def check_own(words: list[str]) -> None:
    """The command is there and takes these arguments; without any it is only mentioned."""
    command: click.Command = cli
    context = click.Context(cli)
    rest = words[1:]
    while isinstance(command, click.Group):
        found = command.get_command(context, rest[0])
        assert found is not None, f"no such command: {' '.join(words)}"
        command, rest = found, rest[1:]
        context = click.Context(command, parent=context)
    if rest:
        try:
            command.make_context(words[1], rest, parent=context.parent)
        except click.UsageError as fault:
            raise AssertionError(f"{' '.join(words)}: {fault.format_message()}") from fault


def help_of_consul(words: list[str]) -> str:
    """What Consul itself says of a command; fails where it knows none of that name."""
    command = list(itertools.takewhile(lambda word: word[0] != "-" and "/" not in word, words[1:]))
    done = subprocess.run(
        [consul_binary(), *command, "-help"],
        capture_output=True,
        text=True,
        check=False,
        timeout=HELP_DEADLINE_S,
    )
    said = done.stdout + done.stderr
    assert f"consul {' '.join(command)}" in said, said
    return said


def check_curl(words: list[str]) -> None:
    """It asks the sidecar for a path that there is, or Consul for one of a few."""
    (url,) = [word for word in words[1:] if "/" in word]
    assert set(words[1:]) <= {"-s", "-X", "PUT", url}
    if CONSUL_API.fullmatch(url):
        return
    path = url.removeprefix("localhost:9100").partition("?")[0]
    known = [re.sub(r"\{\w+\}", "[^/]+", template) for template in document("0")["paths"]]
    assert any(re.fullmatch(template, path) for template in known), url


@pytest.mark.parametrize("name", ALERTS)
def test_the_link_of_every_alert_resolves(name: str) -> None:
    page = ROOT / ALERTS[name]["annotations"]["runbook_url"]
    assert page.read_text("utf-8").startswith(f"# {name}\n")


def test_every_page_belongs_to_an_alert() -> None:
    assert set(IDS) == set(ALERTS)


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_every_page_says_all_five(page: Path) -> None:
    parts = re.split(r"^## (.+)$", page.read_text("utf-8"), flags=re.M)[1:]
    assert parts[::2] == SECTIONS
    assert all(len(text.split()) > 2 or text.strip() == "Nothing." for text in parts[1::2])
    assert list(fenced(page, "console")), "nothing to type"


@pytest.mark.parametrize("page", [*PAGES, FOLDER / "README.md"], ids=[*IDS, "README"])
def test_every_command_exists(page: Path) -> None:
    for words in spoken(page):
        match words[0]:
            case "breaker-sidecar":
                check_own(words)
            case "curl":
                check_curl(words)
            case other:
                said = " ".join(words[1:])
                assert any(said.startswith(begin) for begin in EXTERNAL[other]), words


@pytest.mark.consul
def test_every_command_of_consul_exists() -> None:
    """Its own help knows the command and each option."""
    asked_for = {tuple(words) for page in PAGES for words in spoken(page) if words[0] == "consul"}
    assert asked_for
    for words in asked_for:
        said = help_of_consul(list(words))
        for option in (word for word in words if word.startswith("-")):
            assert re.search(rf"^ +{option}\b", said, re.M), words


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_every_query_asks_for_metrics_that_exist(page: Path) -> None:
    for expr in fenced(page, "promql"):
        needs = asked(expr)
        assert needs.metrics
        for metric in needs.metrics:
            assert needs.grouped <= labels_of(metric) | {"version"}, (expr, metric)
        for metric, label, _, _ in needs.matchers:
            assert label in labels_of(metric), (expr, label)


def test_events_and_reasons_that_are_named_exist() -> None:
    """A word in code that looks like an event is one, or a reason, or something else we know."""
    words = {
        word
        for page in PAGES
        for word in re.findall(r"[Ee]vents? (?:are |is )?`(\w+)`", page.read_text("utf-8"))
    }
    assert words
    assert words <= {*EVENTS}
    reasons = {
        word for page in PAGES for word in re.findall(r"[Rr]eason `(\w+)`", page.read_text("utf-8"))
    }
    assert reasons
    assert reasons <= {*Reason}


def test_the_index_lists_every_page_under_its_severity() -> None:
    parts = re.split(r"^## (\w+)", (FOLDER / "README.md").read_text("utf-8"), flags=re.M)[1:]
    listed = {
        name: severity.lower()
        for severity, text in zip(parts[::2], parts[1::2], strict=True)
        for name in re.findall(r"\[(\w+)\]\(\1\.md\)", text)
    }
    assert listed == {name: rule["labels"]["severity"] for name, rule in ALERTS.items()}


def test_a_command_that_is_wrong_is_noticed() -> None:
    """The check itself: an unknown command, an unknown option, a path that isn't there."""
    for words in (
        ["breaker-sidecar", "mend"],
        ["breaker-sidecar", "status", "--loud"],
        ["breaker-sidecar", "force", "ajar", "orders"],
    ):
        with pytest.raises(AssertionError):
            check_own(words)
    with pytest.raises(AssertionError):
        check_curl(["curl", "-s", "localhost:9100/v2/breakers"])
