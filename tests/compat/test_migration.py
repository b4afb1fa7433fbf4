"""docs/migrate.md on a real Consul: its configurations, its commands, and each way back.

The old system is the Go programs in `go`; the files and the commands are read from the page, so
that it can't say what nobody has tried. Only addresses and durations are others, by environment.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.compat.program import Service
from tests.daemon import Daemon
from tests.servers import ROOT, ConsulServer, poll_until_sync

pytestmark = [pytest.mark.consul, pytest.mark.go]

PAGE = ROOT / "docs" / "migrate.md"
PREFIX = "service-metrics/kafka-consumer"
STATE = "breaker/state"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
DAEMONS = 2
PRODUCERS = 2
OPEN_S = 3.0
DEADLINE_S = 60.0
COMMAND_DEADLINE_S = 40.0
QUICK = {
    "EVALUATION_INTERVAL": "500ms",
    "REPORT_INTERVAL": "1s",
    "OPEN_DURATION": f"{OPEN_S:g}s",
    "MAX_OPEN_DURATION": f"{OPEN_S + 1:g}s",
    "HALF_OPEN__RAMP": "2s",
    "HALF_OPEN__MAX": "20s",
}
"""A breaker's settings with seconds where production has half minutes."""


class Section:
    """One section of the page: its files and the commands before and after its way back."""

    def __init__(self, heading: str) -> None:
        text = PAGE.read_text("utf-8").partition(f"\n## {heading}")[2].partition("\n## ")[0]
        assert text, f"no section {heading}"
        forth, _, back = text.partition("**Way back.**")
        self.files = [body for kind, body in BLOCK.findall(text) if kind == "yaml"]
        self.forth = self._commands(forth)
        self.back = self._commands(back)

    @staticmethod
    def _commands(text: str) -> list[str]:
        return [
            line for kind, body in BLOCK.findall(text) if kind == "sh" for line in body.splitlines()
        ]


class Migration:
    """An old system at work on a Consul of its own, and the sidecars that come to it."""

    def __init__(
        self, consul: ConsulServer, binary: Path, folder: Path, stack: contextlib.ExitStack
    ) -> None:
        self.consul = consul
        self._binary = binary
        self._folder = folder
        self._stack = stack
        self.outage = folder / "failures"
        self.consumers = [
            self._service("consumer", interval="500ms", fail_file=self.outage) for _ in range(3)
        ]
        self.producers: list[Service] = []
        self.daemons: list[Daemon] = []

    def _service(self, mode: str, **flags: object) -> Service:
        service = Service(self._binary, mode, consul=self.consul.address, **flags)
        return self._stack.enter_context(service)

    def old_producers(self, **flags: object) -> None:
        """Other producers in the place of those that were there."""
        for producer in self.producers:
            producer.stop()
        settings = {"evaluation_interval": "500ms", "open_duration": f"{OPEN_S:g}s", **flags}
        self.producers = [self._service("producer", **settings) for _ in range(PRODUCERS)]

    def _environment(self) -> dict[str, str]:
        consul = {"BREAKER_SIDECAR__CONSUL__ADDRESS": self.consul.address}
        quick = {f"BREAKER_SIDECAR__BREAKERS__DEFAULT__{key}": v for key, v in QUICK.items()}
        return {**consul, **quick}

    def sidecars(self, file: str) -> None:
        """Start them with a file of the page."""
        for _ in range(DAEMONS):
            daemon = Daemon(file, env=self._environment())
            self.daemons.append(self._stack.enter_context(daemon))

    def reconfigure(self, file: str) -> None:
        """Another file and SIGHUP, on every host."""

        def reloads() -> list[int]:
            return [daemon.stderr().count('"config_reloaded"') for daemon in self.daemons]

        wanted = [count + 1 for count in reloads()]
        for daemon in self.daemons:
            daemon.configure(file)
            daemon.send_signal(signal.SIGHUP)
        self.wait_for("the file is taken over", lambda: reloads() == wanted)

    def stop_sidecars(self) -> None:
        """SIGTERM; each ends well, and none holds a session any more."""
        assert [daemon.stop() for daemon in self.daemons] == [0] * len(self.daemons)
        self.daemons.clear()
        self.wait_for("their sessions have ended", lambda: not self.consul.sessions())

    def run(self, commands: list[str], files: Mapping[str, str] | None = None) -> list[str]:
        """What each command prints. `breaker-sidecar run` is what `sidecars` did."""
        for name, text in (files or {}).items():
            (self._folder / name).write_text(text, "utf-8")
        path = [str(Path(sys.executable).parent), str(ROOT / ".tools" / "bin"), os.environ["PATH"]]
        environ = {
            **os.environ,
            **self._environment(),
            "PATH": os.pathsep.join(path),
            "CONSUL_HTTP_ADDR": self.consul.address,
        }
        if self.daemons:
            environ["BREAKER_SIDECAR_ADDRESS"] = f"127.0.0.1:{self.daemons[0].port}"
        said = []
        for command in commands:
            if command.startswith("breaker-sidecar run "):
                continue
            done = subprocess.run(
                ["bash", "-c", command],
                cwd=self._folder,
                env=environ,
                capture_output=True,
                text=True,
                check=False,
                timeout=COMMAND_DEADLINE_S,
            )
            assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
            said.append(done.stdout)
        return said

    # --- what is to be seen ------------------------------------------------------------------

    def record(self, key: str = STATE) -> dict[str, Any]:
        """The record under a key; empty when there is none."""
        value = self.consul.kv_get(key)
        found: dict[str, Any] = json.loads(value) if value else {}
        return found

    def adopted(self) -> int:
        """Transitions of the old evaluators that the sidecars took over."""
        value = self.consul.kv_get("breaker-history/default")
        entries: list[dict[str, Any]] = json.loads(value) if value else []
        return sum(entry["reason"] == "foreign" for entry in entries)

    def wait_for(self, what: str, check: Callable[[], object]) -> None:
        """Poll for a state of the whole."""
        poll_until_sync(check, DEADLINE_S, what)

    def ours(self) -> bool:
        """The record is one of the sidecars' own."""
        return "seq" in self.record()

    def overruled(self) -> bool:
        """A sidecar has put a looser state of theirs right.

        By its own word: with two old evaluators in step the record may say so for milliseconds
        only, since the second one's write follows, and a correction is due once a second.
        """
        told = (line for daemon in self.daemons for line in daemon.stderr().splitlines())
        return any('"foreign_write"' in line and '"reasserted"' in line for line in told)

    def old_answers(self) -> set[bool]:
        """What the old breakers tell their callers."""
        return {producer.admits for producer in self.producers}

    def answers(self) -> set[int]:
        """What the sidecars tell theirs."""
        return {daemon.allowed(peek=True).status for daemon in self.daemons}

    def writes(self) -> int:
        """State records that the old evaluators have written."""
        return sum(len(producer.events("write")) for producer in self.producers)

    def old_system_works(self) -> None:
        """By itself it opens when all fails, and closes when nothing does."""
        self.outage.write_text("25")
        before = self.writes()
        self.wait_for(
            "the old system rejects by its own writes",
            lambda: self.writes() > before and self.old_answers() == {False},
        )
        self.outage.unlink()
        self.wait_for("the old system admits", lambda: self.old_answers() == {True})

    def keys(self) -> set[str]:
        """All keys that aren't reports."""
        return {key for key in self.consul.kv_keys("") if not key.startswith(f"{PREFIX}/")}


@pytest.fixture
def migration(own_consul: ConsulServer, source_system: Path, tmp_path: Path) -> Iterator[Migration]:
    """An old system that works."""
    with contextlib.ExitStack() as stack:
        made = Migration(own_consul, source_system, tmp_path, stack)
        made.old_producers()
        made.wait_for("three reports", lambda: len(own_consul.kv_keys(f"{PREFIX}/")) == 3)
        yield made


def test_beside_the_old_system_the_trial_only_watches(migration: Migration) -> None:
    step = Section("1. Run beside it")
    (trial,) = step.files
    migration.run(step.forth[:1], {"trial.yaml": trial})
    migration.sidecars(trial)
    migration.outage.write_text("25")
    migration.wait_for(
        "both see it",
        lambda: (
            migration.old_answers() == {False}
            and migration.record("breaker-trial/state").get("automaton") == "OPEN"
        ),
    )
    assert migration.answers() == {200}, "a shadow admits"
    assert migration.record("breaker-trial/state")["current_state"] == "CLOSED"
    status, history, old, tried = migration.run(step.forth[2:])
    assert "shadow" in status
    assert "OPEN" in history
    # The old record is as its own evaluators write it, and nobody else touched it.
    assert set(json.loads(old)) == {"current_state", "last_changed"}
    assert json.loads(tried)["reason"]

    migration.stop_sidecars()
    migration.run(step.back)
    assert migration.keys() == {STATE}
    migration.outage.unlink()
    migration.wait_for("the old system admits", lambda: migration.old_answers() == {True})
    migration.old_system_works()


def test_a_shadow_under_the_shared_prefix_would_overrule_the_old_system(
    migration: Migration,
) -> None:
    """Why the page says not to."""
    (trial,) = Section("1. Run beside it").files
    migration.sidecars(trial.replace("breaker-trial", "breaker"))
    migration.wait_for("the shadow's record", migration.ours)
    migration.outage.write_text("25")
    migration.wait_for(
        "OPEN underneath, and CLOSED for all who read it",
        lambda: (
            migration.record().get("automaton") == "OPEN"
            and migration.record()["current_state"] == "CLOSED"
        ),
    )


def test_both_move_the_state_and_the_old_system_goes_on_alone(migration: Migration) -> None:
    step = Section("2. Share the state")
    (shared,) = step.files
    migration.run(step.forth[:1], {"breaker.yaml": shared})
    migration.sidecars(shared)
    migration.wait_for("a record of ours", migration.ours)
    _, status, _ = migration.run(step.forth[2:])
    assert "CLOSED" in status

    migration.outage.write_text("25")
    migration.wait_for(
        "all reject",
        lambda: migration.old_answers() == {False} and migration.answers() == {503},
    )
    # Its timers still move the state.
    migration.wait_for("they are adopted", lambda: migration.adopted() > 0)

    migration.wait_for("OPEN", lambda: migration.record().get("current_state") == "OPEN")
    migration.stop_sidecars()
    migration.outage.unlink()
    migration.wait_for("its timers take it from there", lambda: migration.old_answers() == {True})
    migration.old_system_works()


def test_producers_ask_the_sidecar_and_consumers_report_through_it(migration: Migration) -> None:
    step = Section("3. Ask the sidecar")
    migration.sidecars(*Section("2. Share the state").files)
    migration.wait_for("a record of ours", migration.ours)
    ask, tell = step.forth
    migration.run([ask, tell])
    key = f"{PREFIX}/c-1"
    migration.wait_for("its report", lambda: migration.consul.kv_get(key) is not None)
    # The old evaluators read this key as any other.
    assert migration.record(key).keys() >= {"timestamp", "rate_ok", "count_fail"}
    migration.run([tell.replace("--ok 98 --fail 0", "--fail 25")])
    migration.wait_for(
        "both answer no",
        lambda: migration.old_answers() == {False} and migration.answers() == {503},
    )

    assert migration.daemons[0].request("DELETE", "/v1/report/default/c-1").status == 204
    assert migration.consul.kv_get(key) is None
    migration.wait_for(
        "both answer yes",
        lambda: migration.old_answers() == {True} and migration.answers() == {200},
    )


def test_without_the_old_evaluators_and_back_to_them_and_out(migration: Migration) -> None:
    (shared,) = Section("2. Share the state").files
    step, out = Section("4. Remove the old evaluators"), Section("Removing the sidecar")
    (alone,) = step.files
    migration.sidecars(shared)
    migration.wait_for("a record of ours", migration.ours)
    check, history = step.forth
    migration.run([check], {"breaker.yaml": alone})
    migration.reconfigure(alone)
    migration.outage.write_text("25")
    migration.wait_for("an old evaluator's timer is overruled", migration.overruled)
    migration.old_producers(follow=True)
    migration.wait_for(
        "those without an evaluator follow us",
        lambda: migration.old_answers() == {False} and migration.answers() == {503},
    )
    migration.outage.unlink()
    migration.wait_for(
        "and are closed by us, at the end of the ramp",
        lambda: (
            migration.record().get("reason") == "recovered"
            and {tuple(producer.states[-1:]) for producer in migration.producers} == {("CLOSED",)}
        ),
    )
    assert migration.writes() == 0
    assert "recovered" in migration.run([history])[0]

    # Back: the evaluators write again, and are adopted again.
    migration.reconfigure(shared)
    before = migration.adopted()
    migration.old_producers(failure_threshold=1)
    migration.outage.write_text("1")
    migration.wait_for(
        "their writes are adopted",
        lambda: migration.writes() > 0 and migration.adopted() > before,
    )
    # And out.
    migration.stop_sidecars()
    migration.outage.unlink()
    migration.run(out.forth)
    assert migration.keys() == {STATE}
    migration.wait_for("the old system admits", lambda: migration.old_answers() == {True})
    migration.old_system_works()
