"""What is left out is said, and left out only where that is allowed."""

import os
from configparser import ConfigParser
from pathlib import Path

import pytest

from tools import get_kafka, get_tools, run_tests, shelf
from tools.programs import ROOT


class Runs:
    """Stands in for pytest: notes what it was asked to run, and passes."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, list[str], bool]] = []
        self.code = 0

    def __call__(self, expression: str, extra: list[str], *, no_skip: bool) -> int:
        self.calls.append((expression, extra, no_skip))
        return self.code


LATER = run_tests.without(run_tests.ONLY_IN_ALL)
SHARED = list(run_tests.SHARED)


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> Runs:
    """A machine with all servers, outside CI; each test takes away what it is about."""
    made = Runs()
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setattr(run_tests, "run_pytest", made)
    monkeypatch.setattr(run_tests, "missing_needs", lambda **_: [])
    return made


def test_fast_leaves_every_server_out_and_looks_for_none(
    runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(run_tests, "missing_needs")
    assert run_tests.main(["fast", "-x"]) == 0
    assert runs.calls == [(run_tests.without([*run_tests.REMEDIES, "slow"]), ["-x"], False)]


def test_what_is_missing_is_said_on_the_last_line(
    runs: Runs, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(run_tests, "missing_needs", lambda **_: ["consul"])
    assert run_tests.main(["test"]) == 0
    assert runs.calls == [(f"not consul and {LATER}", SHARED, False)]
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("LEFT OUT")
    assert run_tests.REMEDIES["consul"] in last


@pytest.mark.parametrize(("which", "ci"), [("all", ""), ("test", "true")])
def test_where_nothing_may_be_left_out_it_fails_before_it_starts(
    runs: Runs, monkeypatch: pytest.MonkeyPatch, which: str, ci: str
) -> None:
    monkeypatch.setenv("CI", ci)
    monkeypatch.setattr(run_tests, "missing_needs", lambda **_: ["go"])
    assert run_tests.main([which]) == 1
    assert runs.calls == []


@pytest.mark.parametrize(
    ("which", "ci", "no_skip"),
    [("test", "", False), ("test", "false", False), ("test", "true", True), ("all", "", True)],
)
def test_skips_fail_in_ci_and_in_all(
    runs: Runs, monkeypatch: pytest.MonkeyPatch, which: str, ci: str, no_skip: bool
) -> None:
    monkeypatch.setenv("CI", ci)
    assert run_tests.main([which]) == 0
    rest: list[tuple[str, list[str], bool]] = []
    if which == "all":
        rest = [(" or ".join(run_tests.ONLY_IN_ALL), SHARED, no_skip)]
    assert runs.calls == [(LATER, SHARED, no_skip), *rest]


def test_all_ends_with_the_first_part_that_fails(runs: Runs) -> None:
    runs.code = 1
    assert run_tests.main(["all", "-n", "0"]) == 1
    assert runs.calls == [(LATER, [*SHARED, "-n", "0"], True)], "the last word wins"


def test_a_failed_build_is_a_fault_not_a_reason_to_test_less(
    runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*, everything: bool) -> list[str]:
        raise shelf.BuildFailedError("no disk")

    monkeypatch.setattr(run_tests, "missing_needs", fail)
    assert run_tests.main(["test"]) == 1
    assert runs.calls == []


@pytest.mark.parametrize("everything", [True, False])
def test_other_servers_are_brought_only_for_all(
    monkeypatch: pytest.MonkeyPatch, everything: bool
) -> None:
    brought: list[str] = []
    monkeypatch.setattr(get_tools, "ensure", lambda program: brought.append(program.name))
    monkeypatch.setattr(get_kafka, "ensure", lambda: brought.append("kafka"))
    monkeypatch.setattr(get_tools, "missing_packages", list)
    monkeypatch.setattr(run_tests, "TOOLCHAINS", {})
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(run_tests, "cni_plugins", lambda: ROOT)
    assert run_tests.missing_needs(everything=everything) == []
    others = ["caddy", "traefik", "kafka", "toxiproxy", "nomad"]
    assert brought == ["consul", *(others if everything else [])]


@pytest.mark.parametrize(("user", "plugins"), [(1000, ROOT), (0, None)])
def test_nomad_needs_root_and_plugins_and_is_not_built_without(
    monkeypatch: pytest.MonkeyPatch, user: int, plugins: Path | None
) -> None:
    brought: list[str] = []
    monkeypatch.setattr(get_tools, "ensure", lambda program: brought.append(program.name))
    monkeypatch.setattr(get_tools, "missing_packages", list)
    monkeypatch.setattr(run_tests, "TOOLCHAINS", {})
    monkeypatch.setattr(os, "geteuid", lambda: user)
    monkeypatch.setattr(run_tests, "cni_plugins", lambda: plugins)
    assert run_tests.missing_needs(everything=True) == ["nomad"]
    assert "nomad" not in brought


def test_every_marker_that_is_registered_has_a_remedy() -> None:
    settings = ConfigParser(interpolation=None)
    settings.read(ROOT / "setup.cfg", "utf-8")
    lines = settings["tool:pytest"]["markers"].split("\n")
    registered = {line.partition(":")[0] for line in lines if line}
    assert registered == {*run_tests.REMEDIES, "slow"}
    assert registered - {"consul"} == set(run_tests.ONLY_IN_ALL)
