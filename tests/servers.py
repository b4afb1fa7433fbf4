"""Real servers for the tests: a Consul agent of one's own on free ports, and waiting by polling."""

from __future__ import annotations

import asyncio
import base64
import http.client
import inspect
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.parse
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar, overload

T = TypeVar("T")

ROOT = Path(__file__).resolve().parent.parent
MANAGEMENT_TOKEN = "5f0c8d2e-9a57-4c35-8a5b-6f6d1c1a7e11"
START_DEADLINE_S = 30.0
STOP_DEADLINE_S = 10.0
REQUEST_DEADLINE_S = 10.0
POLL_S = 0.02

Answer = tuple[int, dict[str, str], bytes]
"""Status, headers by lower-case name, body."""


def free_port() -> int:
    """A TCP port on loopback that nobody listens on right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def poll_until_sync(fn: Callable[[], T | None], timeout_s: float, what: str) -> T:
    """Call `fn` until it returns something true, and return that; fails saying `what` never was."""
    deadline = time.monotonic() + timeout_s
    while True:
        if result := fn():
            return result
        if time.monotonic() >= deadline:
            raise AssertionError(f"not within {timeout_s} s: {what}")
        time.sleep(POLL_S)


@overload
async def poll_until(fn: Callable[[], Awaitable[T | None]], timeout_s: float, what: str) -> T: ...
@overload
async def poll_until(fn: Callable[[], T | None], timeout_s: float, what: str) -> T: ...
async def poll_until(fn: Callable[[], Any], timeout_s: float, what: str) -> Any:
    """The same on the event loop; `fn` may be a coroutine function."""
    deadline = time.monotonic() + timeout_s
    while True:
        result = fn()
        if inspect.isawaitable(result):
            result = await result
        if result:
            return result
        if time.monotonic() >= deadline:
            raise AssertionError(f"not within {timeout_s} s: {what}")
        await asyncio.sleep(POLL_S)


def consul_binary() -> Path:
    """The checkout's own Consul, else the one on PATH."""
    own = ROOT / ".tools" / "bin" / "consul"
    found = own if own.exists() else shutil.which("consul")
    if found is None:
        raise AssertionError("no Consul: `make tools` brings one to .tools/bin")
    return Path(found)


@dataclass(frozen=True)
class AclToken:
    """A token with one policy of its own, so that its rights can be changed later."""

    secret: str
    policy_id: str
    policy_name: str


class ConsulServer:
    """A single Consul server on loopback. A context manager; `start` returns once it serves.

    Args:
        acl: switch access control on with default deny; `kv_*` then use the management token.
        unix_path: also serve HTTP on this unix socket.
        data_dir: keep data here, so that `restart` finds it again (starts in about 2 s; without
            it the agent is a dev server in memory, up in one).
        config: more configuration in HCL.
    """

    def __init__(
        self,
        *,
        acl: bool = False,
        unix_path: Path | None = None,
        data_dir: Path | None = None,
        config: str = "",
    ) -> None:
        self.token: str | None = MANAGEMENT_TOKEN if acl else None
        self.port = 0
        self._unix_path = unix_path
        self._data_dir = data_dir
        self._config = config
        self._folder = Path(tempfile.mkdtemp(prefix="breaker-consul-"))
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def address(self) -> str:
        """host:port of the HTTP listener."""
        return f"127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """The process; AssertionError while there is none."""
        assert self._process is not None, "Consul does not run"
        return self._process.pid

    @property
    def log(self) -> str:
        """What the agent has written so far."""
        return (self._folder / "log").read_text("utf-8", "replace")

    def start(self) -> Self:
        """Start and wait until it serves writes and sessions. The address stays the same."""
        for attempt in range(3):
            self.port = self.port or free_port()
            self._spawn()
            try:
                poll_until_sync(self._serving, START_DEADLINE_S, "Consul serves")
            except _DiedError as died:
                # Somebody took one of its ports between our look and its start.
                if attempt == 2 or "address already in use" not in str(died):
                    raise
                self.port = 0
            except BaseException:
                self.kill()
                raise
            else:
                return self
        raise AssertionError("unreachable")

    def _spawn(self) -> None:
        command = [str(consul_binary()), "agent"]
        for name, text in (("agent.hcl", self._hcl()), ("more.hcl", self._config)):
            (self._folder / name).write_text(text, "utf-8")
            command += ["-config-file", str(self._folder / name)]
        if self._data_dir is None:
            command.append("-dev")
        else:
            command += ["-server", "-bootstrap-expect=1", "-data-dir", str(self._data_dir)]
        environ = {k: v for k, v in os.environ.items() if not k.startswith("CONSUL_")}
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environ
            )

    def _hcl(self) -> str:
        listen = "127.0.0.1" + (f" unix://{self._unix_path}" if self._unix_path else "")
        acl = f"""
            acl {{
              enabled = true
              default_policy = "deny"
              tokens {{ initial_management = "{self.token}" agent = "{self.token}" }}
            }}"""
        return f"""
            node_name = "test"
            bind_addr = "127.0.0.1"
            client_addr = "127.0.0.1"
            log_level = "WARN"
            disable_update_check = true
            addresses {{ http = "{listen}" }}
            ports {{
              http = {self.port} server = {free_port()} serf_lan = {free_port()} serf_wan = -1
              dns = -1 grpc = -1 grpc_tls = -1
            }}
            performance {{ raft_multiplier = 1 }}
            limits {{ http_max_conns_per_client = 2000 }}
            connect {{ enabled = false }}
            {acl if self.token else ""}
        """

    def _serving(self) -> bool:
        if self._process is None or self._process.poll() is not None:
            raise _DiedError(f"Consul ended: {self.log[-2000:]}")
        try:
            status, _, body = self.request("PUT", "/v1/session/create", b'{"Checks": []}')
            if status != 200:
                return False
            session = json.loads(body)["ID"]
            return self.request("PUT", f"/v1/session/destroy/{session}")[0] == 200
        except OSError:
            return False

    def stop(self) -> None:
        """End it in an orderly way; `start` brings it back at the same address."""
        if self._process is None:
            return
        self.thaw()
        self._process.terminate()
        try:
            self._process.wait(STOP_DEADLINE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(STOP_DEADLINE_S)
        self._process = None

    def kill(self) -> None:
        """SIGKILL."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(STOP_DEADLINE_S)
            self._process = None

    def restart(self) -> None:
        """Stop and start at the same address; only a `data_dir` outlives this."""
        self.stop()
        self.start()

    def close(self) -> None:
        """End it for good and remove what it left."""
        if self._data_dir is None:
            self.kill()
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def freeze(self) -> None:
        """SIGSTOP: connections are still accepted by the kernel, no answer ever comes."""
        if self._process is not None:
            self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let a frozen server go on."""
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)

    def request(
        self, method: str, path: str, body: bytes | None = None, *, token: str | None = None
    ) -> Answer:
        """One plain HTTP call; `path` as it goes on the wire. Raises OSError."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=REQUEST_DEADLINE_S)
        secret = token or self.token
        try:
            connection.request(method, path, body, {"X-Consul-Token": secret} if secret else {})
            answer = connection.getresponse()
            headers = {name.lower(): value for name, value in answer.getheaders()}
            return answer.status, headers, answer.read()
        except http.client.HTTPException as fault:
            raise ConnectionError(str(fault)) from fault
        finally:
            connection.close()

    def _expect(self, method: str, path: str, body: bytes | None = None) -> bytes:
        status, _, answer = self.request(method, path, body)
        assert status == 200, f"{method} {path}: {status} {answer[:200]!r}"
        return answer

    def kv_put(self, key: str, value: bytes | str | dict[str, object]) -> None:
        """A plain PUT, as any script does it; a dict is written as JSON."""
        data = json.dumps(value).encode() if isinstance(value, dict) else value
        data = data.encode() if isinstance(data, str) else data
        assert self._expect("PUT", _kv_path(key), data).strip() == b"true"

    def kv_get(self, key: str) -> bytes | None:
        """The value, or None when the key is absent."""
        entry = self.kv_entry(key)
        return None if entry is None else base64.b64decode(str(entry["Value"] or ""))

    def kv_entry(self, key: str) -> dict[str, object] | None:
        """The key with its indexes and session, as Consul names them; None when absent."""
        status, _, body = self.request("GET", _kv_path(key))
        if status == 404:
            return None
        assert status == 200, f"{status} {body[:200]!r}"
        entry: dict[str, object] = json.loads(body)[0]
        return entry

    def kv_delete(self, key: str, *, recurse: bool = False) -> None:
        """Delete a key, or with `recurse` all that begin with it."""
        self._expect("DELETE", _kv_path(key) + ("?recurse" if recurse else ""))

    def kv_keys(self, prefix: str) -> list[str]:
        """The keys that begin with `prefix`."""
        status, _, body = self.request("GET", _kv_path(prefix) + "?keys")
        keys: list[str] = [] if status == 404 else json.loads(body)
        return keys

    def sessions(self) -> list[dict[str, object]]:
        """All live sessions."""
        listed: list[dict[str, object]] = json.loads(self._expect("GET", "/v1/session/list"))
        return listed

    def destroy_session(self, session: str) -> None:
        """What a TTL does, at once: its locks are lost and get their lock-delay."""
        self._expect("PUT", f"/v1/session/destroy/{session}")

    def make_token(self, rules: str) -> AclToken:
        """A token with these rules (HCL); needs `acl`."""
        name = f"test-{time.monotonic_ns()}"
        policy = json.dumps({"Name": name, "Rules": rules}).encode()
        policy_id = json.loads(self._expect("PUT", "/v1/acl/policy", policy))["ID"]
        wanted = json.dumps({"Policies": [{"ID": policy_id}]}).encode()
        made = json.loads(self._expect("PUT", "/v1/acl/token", wanted))
        return AclToken(made["SecretID"], policy_id, name)

    def set_rules(self, token: AclToken, rules: str) -> None:
        """Change what a token may do."""
        policy = json.dumps({"Name": token.policy_name, "Rules": rules}).encode()
        self._expect("PUT", f"/v1/acl/policy/{token.policy_id}", policy)


class _DiedError(Exception):
    """The agent ended by itself while starting."""


def _kv_path(key: str) -> str:
    return "/v1/kv/" + urllib.parse.quote(key, safe="/")
