"""Real servers for the tests: a Consul agent of one's own on free ports, and waiting by polling."""

from __future__ import annotations

import asyncio
import base64
import inspect
import json
import time
import urllib.parse
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, overload

from tools.programs import ROOT
from tools.servers.consul import STOP_DEADLINE_S, Answer, ConsulAgent, consul_binary
from tools.servers.waiting import POLL_S, free_port, poll_until_sync

__all__ = [
    "POLL_S",
    "ROOT",
    "STOP_DEADLINE_S",
    "AclToken",
    "Answer",
    "ConsulServer",
    "consul_binary",
    "free_port",
    "poll_until",
    "poll_until_sync",
]

T = TypeVar("T")

MANAGEMENT_TOKEN = "5f0c8d2e-9a57-4c35-8a5b-6f6d1c1a7e11"


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


@dataclass(frozen=True)
class AclToken:
    """A token with one policy of its own, so that its rights can be changed later."""

    secret: str
    policy_id: str
    policy_name: str


class ConsulServer(ConsulAgent):
    """A single Consul server on loopback. A context manager; `start` returns once it serves.

    Args:
        acl: switch access control on with default deny; `kv_*` then use the management token.

    The others are those of `ConsulAgent`.
    """

    def __init__(
        self,
        *,
        acl: bool = False,
        unix_path: Path | None = None,
        data_dir: Path | None = None,
        config: str = "",
    ) -> None:
        token = MANAGEMENT_TOKEN if acl else None
        super().__init__(token=token, unix_path=unix_path, data_dir=data_dir, config=config)

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


def _kv_path(key: str) -> str:
    return "/v1/kv/" + urllib.parse.quote(key, safe="/")
