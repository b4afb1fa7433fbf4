"""The committed dashboard is the generated one, and one that Grafana can lay out."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

import pytest

from tests.monitoring.promql import asked
from tests.monitoring.sources import annotation_queries, dashboard, panel_queries, rules
from tests.servers import ROOT
from tools.dashboard.__main__ import FILE, PAGE, main
from tools.dashboard.grafana import render

VARIABLE = re.compile(r"\$\{?(\w+)")


def panels() -> list[dict[str, Any]]:
    """All panels, rows included."""
    listed: list[dict[str, Any]] = dashboard()["panels"]
    return listed


def test_the_committed_files_are_the_generated_ones() -> None:
    assert FILE.read_text("utf-8") == render(), "run `make dashboard`"
    assert main(["--check"]) == 0


def test_an_outdated_file_is_noticed_and_mended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`--check` says so and writes nothing; without it both files are made anew."""
    json_file, page = tmp_path / "dashboard.json", tmp_path / "monitoring.md"
    json_file.write_text("{}")
    page.write_text(PAGE.read_text("utf-8").replace("| State |", "| Sate |"), "utf-8")
    monkeypatch.setattr("tools.dashboard.__main__.FILE", json_file)
    monkeypatch.setattr("tools.dashboard.__main__.PAGE", page)
    assert main(["--check"]) == 1
    assert json_file.read_text() == "{}"
    assert main([]) == 0
    assert json_file.read_bytes() == FILE.read_bytes()
    assert page.read_bytes() == PAGE.read_bytes()
    assert main(["--check"]) == 0


def test_panels_have_names_of_their_own_and_lie_beside_each_other() -> None:
    ids = [panel["id"] for panel in panels()]
    titles = [panel["title"] for panel in panels() if panel["type"] != "row"]
    assert len(set(ids)) == len(ids)
    assert len(set(titles)) == len(titles)
    for one, other in itertools.combinations([panel["gridPos"] for panel in panels()], 2):
        apart = (
            one["x"] + one["w"] <= other["x"]
            or other["x"] + other["w"] <= one["x"]
            or one["y"] + one["h"] <= other["y"]
            or other["y"] + other["h"] <= one["y"]
        )
        assert apart, (one, other)
        assert one["x"] + one["w"] <= 24


def test_variables_used_are_there() -> None:
    """Grafana's own begin with two underscores."""
    known = {variable["name"] for variable in dashboard()["templating"]["list"]}
    assert {"datasource", "fleet", "job", "breaker"} <= known
    used = set(VARIABLE.findall(render()))
    assert {name for name in used if not name.startswith("__")} == known
    assert {name for name in used if name.startswith("__")} == {"__rate_interval", "__all"}


def test_every_query_goes_to_the_chosen_prometheus() -> None:
    source = {"type": "prometheus", "uid": "${datasource}"}
    variables = dashboard()["templating"]["list"][1:]
    annotations = dashboard()["annotations"]["list"]
    targets = [target for panel in panels() for target in panel.get("targets", ())]
    assert all(one["datasource"] == source for one in [*variables, *annotations, *targets])


def test_transitions_are_marked_over_the_graphs() -> None:
    marked = {name for expr in annotation_queries().values() for name in asked(expr).metrics}
    assert marked == {"breaker_transitions_total", "breaker_override"}


def test_every_recorded_series_is_shown() -> None:
    shown = {name for expr in panel_queries().values() for name in asked(expr).metrics}
    assert set(rules("record")) <= shown


def test_the_page_says_what_every_panel_says() -> None:
    rows = (ROOT / "docs" / "monitoring.md").read_text("utf-8").splitlines()
    for panel in panels():
        if panel["type"] != "row":
            assert f"| {panel['title']} | {panel['description']} |" in rows
