"""How the status page looks, and what brings it up to date. Both are part of the page itself.

The page allows exactly these two texts, by their hashes, and nothing else that a browser could run
or fetch: what stands in a record can't become either.
"""

from __future__ import annotations

import base64
import hashlib

STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --soft: #59636e; --paper: #f6f8fa; --card: #fff;
  --line: #d1d9e0; --closed: #116329; --open: #b3151f; --half: #805300; --alarm: #fff0ee; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6edf3; --soft: #9aa5b1; --paper: #0d1117; --card: #161b22; --line: #30363d;
    --closed: #56d364; --open: #ff8982; --half: #e3b341; --alarm: #3a1614; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 60rem; padding: 1rem; background: var(--paper);
  color: var(--ink); font: 16px/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.25rem; margin: 0; }
h2 { font-size: 1.1rem; margin: 0; }
h3 { font-size: 1rem; margin: 1rem 0 .25rem; }
p { margin: .4rem 0; }
.soft { color: var(--soft); }
article, .alarm { background: var(--card); border: 1px solid var(--line); border-radius: .5rem;
  padding: .75rem 1rem; margin: 1rem 0; }
.alarm { background: var(--alarm); border: 2px solid var(--open); font-weight: 700; }
article > header { display: flex; flex-wrap: wrap; gap: .25rem 1rem; align-items: baseline; }
.state { font-weight: 700; border: 2px solid currentColor; border-radius: .4rem;
  padding: 0 .5rem; }
.CLOSED { color: var(--closed); } .OPEN { color: var(--open); } .HALF_OPEN { color: var(--half); }
.concern { border-left: .25rem solid var(--half); padding-left: .6rem; }
.forced { border-left: .25rem solid var(--open); padding-left: .6rem; font-weight: 700; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .1rem 1rem; margin: .5rem 0; }
dt { color: var(--soft); } dd { margin: 0; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; }
th, td { text-align: left; vertical-align: top; padding: .15rem .6rem .15rem 0;
  border-top: 1px solid var(--line); }
th { color: var(--soft); font-weight: 400; border: 0; }
td:last-child { min-width: 8rem; } td:not(:last-child) { white-space: nowrap; }
th { overflow-wrap: normal; }
summary { cursor: pointer; color: var(--soft); }
@media (max-width: 30rem) { body { padding: .5rem; } dl { grid-template-columns: 1fr; }
  dd { margin-bottom: .3rem; } }
"""

SCRIPT = """
"use strict";
(() => {
  const link = document.getElementById("link");
  const say = (state, text) => { link.dataset.state = state; link.textContent = text; };
  let asking = false, again = false, streams = false;

  const refresh = async () => {
    if (asking) { again = true; return; }
    asking = true;
    try {
      const answer = await fetch("/", { cache: "no-store" });
      if (!answer.ok) throw new Error(String(answer.status));
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      const now = page.querySelector("main"), before = document.querySelector("main");
      for (const old of before.querySelectorAll("details[open][id]")) {
        const same = now.querySelector("#" + CSS.escape(old.id));
        if (same) same.open = true;
      }
      const focus = document.activeElement && document.activeElement.closest("details[id]");
      before.replaceWith(now);
      document.title = page.title;
      const held = focus && document.getElementById(focus.id);
      if (held) held.querySelector("summary").focus({ preventScroll: true });
      say("live", streams ? "Follows live." : "Looks again every 10 s.");
    } catch {
      say("lost", "The sidecar gives no answer: this is how it was. Trying again.");
    }
    await new Promise((done) => setTimeout(done, 200));  // many changes at once are one look
    asking = false;
    if (again) { again = false; refresh(); }
  };

  const span = (s) => {
    const two = (n) => String(n).padStart(2, "0"), f = Math.floor;
    if (s < 60) return s + "s";
    if (s < 3600) return f(s / 60) + "m" + two(s % 60) + "s";
    if (s < 86400) return f(s / 3600) + "h" + two(f(s % 3600 / 60)) + "m";
    return f(s / 86400) + "d" + two(f(s % 86400 / 3600)) + "h";
  };
  setInterval(() => {
    for (const time of document.querySelectorAll("time[data-ago]")) {
      const at = Date.parse(time.dateTime);
      time.textContent = span(Math.max(0, Math.floor((Date.now() - at) / 1000))) + " ago";
    }
  }, 1000);

  const source = new EventSource("/v1/watch");
  source.addEventListener("open", () => { streams = true; });
  source.addEventListener("error", () => {
    streams = false;
    say("lost", "The connection to the sidecar is lost: this is how it was. Trying again.");
  });
  for (const kind of ["snapshot", "transition", "change"]) source.addEventListener(kind, refresh);
  setInterval(() => {
    if (document.visibilityState === "visible" && getSelection().isCollapsed) refresh();
  }, 10000);
})();
"""


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


POLICY = "; ".join(
    [
        "default-src 'none'",
        f"script-src {_hash(SCRIPT)}",
        f"style-src {_hash(STYLE)}",
        "connect-src 'self'",
        "img-src data:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ]
)
"""The page's Content-Security-Policy."""
