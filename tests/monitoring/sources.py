"""Every expression this repository gives to Prometheus and Grafana, by where it stands."""

from __future__ import annotations

import functools
import json
from typing import Any

import yaml

from tests.servers import ROOT

FOLDER = ROOT / "monitoring"
UNIT_TESTS = sorted((FOLDER / "tests").glob("*.yml"))
RULE_FILES = (FOLDER / "alerts.yml", FOLDER / "recording.yml")

Rule = dict[str, Any]


@functools.cache
def rules(kind: str) -> dict[str, Rule]:
    """All rules of a kind (`alert` or `record`) by name."""
    groups = [group for file in RULE_FILES for group in yaml.safe_load(file.read_text())["groups"]]
    found = [rule for group in groups for rule in group["rules"] if kind in rule]
    assert len({rule[kind] for rule in found}) == len(found), "a name is given twice"
    return {rule[kind]: rule for rule in found}


@functools.cache
def dashboard() -> Any:
    """The committed dashboard."""
    return json.loads((FOLDER / "dashboard.json").read_text())


def panel_queries() -> dict[str, str]:
    """The dashboard's queries by panel and reference."""
    return {
        f"panel {panel['title']} {target['refId']}": target["expr"]
        for panel in dashboard()["panels"]
        for target in panel.get("targets", ())
    }


def annotation_queries() -> dict[str, str]:
    """The dashboard's annotations by name."""
    return {f"annotation {a['name']}": a["expr"] for a in dashboard()["annotations"]["list"]}


def expressions() -> dict[str, str]:
    """All of them."""
    return {
        **{f"alert {name}": rule["expr"] for name, rule in rules("alert").items()},
        **{f"record {name}": rule["expr"] for name, rule in rules("record").items()},
        **panel_queries(),
        **annotation_queries(),
    }
