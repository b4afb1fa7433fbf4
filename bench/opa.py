"""Open Policy Agent answering the question that `/allowed` answers: may a producer send now?"""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from bench.host import on_core, wait_until
from bench.wire import Connection
from bench.wrk import SERVER_CORE
from tests.servers import ROOT, free_port

QUESTION = "/v1/data/breaker/allowed"
ANSWER = {"result": True}
POLICY = """
package breaker

default allowed := false

allowed if data.breakers["default"].state != "OPEN"
"""
STATES = {"breakers": {"default": {"state": "CLOSED"}}}


def binary() -> Path | None:
    """The checkout's own, else the one on PATH; None where there is none."""
    own = ROOT / ".tools" / "bin" / "opa"
    found = own if own.exists() else shutil.which("opa")
    return Path(found) if found is not None else None


def _answers(port: int) -> bool:
    with contextlib.suppress(OSError), Connection(port) as connection:
        status, body = connection.request("GET", QUESTION)
        return status == 200 and json.loads(body) == ANSWER
    return False


@contextlib.contextmanager
def serving(program: Path) -> Iterator[int]:
    """A server that knows the state and the rule; yields its port."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="breaker-opa-") as name:
        policy, states = Path(name) / "breaker.rego", Path(name) / "data.json"
        policy.write_text(POLICY, "utf-8")
        states.write_text(json.dumps(STATES), "utf-8")
        command = [str(program), "run", "--server", "--addr", f"127.0.0.1:{port}"]
        quiet = ["--log-level", "error", "--skip-version-check"]
        with on_core(SERVER_CORE):
            process = subprocess.Popen([*command, *quiet, str(policy), str(states)])
        try:
            wait_until(lambda: _answers(port), 15, "OPA answers", 0.05)
            yield port
        finally:
            process.terminate()
            process.wait(10)
