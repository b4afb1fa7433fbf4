"""A real Consul agent of one's own, on free ports."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import Self

from tools.get_tools import BIN
from tools.servers.waiting import free_port, poll_until_sync

START_DEADLINE_S = 30.0
STOP_DEADLINE_S = 10.0
REQUEST_DEADLINE_S = 10.0

Answer = tuple[int, dict[str, str], bytes]
"""Status, headers by lower-case name, body."""


def consul_binary() -> Path:
    """The checkout's own Consul, else the one on PATH."""
    own = BIN / "consul"
    found = own if own.exists() else shutil.which("consul")
    if found is None:
        raise AssertionError("no Consul: `make tools` brings one to .tools/bin")
    return Path(found)


class ConsulAgent:
    """A single Consul server on loopback. A context manager; `start` returns once it serves.

    Args:
        token: switch access control on with default deny, and with this token for managing it,
            which `request` then shows.
        unix_path: also serve HTTP on this unix socket.
        data_dir: keep data here, so that `restart` finds it again (starts in about 2 s; without
            it the agent is a dev server in memory, up in one).
        config: more configuration in HCL.
    """

    def __init__(
        self,
        *,
        token: str | None = None,
        unix_path: Path | None = None,
        data_dir: Path | None = None,
        config: str = "",
    ) -> None:
        self.token = token
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
        if self._process is None:
            raise AssertionError("Consul does not run")
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


class _DiedError(Exception):
    """The agent ended by itself while starting."""
