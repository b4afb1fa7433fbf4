"""The composition root: builds the parts, starts them in order, and stops them in order."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING

from msgspec import structs

from sidecar import __version__, compose, early, lean
from sidecar.config import model
from sidecar.config.faults import ConfigFaults
from sidecar.config.lint import warnings
from sidecar.config.load import load_file
from sidecar.config.model import Config
from sidecar.core.errors import SpoolFault, StoreError
from sidecar.http.listeners import Listeners
from sidecar.http.server import apply_settings
from sidecar.http.sockets import ListenFailed
from sidecar.identity import DataDir, DataDirTaken, instance
from sidecar.loops.around import Around, Clock, boottime
from sidecar.loops.elect import Elector
from sidecar.loops.evaluate import Evaluator
from sidecar.loops.guard import Tasks, unless
from sidecar.loops.inside import Inside
from sidecar.loops.narrate import Narrator
from sidecar.loops.orders import Orders
from sidecar.loops.report import Reporter
from sidecar.loops.statefile import StateFile
from sidecar.loops.terms import Terms
from sidecar.loops.watch import Watch
from sidecar.policies import policies
from sidecar.store.codec import JsonWire
from sidecar.telemetry import names
from sidecar.telemetry.hub import Telemetry
from sidecar.telemetry.logging import LibraryLogs, Log
from sidecar.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from sidecar.publish.desk import Desk

FIRST_LOOK_S = 0.5
"""How long the listeners wait for the first state, so that a first caller rarely meets none."""
FAREWELL_S = 1.5
"""How long a stop tries to hand locks over and to delete report keys."""
LISTENERS_S = 1.0
"""How long a stop lets requests in flight finish."""
PUBLISH_S = 2.5
"""How long a stop lets the connections to Kafka and the spool come to their ends."""
TELL_AFTER_S = 0.02
"""Changes are logged this long after they are in force: a producer's answer goes first."""


class Daemon:
    """One sidecar.

    Args:
        reload: reads the configuration anew; raises ConfigFaults.
    """

    def __init__(self, config: Config, name: str, log: Log, reload: Callable[[], Config]) -> None:
        self._config = config
        self._in_effect = config
        """What the process was built from: of the keys that wait for a restart, what holds."""
        self._reload = reload
        self._clock = Clock()
        self.board = compose.board(config, name, now=self._clock.now())
        self._metrics = Metrics(self.board, version=__version__)
        self.telemetry = Telemetry(log, self._metrics)
        self._store = compose.store(config, self._clock.now, self.telemetry)
        self._around = around = self._surroundings(name, config.consul.state_prefix)
        self._tasks = Tasks(self.telemetry)
        self._narrator = Narrator(self.board, self.telemetry)
        self._watch = Watch(around)
        self._terms = terms = Terms(self._tasks, self._evaluator)
        self._elector = Elector(around, compose.candidate(config, name), terms.gained, terms.lost)
        self._reporter = Reporter(around, terms.settle if self._store.exclusive else None)
        self._inside = Inside(
            around,
            self._reporter,
            Orders(around, self._elector),
            version=__version__,
            kind=config.store,
            role=config.role,
        )
        self._registrar = compose.registrar(config, around)
        self._timer: asyncio.TimerHandle | None = None
        self._telling: asyncio.TimerHandle | None = None
        self._first_look = asyncio.Event()
        self._publishers = Tasks(self.telemetry)
        self._desk = self._made_desk(config, name)
        self._endpoints = compose.endpoints(
            config,
            self._inside,
            self._metrics.render,
            boottime,
            self.telemetry,
            publishing=self._desk,
        )
        self._listeners = Listeners(self._endpoints)
        self._stopping = asyncio.Event()
        self._why = ""
        self._reloading: set[asyncio.Task[None]] = set()
        self._reload_turn = asyncio.Lock()

    def _surroundings(self, name: str, prefix: str) -> Around:
        return Around(
            instance=name,
            store=self._store,
            wire=JsonWire(prefix),
            board=self.board,
            telemetry=self.telemetry,
            clock=self._clock,
            draw=random.random,
            changed=self._changed,
        )

    def _made_desk(self, config: Config, name: str) -> Desk | None:
        desk = compose.desk(
            config, name, self._publishers, self.telemetry, now=self._clock.now, draw=random.random
        )
        if desk is not None:
            self._metrics.publishing(desk.sight.families())
        return desk

    def _evaluator(self, name: str, lock_index: int) -> Evaluator:
        return Evaluator(self._around, self._elector, self.board.cells[name], lock_index)

    # --- life ------------------------------------------------------------------------------

    async def serve(self) -> int:
        """Run until asked to stop; returns the exit code."""
        self._hear_signals()
        self.telemetry.event(
            names.STARTING,
            version=__version__,
            instance=self.board.instance,
            store=self._config.store,
            breakers=list(self.board.cells),
        )
        LibraryLogs(self.telemetry.event).install()
        self._tasks.start("watch", self._watch.run)
        self._tasks.start("elect", self._elector.run)
        if self._config.store == "consul":
            self._tasks.start("pulse", self._elector.pulse.run)
        self._tasks.start("report", self._reporter.run)
        try:
            if await unless(self._stopping, self._start(), "start"):
                early.hear()
                await self._stopping.wait()
        except (ListenFailed, SpoolFault) as fault:
            self.telemetry.event(names.START_FAILED, level="error", error=str(fault))
            await self._end()
            return 1
        await self._stop()
        return 0

    async def _start(self) -> None:
        await self._ask_kafka()
        if self._desk is not None:
            await self._desk.start(FIRST_LOOK_S)
        await self._look_first()
        await self._listeners.start()
        await self._keep_file()
        if self._registrar is not None:  # from now on it can be reached
            self._tasks.start("register", self._registrar.run)
        lean.begun()
        self.telemetry.event(names.STARTED, listening=self._listeners.addresses)

    async def _look_first(self) -> None:
        """Wait a moment for a state; while Consul is away the daemon starts all the same."""
        try:
            async with asyncio.timeout(FIRST_LOOK_S):
                await self._first_look.wait()
                if self._store.exclusive:
                    await self._terms.all_ready(self.board.cells)
        except TimeoutError:
            return

    def _hear_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop, signal.Signals(number).name)
        loop.add_signal_handler(signal.SIGHUP, self._hup)
        early.starting(loop.call_soon_threadsafe, self.stop)

    def stop(self, why: str) -> None:
        """Ask the daemon to end."""
        self._why = self._why or why
        self._stopping.set()

    async def _stop(self) -> None:
        """Hand over first, while callers still get answers; then end answering."""
        began = self._clock.now()
        self.telemetry.event(names.STOPPING, signal=self._why)
        for task in self._reloading:  # nothing is started any more
            task.cancel()
        await self._end()
        self.telemetry.event(names.STOPPED, seconds=round(self._clock.now() - began, 3))

    async def _end(self) -> None:
        await self._tasks.stop_all()
        if self._desk is not None:
            self._desk.stop()
        await self._bounded("farewell", FAREWELL_S, self._farewell())
        await self._bounded("listeners", LISTENERS_S + 0.5, self._listeners.stop(LISTENERS_S))
        if self._desk is not None:
            await self._publishers.stop_all()
            await self._bounded("publish", PUBLISH_S, self._desk.close())
        await self._bounded("store", 0.5, self._store.close())
        for timer in (self._timer, self._telling):
            if timer is not None:
                timer.cancel()
        self._narrator.look(self._clock.now())

    async def _farewell(self) -> None:
        await asyncio.gather(
            self._elector.hand_over(), self._reporter.say_goodbye(), self._unregister()
        )

    async def _unregister(self) -> None:
        if self._registrar is not None:
            with contextlib.suppress(StoreError):  # the agent removes it after a while
                await self._registrar.withdraw()

    async def _bounded(self, part: str, seconds: float, ending: Awaitable[object]) -> None:
        try:
            async with asyncio.timeout(seconds):
                await ending
        except TimeoutError:
            self.telemetry.event(names.STOP_OVERRAN, level="warning", part=part, seconds=seconds)

    # --- what changes ----------------------------------------------------------------------

    def _changed(self) -> None:
        """The board was changed: answer by it, and let everybody look at it."""
        self._refresh()
        self._first_look.set()
        self._elector.wake.set()
        self._terms.wake_all()

    def _refresh(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        loop = asyncio.get_running_loop()
        now = self._clock.now()
        due = min(self.board.refresh(now), self._narrator.due)
        if self._telling is None:
            self._telling = loop.call_later(TELL_AFTER_S, self._tell)
        if due < now + 3600.0:
            self._timer = loop.call_later(max(0.001, due - now), self._refresh)

    def _tell(self) -> None:
        self._telling = None
        self._narrator.look(self._clock.now())

    async def _ask_kafka(self) -> None:
        """Read lag and send canaries as the configuration says now; what was read is kept."""
        for name in compose.KAFKA_TASKS:
            await self._tasks.stop(name)
        tasks = compose.kafka_tasks(
            self._config,
            self.board,
            self.telemetry,
            news=self._terms.wake,
            now=self._clock.now,
            draw=random.random,
        )
        for name, task in tasks.items():
            self._tasks.start(name, task)

    async def _keep_file(self) -> None:
        """Keep the state file that is configured now, and no other."""
        await self._tasks.stop("state file")
        path = self._config.listen.state_file
        if path is not None:
            self._tasks.start("state file", StateFile(self._around, path).run)

    # --- reload ----------------------------------------------------------------------------

    def _hup(self) -> None:
        task = asyncio.get_running_loop().create_task(self._reload_in_turn(), name="reload")
        self._reloading.add(task)
        task.add_done_callback(self._reloading.discard)

    async def _reload_in_turn(self) -> None:
        # One after the other, so that what was read last is what is in effect.
        async with self._reload_turn:
            await self._reconfigure()

    async def _reconfigure(self) -> None:
        try:
            read = await asyncio.to_thread(self._reload)
        except ConfigFaults as faults:
            self._metrics.reloaded(ok=False)
            self.telemetry.event(
                names.CONFIG_REFUSED, level="error", faults=[str(f) for f in faults.faults]
            )
            return
        for warning in warnings(read):
            self.telemetry.event(names.CONFIG_WARNING, level="warning", warning=warning)
        config = compose.effective(self._in_effect, read)
        moved = config.listen.state_file != self._config.listen.state_file
        self._config = config
        self.board.reconfigure(
            policies(config),
            model.default_breaker(config),
            compose.contact(config),
            now=self._clock.now(),
        )
        if await self._publish_anew(config):
            self._in_effect = structs.replace(self._in_effect, kafka_second=config.kafka_second)
        pending = compose.restart_needed(self._in_effect, read)
        self._inside.role = config.role
        self._elector.candidate = compose.candidate(config, self.board.instance)
        for endpoint in self._endpoints:
            apply_settings(endpoint.app, compose.http_settings(config))
        await self._tasks.stop("watch")  # its poll may wait long for breakers it doesn't know
        self._watch.look_again()
        self._tasks.start("watch", self._watch.run)
        await self._ask_kafka()
        if moved:
            await self._keep_file()
        self._metrics.reloaded(ok=True)
        self._changed()
        self.telemetry.event(
            names.CONFIG_RELOADED,
            level="warning" if pending else "info",
            breakers=list(self.board.cells),
            restart_needed_for=pending,
        )

    async def _publish_anew(self, config: Config) -> bool:
        """Whether there are two clusters from now on, where there was one."""
        if self._desk is None or config.publish is None:
            return False
        pair = partial(
            compose.pair,
            config,
            self.board.instance,
            self.telemetry,
            now=self._clock.now,
            draw=random.random,
        )
        return await self._desk.reconfigure(compose.publish_policy(config.publish), pair)


def run(
    config: Config,
    *,
    path: str | None = None,
    flags: Mapping[str, object] | None = None,
    log: Log | None = None,
) -> int:
    """Run the daemon until it is asked to stop.

    Args:
        path: the configuration file, read again on SIGHUP.
        flags: what the command line said; it goes on beating the file after a reload.

    Returns:
        The exit code: 0 after SIGTERM or SIGINT, 1 when it could not start.
    """
    log = log or Log()

    def overran(part: str, seconds: float) -> None:
        log.event(names.STOP_OVERRAN, "warning", {"part": part, "seconds": seconds})

    early.LISTENER.say = overran
    try:
        data_dir = DataDir(config.data_dir) if config.data_dir is not None else None
        name = instance(os.environ, data_dir)
    except (DataDirTaken, OSError) as fault:
        log.event(names.START_FAILED, "error", {"error": str(fault)})
        return 1

    def reload() -> Config:
        return load_file(path, os.environ, flags)

    async def main() -> int:
        code = 1
        try:
            code = await Daemon(config, name, log, reload).serve()
            return code
        finally:
            early.ended(code)  # the handlers go with the loop

    return _runner()(main())


def _runner() -> Callable[[Awaitable[int]], int]:
    """uvloop where it is installed, plain asyncio otherwise."""
    try:
        import uvloop
    except ImportError:
        return asyncio.run  # type: ignore[return-value]
    return uvloop.run  # type: ignore[return-value]
