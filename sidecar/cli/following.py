"""What `watch` sees: the sidecar's stream of events, and what came and went between two of them.

An event says that a breaker looks different, and how it looks now. What happened in between is in
the history, which is asked for whenever a record was written. Where there is no stream to be had
(too many follow it, something in between keeps it for itself) the sidecar is asked again and again.
"""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any

import click

from sidecar.cli import options
from sidecar.cli.client import Client, NoAnswer, WrongUsage
from sidecar.client.blocking import Link
from sidecar.client.known import NotASidecar, listed
from sidecar.client.settings import SILENCE_S
from sidecar.client.sse import Event, NotEvents, Parser
from sidecar.core import words
from sidecar.telemetry.lines import printable

_POLL_S = 0.5
_STREAM_AGAIN_S = 30.0
"""Where there was no stream: when to try for one again."""

Item = dict[str, Any]


class Follower:
    """Follows one breaker, or all of them.

    Args:
        name: None: all of them.

    Raises:
        NoAnswer, WrongUsage: as the client's.
    """

    def __init__(self, client: Client, name: str | None) -> None:
        self._client = client
        self._name = name
        self._away = False
        self.known: dict[str, Item] = self._look()
        self._told = {breaker: _seq(item) for breaker, item in self.known.items()}
        """How far each history has been told: a sidecar that restarts begins at 0 again."""

    def events(self) -> Iterator[Item]:
        """Every transition and every override's begin and end, without end."""
        while True:
            try:
                yield from self._streamed()
                self._lost(f"{self._client.places[0]} has ended the stream")
            except (OSError, http.client.HTTPException) as fault:
                why = str(fault) or type(fault).__name__
                self._lost(f"no stream from {self._client.places[0]}: {why}")
            except (NotASidecar, NotEvents) as fault:
                click.echo(
                    printable(f"no stream there ({fault}): asking every {_POLL_S:g} s"), err=True
                )
                yield from self._polled(_STREAM_AGAIN_S)
                continue
            threading.Event().wait(_POLL_S)
            # What happened meanwhile: here already, in case the stream can't be had.
            yield from self._looked()

    def _streamed(self) -> Iterator[Item]:
        parser = Parser()
        with Link(self._client.places, self._client.deadline_s) as link:
            link.endure(max(SILENCE_S, self._client.deadline_s))
            for chunk in link.watch():
                for event in parser.feed(chunk):
                    self._back()
                    yield from self._heard(event)

    def _heard(self, event: Event) -> Iterator[Item]:
        """What one event tells. A snapshot replaces all that was known."""
        if event.kind not in {"snapshot", "transition", "change"}:
            return
        now = {str(item.get("breaker")): item for item in listed(event.data)}
        for name, item in now.items():
            if name in self.known:
                yield from self._changes(name, self.known[name], item)
        if event.kind == "snapshot":
            kept = now if self._name is None else {n: i for n, i in now.items() if n in self.known}
            if self._name is not None and not kept:
                raise WrongUsage(f"the sidecar knows no breaker {self._name} any more")
            self.known = kept
        else:
            wanted = self.known if self._name is not None else now
            self.known |= {name: item for name, item in now.items() if name in wanted}

    # --- without a stream --------------------------------------------------------------------

    def _polled(self, for_s: float) -> Iterator[Item]:
        ends = time.monotonic() + for_s
        while time.monotonic() < ends:
            threading.Event().wait(_POLL_S)
            yield from self._looked()

    def _looked(self) -> Iterator[Item]:
        """Look once. A sidecar that is away is told of once and tried again."""
        try:
            now = self._look()
        except NoAnswer as error:
            self._lost(error.format_message())
            return
        self._back()
        for name, item in now.items():
            if name in self.known:
                yield from self._changes(name, self.known[name], item)
        self.known = now

    def _look(self) -> dict[str, Item]:
        if self._name is None:
            found = self._client.get("/v1/breakers").get("breakers")
        else:
            found = [self._client.get(options.path_of("/v1/breakers", self._name)).body]
        items = found if isinstance(found, list) else []
        return {str(item.get("name")): item for item in items if isinstance(item, dict)}

    def _lost(self, why: str) -> None:
        if not self._away:
            click.echo(f"{printable_lines(why)}\nTrying again.", err=True)
        self._away = True

    def _back(self) -> None:
        if self._away:
            click.echo("the sidecar answers again", err=True)
        self._away = False

    # --- what happened -----------------------------------------------------------------------

    def _changes(self, breaker: str, before: Item, after: Item) -> Iterator[Item]:
        """What happened between two looks: the history knows also what came and went."""
        old, new = words.override(before), words.override(after)
        watched = new is not None or old is not None or after.get("reason") == "shadow"
        told = before.get("state")
        for entry in self._since(breaker, after):
            told = entry.get("to")
            yield {"event": "transition", "breaker": breaker, **entry, "in_force": not watched}
        if not _same_order(old, new):
            yield _ordered(breaker, before, after, old, new)
        elif after.get("state") != (before.get("state") if watched else told):
            yield _unrecorded(breaker, before if watched else {"state": told}, after)

    def _since(self, breaker: str, after: Item) -> list[Item]:
        """What the history says of the time until `after`, and hasn't been told."""
        newest, told = _seq(after), self._told.get(breaker, 0)
        if newest in {0, told}:
            return []
        self._told[breaker] = newest
        if newest < told:
            return []  # another life began: what the history now says of it, nobody knows
        try:
            path = options.path_of("/v1/breakers", breaker, "history")
            found = self._client.get(path).get("transitions")
        except (NoAnswer, WrongUsage):
            return []
        entries = found if isinstance(found, list) else []
        return [e for e in entries if isinstance(e, dict) and told < _seq(e) <= newest]


def printable_lines(text: str) -> str:
    """Untrusted text that may have lines."""
    return "\n".join(printable(line) for line in text.splitlines())


def _seq(entry: Item) -> int:
    seq = entry.get("seq")
    return seq if isinstance(seq, int) else 0


def _same_order(old: Mapping[str, Any] | None, new: Mapping[str, Any] | None) -> bool:
    """Is it one override, or none both times? The evaluator may have filled in its times."""
    if old is None or new is None:
        return old is new
    return all(old.get(key) == new.get(key) for key in ("mode", "reason", "author")) and all(
        old.get(key) in (None, new.get(key)) for key in ("set_at", "ttl_s")
    )


def _ordered(
    breaker: str,
    before: Item,
    after: Item,
    old: Mapping[str, Any] | None,
    new: Mapping[str, Any] | None,
) -> Item:
    """An override that began, or was replaced by another, or ended."""
    order = new if new is not None else old
    shown = dict(order) if order is not None else {}
    ttl_s = words.number(shown.get("ttl_s"))
    if new is not None and "left_s" not in shown and ttl_s is not None:
        shown["left_s"] = ttl_s  # events carry no time that moves
    return {
        "event": "override_begins" if new is not None else "override_ends",
        "breaker": breaker,
        "at": after.get("at"),
        "from": before.get("state"),
        "to": after.get("state"),
        "mode": shown.get("mode"),
        "override": shown,
        "seq": after.get("seq"),
    }


def _unrecorded(breaker: str, before: Item, after: Item) -> Item:
    """No record stands behind it: the store was lost, or the history can't be read."""
    keys = ("reason", "detail", "seq", "epoch")
    return {
        "event": "transition",
        "breaker": breaker,
        "at": after.get("at"),
        "from": before.get("state"),
        "to": after.get("state"),
        **{key: after.get(key) for key in keys if key in after},
        "in_force": True,
    }
