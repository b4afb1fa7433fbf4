"""The status page `/`: what `status` shows, for a browser. It only shows; orders need a token.

The whole page is rendered here, and works without JavaScript. With it, the page follows
`/v1/watch` and fetches itself anew when something has happened.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from time import time
from typing import Any

from aiohttp import web

from sidecar.core import words
from sidecar.core.types import Transition
from sidecar.core.wire import rfc3339
from sidecar.http.look import POLICY, SCRIPT, STYLE
from sidecar.http.markup import Child, Markup, element, joined, told
from sidecar.http.overview import Overview
from sidecar.http.past import KEPT, Histories, Past

HEADERS = (
    ("Content-Type", "text/html; charset=utf-8"),
    ("Cache-Control", "no-store"),
    ("Content-Security-Policy", POLICY),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Referrer-Policy", "no-referrer"),
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
)
RELOAD_S = 15
"""How often a browser without JavaScript loads the page again."""

Status = Mapping[str, Any]


class StatusPage:
    """The handler."""

    def __init__(self, overview: Overview, histories: Histories) -> None:
        self._overview = overview
        self._histories = histories

    def routes(self) -> list[web.AbstractRouteDef]:
        """Where the handler is to be found."""
        return [web.get("/", self.page)]

    async def page(self, _request: web.Request) -> web.Response:
        """`GET /`."""
        status = await self._overview.status(whole_past=True)
        pasts = {cell.policy.name: self._histories.of(cell) for cell in self._overview.cells()}
        wall_at = time()
        cards = []
        for item in status["breakers"]:
            cards.append(_breaker(item, status, pasts.get(item["name"]), wall_at))
            await asyncio.sleep(0)  # a decision never waits for more than one of them
        return web.Response(body=_whole(status, cards, wall_at).encode(), headers=HEADERS)


def _whole(status: Status, cards: Sequence[Markup], wall_at: float) -> str:
    """The page around what is shown of each breaker."""
    items = status["breakers"]
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("link", rel="icon", href="data:,"),
        element("title", _title(items)),
        element("style", Markup(STYLE)),
        element("noscript", element("meta", http_equiv="refresh", content=str(RELOAD_S))),
    )
    body = element(
        "body",
        element("header", element("h1", "Breaker sidecar ", told(status["instance"]))),
        element("p", "As it was at ", _clock(rfc3339(wall_at)), ".", id="link", class_="soft"),
        element("main", _daemon(status), *(_alarm(item) for item in items), *cards),
        element("script", Markup(SCRIPT)),
    )
    return "<!doctype html>\n" + element("html", head, body, lang="en")


def _title(items: list[Status]) -> str:
    """What a tab can show: the breakers that aren't simply closed."""
    odd = [f"{i['name']} {words.state(i)}" for i in items if words.state(i) != "CLOSED"]
    return ", ".join(odd) if odd else "all closed" if items else "no breaker"


def _daemon(status: Status) -> Markup:
    store, sync = status.get("store"), status["sync"]
    kind = store.get("kind") if isinstance(store, Mapping) else store
    age_s = sync["age"]
    read = "never read" if age_s is None else f"last read {words.span(age_s)} ago"
    said = f"Version {status.get('version', 'unknown')}, role {status.get('role')}, "
    return element("p", f"{said}store {kind} ({read}).", class_="soft")


def _alarm(item: Status) -> Markup | None:
    """A forced breaker is never overlooked."""
    said = words.forced(item)
    if said is None:
        return None
    return element("p", element("strong", told(item["name"]), " is ", told(said)), class_="alarm")


def _breaker(item: Status, status: Status, past: Past | None, wall_at: float) -> Markup:
    name = str(item["name"])
    since = words.since_at(item)
    head = element(
        "header",
        element("h2", told(name)),
        element("span", words.state(item), class_=f"state {item['state']}"),
        element("span", "began ", _ago(since, wall_at)) if since is not None else None,
        *(element("span", note, class_="soft") for note in words.notes(item)),
    )
    forced = words.forced(item)
    concerns = [
        element("p", told(said), class_="forced" if said == forced else "concern")
        for said in words.concerns(item, status["sync"], wall_at)
    ]
    return element(
        "article",
        head,
        element("p", element("b", told(item["reason"])), ": ", told(item["detail"])),
        *concerns,
        _facts(item, wall_at),
        _transitions(past, wall_at),
        _settings(name, item),
        data_breaker=name,
        data_state=str(item["state"]),
    )


def _facts(item: Status, wall_at: float) -> Markup:
    counts, holder = item["decisions"], words.evaluator(item)
    decided = f"{counts['admitted']} admitted, {counts['rejected']} rejected"
    rows: list[tuple[str, Child]] = [
        ("Evidence then", told(words.numbers_then(item) or "none")),
        ("Evidence now", told(words.numbers_now(item) or "unknown here")),
        ("Verdict", str(item["verdict"] or "unknown here")),
        ("Signals", told("; ".join(words.signals(item)) or "unknown here")),
        ("Reporters", words.reporters(item) or "unknown here"),
        ("Evaluator", _holder(holder, wall_at) if holder is not None else "nobody"),
        ("Underneath", str(item["automaton"] or "unknown")),
        ("Record", f"seq {item['seq']}, epoch {item['epoch']}"),
        ("Decisions here", f"{decided} in {words.span(counts['for_s'])}"),
    ]
    return element("dl", *(joined(element("dt", term), element("dd", said)) for term, said in rows))


def _holder(holder: Status, wall_at: float) -> Markup:
    since = words.time_at(holder.get("since"))
    return joined(
        told(holder.get("instance")),
        " at ",
        told(holder.get("address")),
        *([", which took it up ", _ago(since, wall_at)] if since is not None else []),
    )


def _transitions(past: Past | None, wall_at: float) -> Markup:
    """The last few, newest first: that is the one somebody looks for."""
    title = element("h3", f"Last transitions (at most {KEPT})")
    if past is None:
        return joined(title, element("p", "The history can't be read now.", class_="concern"))
    if not past.last:
        return joined(title, element("p", "None.", class_="soft"))
    heads = element("tr", *(element("th", head) for head in ("When", "To", "Why", "Detail")))
    rows = [_transition(entry, wall_at) for entry in reversed(past.last)]
    return joined(title, element("div", element("table", heads, *rows), class_="wide"))


def _transition(entry: Transition, wall_at: float) -> Markup:
    return element(
        "tr",
        element("td", _ago(entry.at, wall_at)),
        element("td", element("b", str(entry.to_state), class_=str(entry.to_state))),
        element("td", told(entry.reason)),
        element("td", told(entry.detail)),
    )


def _settings(name: str, item: Status) -> Markup:
    rows: list[Markup] = []
    for key, value in item["policy"].items():
        said = (
            ", ".join(f"{part} {number}" for part, number in value.items())
            if isinstance(value, Mapping)
            else value
        )
        rows.append(joined(element("dt", key), element("dd", told(said))))
    return element(
        "details", element("summary", "Settings"), element("dl", *rows), id=f"settings-{name}"
    )


def _ago(at: float, wall_at: float) -> Markup:
    """A time by how long it has been; the exact one is in the attributes."""
    exact = rfc3339(at)
    said = f"{words.span(wall_at - at)} ago"
    return element("time", said, datetime=exact, title=exact, data_ago="")


def _clock(exact: str) -> Markup:
    return element("time", f"{exact[:19].replace('T', ' ')} UTC", datetime=exact)
