"""Both clients: what they follow, what they fall back to, and that they never wait for long."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from sidecar.client import Source
from tests.servers import free_port, poll_until
from tests.unit.client.conftest import Follow
from tests.unit.client.fake import Driven, FakeSidecar, breaker

SOON_S = 5.0


async def test_a_transition_changes_the_decision_without_a_question(
    sidecar: FakeSidecar, follow: Follow
) -> None:
    client = (await follow()).client
    assert client.allowed()
    assert (client.source, client.state, client.name) == (Source.WATCH, "CLOSED", "default")
    assert client.fault is None
    await sidecar.change(breaker(state="OPEN", seq=2, retry_after=31))
    await poll_until(lambda: client.state == "OPEN", SOON_S, "the transition")
    assert not client.allowed()
    assert client.retry_after() in (30, 31)
    assert client.known is not None
    assert (client.known.seq, client.known.reason, client.stale) == (2, "failures", False)
    assert sidecar.asked == 0


@pytest.mark.parametrize("state", ["HALF_OPEN", "CLOSED"])
async def test_a_share_is_admitted(sidecar: FakeSidecar, follow: Follow, state: str) -> None:
    """Also of a closed breaker, which sheds."""
    sidecar.breakers = [breaker(state=state, admit_ratio=0.05)]
    client = (await follow()).client
    assert abs(sum(client.allowed() for _ in range(1000)) - 50) <= 1
    await sidecar.change(breaker(state=state, admit_ratio=0.4, seq=2))
    await poll_until(lambda: client.known is not None and client.known.seq == 2, SOON_S, "a step")
    assert abs(sum(client.allowed() for _ in range(1000)) - 400) <= 1


async def test_other_breakers_and_other_events_change_nothing(
    sidecar: FakeSidecar, follow: Follow
) -> None:
    sidecar.breakers = [breaker("orders"), breaker("payments", "OPEN")]
    client = (await follow("payments")).client
    assert not client.allowed()
    await sidecar.say("weather", "no JSON at all")
    await sidecar.change(breaker("orders", "OPEN", seq=2))
    await sidecar.change(breaker("payments", seq=2))
    await poll_until(client.allowed, SOON_S, "its own transition")
    await sidecar.change(breaker("payments", "OPEN", seq=2, stale=True), "change")
    await poll_until(lambda: not client.allowed(), SOON_S, "news without a record")
    assert client.stale


@pytest.mark.parametrize("names", [["default", "orders"], ["orders"]])
async def test_without_a_name_it_is_the_default_breaker(
    names: list[str], sidecar: FakeSidecar, follow: Follow
) -> None:
    sidecar.breakers = [breaker(name) for name in names]
    client = (await follow()).client
    assert client.name == names[0]


async def test_an_unknown_breaker_is_said_and_the_default_decides(
    sidecar: FakeSidecar, follow: Follow
) -> None:
    client = (await follow("oders", on_no_answer=False)).client
    await poll_until(lambda: sidecar.asked, SOON_S, "it asked")
    assert not client.allowed()
    assert client.source is Source.DEFAULT
    assert client.fault is not None
    assert "NoSuchBreaker" in client.fault
    sidecar.breakers.append(breaker("oders"))  # a reload of the sidecar's configuration
    await poll_until(client.allowed, SOON_S, "the breaker is there now")


async def test_a_lost_stream_is_followed_again(sidecar: FakeSidecar, follow: Follow) -> None:
    client = (await follow()).client
    await poll_until(lambda: sidecar.watched == 1, SOON_S, "the first stream")
    sidecar.breakers = [breaker(state="OPEN")]
    sidecar.hang_up()
    await poll_until(lambda: not client.allowed(), SOON_S, "the new snapshot, or an answer")
    await poll_until(lambda: client.source is Source.WATCH, SOON_S, "the second stream")


@pytest.mark.parametrize("status", [404, 503])
async def test_without_a_stream_it_asks(status: int, sidecar: FakeSidecar, follow: Follow) -> None:
    sidecar.watch_status = status
    sidecar.breakers = [breaker(state="OPEN", retry_after=7)]
    client = (await follow()).client
    assert not client.allowed()
    assert (client.source, client.retry_after(), client.stale) == (Source.ASKED, 7, False)
    assert client.fault == f"NotASidecar: /v1/watch answered {status}"
    sidecar.breakers = [breaker(state="HALF_OPEN")]
    await poll_until(lambda: client.state == "HALF_OPEN", SOON_S, "the next answer")
    assert abs(sum(client.allowed() for _ in range(1000)) - 50) <= 1
    sidecar.watch_status = 200
    await poll_until(lambda: client.source is Source.WATCH, SOON_S, "the stream")


@pytest.mark.parametrize("default", [True, False])
async def test_where_nobody_answers_the_default_decides(default: bool, follow: Follow) -> None:
    client = (await follow(address=f"127.0.0.1:{free_port()}", on_no_answer=default)).client
    await poll_until(lambda: client.fault != "not started", SOON_S, "it tried")
    assert client.allowed() is default
    assert (client.source, client.state, client.stale) == (Source.DEFAULT, None, True)
    assert client.retry_after() == 1


async def test_the_last_word_holds_for_a_while_and_then_the_default(
    server: TestServer, sidecar: FakeSidecar, follow: Follow
) -> None:
    sidecar.breakers = [breaker(state="OPEN")]
    client = (await follow(keep_s=1.0)).client
    assert not client.allowed()
    await server.close()
    await poll_until(lambda: client.source is Source.KEPT, SOON_S, "it is lost")
    lost = time.monotonic()
    assert not client.allowed()
    assert client.stale
    await poll_until(lambda: client.source is Source.DEFAULT, SOON_S, "the default")
    assert 0.5 < time.monotonic() - lost < 2.5
    assert client.allowed()


async def test_nothing_is_kept_where_nothing_shall_be(
    server: TestServer, sidecar: FakeSidecar, follow: Follow
) -> None:
    sidecar.breakers = [breaker(state="OPEN")]
    client = (await follow(keep_s=0)).client
    await server.close()
    await poll_until(lambda: client.source is not Source.WATCH, SOON_S, "it is lost")
    assert client.source is Source.DEFAULT
    assert client.allowed()


async def test_a_stream_that_falls_silent_is_a_dead_one(
    sidecar: FakeSidecar, follow: Follow
) -> None:
    client = (await follow(silence_s=0.3, timeout_s=0.3, keep_s=0.1)).client
    assert str(client.source) == "watch"
    sidecar.silent = True
    await poll_until(lambda: client.source is Source.DEFAULT, SOON_S, "the default")
    assert client.fault is not None
    assert "TimeoutError" in client.fault


async def test_a_stream_without_a_snapshot_is_none(sidecar: FakeSidecar, follow: Follow) -> None:
    sidecar.mute = True
    sidecar.breakers = [breaker(state="OPEN")]
    client = (await follow(timeout_s=0.2)).client
    await poll_until(lambda: client.source is Source.ASKED, SOON_S, "it asked")
    assert not client.allowed()
    sidecar.mute = False
    await poll_until(lambda: str(client.source) == "watch", SOON_S, "the stream")


async def test_a_sidecar_that_hangs_delays_the_start_no_longer_than_a_question(
    sidecar: FakeSidecar, follow: Follow
) -> None:
    sidecar.silent = True
    began = time.monotonic()
    driven = await follow(timeout_s=0.4, on_no_answer=False)
    assert not driven.client.allowed()
    assert 0.3 < time.monotonic() - began < 1.5


@pytest.mark.parametrize(
    "data",
    [
        "no JSON",
        "[1]",
        "{}",
        '{"breakers": 7}',
        '{"breakers": [{"name": "default"}]}',
        '{"breakers": [{"name": "default", "state": "OPEN", "admit_ratio": 7}]}',
        '{"breakers": [{"name": "default", "state": "OPEN", "admit_ratio": "0"}]}',
    ],
)
async def test_nonsense_on_the_stream_makes_it_ask_and_begin_anew(
    data: str, sidecar: FakeSidecar, follow: Follow
) -> None:
    client = (await follow()).client
    sidecar.breakers = [breaker(state="OPEN")]
    await sidecar.say("snapshot", data)
    await poll_until(lambda: not client.allowed(), SOON_S, "it asked")
    await poll_until(lambda: client.source is Source.WATCH, SOON_S, "the next stream")
    assert sidecar.watched == 2


async def test_what_answers_there_may_be_no_sidecar(sidecar: FakeSidecar, follow: Follow) -> None:
    sidecar.watch_status, sidecar.ask_status = 403, 200
    client = (await follow(on_no_answer=False)).client
    await poll_until(lambda: sidecar.asked > 1, SOON_S, "it asked twice")
    assert not client.allowed()
    assert client.source is Source.DEFAULT


async def test_after_close_the_default_decides_and_nothing_runs_on(
    sidecar: FakeSidecar, follow: Follow
) -> None:
    sidecar.breakers = [breaker(state="OPEN")]
    driven = await follow()
    assert not driven.client.allowed()
    began = time.monotonic()
    await driven.close()
    await driven.close()
    assert time.monotonic() - began < 1.0
    assert driven.client.allowed()
    assert (driven.client.source, driven.client.fault) == (Source.DEFAULT, "closed")
    await poll_until(lambda: not sidecar._watchers, SOON_S, "the stream is closed")


async def test_a_unix_socket_does_as_well(kind: Any, tmp_path: Path, sidecar: FakeSidecar) -> None:
    runner = web.AppRunner(sidecar.app())
    await runner.setup()
    path = tmp_path / "sidecar.sock"
    await web.UnixSite(runner, str(path)).start()
    sidecar.breakers = [breaker(state="OPEN")]
    driven = Driven(kind(address=f"unix:{path}", on_no_answer=True))
    try:
        await driven.start()
        assert not driven.client.allowed()
        assert str(driven.client.source) == "watch"
        sidecar.watch_status = 404
        sidecar.hang_up()
        await poll_until(lambda: driven.client.source is Source.ASKED, SOON_S, "it asks")
    finally:
        await driven.close()
        await runner.cleanup()


async def test_localhost_is_both_of_its_addresses(kind: Any, sidecar: FakeSidecar) -> None:
    runner = web.AppRunner(sidecar.app())
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "::1", port).start()
    driven = Driven(kind(address=f"localhost:{port}", on_no_answer=True))
    try:
        await driven.start()
        assert driven.client.source is Source.WATCH
    finally:
        await driven.close()
        await runner.cleanup()


@pytest.mark.parametrize(
    "settings", [{"timeout_s": 0}, {"silence_s": -1}, {"keep_s": -1}, {"name": "a/b"}]
)
async def test_settings_that_cannot_work_are_refused(kind: Any, settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"must be|negative|name"):
        kind(**{"on_no_answer": True, **settings})


async def test_concurrent_calls_of_one_process_share_one_spread(
    sidecar: FakeSidecar, follow: Follow
) -> None:
    sidecar.breakers = [breaker(state="HALF_OPEN")]
    client = (await follow()).client

    def calls() -> int:
        return sum(client.allowed() for _ in range(5000))

    admitted = await asyncio.gather(*(asyncio.to_thread(calls) for _ in range(8)))
    assert abs(sum(admitted) - 2000) <= 1
