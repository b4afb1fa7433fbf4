"""Behind the door: no secret gets out, nothing in the store forges a line, files are ours alone."""

from __future__ import annotations

import json
import os
import re
import signal
import stat
import subprocess
import sys
import urllib.parse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.support import Place, events, timing
from tests.daemon import Daemon
from tests.door import Row, check_section
from tests.servers import ROOT, free_port, poll_until_sync

CANARY = "canary-7f3a51"
"""Part of everything that is secret here."""
PATHS = (
    "/",
    "/allowed",
    "/livez",
    "/readyz",
    "/version",
    "/metrics",
    "/openapi.json",
    "/v1/status",
    "/v1/breakers",
    "/v1/breakers/default",
    "/v1/breakers/default/history",
    "/nothing",
)


def _command(*arguments: str, env: Mapping[str, str] | None = None) -> str:
    """All that a command says, on both streams."""
    done = subprocess.run(
        [sys.executable, "-m", "sidecar", *arguments],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), **(env or {})},
        capture_output=True,
        timeout=60,
        check=False,
    )
    return (done.stdout + done.stderr).decode("utf-8", "replace")


# --- secrets ---------------------------------------------------------------------------------

FAULTY = {
    "`consul.address` with a password": {
        "consul": {"address": f"http://user:{CANARY}@127.0.0.1:8500"}
    },
    "`circuit_breaker.consul_address` with a password": {
        "circuit_breaker": {"consul_address": f"https://{CANARY}@127.0.0.1"}
    },
    "`consul.token`, a list": {"consul": {"token": [CANARY]}},
    "`consul.token` with a line break": {"consul": {"token": f"{CANARY}\n{CANARY}"}},
    "`consul.tokn`, a misspelt key": {"consul": {"tokn": CANARY}},
    "`admin.token` where only a file is known": {"admin": {"token": CANARY}},
    "`consul.token: *…`, a YAML alias by mistake": f"consul:\n  token: *{CANARY}\n",
    "`consul.token: !…`, a YAML tag by mistake": f"consul:\n  token: !{CANARY} x\n",
    '`consul.token: "…`, a quote that never ends': f'consul:\n  token: "{CANARY}\n',
}


@pytest.mark.parametrize("said", FAULTY)
def test_no_secret_in_a_configurations_faults(tmp_path: Path, said: str) -> None:
    file, config = tmp_path / "c.yaml", FAULTY[said]
    file.write_text(config if isinstance(config, str) else json.dumps(config))
    for command in (("check",), ("config", "show"), ("run",)):
        told = _command(*command, "-c", str(file))
        assert CANARY not in told
        assert "error" in told.lower()


def test_no_secret_gets_out(place: Place, tmp_path: Path) -> None:
    """Tokens are put everywhere one can be, then everything that a daemon says is searched."""
    admin, consul = tmp_path / "admin", tmp_path / "consul-token"
    admin.write_text(f"{CANARY}-admin\n")
    consul.write_text(f"{CANARY}-file\n")
    config = place.config(admin={"token_file": str(admin)}, consul={"token_file": str(consul)})
    env = {"CONSUL_HTTP_TOKEN": f"{CANARY}-env", "SASL_PASSWORD": f"{CANARY}-sasl"}
    rows: list[Row] = []

    def search(what: str, text: str) -> None:
        assert CANARY not in text, what
        assert text, what
        rows.append((what, "not there"))

    with Daemon(config, env=env, args=("--log-level", "debug")) as daemon:
        poll_until_sync(lambda: place.state() == "CLOSED", 30, "a record")
        bearer = {"Authorization": f"Bearer {CANARY}-wrong"}
        answers = [daemon.get(path, bearer) for path in PATHS]
        order = {"mode": "shadow", "ttl_s": 60, "reason": "a test"}
        path = "/v1/breakers/default/override"
        answers.append(daemon.request("PUT", path, order, bearer))
        assert answers[-1].status == 401
        right = {"Authorization": f"Bearer {CANARY}-admin"}
        answers.append(daemon.request("PUT", path, order, right))
        assert answers[-1].status == 200
        all_said = "".join(f"{a.headers}{a.content!r}" for a in answers)
        search("every answer, `/metrics`, `/openapi.json` and errors included", all_said)

        consul.write_text(f"{CANARY}\n{CANARY}")
        path = "/v1/breakers/default/history"
        poll_until_sync(lambda: daemon.get(path).status == 503, 30, "it can't be sent")
        answer = daemon.get(path)
        search("an error of the store, the token file having two lines", f"{answer.content!r}")
        assert daemon.file is not None
        daemon.file.write_text(f"consul:\n  token: [{CANARY}]\n  address: http://u:{CANARY}@h\n")
        daemon.send_signal(signal.SIGHUP)
        poll_until_sync(lambda: events(daemon, "config_refused"), 30, "it is refused")
        daemon.stop()
        search("the log at `debug`, through a bad token file and a refused reload", daemon.said())
    written = [f"{key} {place.consul.kv_get(key)!r}" for key in place.consul.kv_keys(place.prefix)]
    search("every key that it wrote to Consul", "".join(written))

    file = tmp_path / "c.yaml"
    file.write_text(json.dumps({**config, "consul": {"token": f"{CANARY}-file"}}))
    for command in (("config", "show"), ("check",), ("doctor",)):
        told = _command(*command, "-c", str(file), env=env)
        search(f"`{' '.join(command)}`", told)
    address = f"http://user:{CANARY}@127.0.0.1:1"
    search("`status --address http://user:…@…`", _command("status", "--address", address))
    token = {"BREAKER_SIDECAR_TOKEN": CANARY, "BREAKER_SIDECAR_ADDRESS": f"127.0.0.1:{free_port()}"}
    forced = _command("force", "open", "--ttl", "1m", "--reason", "a test", env=token)
    search("`force` with a token, nobody being there", forced)
    rows += [(f"faults: {said}", "not there") for said in FAULTY]
    check_section("secrets", ("searched for tokens and passwords", "seen"), rows)


# --- injection -------------------------------------------------------------------------------

NASTY = 'x\r\n{"event": "forged"}\n\x1b[2J\x1b]0;title\x07\x9b31m\u202e\u2028" = \x00'
"""Line breaks, JSON, terminal controls of seven and eight bits, and marks that reorder text."""
_CONTROL = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2028\u2029\u2066-\u2069]")


def _spoil(place: Place) -> None:
    """Put nasty text wherever the store has text that is shown."""
    consul = place.consul
    record = place.record()
    record.update(
        current_state="OPEN",
        automaton="OPEN",
        seq=record["seq"] + 1,
        detail=NASTY,
        reason=NASTY,
        evaluator=NASTY,
        evidence={NASTY: NASTY},
        policy=NASTY,
        open_for=60.0,
    )
    history: list[dict[str, Any]] = [
        {"seq": 1, "at": NASTY, "from": NASTY, "to": "OPEN", "reason": NASTY, "detail": NASTY},
        {
            "seq": 2,
            "at": "2026-11-20T20:00:00.123456Z",
            "from": "CLOSED",
            "to": "OPEN",
            "reason": "failures",
            "detail": NASTY,
            "evidence": {NASTY: 1},
            "epoch": 1,
            "evaluator": NASTY,
        },
    ]
    consul.kv_put(f"{place.state_prefix}-history/default", json.dumps(history))
    consul.kv_put(place.key("state"), record)
    override = {"mode": "shadow", "ttl_s": 600, "reason": NASTY, "author": NASTY}
    consul.kv_put(place.key("override"), override)
    consul.kv_put(f"{place.reports()}/{urllib.parse.quote('c-x' + chr(27))}", NASTY)
    consul.kv_put(f"{place.reports()}/plain", NASTY)


@pytest.mark.parametrize("style", ["json", "console"])
def test_nothing_forges_a_line(place: Place, style: str) -> None:
    """Consul holds whatever somebody wrote there; logs and tables stay what they are."""
    config = place.config({"default": timing(), "other": timing()})
    rows: list[Row] = []
    with Daemon(config, args=("--log-format", style)) as daemon:
        poll_until_sync(lambda: place.state() == "CLOSED", 30, "a record")
        _spoil(place)

        def shown() -> bool:
            said = json.dumps(daemon.get("/v1/status").body)
            return "title" in said and "bad_report" in daemon.stderr()

        poll_until_sync(shown, 30, "what was written is seen")
        body = {"instance": NASTY, "count_ok": 1, NASTY: 1}
        refused = daemon.post("/v1/report", body)
        assert refused.status == 400
        assert not _CONTROL.search(refused.content.decode())
        missing = daemon.get("/allowed/" + urllib.parse.quote(NASTY))
        assert missing.status == 404
        assert not _CONTROL.search(missing.content.decode())
        env = {"BREAKER_SIDECAR_ADDRESS": daemon.url}
        for command in (("status",), ("history",), ("allowed",), ("status", "-o", "json")):
            told = _command(*command, env=env)
            assert told
            assert not _CONTROL.search(told), (command, told)
            rows.append((f"what `{' '.join(command)}` prints", "escaped"))
        raw = b"".join(f"{a}".encode() for a in daemon.get("/allowed").headers.items())
        assert not _CONTROL.search(raw.decode())
        said = daemon.stderr()
        assert not _CONTROL.search(said), repr(_CONTROL.search(said))
        assert "title" in said, "it was told of"
        if style == "json":
            lines = said.splitlines()
            assert len(daemon.logs()) == len(lines), "every line is one object"
            assert not events(daemon, "forged")
        else:
            assert all(
                re.match(r"\d\d:\d\d:\d\d\.\d{3} [A-Z]+ ", line) for line in said.splitlines()
            )
    rows = [
        (
            "the log as JSON: state, history, override, reports from Consul",
            "one object a line, escaped",
        ),
        ("the log as text: the same", "one line an event, escaped"),
        *rows,
        ("`X-Breaker-Reason` of such a record", "letters, digits, `_`, `.` and `-` alone"),
        ("`POST /v1/report` with such an instance and field", "400, escaped"),
        ("`GET /allowed/…` with such a name", "404, escaped"),
    ]
    check_section("injection", ("line breaks, JSON and terminal controls in", "seen"), rows)


# --- files -----------------------------------------------------------------------------------


def _mode(path: Path) -> str:
    return f"{stat.S_IMODE(path.lstat().st_mode):04o}"


def _refused(config: Mapping[str, object], *words: str) -> str:
    """A daemon that doesn't start, and says why."""
    with Daemon(config, wait=False) as daemon:
        code = daemon.wait(30)
        said = events(daemon, "start_failed")
        assert code == 1
        assert len(said) == 1
        assert all(word in said[0]["error"] for word in words), said
        return "refused, exit 1"


def test_files(tmp_path: Path) -> None:
    """What it writes is nobody else's, and it writes through no symlink."""
    sock, state, data = tmp_path / "s", tmp_path / "state.json", tmp_path / "data"
    listen = {"socket": str(sock), "state_file": str(state)}
    memory = {"store": "memory"}
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    victim = elsewhere / "victim"
    victim.write_text("untouched")
    before = os.umask(0)
    try:
        with Daemon({**memory, "listen": listen, "data_dir": str(data)}) as daemon:
            poll_until_sync(state.exists, 30, "the state file")
            modes = [_mode(path) for path in (sock, state, data, data / "lock", data / "instance")]
            assert modes == ["0600", "0644", "0700", "0600", "0600"]
            assert daemon.allowed().status == 200
    finally:
        os.umask(before)
    names = ("`listen.socket`", "`listen.state_file`", "`data_dir`", "its lock", "its identity")
    rows: list[Row] = [
        (f"mode of {name} under umask 000", mode) for name, mode in zip(names, modes, strict=True)
    ]
    link = tmp_path / "link"
    link.symlink_to(victim)
    what = _refused({**memory, "listen": {"socket": str(link)}}, "symlink", "listen.socket")
    rows.append(("`listen.socket`, a symlink", what))
    what = _refused({**memory, "listen": {"socket": str(victim)}}, "no socket", "listen.socket")
    rows.append(("`listen.socket`, a file of somebody's", what))
    place = tmp_path / "data-elsewhere"
    place.symlink_to(elsewhere)
    what = _refused({**memory, "data_dir": str(place)}, "symlink", "data_dir")
    rows.append(("`data_dir`, a symlink", what))
    for name in ("lock", "instance", "instance.new"):
        folder = tmp_path / f"data-{name}"
        folder.mkdir()
        (folder / name).symlink_to(victim)
        what = _refused({**memory, "data_dir": str(folder)}, name)
        rows.append((f"`{name}` in `data_dir`, a symlink", what))
    with Daemon({**memory, "listen": {"state_file": str(link)}}) as daemon:
        poll_until_sync(lambda: events(daemon, "state_file_failed"), 30, "it is told of")
        assert daemon.allowed().status == 200
        assert link.is_symlink()
    rows.append(("`listen.state_file`, a symlink", "left alone, logged; all else works"))
    assert victim.read_text() == "untouched"
    assert [path.name for path in elsewhere.iterdir()] == ["victim"]
    rows.append(("what the symlinks point to", "untouched"))
    check_section("files", ("looked at", "seen"), rows)
