"""All checks of one configuration, in the order in which they depend on each other."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator, Mapping
from typing import Any

from sidecar import compose
from sidecar.config.lint import warnings
from sidecar.config.model import Config
from sidecar.core.errors import StoreError
from sidecar.core.ports import Page
from sidecar.doctor import agent as consul
from sidecar.doctor import files, fleet, flows, kafka, listening, reach, rights, running, spool
from sidecar.doctor.agent import Agent
from sidecar.doctor.findings import Finding, Level, fault, fine, warning
from sidecar.policies import policies
from sidecar.store import answers

DEADLINE_S = 60.0
"""For all that Consul is asked, however slowly it answers."""
EARLIEST_AT = 1_735_689_600.0
"""2025-01-01: a clock before it has never been set."""


def examine(
    config: Config, *, path: str | None, status: Mapping[str, Any] | None
) -> Iterator[Finding]:
    """Every finding, as it is made.

    Args:
        path: the configuration file, for what the configuration itself passes over.
        status: what a sidecar that runs with this configuration answers to `/v1/status`; None
            where none answers.
    """
    names = ", ".join(config.breakers)
    yield fine("configuration", f"store {config.store}, role {config.role}, breakers {names}")
    for text in warnings(config):
        key, _, said = text.partition(": ")
        mend = f"see `{key}` in docs/reference/configuration.md, or leave it on purpose"
        yield warning("configuration", said, mend, key)
    yield from _machine(config, ours=status is not None)
    if status is None:
        yield fine(running.CHECK, "none answers yet")
    else:
        yield from running.sidecar(status, config)
    connection = compose.kafka(config)
    if connection is None:
        yield from kafka.brokers(kafka.brokers_of(path))
    else:
        yield from asyncio.run(flows.kafka(connection, config))
    second = compose.kafka_second(config)
    if second is not None:
        yield from asyncio.run(flows.second(second, config))
    if config.store == "consul":
        yield from asyncio.run(_consul(config))


def _machine(config: Config, *, ours: bool) -> Iterator[Finding]:
    """What this machine alone decides."""
    wall_at = time.time()
    if wall_at < EARLIEST_AT:
        day = time.strftime("%Y-%m-%d", time.gmtime(wall_at))
        said = f"this machine believes that it is {day}"
        yield fault("clock", said, "set it by NTP (chronyc tracking, timedatectl)")
    if config.data_dir is not None:
        yield from files.data_dir(config.data_dir, ours=ours)
    if config.spool.dir is not None:
        yield from spool.folder(config.spool.dir, config.spool.max_bytes, os.environ)
    yield from listening.addresses(config, ours=ours)
    if config.listen.socket is not None:
        yield from files.listening_socket(config.listen.socket, ours=ours)
    if config.listen.state_file is not None:
        yield from files.state_file(config.listen.state_file)
    if config.admin.token_file is not None:
        yield from files.secret("admin.token_file", config.admin.token_file)
    if config.store == "consul" and config.consul.token_file is not None:
        yield from files.secret("consul.token_file", config.consul.token_file)


async def _consul(config: Config) -> list[Finding]:
    """What Consul says. Each step needs the one before it."""
    settings = compose.consul_settings(config)
    found = list(consul.tls_files(settings))
    if found:
        return found
    agent = Agent(settings)
    try:
        async with asyncio.timeout(DEADLINE_S):
            await _ask(agent, config, found)
    except (StoreError, TimeoutError) as error:
        said = f"stopped answering: {str(error) or 'it took too long'}"
        mend = "see the agent's log, and run this again"
        found.append(fault(consul.CHECK, said, mend, consul.ADDRESS, config.consul.address))
    finally:
        await agent.close()
    return found


async def _ask(agent: Agent, config: Config, found: list[Finding]) -> None:
    asked_at = time.time()
    reached, answer = await reach.reach(agent, config.consul)
    found += reached
    if answer is None:
        return
    found += consul.clocks(answer, asked_at, time.time())
    found += await consul.itself(agent, config.consul)
    known = await consul.token(agent, config.consul)
    found += known
    if any(finding.level is Level.FAULT for finding in known):
        return
    lacking = rights.Lacking()
    await rights.reading(agent, config, lacking)
    made = None
    try:
        if config.role != "follower":
            made, told = await rights.session(agent, config)
            found += told
        found += await rights.fast_takeover(agent, config)
        found += await rights.registering(agent, config)
        found += await rights.writing(agent, config, made, lacking)
    finally:
        if made is not None:
            await agent.put(f"/v1/session/destroy/{made}")
    found += rights.verdicts(lacking, config)
    await _look(agent, config, lacking, found)


async def _look(
    agent: Agent, config: Config, lacking: rights.Lacking, found: list[Finding]
) -> None:
    """What the fleet left, as far as it may be read."""
    state_prefix = f"{config.consul.state_prefix}/"
    if not lacking.unread(state_prefix):
        page = await _list(agent, state_prefix)
        found += fleet.breakers(config, page.entries)
    for policy in policies(config):
        prefix = f"{policy.reports_prefix}/"
        if not lacking.unread(prefix) and config.role != "follower":
            page = await _list(agent, prefix)
            found += fleet.reporters(policy, page.entries, time.time())


async def _list(agent: Agent, prefix: str) -> Page:
    return answers.page(await agent.get(f"/v1/kv/{prefix}", recurse=""))
