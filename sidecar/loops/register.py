"""Keeps one service registered at the local agent: while this runs it is found, then no more.

An agent forgets what it was told when it restarts without its data, and what was critical for
long. So it is asked now and then whether it still knows the service, and told again if not.
"""

from __future__ import annotations

import asyncio

from sidecar.core.errors import StoreError, StoreUnreachable
from sidecar.core.ports import Catalog, Service
from sidecar.loops.around import Around
from sidecar.telemetry import names

LOOK_EVERY_S = 10.0
"""The longest time that a service which the agent forgot is missing."""
FIRST_PAUSE_S = 0.5
"""After a failure; doubled with each further one."""
REFUSED_PAUSE_S = 60.0
"""After a refusal: rights are given by people."""


class Registrar:
    """Registers a service, looks after it, and takes it away again."""

    def __init__(self, around: Around, catalog: Catalog, service: Service) -> None:
        self._catalog = catalog
        self._service = service
        self._telemetry = around.telemetry
        self._draw = around.draw
        self._begun = False
        self._failures = 0

    async def run(self) -> None:
        """Keep it registered, for ever."""
        there = False
        while True:
            try:
                there = there and await self._catalog.has_service(self._service.id)
                if not there:
                    await self._register()
                there = True
            except StoreError as fault:
                await asyncio.sleep(self._after(fault))
            else:
                self._failures = 0
                await asyncio.sleep(LOOK_EVERY_S)

    async def _register(self) -> None:
        """A first time whatever the agent has: that may be a predecessor's."""
        again, self._begun = self._begun, True
        await self._catalog.register_service(self._service)
        self._telemetry.event(
            names.SERVICE_REGISTERED,
            service=self._service.name,
            id=self._service.id,
            port=self._service.port,
            again=again,
        )

    def _after(self, fault: StoreError) -> float:
        """How long to wait before it is tried again."""
        if self._failures == 0:
            self._telemetry.event(
                names.SERVICE_UNREGISTERED,
                level="warning",
                service=self._service.name,
                error=str(fault),
            )
        self._failures += 1
        if not isinstance(fault, StoreUnreachable):
            return REFUSED_PAUSE_S
        pause_s = min(LOOK_EVERY_S, FIRST_PAUSE_S * 2.0 ** min(self._failures - 1, 10))
        return pause_s * (0.5 + self._draw() / 2)

    async def withdraw(self) -> None:
        """Take it away, so that nobody is sent to who stops. One that was never there is fine.

        Raises:
            StoreError: it stays for now; the agent removes what has been critical for long.
        """
        if self._begun:
            self._begun = False
            await self._catalog.deregister_service(self._service.id)
