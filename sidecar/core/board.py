"""The snapshot that everybody reads: one cell a breaker, with the decision in force.

Written by the loops, read by the HTTP handlers and the metrics, all on one event loop. Nothing
here waits, and reading never computes: a change renders the decision once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import replace

from sidecar.core.admission import Spread, hashed_share
from sidecar.core.backlog import LagBook
from sidecar.core.decision import Contact, Decision, decide, forgotten
from sidecar.core.intake import Post
from sidecar.core.local_gate import LocalGate
from sidecar.core.observe import Kind, Seen, observe
from sidecar.core.override import Override, Standing, observe_override
from sidecar.core.probe import ProbeBook
from sidecar.core.reports import Tally
from sidecar.core.signals import Judgement
from sidecar.core.types import LockHolder, Policy, Stored

Listener = Callable[[str], None]


class Cell:
    """All that is known here of one breaker."""

    __slots__ = (
        "admitted",
        "as_of",
        "began",
        "decision",
        "evaluating",
        "forgotten",
        "gate",
        "holder",
        "judgement",
        "lag",
        "lock_as_of",
        "override_as_of",
        "policy",
        "probe",
        "rejected",
        "seen",
        "session",
        "shadow_rejected",
        "share",
        "spread",
        "standing",
        "stored",
        "tally",
        "unheld_since",
    )

    def __init__(self, policy: Policy, instance: str, contact: Contact, now: float) -> None:
        self.policy = policy
        self.began = now
        """Since when calls are counted (monotonic)."""
        self.share = hashed_share(instance, policy.name, "retry")
        self.spread = Spread(instance, policy.name)
        self.seen: Seen | None = None
        self.stored: Stored | None = None
        """What the key held when it was last seen."""
        self.as_of = 0
        """The store's index this cell is up to date with; -1 once its clock has gone back."""
        self.lock_as_of = 0
        """The same for its lock, which is written apart."""
        self.gate = LocalGate()
        """This sidecar's own; it passes everything where `delivery.local` is off."""
        self.standing: Standing | None = None
        """The override as seen, over or not."""
        self.override_as_of: int | None = None
        """The same for it; None before the first look."""
        self.session: str | None = None
        """The session holding the lock."""
        self.holder: LockHolder | None = None
        self.unheld_since: float | None = now
        self.evaluating = False
        """True while this sidecar is the breaker's evaluator; then the next two are set."""
        self.judgement: Judgement | None = None
        self.tally: Tally | None = None
        self.lag: LagBook | None = None
        """What was read of its group in Kafka, while this sidecar is its evaluator."""
        self.probe: ProbeBook | None = None
        """What came of the canaries, while this sidecar is its evaluator and sends any."""
        self.forgotten = False
        """Its keys were deleted on purpose: not to be evaluated here until a reload."""
        self.admitted = 0
        self.rejected = 0
        self.shadow_rejected = 0
        self.decision: Decision = decide(None, contact, None, policy, share=self.share, now=now)

    def forget(self) -> None:
        """All that was known is gone; what somebody writes anew is followed again."""
        self.forgotten = True
        self.seen = self.stored = self.standing = None

    @property
    def mismatched(self) -> bool:
        """True when the record was written under another configuration of this breaker."""
        own = self.seen.own if self.seen is not None else None
        return own is not None and own.policy != self.policy.fingerprint

    @property
    def seq(self) -> int:
        """The seq in force; 0 before any state is known."""
        return self.seen.record.seq if self.seen is not None and self.seen.record else 0


class Board:
    """Every breaker's cell, and what is known of the store.

    Args:
        instance: this sidecar's identity.
        default: the breaker that is meant where none is named; None: there is none.
    """

    def __init__(
        self,
        instance: str,
        policies: Iterable[Policy],
        default: str | None,
        contact: Contact,
        *,
        now: float,
    ) -> None:
        self.instance = instance
        self.default = default
        self.contact = contact
        self.cells = {p.name: Cell(p, instance, contact, now) for p in policies}
        self._listeners: list[Listener] = []

    def find(self, name: str | None) -> Cell | None:
        """The cell of a name, or of the default breaker for None; None when there is none."""
        wanted = self.default if name is None else name
        return self.cells.get(wanted) if wanted is not None else None

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Call `listener(breaker)` after every change of a decision; returns how to stop it."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def synced(self, now: float) -> None:
        """A read from a known leader has completed."""
        self.contact = replace(self.contact, synced=now)

    def observe(
        self,
        name: str,
        stored: Stored | None,
        index: int,
        as_of: int,
        *,
        now: float,
        wall_at: float,
    ) -> None:
        """Take in a breaker's state key as it was at the store's index `as_of`.

        A read that began before our own last write knows less than we do and is passed over.
        """
        cell = self.cells[name]
        if as_of < cell.as_of:
            return
        cell.as_of = as_of
        if cell.forgotten and stored is None:
            return
        cell.forgotten = False
        # The index alone doesn't say: a store that went back gives the same ones out again.
        if cell.seen is None or index != cell.seen.index or stored != cell.stored:
            cell.seen = observe(cell.seen, stored, index, cell.policy, now=now, wall_at=wall_at)
            cell.stored = stored

    def lock(
        self,
        name: str,
        session: str | None,
        holder: LockHolder | None,
        as_of: int,
        *,
        now: float,
    ) -> None:
        """Take in who held a breaker's lock at the store's index `as_of`."""
        cell = self.cells[name]
        if as_of < cell.lock_as_of:
            return
        cell.lock_as_of = as_of
        cell.session, cell.holder = session, holder
        if session is not None:
            cell.unheld_since = None
        elif cell.unheld_since is None:
            cell.unheld_since = now

    def override(
        self,
        name: str,
        override: Override | None,
        index: int,
        as_of: int,
        *,
        live: bool,
        now: float,
        wall_at: float,
    ) -> None:
        """Take in a breaker's override as it was at the store's index `as_of`; None: there is none.

        `live` says that this sidecar was looking until now: what is new here was set just now.
        """
        cell = self.cells[name]
        looked = cell.override_as_of
        if looked is not None and as_of < looked:
            return
        cell.override_as_of = as_of
        cell.standing = (
            None
            if override is None
            else observe_override(
                cell.standing,
                override,
                index,
                live=live and looked is not None,
                now=now,
                wall_at=wall_at,
            )
        )

    def delivered(self, cell: Cell, post: Post, *, now: float) -> bool:
        """Take in what a producer of this sidecar's own says. True when that moved its gate."""
        settings = cell.policy.local
        return settings is not None and cell.gate.take(post, settings, now=now)

    def rewind(self) -> None:
        """The store's index went back (a restored snapshot): believe what comes next.

        Also where an index is one that was seen before: it may be another value's by now.
        """
        for cell in self.cells.values():
            cell.as_of = cell.lock_as_of = -1
            cell.override_as_of = None

    def at_least(self, name: str, seq: int, epoch: int, floor_index: int = 0) -> None:
        """The history knows of this seq and epoch: what is written next goes on from there.

        `floor_index` is the `index` in the evidence of its last transition. It counts only where
        the key holds no record that would say it: after a foreign write, in junk's or a deleted
        record's place, what tripped the breaker before we came must not trip it again.
        """
        cell = self.cells[name]
        seen = cell.seen
        if seen is None:
            return
        floor = 0 if seen.kind is Kind.RECORD else floor_index
        cell.seen = replace(
            seen,
            high_seq=max(seen.high_seq, seq),
            high_epoch=max(seen.high_epoch, epoch),
            floor_index=max(seen.floor_index, min(floor, seen.index) if seen.index else floor),
        )

    def reconfigure(
        self, policies: Iterable[Policy], default: str | None, contact: Contact, *, now: float
    ) -> None:
        """Take over another configuration; breakers that stay keep state, counters and spread."""
        cells: dict[str, Cell] = {}
        for policy in policies:
            cell = self.cells.get(policy.name)
            if cell is None:
                cell = Cell(policy, self.instance, contact, now)
            cell.policy, cell.forgotten = policy, False
            if policy.local is None:
                cell.gate = LocalGate()
            cells[policy.name] = cell
        for name, cell in self.cells.items():
            if name not in cells:  # another object, so that who keeps it looks for its cell anew
                cell.decision = replace(cell.decision)
        self.cells = cells
        self.default = default
        self.contact = replace(contact, synced=self.contact.synced)
        self.refresh(now)

    def _decision(self, cell: Cell, now: float) -> Decision:
        if cell.forgotten:
            return forgotten(cell.policy, cell.standing, now=now)
        held = None
        if cell.policy.local is not None:
            cell.gate.look(cell.policy.local, now=now)
            held = cell.gate.held(cell.policy.local)
        return decide(
            cell.seen,
            self.contact,
            cell.unheld_since,
            cell.policy,
            share=cell.share,
            now=now,
            standing=cell.standing,
            held=held,
        )

    def refresh(self, now: float) -> float:
        """Work out every decision anew and tell the listeners of those that changed.

        Returns when to do so again though nothing was seen (monotonic; inf: never).
        """
        due = math.inf
        for name, cell in list(self.cells.items()):
            decision = self._decision(cell, now)
            due = min(due, decision.changes_at)
            # The next look's time moves with every poll; it is no change to tell of.
            changed = replace(decision, changes_at=0.0) != replace(cell.decision, changes_at=0.0)
            cell.decision = (
                decision if changed else replace(cell.decision, changes_at=decision.changes_at)
            )
            if changed:
                for listener in list(self._listeners):
                    listener(name)
        return due
