"""Alerts and recording rules are complete and have unit tests, which promtool runs."""

from __future__ import annotations

import functools
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.monitoring.sources import FOLDER, RULE_FILES, UNIT_TESTS, rules

ALERTS = rules("alert")
TELLING = {"BreakerEvaluationsStopped", "BreakerSidecarsAbsent", "BreakerMetricsMissing"}
"""Alerts that fire because series are gone."""
PROMTOOL_DEADLINE_S = 300.0


@functools.cache
def groups(name: str) -> list[dict[str, Any]]:
    """The test groups of one file of promtool's unit tests."""
    loaded = yaml.safe_load((FOLDER / "tests" / name).read_text())
    found: list[dict[str, Any]] = loaded["tests"]
    return found


def firing(name: str) -> list[bool]:
    """Whether the alert of that test group is expected to fire, in the order of time."""
    (group,) = [group for group in groups("alerts.yml") if group["name"] == name]
    checks = group["alert_rule_test"]
    assert {check["alertname"] for check in checks} == {name.partition(":")[0]}
    times = [_minutes(check["eval_time"]) for check in checks]
    assert times == sorted(times)
    return [bool(check.get("exp_alerts")) for check in checks]


def _minutes(text: str) -> float:
    units = {"h": 60.0, "m": 1.0, "s": 1 / 60}
    return sum(int(number) * units[unit] for number, unit in re.findall(r"(\d+)([hms])", text))


def promtool(*arguments: str | Path) -> None:
    """Run promtool; fails with what it said."""
    done = subprocess.run(
        ["promtool", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=PROMTOOL_DEADLINE_S,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", ALERTS)
def test_every_alert_is_complete(name: str) -> None:
    rule = ALERTS[name]
    assert re.fullmatch(r"Breaker[A-Z][A-Za-z]+", name)
    assert rule["labels"].keys() == {"severity"}
    assert rule["labels"]["severity"] in {"critical", "warning", "info"}
    notes = rule["annotations"]
    assert notes.keys() == {"summary", "description", "runbook_url"}
    assert notes["summary"].startswith("{{ with $labels.fleet }}{{ . }}: {{ end }}")
    assert notes["summary"].endswith(".")
    assert notes["description"].endswith(".")
    assert notes["runbook_url"] == f"docs/runbooks/{name}.md"


@pytest.mark.parametrize("name", ALERTS)
def test_every_alert_has_its_unit_tests(name: str) -> None:
    """Quiet, firing and resolved in one group; in another, the series go while it fires."""
    seen = firing(f"{name}: quiet, firing, resolved")
    assert seen[0] is False
    assert seen[-1] is False
    assert True in seen
    gone = firing(f"{name}: series gone")
    assert gone[-1] is (name in TELLING)
    assert gone[0] is not gone[-1]


def test_every_alert_that_waits_is_tested_before_its_time() -> None:
    """Between quiet and firing there is a check at which the condition has lasted too short."""
    for name, rule in ALERTS.items():
        if "for" in rule:
            seen = firing(f"{name}: quiet, firing, resolved")
            assert seen.index(True) >= 2, name


def test_what_goes_missing_is_told_of() -> None:
    """The fleet's own tests expect each of the alerts that fire for something absent."""
    expected = {
        alert
        for group in groups("fleet.yml")
        for check in group["promql_expr_test"]
        for sample in check.get("exp_samples", ())
        for alert in re.findall(r'alertname="(\w+)"', sample["labels"])
    }
    assert expected >= TELLING | {"BreakerNoEvaluator", "BreakerVanished", "BreakerSidecarDown"}


def test_inhibitions_name_alerts_and_labels_that_there_are() -> None:
    """What fires on both sides has the labels that have to be equal, or neither of them would."""
    page = (FOLDER.parent / "docs" / "monitoring.md").read_text("utf-8")
    (block,) = re.findall(r"^```yaml\n(inhibit_rules:.*?)^```$", page, re.DOTALL | re.MULTILINE)
    for rule in yaml.safe_load(block)["inhibit_rules"]:
        sides = [
            {name for one in rule[side] for name in re.findall(r"Breaker\w+", one)}
            for side in ("source_matchers", "target_matchers")
        ]
        assert all(sides)
        assert sides[0].isdisjoint(sides[1])
        for name in sides[0] | sides[1]:
            for label in set(rule["equal"]) - {"fleet"}:
                assert f"$labels.{label}" in ALERTS[name]["annotations"]["summary"], (name, label)
        if "breaker" not in rule["equal"]:
            sources = [ALERTS[name]["annotations"]["summary"] for name in sides[0]]
            assert not any("$labels.breaker" in summary for summary in sources), sides[0]


def test_every_recording_rule_is_tested() -> None:
    text = (FOLDER / "tests" / "recording.yml").read_text()
    for name in rules("record"):
        assert f"expr: {name}\n" in text or f"expr: round({name})\n" in text, name


@pytest.mark.promtool
def test_promtool_accepts_the_rules() -> None:
    promtool("check", "rules", "--lint=all", "--lint-fatal", *RULE_FILES)


@pytest.mark.promtool
@pytest.mark.parametrize("file", UNIT_TESTS, ids=[file.stem for file in UNIT_TESTS])
def test_promtool_passes_the_unit_tests(file: Path) -> None:
    promtool("test", "rules", file)


@pytest.mark.promtool
@pytest.mark.parametrize(
    "file", sorted(FOLDER.glob("prometheus-*.yml")), ids=lambda file: file.stem
)
def test_promtool_accepts_the_scrape_configurations(file: Path, tmp_path: Path) -> None:
    """All but how targets are found, which not every build of Prometheus has compiled in."""
    config = yaml.safe_load(file.read_text())
    (scrape,) = config["scrape_configs"]
    (discovery,) = [key for key in scrape if key.endswith("_sd_configs")]
    del scrape[discovery]
    scrape["file_sd_configs"] = [{"files": [str(tmp_path / "targets.json")]}]
    config["rule_files"] = [str(FOLDER / name) for name in config["rule_files"]]
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(config))
    (tmp_path / "targets.json").write_text("[]")
    promtool("check", "config", tmp_path / "prometheus.yml")
