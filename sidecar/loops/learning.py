"""What `failure_threshold: auto` has learned outlives its evaluator: the key it is kept in.

It lies outside the watched prefix, since nobody but the next evaluator reads it, and is written
behind the lock's fence, so that an evaluator that is none any more overwrites nothing. What was
learned since the last write is lost with its evaluator: at most `SAVE_GAP_S`, or one sample.
"""

from __future__ import annotations

from sidecar.core.board import Cell
from sidecar.core.errors import StoreDenied, StoreError
from sidecar.core.normal import Lessons, Normal, gap
from sidecar.core.ports import Fence, Put
from sidecar.core.reports import Tally
from sidecar.core.types import Verdict
from sidecar.loops.around import Around
from sidecar.telemetry import names

SAVE_GAP_S = 60.0
"""At most one write in this time."""


class NormalKey:
    """One breaker's normal, while this sidecar is its evaluator."""

    def __init__(self, around: Around, cell: Cell) -> None:
        self._around = around
        self._cell = cell
        self._lessons = Lessons()
        self._recalled = False
        self._learned = False
        """Something was learned since the last write."""
        self._saved = around.clock.now()
        self._known = False
        """The key holds a whole normal, as far as we know."""
        self._told = False

    @property
    def normal(self) -> Normal | None:
        """What is normal, as far as it is known."""
        return self._lessons.normal

    def note(self, tally: Tally | None, verdict: Verdict, *, now: float) -> None:
        """Learn from the evidence just judged, where there is something to be learned."""
        seen = self._cell.seen
        if tally is None or seen is None:
            return
        healthy = verdict is Verdict.HEALTHY
        if self._lessons.note(tally, seen, self._cell.policy, healthy=healthy, now=now):
            self._learned = True

    async def recall(self) -> None:
        """Read what was learned before this term, once.

        Raises:
            StoreError: it could not be read now; a lacking right is only told.
        """
        policy = self._cell.policy
        if self._recalled or policy.auto is None:
            return
        around = self._around
        try:
            entry = await around.store.read(around.wire.normal(policy.name))
        except StoreDenied as fault:
            self._recalled = True
            self._tell(fault)
            return
        self._recalled = True
        if entry is None:
            return
        kept = around.wire.decode_normal(entry.value)
        if kept is None:
            around.telemetry.count(names.BAD_RECORDS, kind="normal")
            return
        clock = around.clock
        self._lessons.recall(kept, policy, now=clock.now(), wall_at=clock.wall_at())
        self._known = self.normal is not None

    async def tend(self, session: str) -> None:
        """Write what was learned, where it is time to; what fails is tried at the next one."""
        around, policy, now = self._around, self._cell.policy, self._around.clock.now()
        if policy.auto is None:
            return
        try:
            await self.recall()  # `auto` may have come by a reload
            gap_s = max(SAVE_GAP_S, gap(policy.auto, policy))
            # The first time that something is known it is not left to chance for a minute.
            first = self.normal is not None and not self._known
            if not self._learned or (now < self._saved + gap_s and not first):
                return
            self._saved = now
            kept = self._lessons.kept(now=now, wall_at=around.clock.wall_at())
            if kept is None:
                return
            put = Put(around.wire.normal(policy.name), around.wire.encode_normal(kept))
            await around.store.commit(Fence(around.wire.leader(policy.name), session), [put])
            self._learned, self._known = False, self.normal is not None
        except StoreError as fault:
            self._tell(fault)

    def _tell(self, fault: StoreError) -> None:
        """Only a lacking right stays until somebody mends it."""
        if isinstance(fault, StoreDenied) and not self._told:
            self._told = True
            self._around.telemetry.event(
                names.NORMAL_UNSAVED,
                level="warning",
                breaker=self._cell.policy.name,
                error=str(fault),
            )
