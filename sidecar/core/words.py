"""What a breaker's public form says, in sentences: the command line and the status page share them.

Everything is read from JSON as any sidecar may have sent it, an older or a newer one too: a field
that isn't there or isn't what it should be is left out, never an error. What comes back is text as
it was found, not yet safe for a terminal or a page.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from sidecar.core.wire import parse_rfc3339, rfc3339

Item = Mapping[str, Any]
"""One of `/v1/breakers`, with `shadow` beside it where it comes from `/v1/status`."""

_BOOKKEEPING = frozenset({"index", "known", "reporters"})
"""Numbers in the evidence that mean something to the rules alone, or that are shown elsewhere."""


def span(seconds: float) -> str:
    """A length of time in its two largest units: `42s`, `3m12s`, `5h07m`, `14d02h`."""
    whole = max(0, int(seconds))
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02}s"
    if whole < 86400:
        return f"{whole // 3600}h{whole % 3600 // 60:02}m"
    return f"{whole // 86400}d{whole % 86400 // 3600:02}h"


def time_at(text: object) -> float | None:
    """Epoch seconds of an RFC 3339 time; None where it is none."""
    try:
        return parse_rfc3339(str(text))
    except ValueError:
        return None


def clock(at: float) -> str:
    """A wall time to the second."""
    return f"{rfc3339(at)[:19]}Z"


def number(value: object) -> float | None:
    """A finite number; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if abs(value) < float("inf") else None


def override(item: Item) -> Item | None:
    """The override in force."""
    found = item.get("override")
    return found if isinstance(found, Mapping) else None


def state(item: Item) -> str:
    """The state in force, with the share where that says more; a forced one says so itself."""
    said, ratio = str(item.get("state")), number(item.get("admit_ratio"))
    if ratio is not None and (said == "HALF_OPEN" or (said == "CLOSED" and ratio < 1)):
        said = f"{said} {ratio:.0%}"
    return f"{said} (FORCED)" if override(item) is not None else said


def since_at(item: Item) -> float | None:
    """When what is in force began (epoch seconds); None where nobody knows."""
    forced = override(item)
    if forced is not None:
        return time_at(forced.get("set_at"))
    if item.get("lost") and item.get("state") != item.get("automaton"):
        return None  # the loss policy has put it there; the record is of before
    if item.get("reason") == "delivery_local":
        return None  # this sidecar's own gate has; what it rests on says since when
    return time_at(item.get("since"))


def numbers(item: Item) -> str:
    """The evidence behind the state; of a closed breaker what the signals see now, if known."""
    now, then = numbers_now(item), numbers_then(item)
    return (now or then) if item.get("automaton") == "CLOSED" else (then or now)


def numbers_now(item: Item) -> str:
    """What the signals rest on; empty where only another sidecar knows.

    Of several only those that say something, each by its name: a threshold is each one's own.
    """
    said = item.get("signals")
    known = [s for s in said if isinstance(s, Mapping)] if isinstance(said, list) else []
    telling = [s for s in known if s.get("verdict") != "unknown"] or known[:1]
    listed = {str(s.get("name")): _listed(_shown(s.get("evidence"))) for s in telling}
    if len(known) == 1:
        return "".join(listed.values())
    return "; ".join(f"{name}: {numbers}" for name, numbers in listed.items() if numbers)


def numbers_then(item: Item) -> str:
    """What the record was written on."""
    return _listed(_shown(item.get("evidence")))


def _shown(evidence: object) -> dict[str, object]:
    known = evidence if isinstance(evidence, Mapping) else {}
    return {
        str(name): value
        for name, value in known.items()
        if name not in _BOOKKEEPING and value is not None
    }


def _listed(found: Mapping[str, object]) -> str:
    return ", ".join(f"{name} {value}" for name, value in found.items())


def signals(item: Item) -> Iterator[str]:
    """Each signal's word, and why."""
    said = item.get("signals")
    for signal in said if isinstance(said, list) else []:
        if isinstance(signal, Mapping):
            yield f"{signal.get('name')}: {signal.get('verdict')} ({signal.get('detail')})"


def reporters(item: Item) -> str | None:
    """How many report; None where only the evaluator knows."""
    counted = item.get("reporters")
    if not isinstance(counted, Mapping):
        return None
    return f"{counted.get('fresh')} fresh, {counted.get('stale')} stale"


def evaluator(item: Item) -> Item | None:
    """Who holds the lock."""
    holder = item.get("evaluator")
    return holder if isinstance(holder, Mapping) else None


def notes(item: Item) -> Iterator[str]:
    """What is out of the ordinary, a word or two each."""
    forced = override(item)
    if forced is not None:
        yield f"FORCED {forced.get('mode')}"
    if item.get("reason") == "delivery_local":
        yield "here alone"
    if item.get("lost"):
        yield "store lost" if item.get("reason") == "store_lost" else "loss policy"
    if item.get("stale"):
        yield "stale"
    if item.get("config_mismatch"):
        yield "config mismatch"
    if item.get("mode") == "shadow":
        yield f"shadow of {item.get('automaton')}"


def forced(item: Item) -> str | None:
    """Who forced it, why, and what is left; None for a breaker that is its own master."""
    said = override(item)
    if said is None:
        return None
    left_s, ttl_s = number(said.get("left_s")), number(said.get("ttl_s"))
    if left_s is not None:
        time = f"{span(left_s)} left" + (f" of {span(ttl_s)}" if ttl_s is not None else "")
    else:
        time = "until somebody releases it"
    by = said.get("author") or "somebody who gave no name"
    why = said.get("reason") or "no reason was given"
    underneath = f"; underneath: {item.get('automaton')}" if item.get("automaton") else ""
    return f"FORCED {said.get('mode')} by {by}, {time}: {why}{underneath}"


def local_gate(item: Item) -> str | None:
    """That this sidecar holds back its own callers alone, and why; None while it doesn't."""
    if item.get("reason") != "delivery_local":
        return None
    gate = item.get("local_gate")
    known = gate if isinstance(gate, Mapping) else {}
    for_s = number(known.get("for_s"))
    since = f" for {span(for_s)}" if for_s is not None else ""
    does = "lets a trickle pass" if known.get("stand") == "trial" else "rejects"
    return f"cut off from Kafka here alone: this sidecar {does}{since}; {item.get('detail')}"


def shadow(item: Item, wall_at: float) -> str | None:
    """What would have happened without shadow; None where nothing is shadowed.

    Args:
        wall_at: epoch seconds now.
    """
    report = item.get("shadow")
    if not isinstance(report, Mapping):
        return None
    openings, began = number(report.get("openings")), time_at(report.get("since"))
    if openings is None:
        opened = "how often it would have opened can't be read now"
    else:
        times = "once" if openings == 1 else f"{openings:.0f} times"
        reach = f" in {span(wall_at - began)}" if began is not None else ""
        opened = f"would have opened {times}{reach}"
        if began is not None:
            opened += f" (its history reaches back to {str(report.get('since'))[:19]}Z)"
    rejected, for_s = number(report.get("rejected")), number(report.get("rejected_for_s"))
    calls = "1 call" if rejected == 1 else f"{rejected or 0:.0f} calls"
    counted = f" in {span(for_s)}" if for_s is not None else ""
    return f"shadow: {opened}; would have rejected {calls} here{counted}, since this sidecar began"


def unknown_here(item: Item) -> str | None:
    """Who knows verdict and reporters, where this sidecar doesn't."""
    if item.get("evaluating"):
        return None
    holder = evaluator(item)
    if holder is None:
        return "nobody evaluates it: verdict and reporters are unknown"
    return (
        f"verdict and reporters are known to its evaluator {holder.get('instance')}, "
        f"at {holder.get('address')} there"
    )


def mismatch(item: Item) -> str | None:
    """That this sidecar and the evaluator are configured differently."""
    if not item.get("config_mismatch"):
        return None
    return "the record was written under another configuration of this breaker than this sidecar's"


def staleness(item: Item, sync: object) -> str | None:
    """How old the knowledge is, and what follows from it."""
    if not item.get("stale"):
        return None
    known = sync if isinstance(sync, Mapping) else {}
    age_s, max_stale_s = number(known.get("age")), number(known.get("max_stale"))
    read = f"the store was last read {span(age_s)} ago" if age_s is not None else "never read yet"
    when = "" if item.get("lost") or max_stale_s is None else f"after {span(max_stale_s)} "
    return f"stale: {read}; {when}the loss policy decides: {known.get('on_loss')}"


def concerns(item: Item, sync: object, wall_at: float) -> list[str]:
    """All that somebody who looks should know beside the state, the most pressing first."""
    said = (
        forced(item),
        local_gate(item),
        staleness(item, sync),
        mismatch(item),
        shadow(item, wall_at),
        unknown_here(item),
    )
    return [one for one in said if one is not None]
