"""The record that each step of the state machine writes, and its entry in the history."""

from __future__ import annotations

from dataclasses import dataclass, replace

from sidecar.core import shedding
from sidecar.core.errors import IllegalTransition
from sidecar.core.observe import Seen, nominal_ratio
from sidecar.core.override import (
    Mode,
    Standing,
    dated_at,
    in_force,
    ratio_in_force,
)
from sidecar.core.signals import Judgement
from sidecar.core.table import TABLE
from sidecar.core.types import (
    Evidence,
    Policy,
    Reason,
    Record,
    Scalar,
    State,
    Transition,
    Verdict,
)

_TIGHTNESS = {State.CLOSED: 0, State.HALF_OPEN: 1, State.OPEN: 2}


@dataclass(frozen=True, slots=True)
class Author:
    """Who writes: this sidecar's instance in its present term."""

    instance: str
    epoch: int


@dataclass(frozen=True, slots=True)
class Move:
    """What to write: the record, and the history entry when the state changes."""

    record: Record
    transition: Transition | None
    refreshed: bool = False
    """Nothing but mode or override has changed."""


@dataclass(frozen=True, slots=True)
class Writer:
    """Builds each kind of record from what is known."""

    seen: Seen
    judgement: Judgement
    policy: Policy
    author: Author
    now: float
    wall_at: float
    last_known: State | None
    forced: Standing | None

    def opened(self, open_count: int) -> Move:
        j = self.judgement
        return self._enter(State.OPEN, j.reason, j.detail, open_count=open_count)

    def half_opened(self) -> Move:
        own = self.seen.own
        known = own.evidence.get("known", 0) if own is not None else 0
        return self._enter(
            State.HALF_OPEN,
            Reason.OPEN_ELAPSED,
            "the open time is over",
            open_count=own.open_count if own is not None else 1,
            extra={"known": known},
        )

    def closed(self) -> Move:
        held = "" if self.judgement.verdict is Verdict.HEALTHY else ", as on_unknown says"
        return self._enter(
            State.CLOSED,
            Reason.RECOVERED,
            f"healthy to the end of the ramp: {self.judgement.detail}{held}",
            open_count=0,
            extra={"index": self.seen.floor_index},
            ratio=self._closing_ratio(),
        )

    def _closing_ratio(self) -> float:
        """All, or what `shed` would make of the backlog: to admit all first would be a swing."""
        shed, wait = self.policy.shed, self.judgement.wait
        return 1.0 if shed is None or wait is None else shedding.share(shedding.aim(wait, shed))

    def stepped(self, ratio: float) -> Move:
        """One step up: a new seq, but no transition and no new `last_changed`."""
        own = self._own()
        record = replace(
            own,
            automaton_ratio=ratio,
            detail=self.judgement.detail,
            evidence=self._carried(own),
        )
        return Move(self._signed(record), None)

    def shed(self, ratio: float) -> Move:
        """CLOSED admits another share: a ratio step like those of the ramp."""
        own, wait = self._own(), self.judgement.wait
        evidence: dict[str, Scalar] = {
            "known": own.evidence.get("known", 0),
            "index": self.seen.floor_index,
        }
        said = "nothing is shed any more" if wait is None else f"{shedding.said(wait)}: "
        if wait is not None:
            said += "all is admitted" if ratio >= 1.0 else f"{ratio:.0%} is admitted"
            evidence = {**wait.evidence, **evidence}
        reason = Reason.RECOVERED if ratio >= 1.0 else Reason.SHED
        record = replace(own, automaton_ratio=ratio, reason=reason, detail=said, evidence=evidence)
        return Move(self._signed(record), None)

    @property
    def _mode(self) -> Mode | None:
        return self.forced.override.mode if self.forced is not None else None

    def _forced_at(self) -> float | None:
        """What `last_changed` says while an override is in force; it stays through a ramp step."""
        own, forced = self.seen.own, self.forced
        if forced is None:
            return None
        due_at = dated_at(forced, self.policy, now=self.now, wall_at=self.wall_at)
        if own is None or own.override != self._mode or own.forced_at is None:
            return due_at
        return due_at if self._ordered_anew else own.forced_at

    @property
    def _ordered_anew(self) -> bool:
        """Has another order to be open come since the record was written, with another end?"""
        return (
            self.forced is not None
            and self._mode is Mode.OPEN
            and self.forced.began > self.seen.index
        )

    def refreshed(self) -> Move | None:
        """What is in force must fit mode and override, which may have changed; else nothing."""
        own = self._own()
        fitting = in_force(own.automaton, self.policy, self._mode)
        ratio = ratio_in_force(own, fitting, self.policy, self._mode)
        same = own.current_state is fitting and own.override == self._mode
        # An order, or shadow, over a closed breaker that sheds changes nothing but the share.
        same = same and (own.automaton is not State.CLOSED or own.admit_ratio == ratio)
        if same and not self._ordered_anew:
            return None
        return Move(self._signed(own), None, refreshed=True)

    def created(self) -> Move:
        before = self.seen.own
        return self._enter(
            State.CLOSED,
            Reason.CREATED,
            "no state was there" if before is None else "the state had been deleted",
            open_count=0,
            # Fresh evidence may trip it at once; what has tripped it before may not.
            extra={"index": self.seen.floor_index},
        )

    def repaired(self, now: float) -> Move:
        """The automaton goes on where it was; without any knowledge it begins anew."""
        own = self.seen.own
        if own is None:
            return self.created()
        # The history may have told of evidence that was used after the last record seen here.
        own = replace(own, evidence={**own.evidence, "index": self.seen.floor_index})
        return Move(self._again(own, Reason.REPAIRED, own.last_changed_at, now), None)

    def foreign(self, now: float) -> Move | None:
        record = self.seen.record
        if record is None:
            return None
        own = self.seen.own
        looser = own is not None and (_TIGHTNESS[record.automaton] < _TIGHTNESS[own.automaton])
        if self.policy.reassert and looser and own is not None:
            if own.automaton is State.OPEN and now >= self.seen.open_until:
                return self.half_opened()  # its time is over: there is no OPEN left to assert
            return self._reasserted(own, now)
        return self._adopted(record, now)

    def _adopted(self, record: Record, now: float) -> Move:
        own = self.seen.own
        state = record.automaton
        count = own.open_count if own is not None else 0
        left_s = max(0.0, self.seen.open_until - now)
        move = self._enter(
            state,
            Reason.FOREIGN,
            f"{state} was written by something other than a sidecar",
            open_count=count if state is State.CLOSED else max(1, count),
            extra={"index": self.seen.floor_index} if state is State.CLOSED else None,
        )
        adopted = replace(
            move.record,
            last_changed_at=record.last_changed_at,
            open_for_s=left_s if state is State.OPEN else 0.0,
            retry_at=self._due_at(record) if state is State.OPEN else None,
        )
        return replace(move, record=adopted)

    def _due_at(self, record: Record) -> float:
        """When a foreign OPEN ends by the time it says itself, if that isn't later than ours."""
        return min(record.last_changed_at, self.wall_at) + self.policy.open_duration_s

    def _reasserted(self, own: Record, now: float) -> Move:
        """The automaton's state again, dated so that a timer in its reader agrees with ours."""
        changed_at = own.last_changed_at
        if own.automaton is State.OPEN:
            left_s = max(0.0, self.seen.open_until - now)
            changed_at = self.wall_at + left_s - self.policy.open_duration_s
        return Move(self._again(own, Reason.REASSERTED, changed_at, now), None)

    def _own(self) -> Record:
        if self.seen.own is None:
            raise IllegalTransition("there is no record to go on from")
        return self.seen.own

    def _enter(
        self,
        state: State,
        reason: str,
        detail: str,
        *,
        open_count: int,
        extra: Evidence | None = None,
        ratio: float | None = None,
    ) -> Move:
        """A record in `state`, begun now, and its history entry unless the state stays."""
        before = self.seen.own.automaton if self.seen.own is not None else self.last_known
        changed = before is not None and before is not state
        if changed and before is not None and reason not in TABLE.get((before, state), ()):
            raise IllegalTransition(f"{before} -> {state} for {reason}")
        evidence: dict[str, Scalar] = {
            **self.judgement.evidence,
            "known": self.judgement.known,
            "index": max(self.judgement.index, self.seen.index),
            **(extra or {}),
        }
        open_for_s = open_time(open_count, self.policy) if state is State.OPEN else 0.0
        ratio = nominal_ratio(state, self.policy) if ratio is None else ratio
        record = self._signed(
            Record(
                current_state=state,
                last_changed_at=self.wall_at,
                seq=0,
                epoch=0,
                automaton=state,
                reason=reason,
                detail=detail,
                evidence=evidence,
                open_count=open_count,
                open_for_s=open_for_s,
                retry_at=self.wall_at + open_for_s if state is State.OPEN else None,
                admit_ratio=ratio,
                automaton_ratio=ratio,
                policy="",
                evaluator="",
            )
        )
        return Move(record, self._entry(before, record) if changed else None)

    def _entry(self, before: State | None, record: Record) -> Transition:
        return Transition(
            seq=record.seq,
            at=self.wall_at,
            from_state=before,
            to_state=record.automaton,
            reason=record.reason,
            detail=record.detail,
            evidence=record.evidence,
            epoch=record.epoch,
            evaluator=record.evaluator,
        )

    def _again(self, own: Record, reason: Reason, changed_at: float, now: float) -> Record:
        """The same state once more, with what is left of its time."""
        left_s = max(0.0, self.seen.open_until - now) if own.automaton is State.OPEN else 0.0
        return self._signed(
            replace(
                own,
                reason=reason,
                last_changed_at=changed_at,
                open_for_s=left_s,
                retry_at=self.wall_at + left_s if own.automaton is State.OPEN else None,
            )
        )

    def _carried(self, own: Record) -> Evidence:
        """The numbers of now beside what the present stay must remember."""
        return {
            **self.judgement.evidence,
            "known": own.evidence.get("known", 0),
            "index": self.seen.floor_index,
        }

    def _signed(self, record: Record) -> Record:
        """The next seq, our term, and what mode and override make of the automaton's state."""
        mode = self._mode
        state = in_force(record.automaton, self.policy, mode)
        return replace(
            record,
            override=mode,
            forced_at=self._forced_at(),
            current_state=state,
            admit_ratio=ratio_in_force(record, state, self.policy, mode),
            seq=self.seen.high_seq + 1,
            epoch=max(self.author.epoch, self.seen.high_epoch),
            policy=self.policy.fingerprint,
            evaluator=self.author.instance,
        )


def open_time(open_count: int, policy: Policy) -> float:
    """How long the n-th opening in a row lasts: doubled each time, capped."""
    doublings = min(max(0, open_count - 1), 64)
    return min(policy.open_duration_s * 2.0**doublings, policy.max_open_duration_s)
