"""The measurements that need no server still run, and the table says what it should."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest

from bench import clients, decisions, evaluation, instructions, spool, spool_memory, stalls
from bench.handing import lines
from bench.host import BenchError, missing
from bench.table import Row, over_rounds, percentile, render
from bench.wrk import command, parse, reports, same
from tests.daemon import Daemon
from tests.servers import ROOT

pytestmark = pytest.mark.slow  # it measures, shortly

WRK = """Running 3s test @ http://127.0.0.1:9100/allowed
  1 threads and 32 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency   589.00us    1.20ms  35.06ms   95.00%
  Latency Distribution
     50%  589.00us
     75%  700.00us
     90%    1.10ms
     99%   35.06ms
  71535 requests in 3.00s, 20.1MB read
Requests/sec:  23845.12
Transfer/sec:      6.70MB
"""


def test_an_evaluation_is_measured_at_every_size() -> None:
    """Against the core as it is, so that a change there doesn't break `make bench` unnoticed."""
    rows = list(evaluation.measure(quick=True))
    assert [row.what.partition(" ")[0] for row in rows[::2]] == ["10", "1,000", "10,000"]
    assert all(row.value is not None and row.value > 0 for row in rows)


def test_the_spool_is_measured() -> None:
    rows = list(spool.measure(quick=True))
    assert all(row.value is not None for row in rows)
    assert not any("missing" in row.note for row in rows)


def test_a_row_says_whether_its_target_was_met() -> None:
    def verdict(value: float | None, limit: float | None) -> str:
        return Row(section="s", what="w", value=value, limit=limit).verdict

    assert verdict(56.0, 56.0) == "met"
    assert verdict(56.1, 56.0) == "MISSED"
    assert verdict(1.0, None) == ""
    assert verdict(None, 56.0) == "left out"


def test_a_target_may_be_measured_against_the_peer() -> None:
    def row(value: float, least: float | None = None, most: float | None = None) -> Row:
        return Row(
            section="s", what="w", value=value, peer_value=100, least_ratio=least, most_ratio=most
        )

    assert row(90, least=0.9).verdict == "met"
    assert row(89, least=0.9).verdict == "MISSED"
    assert row(110, most=1.1).verdict == "met"
    assert row(111, most=1.1).verdict == "MISSED"
    assert replace(row(1, least=6.0), limit=2.0).verdict == "MISSED"
    assert row(1).verdict == ""


def test_a_decision_of_the_client_is_measured_in_every_state() -> None:
    rows = list(clients.measure(quick=True))
    assert len(rows) == 2 * len(decisions.STATES)
    # In microseconds: a call that asked the daemon would take 60 at least.
    assert all(row.value is not None and 0 < row.value < 50 for row in rows)


def test_what_the_daemon_spends_within_a_request_is_told_apart_from_the_clock() -> None:
    rows = list(stalls.measure(quick=True))
    assert len(rows) == 2 * len(decisions.STATES)
    assert all(row.value and row.peer_value for row in rows)


def test_what_a_decision_costs_in_instructions_is_counted_where_valgrind_is() -> None:
    rows = list(islice(instructions.measure(quick=True), 2))  # a state is like the next
    if absent := missing("valgrind"):
        assert [(row.value, row.note) for row in rows] == [(None, absent)]
    else:
        assert [row.what.rpartition(", ")[2] for row in rows] == ["32 connections", "1 connection"]
        # Of one request; all of them together take millions.
        assert all(row.value and 500 < row.value < 100_000 for row in rows)


def test_without_valgrind_the_row_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    (row,) = instructions.measure(quick=True)
    assert (row.value, row.verdict) == (None, "left out")
    assert "not on PATH: valgrind" in row.note


def test_the_table_shows_value_peer_ratio_target_and_note() -> None:
    row = Row(
        section="Trip latency",
        what="3 reporters, p99",
        value=9.0,
        unit="ms",
        peer="bare Consul",
        peer_value=4.5,
        target="≤ 3× floor",
        limit=13.5,
        note="5 rounds of 40",
    )
    lines = render([row]).splitlines()
    assert lines[2] == "Trip latency"
    assert lines[3].split("  ")[0] == "3 reporters, p99"
    for part in ("9.00", "ms", "bare Consul", "4.50", "2.00×", "≤ 3× floor", "met", "5 rounds"):
        assert part in lines[3]


def test_one_bad_round_does_not_decide_and_is_not_hidden() -> None:
    row = Row.over(
        [66.0, 14_500.0, 67.0],
        [65.0, 64.0, 400.0],
        section="s",
        what="w",
        peer="nginx",
        most_ratio=1.5,
    )
    assert (row.value, row.peer_value, row.verdict) == (67.0, 65.0, "met")
    line = render([row]).splitlines()[-1]
    assert "3 rounds: 66.0 to 14,500; the peer's: 64.0 to 400" in line
    assert row.as_dict()["rounds"] == (66.0, 14_500.0, 67.0)
    assert Row.over([3.0, 1.0], section="s", what="w").ratio is None


def test_everybody_is_measured_once_a_round_and_has_every_place() -> None:
    turns = list(decisions.in_turn(["a", "b", "c"], 3))
    assert turns == [*"abc", *"bca", *"cab"]


def test_percentiles_are_of_samples_that_were_taken() -> None:
    samples = [float(number) for number in range(100, 0, -1)]
    assert percentile(samples, 0.5) == 50
    assert percentile(samples, 0.99) == 99
    assert percentile([7.0], 0.99) == 7
    # One disturbed round of three doesn't move the figure.
    assert over_rounds([[1.0, 2.0], [1.0, 90.0], [1.0, 3.0]], 0.99) == 3


def test_what_wrk_says_is_read_in_microseconds() -> None:
    load = parse(WRK)
    assert load.requests == 71535
    assert (load.rate, load.p50_us, load.p99_us, load.p999_us) == (23845.12, 589.0, 35060.0, None)
    assert parse(WRK + "  99.9% 40123.500000us\n").p999_us == 40123.5
    assert parse(WRK.replace("  99%   35.06ms", "  99%    1.02s ")).p99_us == 1_020_000


@pytest.mark.parametrize("line", ["  Non-2xx or 3xx responses: 12", "  Socket errors: connect 1"])
def test_a_run_with_errors_is_no_measurement(line: str) -> None:
    with pytest.raises(BenchError, match="errors"):
        parse(WRK + line)


def test_watchers_say_how_far_apart_they_were_told() -> None:
    """The program on its own, with a breaker that trips before its eyes."""
    config = {
        "store": "memory",
        "breakers": {"default": {"failure_threshold": 1, "open_duration": "5m"}},
    }
    with Daemon(config) as daemon:
        watchers = subprocess.Popen(
            [sys.executable, "-m", "bench.watchers", str(daemon.port), "20"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        with watchers:
            assert watchers.stdout is not None
            assert watchers.stdout.readline() == "ready\n"
            assert daemon.post("/v1/report", {"instance": "c-1", "count_fail": 9}).status == 202
            assert float(watchers.stdout.readline()) >= 0
            watchers.communicate(timeout=30)
        assert watchers.returncode == 0


def test_records_are_sent_as_the_daemon_takes_them(tmp_path: Path) -> None:
    assert same(tmp_path, "x", b"\x00\xff", {"A": "b"}).read_text("utf-8").count(str(tmp_path)) == 1
    assert (tmp_path / "x.body").read_bytes() == b"\x00\xff"
    batch = lines(3, 10).splitlines()
    assert [len(json.loads(line)["value"]["data"]) for line in batch] == [16] * 3


def test_the_memory_of_a_daemon_whose_spool_grows_is_measured() -> None:
    rows = list(spool_memory.measure(quick=True))
    assert len(rows) == len(spool_memory.MARKS)
    assert all(row.value for row in rows)


def test_reports_are_sent_as_the_daemon_takes_them(tmp_path: Path) -> None:
    script = reports(tmp_path, paced=True).read_text("utf-8")
    assert "application/json" in script
    assert "delay" in script
    assert "delay" not in reports(tmp_path).read_text("utf-8")
    assert "-s" in command("http://localhost:1/v1/report", 2, 1, tmp_path / "report.lua")
    assert "-s" not in command("http://localhost:1/allowed", 2, 1)
