"""The status page in a real browser: rendered, live, escaped, readable on a phone and at night."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator

import pytest

from tests.acceptance.support import Place, fleet, timing
from tests.browser import Browser
from tests.daemon import Daemon
from tests.servers import poll_until

pytestmark = pytest.mark.browser

SOON_S = 30.0
EVIL = "<script>window.pwned = 1</script><img src=x onerror='window.pwned = 2'>\x1b]0;x\x07 & co"
CONFIG = {
    "store": "memory",
    "breakers": {
        name: {
            "mode": mode,
            "failure_threshold": 5,
            "open_duration": "10m",
            "max_open_duration": "10m",
            "consul_key_prefix": f"reports/{name}",
        }
        for name, mode in (("default", "enforce"), ("other", "enforce"), ("dark", "shadow"))
    },
}
WITHOUT_TIMERS = "window.setInterval = () => 0;"
"""Nothing but the stream can bring the page up to date then."""


@pytest.fixture
def daemon() -> Iterator[Daemon]:
    with Daemon(CONFIG) as running:
        yield running


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    async with Browser() as started:
        yield started


def trip(daemon: Daemon, name: str) -> None:
    """A report with failures enough; with the store in memory it is judged at once."""
    assert daemon.post(f"/v1/report/{name}", {"instance": "c-1", "count_fail": 9}).status == 202


def force(daemon: Daemon, name: str, mode: str = "open", reason: str = EVIL) -> None:
    """An order, which holds when this returns."""
    body = {"mode": mode, "ttl_s": 900, "reason": reason, "author": "ann"}
    assert daemon.request("PUT", f"/v1/breakers/{name}/override", body).status == 200


def state(name: str) -> str:
    """An expression: the state that the page shows for a breaker."""
    return f"document.querySelector('article[data-breaker={json.dumps(name)}]').dataset.state"


async def test_what_is_wrong_is_there_and_nothing_becomes_markup(
    daemon: Daemon, browser: Browser
) -> None:
    trip(daemon, "default")
    trip(daemon, "dark")
    daemon.allowed("dark")
    force(daemon, "other")
    await browser.open(daemon.url)
    await browser.until("document.getElementById('link').dataset.state === 'live'", SOON_S, "live")
    text = await browser.js("document.body.innerText")
    for said in (
        "OPEN (FORCED)",
        "other is FORCED open by ann, ",
        "left of 15m00s: <script>window.pwned = 1</script><img src=x onerror='window.pwned = 2'>",
        "9 failures in the last interval, threshold 5",
        "shadow of OPEN",
        "would have opened once",
        "would have rejected 1 call here",
        "1 fresh, 0 stale",
    ):
        assert said in text, said
    assert await browser.js(state("default")) == "OPEN"
    assert await browser.js(state("dark")) == "CLOSED"
    # Bold for who sees it, and the first thing that is there.
    weight = "getComputedStyle(document.querySelector('.alarm')).fontWeight"
    assert int(await browser.js(weight)) >= 700
    before = "document.querySelector('.alarm').getBoundingClientRect().top"
    assert await browser.js(before) < await browser.js(
        "document.querySelector('article').getBoundingClientRect().top"
    )
    assert await browser.js("document.querySelectorAll('script, img').length") == 1
    assert await browser.js("window.pwned === undefined")
    assert await browser.js("document.title") == "default OPEN, other OPEN (FORCED)"
    assert browser.complaints == []


async def test_it_follows_by_the_stream_alone_and_is_never_loaded_again(
    daemon: Daemon, browser: Browser
) -> None:
    await browser.call("Page.addScriptToEvaluateOnNewDocument", source=WITHOUT_TIMERS)
    await browser.open(daemon.url)
    await browser.until("document.getElementById('link').dataset.state === 'live'", SOON_S, "live")
    await browser.js("window.mark = document.querySelector('h1')")
    await browser.js("document.getElementById('settings-other').open = true")
    trip(daemon, "other")
    await browser.until(f"{state('other')} === 'OPEN'", SOON_S, "it opens in the page")
    force(daemon, "other", "closed", "the alarm was false")
    await browser.until(
        f"{state('other')} === 'CLOSED' && document.querySelector('.alarm') !== null"
        " && document.title === 'other CLOSED (FORCED)'",
        SOON_S,
        "it is forced in the page",
    )
    assert daemon.request("DELETE", "/v1/breakers/other/override").status == 204
    await browser.until(
        f"{state('other')} === 'OPEN' && document.querySelector('.alarm') === null",
        SOON_S,
        "it is released in the page",
    )
    rows = "document.querySelectorAll('article[data-breaker=other] tr').length"
    assert await browser.js(rows) == 2  # the heads, and one transition
    assert await browser.js("window.mark.isConnected")
    assert await browser.js("document.getElementById('settings-other').open")
    assert browser.complaints == []


async def test_times_go_on_between_two_looks(daemon: Daemon, browser: Browser) -> None:
    trip(daemon, "default")
    await browser.open(daemon.url)
    time = "document.querySelector('article[data-breaker=default] time').textContent"
    first = await browser.js(time)
    assert first.endswith(" ago")
    await browser.until(f"{time} !== {json.dumps(first)}", SOON_S, "the time goes on")


async def test_a_sidecar_that_goes_away_is_said_and_followed_again(browser: Browser) -> None:
    with Daemon(CONFIG) as daemon:
        await browser.open(daemon.url)
        link = "document.getElementById('link').dataset.state"
        await browser.until(f"{link} === 'live'", SOON_S, "live")
        await browser.js("window.mark = 1")
        daemon.kill()
        await browser.until(f"{link} === 'lost'", SOON_S, "the loss is said")
        assert await browser.js(state("default")) == "CLOSED"  # as it was
        daemon.start().wait_ready()
        trip(daemon, "default")
        await browser.until(
            f"{link} === 'live' && {state('default')} === 'OPEN'", SOON_S * 2, "it follows again"
        )
        assert await browser.js("window.mark") == 1


async def test_without_javascript_it_is_a_page_all_the_same(
    daemon: Daemon, browser: Browser
) -> None:
    trip(daemon, "default")
    force(daemon, "other")
    await browser.call("Emulation.setScriptExecutionDisabled", value=True)
    await browser.open(daemon.url)
    html = await browser.html()
    assert 'data-breaker="default" data-state="OPEN"' in html
    assert "FORCED open by ann" in html
    root = await browser.call("DOM.getDocument", depth=0)
    reload = "head > noscript > meta[http-equiv=refresh][content='15']"
    found = await browser.call("DOM.querySelector", nodeId=root["root"]["nodeId"], selector=reload)
    assert found["nodeId"] != 0
    assert "Follows live" not in html.partition("<script>")[0]
    assert browser.complaints == []


async def test_a_phone_needs_no_sideways_scrolling(daemon: Daemon, browser: Browser) -> None:
    trip(daemon, "default")
    force(daemon, "other", reason="x" * 500)
    await browser.call(
        "Emulation.setDeviceMetricsOverride",
        width=360,
        height=740,
        deviceScaleFactor=2,
        mobile=True,
    )
    await browser.open(daemon.url)
    assert await browser.js("innerWidth") == 360
    assert await browser.js("document.documentElement.scrollWidth") <= 360
    # A state is a word, not a column of letters.
    assert await browser.js("document.querySelector('td b').getClientRects().length") == 1
    assert float((await browser.js("getComputedStyle(document.body).fontSize"))[:-2]) >= 16


CONTRAST = """
(() => {
  const light = (c) => {
    const [r, g, b] = c.match(/[0-9.]+/g).slice(0, 3).map(Number)
      .map((v) => v / 255).map((v) => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (e) => {
    const c = getComputedStyle(e).backgroundColor;
    return c === "rgba(0, 0, 0, 0)" ? behind(e.parentElement) : c;
  };
  const of = (e) => {
    const [a, b] = [light(getComputedStyle(e).color), light(behind(e))].sort((x, y) => y - x);
    return (a + 0.05) / (b + 0.05);
  };
  const texts = document.querySelectorAll("h1, p, .state, dt, dd, td, th, summary");
  return Math.min(...[...texts].map(of));
})()
"""
"""The lowest contrast of any text with what is behind it, as WCAG 2 counts it."""


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_it_can_be_read_by_day_and_by_night(
    daemon: Daemon, browser: Browser, scheme: str
) -> None:
    trip(daemon, "default")
    trip(daemon, "dark")
    force(daemon, "other")
    await browser.call(
        "Emulation.setEmulatedMedia",
        features=[{"name": "prefers-color-scheme", "value": scheme}],
    )
    await browser.open(daemon.url)
    background = await browser.js("getComputedStyle(document.body).backgroundColor")
    assert background == {"light": "rgb(246, 248, 250)", "dark": "rgb(13, 17, 23)"}[scheme]
    assert await browser.js(CONTRAST) >= 4.5


async def test_the_policy_holds(daemon: Daemon, browser: Browser) -> None:
    """Even markup that got in would neither run nor fetch; the browser complains of it."""
    await browser.open(daemon.url)
    await browser.until("document.getElementById('link').dataset.state === 'live'", SOON_S, "live")
    assert browser.complaints == []
    await browser.js(
        "{ const s = document.createElement('script'); s.textContent = 'window.pwned = 1';"
        " document.body.append(s);"
        " const i = new Image(); i.src = '/livez'; document.body.append(i); }"
    )
    await poll_until(lambda: len(browser.complaints) >= 2, SOON_S, "both are refused")
    assert all("Content Security Policy" in said for said in browser.complaints), browser.complaints
    assert await browser.js("window.pwned === undefined")


async def test_a_followers_page_on_a_real_consul(place: Place, browser: Browser) -> None:
    slow = timing(open_duration="60s", max_open_duration="120s", report_interval="20s")
    with fleet(place.config({"default": slow}), 2) as daemons:

        def follower() -> Daemon | None:
            views = [daemon.get("/v1/breakers/default").body for daemon in daemons]
            knowing = [v["evaluator"] and not v["evaluating"] for v in views]
            return daemons[knowing.index(True)] if sum(map(bool, knowing)) == 1 else None

        watched = await poll_until(follower, SOON_S, "one follows and knows whom")
        await browser.call("Page.addScriptToEvaluateOnNewDocument", source=WITHOUT_TIMERS)
        await browser.open(watched.url)
        await browser.until(f"{state('default')} === 'CLOSED'", SOON_S, "it is closed")
        assert "known to its evaluator" in await browser.js("document.body.innerText")
        place.report("c-1", fail=25)
        await browser.until(
            f"{state('default')} === 'OPEN'"
            " && document.body.innerText.includes('failures 25, threshold 20')",
            SOON_S,
            "the page shows that it has opened, and why",
        )
        order: dict[str, object] = {"mode": "closed", "reason": EVIL, "ttl_s": 600}
        place.consul.kv_put(place.key("override"), order)
        await browser.until(
            f"{state('default')} === 'CLOSED' && document.querySelector('.alarm') !== null",
            SOON_S,
            "the page shows that it is forced",
        )
        assert await browser.js("window.pwned === undefined")
        assert browser.complaints == []
