"""Asking Consul as the daemon does, and who is asked as whom: TLS, token, clock, agent."""

from __future__ import annotations

import email.utils
import json
import re
import ssl
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sidecar.config.addresses import is_loopback
from sidecar.config.model import Consul, consul_endpoint
from sidecar.config.units import format_duration
from sidecar.core.wire import parse_rfc3339
from sidecar.doctor.findings import Finding, fault, fine, warning
from sidecar.store.transport import Answer, ConsulSettings, Transport, tls_context

CHECK = "consul"
ADDRESS = "consul.address"
CLOCK_S = 5.0
"""A difference of clocks that people and a cold start notice."""
DAY_S = 86400.0
"""Reports from so far ahead are refused by every evaluator."""
TOKEN_LEFT_S = 3600.0
OLDEST = (1, 20)
"""The oldest Consul that this is tested with."""
MOST_SHOWN = 200


class Agent:
    """Consul's HTTP interface with the daemon's own transport: the same TLS, token and limits."""

    def __init__(self, settings: ConsulSettings) -> None:
        self._transport: Any = Transport(settings)

    async def get(self, path: str, **params: str) -> Answer:
        """A GET. Raises StoreError."""
        answer: Answer = await self._transport.get(None, path, list(params.items()))
        return answer

    async def put(self, path: str, body: object = None) -> Answer:
        """A PUT of JSON. Raises StoreError."""
        data = b"" if body is None else json.dumps(body).encode()
        answer: Answer = await self._transport.put(None, path, data=data)
        return answer

    async def allows(self, resource: str, name: str, access: str) -> bool | None:
        """Whether the token has a right, by Consul's own word; None where it doesn't say."""
        asked = [{"Resource": resource, "Segment": name, "Access": access}]
        answer: Answer = await self._transport.post(
            None, "/v1/internal/acl/authorize", data=json.dumps(asked)
        )
        said = parsed(answer) if answer.status == 200 else None
        return bool(said[0].get("Allow")) if isinstance(said, list) and said else None

    async def close(self) -> None:
        """End its connections."""
        await self._transport.close()


def tls_files(settings: ConsulSettings) -> Iterator[Finding]:
    """The files of an https address, before anybody is asked."""
    if settings.scheme != "https" or settings.unix_path:
        return
    named = {
        "consul.ca_file": settings.ca_file,
        "consul.client_cert": settings.client_cert,
        "consul.client_key": settings.client_key,
    }
    for key, path in named.items():
        try:
            if path is not None:
                Path(path).read_bytes()
        except OSError as error:
            yield fault(
                "tls", f"can't be read: {error.strerror}", "name a readable file", key, path
            )
            return
    try:
        context = tls_context(settings)
    except OSError as error:
        key = "consul.ca_file" if settings.client_cert is None else "consul.client_cert"
        said = f"can't be used: {error}"
        mend = "name PEM files, and a key that belongs to the certificate"
        yield fault("tls", said, mend, key, named[key])
        return
    authorities = ssl.get_default_verify_paths()
    if not (settings.ca_file or context.get_ca_certs() or authorities.capath or authorities.cafile):
        said = "this machine has no certificate authorities that we find, so nobody is trusted"
        yield fault("tls", said, "name the authority of Consul's certificate", "consul.ca_file")


def clocks(answer: Answer, asked_at: float, had_at: float) -> Iterator[Finding]:
    """Consul's clock beside this machine's.

    Args:
        asked_at: this machine's time before the question, `had_at` after the answer: in between,
            and in whole seconds, Consul wrote down its own.
    """
    try:
        theirs_at = email.utils.parsedate_to_datetime(answer.headers.get("Date", "")).timestamp()
    except ValueError:
        return
    apart_s = min(0.0, had_at - theirs_at) or max(0.0, asked_at - theirs_at - 1.0)
    if abs(apart_s) < CLOCK_S:
        yield fine("clock", "agrees with Consul's to a few seconds")
        return
    which = "ahead of" if apart_s > 0 else "behind"
    said = f"this machine's is {format_duration(round(abs(apart_s)))} {which} Consul's"
    mend = "set both by NTP (chronyc tracking, timedatectl)"
    if abs(apart_s) >= DAY_S:
        said += ": reports from a day ahead are refused"
        yield fault("clock", said, mend)
    else:
        said += "; times in records mislead people and a sidecar that has just started"
        yield warning("clock", said, mend)


async def token(agent: Agent, config: Consul) -> list[Finding]:
    """Whether the token is known, and for how long. After a fault nothing else would work."""
    key = "token_file" if config.token_file else "token" if config.token else None
    where = f"consul.{key or 'token'}"
    value = config.token_file
    answer = await agent.get("/v1/acl/token/self")
    said = answer.body[:MOST_SHOWN].decode("utf-8", "replace").strip()
    if answer.status == 401 and "disabled" in said:
        return [fine("token", "Consul asks for none: access control is off")]
    if key is None:
        return [fine("token", "none is set; Consul lets us do what anybody may", where)]
    if answer.status in {401, 403}:
        mend = "make a new one (consul acl token create) and put it there"
        said = f"isn't known to Consul: expired, deleted, or of another datacenter ({said})"
        return [fault("token", said, mend, where, value)]
    body = parsed(answer)
    if answer.status != 200 or not isinstance(body, dict):
        return []
    return [_expiry(body, where, value, renewed=key == "token_file")]


def _expiry(body: Mapping[str, Any], key: str, value: str | None, *, renewed: bool) -> Finding:
    ends = body.get("ExpirationTime")
    if not isinstance(ends, str):
        return fine("token", "is known to Consul, and doesn't expire", key, value)
    left_s = parse_rfc3339(ends) - time.time()
    said = f"expires in {format_duration(max(0, round(left_s)))}"
    if left_s < TOKEN_LEFT_S and not renewed:
        mend = "use consul.token_file, which is read again when it changes, and renew the file"
        return warning("token", f"{said}, and nothing renews it here", mend, key, value)
    return fine("token", f"is known to Consul, and {said}", key, value)


async def itself(agent: Agent, config: Consul) -> list[Finding]:
    """What the agent is, as far as the token may know (`agent:read`, which nothing else needs)."""
    answer = await agent.get("/v1/agent/self")
    body = parsed(answer)
    about = body.get("Config") if isinstance(body, dict) else None
    found = []
    endpoint = consul_endpoint(config)
    if endpoint.socket is None and not is_loopback(endpoint.host):
        said = "is on another machine; one blocking query of every sidecar ends there"
        mend = "run a Consul client agent on each host, and ask that (127.0.0.1:8500)"
        found.append(warning("agent", said, mend, ADDRESS, config.address))
    if not isinstance(about, dict):
        return found
    version, kind = str(about.get("Version")), "server" if about.get("Server") else "client"
    number = re.match(r"([0-9]+)\.([0-9]+)\.", version)
    if number and (int(number[1]), int(number[2])) < OLDEST:
        said = f"is Consul {version}, older than what this is tested with"
        mend = f"upgrade it to {OLDEST[0]}.{OLDEST[1]} or newer"
        found.append(warning("agent", said, mend, ADDRESS, config.address))
    found.append(fine("agent", f"Consul {version}, a {kind}, node {about.get('NodeName')}"))
    return found


def parsed(answer: Answer) -> Any:
    """Its body, if that is JSON; else None."""
    try:
        return json.loads(answer.body)
    except ValueError:
        return None
