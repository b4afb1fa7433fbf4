"""The closed loop: what the policies are held to, and that the page shows what is simulated."""

from __future__ import annotations

import functools
import json
import math
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from bench.simulate.__main__ import main
from bench.simulate.day import DAY_INTERVALS, day
from bench.simulate.policies import FULL_S, GRADUATED, INTERVAL_S, NoBreaker, Ours, SourceRule
from bench.simulate.scenarios import (
    BEGIN,
    END,
    POLICIES,
    SCENARIOS,
    Run,
    dying,
    failing,
    flapping,
    halved,
    run,
    summed_up,
)
from bench.simulate.table import render, told
from bench.simulate.world import WELL, Fleet, Story, World
from sidecar.config.lint import warnings
from sidecar.config.load import load
from sidecar.core.signal_settings import Lag, Shed, SignalSettings

DOCS = Path(__file__).parents[3] / "docs"
PAGE = (DOCS / "signals.md").read_text("utf-8")


SEEDS = range(20)


@functools.cache
def graduated(seed: int) -> Run:
    """The story that takes longest to tell; several look at it."""
    return run(halved, Ours(GRADUATED), seed)


@pytest.mark.parametrize("seed", SEEDS)
def test_half_of_the_capacity_for_ten_minutes(seed: int) -> None:
    found = graduated(seed)
    assert found.goodput is not None
    assert found.goodput >= 0.95
    assert found.peak_lag_s <= 1.5 * FULL_S
    assert found.transitions <= 2
    assert found.recovered_s is not None
    assert found.recovered_s <= 60


def test_it_settles() -> None:
    """From a minute after the change on, the share stays within a deadband or two."""
    for demand in (250.0, 320.0, 390.0):
        found = run(halved, Ours(GRADUATED), 1, Fleet(demand=demand))
        shares = found.ratio[BEGIN + 60 : END]
        assert max(shares) / min(shares) < 1.25
        # What is admitted is what half of the fleet handles.
        assert sum(shares) / len(shares) == pytest.approx(200 / demand, rel=0.05)


def test_the_shortest_range_that_check_does_not_warn_of_settles_too() -> None:
    interval_s, least = 5.0, 0.05

    def warned(full_s: float) -> bool:
        shed = f"shed: {{full: {full_s}s}}, report_interval: {interval_s}s"
        return any(
            ".shed:" in said for said in warnings(load(f"breakers: {{a: {{{shed}}}}}", environ={}))
        )

    full_s = next(s for s in range(11, 60) if not warned(s))
    assert full_s < 10 - 3 * math.log(least) * interval_s
    policy = replace(GRADUATED, shed=Shed(start_s=10.0, full_s=full_s, least=least))
    shares = run(halved, Ours(policy), 1).ratio[BEGIN + 60 : END]
    assert max(shares) / min(shares) < 1.5


def test_nothing_is_rejected_while_all_is_well() -> None:
    for policy, made in POLICIES.items():
        found = run(lambda _, __: WELL, made(), 2)
        assert (found.rejected, found.transitions, found.steps) == (0.0, 0, 0), policy


def test_graduated_swings_less_than_binary_and_both_beat_waiting() -> None:
    for story in (halved, dying, flapping):
        none, binary, graduated = (
            run(story, POLICIES[name](), 3) for name in ("no breaker", "binary", "graduated")
        )
        assert graduated.peak_lag_s < binary.peak_lag_s < none.peak_lag_s
        assert graduated.transitions == 0 < binary.transitions
        assert none.goodput is not None
        assert none.goodput > 0.98, "whoever has a backlog is never idle"


@pytest.mark.parametrize("story", [halved, dying, flapping])
def test_the_signal_lag_does_not_trip_beside_it_where_it_has_time(story: Story) -> None:
    signals = SignalSettings(lag=Lag(max_seconds=2 * FULL_S, for_s=120.0))
    both = replace(GRADUATED, topic="orders", group="workers", signals=signals)
    assert [run(story, Ours(both), seed).transitions for seed in range(3)] == [0, 0, 0]


def test_what_fails_whole_is_stopped_by_ours_and_flaps_by_the_sources_rule() -> None:
    source, ours = run(failing, SourceRule(), 4), run(failing, Ours(GRADUATED), 4)
    assert source.transitions > 3 * ours.transitions
    assert source.peak_backlog > 10 * ours.peak_backlog


def test_a_seed_is_a_story() -> None:
    assert graduated(7) == run(halved, Ours(GRADUATED), 7)
    assert run(halved, NoBreaker(), 7).lag != run(halved, NoBreaker(), 8).lag


def test_no_message_is_lost_or_made() -> None:
    world = World(Fleet(), dying, 5)
    admitted = handled = 0.0
    for second in range(600):
        world.step(second, 0.9)
        admitted += world.admitted
        handled += world.handled
    assert admitted == pytest.approx(handled + world.backlog)


# --- auto ----------------------------------------------------------------------------------------


def test_a_noisy_healthy_day_does_not_trip_auto_and_five_times_the_failures_do() -> None:
    found = day(1)
    assert found.trips == 0
    assert found.tripped_after is not None
    assert found.tripped_after <= 3


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_many_days(seed: int) -> None:
    found = day(seed)
    assert found.trips == 0
    assert found.tripped_after is not None
    assert found.tripped_after <= 3


def test_auto_follows_the_traffic() -> None:
    found = day(1, intervals=DAY_INTERVALS // 4)
    assert told(found).startswith("auto: a day of a noisy, healthy fleet with 20 failures")
    assert found.highest > 1.8 * found.lowest
    assert DAY_INTERVALS * INTERVAL_S == 86_400


# --- the table and the pictures ----------------------------------------------------------------


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_the_pictures_on_the_page_are_those_of_the_first_seed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], scenario: str
) -> None:
    """To the byte: whatever changes what is simulated, or drawn of it, changes one of them."""
    assert main(["--seeds", "1", "--only", scenario, "--plots", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    for policy in POLICIES:
        assert f"| {scenario} | {policy} | " in said
    picture = (tmp_path / f"{scenario}.svg").read_text("utf-8")
    assert len(ET.fromstring(picture).findall(".//{*}polyline")) == 2 * len(POLICIES)
    assert f"(plots/{scenario}.svg)" in PAGE
    assert (DOCS / "plots" / f"{scenario}.svg").read_text("utf-8") == picture, (
        "python -m bench.simulate --plots docs/plots"
    )


def test_a_row_on_the_page_is_that_of_all_seeds() -> None:
    """What the others are made of is held by the pictures."""
    rows = render([summed_up("halved", "graduated", [graduated(seed) for seed in SEEDS])])
    assert rows.splitlines()[0] in PAGE
    assert rows.splitlines()[-1] in PAGE, "python -m bench.simulate"


def test_the_figures_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--seeds", "2", "--only", "failing", "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert [row["policy"] for row in figures["policies"]] == list(POLICIES)
    assert figures["policies"][0]["goodput"] is None  # nothing could be handled
    assert figures["shed"]["full_s"] == FULL_S, "what peaks are held against"
    assert figures["auto"] is None, "it was not asked for"


def test_the_page_has_every_row() -> None:
    rows = [
        line
        for line in PAGE.splitlines()
        if line.startswith(tuple(map("| {} |".format, SCENARIOS)))
    ]
    named = [tuple(row.split(" | ")[:2]) for row in rows]
    assert named == [(f"| {scenario}", policy) for scenario in SCENARIOS for policy in POLICIES]
