"""`allowed --explain`: why one decision is as it is, a line for each thing that it rests on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from time import time as wall
from typing import Any

from sidecar.cli.tables import ago, loud
from sidecar.core import words
from sidecar.telemetry.lines import printable

_SHOWN = ("failure_threshold", "open_duration", "half_open", "on_unknown", "deny_status")
"""Of the settings, what decides; `-o json` has them all."""


def lines(explanation: object) -> Iterator[str]:
    """What to print below the decision, safe for a terminal."""
    if not isinstance(explanation, Mapping):
        yield "  (this sidecar explains nothing: is it of an older version?)"
        return
    if "withheld" in explanation:
        yield printable(f"  not explained here: {explanation['withheld']}")
        return
    known = explanation.get("known")
    item = known if isinstance(known, Mapping) else {}
    forced = words.forced(item)
    if forced is not None:
        yield loud(forced)
    for head, said in _rows(explanation, item):
        yield printable(f"  {head:<11}{said}")


def _rows(why: Mapping[str, Any], item: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "because", f"{why.get('because')}: {why.get('why')}"
    yield "counted", "yes" if why.get("counted") else "no, only looked at"
    if item.get("automaton") is None:
        yield "record", "none has been seen"
    else:
        since = ago(item.get("since"))
        yield "record", f"{item['automaton']} for {since}, seq {item.get('seq')}"
        yield "then", words.numbers_then(item) or "no evidence"
    yield "now", words.numbers_now(item) or "known to the evaluator alone"
    for signal in words.signals(item):
        yield "signal", signal
    yield "reporters", words.reporters(item) or "known to the evaluator alone"
    yield "evaluator", _evaluator(item)
    yield "settings", _settings(item)
    if item.get("config_mismatch"):
        yield "mismatch", str(words.mismatch(item))
    yield "store", _store(why.get("sync"), item)
    if words.number(item.get("admit_ratio")) != 1:
        yield "more", _more(why)
    if (spread := _spread(why.get("spread"))) is not None:
        yield "spread", spread


def _evaluator(item: Mapping[str, Any]) -> str:
    holder = words.evaluator(item)
    if holder is None:
        return "nobody"
    here = ", which is this sidecar" if item.get("evaluating") else ""
    return f"{holder.get('instance')} at {holder.get('address')}{here}"


def _settings(item: Mapping[str, Any]) -> str:
    policy = item.get("policy")
    known = policy if isinstance(policy, Mapping) else {}
    said = []
    for key in _SHOWN:
        value = known.get(key)
        if isinstance(value, Mapping):
            said += [f"{key}.{part} {number}" for part, number in value.items()]
        else:
            said.append(f"{key} {value}")
    return ", ".join(said)


def _store(sync: object, item: Mapping[str, Any]) -> str:
    known = sync if isinstance(sync, Mapping) else {}
    stale = words.staleness(item, known)
    if stale is not None:
        return stale
    age_s = words.number(known.get("age"))
    read = f"read {words.span(age_s)} ago" if age_s is not None else "never read"
    after_s = words.number(known.get("stale_after"))
    bound = f", stale after {words.span(after_s)}" if after_s is not None else ""
    return f"{read}{bound}, on_loss {known.get('on_loss')}"


def _more(why: Mapping[str, Any]) -> str:
    left_s = words.number(why.get("more_admitted_in_s"))
    if left_s is None:
        return "no time is known at which more would be admitted"
    at = wall() + left_s
    return f"is admitted in {words.span(left_s)} (about {words.clock(at)})"


def _spread(spread: object) -> str | None:
    """Where a share stands; None where all or nothing is admitted."""
    known = spread if isinstance(spread, Mapping) else {}
    ratio, ahead = words.number(known.get("ratio")), words.number(known.get("next_admitted_call"))
    if ratio is None or ahead is None or not 0 < ratio < 1:
        return None
    return f"{ratio:.1%} of the calls; of the next ones, number {ahead:.0f} is admitted"
