"""The formats that sidecars write for each other: state record, lock value and history.

The state is also written by others, in the source system's two fields.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Final

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from sidecar.core.types import (
    SCHEMA,
    Foreign,
    LockHolder,
    Record,
    Scalar,
    State,
    Stored,
    Transition,
    Unreadable,
)
from sidecar.core.wire import (
    EXACT,
    ZERO_TIME_AT,
    parse_rfc3339,
    record_to_dict,
    rfc3339,
    transition_to_dict,
)
from sidecar.store.fields import UNDECODABLE, Amount, Count, Scalars, fault_text, field_time, shown

HISTORY_ENTRIES: Final = 64
HISTORY_ENTRY_BYTES: Final = 2048

_Ratio = Annotated[float, Meta(ge=0, le=1)]


class _State(Struct):
    current_state: State
    last_changed: str
    seq: Count
    epoch: Count
    open_count: Count
    open_for: Amount
    admit_ratio: _Ratio
    schema: Annotated[int, Meta(ge=1, le=EXACT)] = SCHEMA
    automaton: State | UnsetType = UNSET
    reason: str = ""
    detail: str = ""
    evidence: Scalars = {}
    retry_at: str | None = None
    automaton_ratio: _Ratio | UnsetType = UNSET
    policy: str = ""
    evaluator: str = ""
    override: str | None = None
    automaton_last_changed: str | None = None


class _ForeignState(Struct):
    current_state: State
    last_changed: str | None = None


# Only for records of a newer schema, which must be followed even where a field has changed its
# meaning: what can't be read is taken to be what the configuration's defaults would make of it.
_LENIENT: dict[str, Any] = {
    "last_changed": rfc3339(0.0),
    "epoch": 0,
    "open_count": 0,
    "open_for": 30.0,
}
_LENIENT_RATIO = {State.CLOSED: 1.0, State.OPEN: 0.0, State.HALF_OPEN: 0.05}
_TIMES = ("last_changed", "retry_at", "automaton_last_changed")
_STATE_TYPES = {f.encode_name: f.type for f in msgspec.structs.fields(_State)}


def decode_state(value: bytes) -> Stored:
    """A state record in our form, a foreign one (without `seq`), or why it can't be read."""
    raw: Any = None
    try:
        raw = msgspec.json.decode(value)
        if not isinstance(raw, dict):
            return Unreadable(f"no JSON object: {shown(raw)}")
        if "seq" not in raw:
            return _foreign(raw)
        if msgspec.convert(raw.get("schema", SCHEMA), _STATE_TYPES["schema"]) > SCHEMA:
            raw = _lenient(raw)
        return _record(msgspec.convert(raw, _State))
    except UNDECODABLE as fault:
        return Unreadable(fault_text(fault, raw))


def _foreign(raw: dict[str, Any]) -> Foreign:
    foreign = msgspec.convert(raw, _ForeignState)
    changed_at = None if foreign.last_changed is None else field_time("last_changed", raw)
    # Go's zero time: the writer never set it.
    known = changed_at is not None and changed_at > ZERO_TIME_AT
    return Foreign(foreign.current_state, changed_at if known else None)


def _lenient(raw: dict[str, Any]) -> dict[str, Any]:
    """What is readable of a newer record; `seq` and `current_state` are left to fail."""
    state = msgspec.convert(raw.get("current_state"), State)
    kept: dict[str, Any] = dict(_LENIENT, admit_ratio=_LENIENT_RATIO[state])
    for name, kind in _STATE_TYPES.items():
        if name not in raw:
            continue
        try:
            msgspec.convert(raw[name], kind)
            if name in _TIMES and raw[name] is not None:
                parse_rfc3339(raw[name])
        except UNDECODABLE:
            if name == "seq":
                raise
        else:
            kept[name] = raw[name]
    return kept


def _record(state: _State) -> Record:
    times = {
        "last_changed": state.last_changed,
        "retry_at": state.retry_at,
        "automaton_last_changed": state.automaton_last_changed,
    }
    forced = state.override is not None and state.automaton_last_changed is not None
    return Record(
        current_state=state.current_state,
        last_changed_at=field_time("automaton_last_changed" if forced else "last_changed", times),
        override=state.override,
        forced_at=field_time("last_changed", times) if forced else None,
        seq=state.seq,
        epoch=state.epoch,
        automaton=state.current_state if state.automaton is UNSET else state.automaton,
        reason=state.reason,
        detail=state.detail,
        evidence=state.evidence,
        open_count=state.open_count,
        open_for_s=state.open_for,
        retry_at=None if state.retry_at is None else field_time("retry_at", times),
        admit_ratio=state.admit_ratio,
        automaton_ratio=(
            state.admit_ratio if state.automaton_ratio is UNSET else state.automaton_ratio
        ),
        policy=state.policy,
        evaluator=state.evaluator,
        schema=state.schema,
    )


def encode_state(record: Record) -> bytes:
    """A record as it is written. Raises ValueError on a NaN or infinity, which is a defect."""
    return msgspec.json.encode(record_to_dict(record))


# --- the lock's value ------------------------------------------------------------------------


class _Holder(Struct, omit_defaults=True):
    instance: str
    address: str
    since: str
    released: bool = False


def decode_holder(value: bytes) -> LockHolder | None:
    """Who holds, or by a graceful release held, the lock; None when that can't be read."""
    try:
        holder = msgspec.json.decode(value, type=_Holder)
        return LockHolder(
            instance=holder.instance,
            address=holder.address,
            since_at=parse_rfc3339(holder.since),
            released=holder.released,
        )
    except UNDECODABLE:
        return None


def encode_holder(holder: LockHolder) -> bytes:
    """A lock's value; `released` stands there only when true."""
    return msgspec.json.encode(
        _Holder(holder.instance, holder.address, rfc3339(holder.since_at), holder.released)
    )


# --- history ---------------------------------------------------------------------------------


class _Entry(Struct):
    seq: Count
    at: str
    to: State
    from_: State | None = msgspec.field(default=None, name="from")
    reason: str = ""
    detail: str = ""
    evidence: Scalars = {}
    epoch: Count = 0
    evaluator: str = ""


def decode_history(value: bytes | None) -> tuple[list[Transition], bool]:
    """The transitions, newest last, and whether anything there could not be used.

    What is readable is kept, so that junk costs no more than itself.
    """
    if value is None:
        return [], False
    try:
        raw = msgspec.json.decode(value, type=list[msgspec.Raw])
    except UNDECODABLE:
        return [], True
    entries: list[Transition] = []
    junk = False
    for item in raw[-HISTORY_ENTRIES:]:
        try:
            entries.append(_transition(msgspec.json.decode(item, type=_Entry)))
        except UNDECODABLE:
            junk = True
    return entries, junk


def _transition(entry: _Entry) -> Transition:
    return Transition(
        seq=entry.seq,
        at=parse_rfc3339(entry.at),
        from_state=entry.from_,
        to_state=entry.to,
        reason=entry.reason,
        detail=entry.detail,
        evidence=entry.evidence,
        epoch=entry.epoch,
        evaluator=entry.evaluator,
    )


def append_history(entries: Sequence[Transition], entry: Transition) -> bytes:
    """The last entries and this one, each cut to its bound: first the detail, then the evidence."""
    kept = [*entries, entry][-HISTORY_ENTRIES:]
    return b"[" + b",".join(map(_encoded, kept)) + b"]"


_ENCODED: dict[int, tuple[Transition, bytes]] = {}
"""Each entry is encoded once: a transition waits for its history, and only one entry is new."""
_ENCODED_MAX: Final = 64 * HISTORY_ENTRIES


def _encoded(entry: Transition) -> bytes:
    known = _ENCODED.get(id(entry))  # an entry that is held here keeps its id
    if known is None:
        if len(_ENCODED) >= _ENCODED_MAX:
            _ENCODED.clear()
        known = _ENCODED[id(entry)] = (entry, _bounded(transition_to_dict(entry)))
    return known[1]


def _bounded(fields: dict[str, object]) -> bytes:
    encoded = msgspec.json.encode(fields)
    # The detail goes first, as it repeats the evidence in words; the names only if they must.
    for name, room in (("detail", 256), ("detail", 0), ("evidence", 0), ("reason", 64)):
        if len(encoded) <= HISTORY_ENTRY_BYTES:
            return encoded
        fields[name] = _cut(fields[name], room)
        encoded = msgspec.json.encode(fields)
    if len(encoded) > HISTORY_ENTRY_BYTES:
        fields["evaluator"] = _cut(fields["evaluator"], 128)
        encoded = msgspec.json.encode(fields)
    return encoded


def _cut(value: object, room: int) -> object:
    empty: dict[str, Scalar] = {}
    if not isinstance(value, str):
        return empty
    return value if len(value) <= room else value[: max(0, room - 1)] + "…" * (room > 0)
