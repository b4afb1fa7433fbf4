"""The Consul adapter where things go wrong: on a real agent, and on a server that misbehaves."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from sidecar.core.errors import (
    SessionLost,
    StoreDenied,
    StoreError,
    StoreRejected,
    StoreThrottled,
    StoreUnreachable,
)
from sidecar.core.ports import Committed, Fence, Put, Refused, Session
from sidecar.store import transport
from sidecar.store.consul import ConsulSettings, ConsulStore
from tests.misbehaving import (
    Handler,
    Misbehaving,
    break_at_once,
    hang,
    reset_mid_body,
    saying,
    serving,
)
from tests.servers import ConsulServer, consul_binary, free_port, poll_until
from tests.telemetry import RecordedTelemetry

SOON_S = 5.0
NOBODY = "5f0c8d2e-9a57-4c35-8a5b-6f6d1c1a7e99"
REQUESTS = "breaker_consul_requests_total"
Call = Callable[[ConsulStore], Awaitable[object]]

CALLS: dict[str, Call] = {
    "read": lambda store: store.read("a"),
    "watch": lambda store: store.watch("a/", 0, 1.0),
    "put": lambda store: store.put("a", b"1"),
    "delete": lambda store: store.delete("a"),
    "commit": lambda store: store.commit(Fence("l", "s"), [Put("a", b"1")]),
    "session_create": lambda store: store.create_session("n", 10.0, 1.0),
    "session_renew": lambda store: store.renew_session("s"),
    "session_destroy": lambda store: store.destroy_session("s"),
    "acquire": lambda store: store.acquire("l", b"1", "s"),
    "release": lambda store: store.release("l", b"1", "s"),
}


@asynccontextmanager
async def store_at(
    settings: ConsulSettings, telemetry: RecordedTelemetry | None = None
) -> AsyncIterator[ConsulStore]:
    store = ConsulStore(settings, telemetry or RecordedTelemetry())
    try:
        yield store
    finally:
        await store.close()


@asynccontextmanager
async def against(
    handler: Handler, telemetry: RecordedTelemetry | None = None, token_file: str | None = None
) -> AsyncIterator[tuple[Misbehaving, ConsulStore]]:
    async with serving(handler) as server:
        settings = ConsulSettings(port=server.port, token_file=token_file)
        async with store_at(settings, telemetry) as store:
            yield server, store


# --- what answers mean -----------------------------------------------------------------------

LIMITED = "rpc error: rate limit exceeded for operation, try again later"
MEANINGS: list[tuple[int, str, type[StoreError], str]] = [
    (301, "", StoreRejected, "rejected"),
    (307, "", StoreRejected, "rejected"),
    (400, "Bad request", StoreRejected, "rejected"),
    (401, "", StoreDenied, "denied"),
    (403, "Permission denied", StoreDenied, "denied"),
    (413, "too large", StoreRejected, "rejected"),
    (429, "", StoreThrottled, "throttled"),
    (500, "No cluster leader", StoreUnreachable, "unreachable"),
    (503, LIMITED, StoreThrottled, "throttled"),
    (503, "", StoreUnreachable, "unreachable"),
]


@pytest.mark.parametrize(("status", "body", "error", "outcome"), MEANINGS)
@pytest.mark.parametrize("op", CALLS)
async def test_a_status_is_one_kind_of_error_whatever_was_asked(
    op: str, status: int, body: str, error: type[StoreError], outcome: str
) -> None:
    telemetry = RecordedTelemetry()
    async with against(saying(status, body, {"Location": "/v1/kv/b"}), telemetry) as (
        server,
        store,
    ):
        with pytest.raises(error) as caught:
            await CALLS[op](store)
    assert type(caught.value) is error
    assert telemetry.counted(REQUESTS, op=op, outcome=outcome) == 1
    assert len(server.requests) == 1, "not followed, not sent again"


@pytest.mark.parametrize("op", CALLS)
@pytest.mark.parametrize("body", ["", "{", '{"Results": 1, "ID": 1}', "[1]", "\x00"])
async def test_garbage_is_no_usable_answer(op: str, body: str) -> None:
    async with against(saying(200, body, {"X-Consul-Index": "5"})) as (_, store):
        with pytest.raises(StoreUnreachable):
            await CALLS[op](store)


async def test_a_listing_without_an_index_proves_nothing() -> None:
    async with against(saying(404)) as (_, store):
        with pytest.raises(StoreUnreachable):
            await store.watch("a/", 0, 1.0)


async def test_an_answer_without_a_leader_says_so() -> None:
    headers = {"X-Consul-Index": "7", "X-Consul-KnownLeader": "false"}
    async with against(saying(200, "[]", headers)) as (_, store):
        page = await store.watch("a/", 1, 1.0)
    assert (page.index, page.known_leader, page.entries) == (7, False, ())


async def test_a_larger_time_to_live_is_believed() -> None:
    body = f'[{{"ID": "{NOBODY}", "TTL": "1m30.5s"}}]'
    async with against(saying(200, body)) as (_, store):
        assert await store.renew_session(NOBODY) == Session(NOBODY, 90.5)


async def test_keys_that_would_be_others_on_the_wire_are_refused(consul: ConsulServer) -> None:
    async with store_at(ConsulSettings(port=consul.port)) as store:
        for key in ("a/../b", "a//b", "/a", ""):
            with pytest.raises(StoreRejected):
                await store.read(key)
            with pytest.raises(StoreRejected):
                await store.put(key, b"1")


# --- silence, breaks and cancellation --------------------------------------------------------


@pytest.mark.parametrize("op", CALLS)
async def test_every_call_has_a_deadline(op: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "SHORT_S", 0.2)
    telemetry = RecordedTelemetry()
    async with against(hang, telemetry) as (server, store):
        began = time.monotonic()
        with pytest.raises(StoreUnreachable, match="within"):
            await CALLS[op](store)
        assert time.monotonic() - began < SOON_S
        await poll_until(lambda: server.dropped == 1, SOON_S, "the connection is closed")
    assert telemetry.counted(REQUESTS, op=op, outcome="unreachable") == 1


async def test_a_blocking_query_waits_a_little_longer_than_consul_may() -> None:
    async with against(hang) as (server, store):
        began = time.monotonic()
        with pytest.raises(StoreUnreachable):
            await store.watch("a/", 5, 0.16)
        assert 2.1 <= time.monotonic() - began < SOON_S
    assert dict(server.requests[0].query) == {"index": "5", "wait": "160ms", "recurse": "1"}


async def test_short_calls_take_turns_and_blocking_ones_do_not_wait_for_them() -> None:
    async with against(hang) as (server, store):
        short = [store.read("a") for _ in range(3 * transport.SHORT_CALLS)]
        tasks: list[asyncio.Task[object]] = [asyncio.create_task(call) for call in short]
        await poll_until(
            lambda: len(server.requests) == transport.SHORT_CALLS, SOON_S, "the first calls"
        )
        tasks.append(asyncio.create_task(store.watch("a/", 5, 60.0)))
        await poll_until(lambda: "index" in server.requests[-1].query, SOON_S, "the blocking query")
        assert len(server.requests) == transport.SHORT_CALLS + 1
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks, timeout=SOON_S)


async def test_waiting_for_a_turn_counts_towards_the_deadline(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(transport, "SHORT_S", 0.5)
    async with against(hang) as (_, store):
        began = time.monotonic()
        calls = (store.read("a") for _ in range(3 * transport.SHORT_CALLS))
        done = await asyncio.gather(*calls, return_exceptions=True)
        assert time.monotonic() - began < SOON_S
        assert {type(each) for each in done} == {StoreUnreachable}


async def test_cancelling_a_watch_closes_its_connection() -> None:
    async with against(hang) as (server, store):
        watching = asyncio.create_task(store.watch("a/", 5, 60.0))
        await poll_until(lambda: server.requests, SOON_S, "the query is there")
        watching.cancel()
        with pytest.raises(asyncio.CancelledError):
            await watching
        await poll_until(lambda: server.dropped == 1, SOON_S, "the connection is closed")


@pytest.mark.parametrize("handler", [reset_mid_body, break_at_once])
@pytest.mark.parametrize("op", CALLS)
async def test_a_broken_connection_is_unreachable_and_nothing_is_sent_twice(
    op: str, handler: Handler
) -> None:
    async with against(saying(200, "null")) as (server, store):
        with pytest.raises(StoreUnreachable):
            await store.read("warm-up, so that a connection is there to be used again")
        server.handler = handler
        with pytest.raises(StoreUnreachable):
            await CALLS[op](store)
    assert len(server.requests) == 2


async def test_nobody_there_is_unreachable() -> None:
    async with store_at(ConsulSettings(port=free_port())) as store:
        with pytest.raises(StoreUnreachable):
            await store.read("a")
    async with store_at(ConsulSettings(unix_path="/nonexistent/consul.sock")) as store:
        with pytest.raises(StoreUnreachable):
            await store.read("a")


async def test_a_missing_tls_file_is_an_error_of_the_store() -> None:
    settings = ConsulSettings(scheme="https", port=free_port(), ca_file="/nonexistent/ca.pem")
    async with store_at(settings) as store:
        with pytest.raises(StoreUnreachable):
            await store.read("a")


async def test_an_answer_lost_after_the_transaction_was_applied(
    consul: ConsulServer, prefix: str
) -> None:
    """The outcome is unknown to the writer, and reading again tells it: it was written once."""
    lose = False

    async def forward(request: web.Request) -> web.StreamResponse:
        url = f"http://{consul.address}{request.raw_path}"
        async with (
            aiohttp.ClientSession() as session,
            session.request(request.method, url, data=await request.read()) as answer,
        ):
            body = await answer.read()
            if lose and request.path == "/v1/txn":
                return await break_at_once(request)
            kept = {k: v for k, v in answer.headers.items() if k.startswith("X-Consul")}
            return web.Response(status=answer.status, body=body, headers=kept)

    async with against(forward) as (server, store):
        session = await store.create_session("test", 10.0, 1.0)
        fence = Fence(f"{prefix}/lock", session.id)
        assert await store.acquire(fence.key, b"me", session.id) is not None
        lose = True
        with pytest.raises(StoreUnreachable):
            await store.commit(fence, [Put(f"{prefix}/state", b"1", cas=0)])
        sent = [r for r in server.requests if r.path == "/v1/txn"]
        assert len(sent) == 2, "one for the lock, one for the write"
        found = await store.read(f"{prefix}/state")
        assert found is not None
        assert found.value == b"1"


@pytest.mark.consul
async def test_a_frozen_server_and_its_return(prefix: str) -> None:
    with ConsulServer() as server:
        async with store_at(ConsulSettings(port=server.port)) as store:
            await store.put(f"{prefix}/a", b"1")
            index = (await store.watch(f"{prefix}/", 0, 1.0)).index
            server.freeze()
            with pytest.raises(StoreUnreachable):
                await store.watch(f"{prefix}/", index, 0.1)
            server.thaw()
            assert (await store.watch(f"{prefix}/", index, 0.1)).entries[0].value == b"1"
            server.kill()
            with pytest.raises(StoreUnreachable):
                await store.read(f"{prefix}/a")
            server.start()
            assert await store.read(f"{prefix}/a") is None


# --- who we are ------------------------------------------------------------------------------


def token_of(request: web.BaseRequest) -> str | None:
    return request.headers.get("X-Consul-Token")


@pytest.mark.parametrize("op", CALLS)
async def test_the_token_goes_with_everything_and_the_environment_is_not_asked(
    op: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {
        "CONSUL_HTTP_TOKEN": "environment",
        "CONSUL_HTTP_ADDR": "unix:///nowhere",
        "CONSUL_HTTP_SSL": "true",
        "http_proxy": "http://127.0.0.1:1",
    }.items():
        monkeypatch.setenv(name, value)
    async with serving(saying(500)) as server:
        settings = ConsulSettings(
            port=server.port, token="ours", namespace="team", path_prefix="/x"
        )
        async with store_at(settings) as store:
            with pytest.raises(StoreUnreachable):
                await CALLS[op](store)
        async with store_at(ConsulSettings(port=server.port)) as store:
            with pytest.raises(StoreUnreachable):
                await CALLS[op](store)
    first, second = server.requests
    assert token_of(first) == "ours"
    assert first.headers["X-Consul-Namespace"] == "team"
    assert first.path.startswith("/x/v1/")
    assert token_of(second) is None
    assert "X-Consul-Namespace" not in second.headers


def test_a_token_is_not_shown() -> None:
    assert "secret" not in repr(ConsulSettings(token="secret"))


async def test_a_renewed_token_file_takes_effect(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "TOKEN_CHECK_S", 0.0)
    path = tmp_path / "token"
    async with serving(saying(500)) as server:
        settings = ConsulSettings(port=server.port, token="fallback", token_file=str(path))
        async with store_at(settings) as store:

            async def sent() -> str | None:
                with pytest.raises(StoreUnreachable):
                    await store.read("a")
                return token_of(server.requests[-1])

            assert await sent() == "fallback"
            path.write_text("first\n")
            assert await sent() == "first"
            path.write_text("second")
            assert await sent() == "second"
            path.write_text("")
            assert await sent() == "second"
            path.unlink()
            assert await sent() == "second"
            fresh = tmp_path / "fresh"
            fresh.write_text("third!")  # as long as the one before
            fresh.rename(path)
            assert await sent() == "third!"


async def test_a_refused_token_is_looked_at_again_at_once(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("old")
    async with against(saying(403), token_file=str(path)) as (server, store):
        with pytest.raises(StoreDenied):
            await store.read("a")
        path.write_text("newer")
        with pytest.raises(StoreDenied):
            await store.read("a")
    assert [token_of(r) for r in server.requests] == ["old", "newer"]


async def test_a_token_of_two_lines_is_not_sent(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("two\r\nX-Injected: lines")
    async with against(saying(200, "true"), token_file=str(path)) as (server, store):
        with pytest.raises(StoreRejected) as caught:
            await store.put("a", b"1")
    assert "lines" not in str(caught.value)
    assert not server.requests


async def test_a_write_that_was_not_made_is_no_success() -> None:
    async with against(saying(200, "false")) as (_, store):
        with pytest.raises(StoreUnreachable):
            await store.put("a", b"1")


@pytest.mark.consul
async def test_rights(prefix: str) -> None:
    with ConsulServer(acl=True) as server:
        server.kv_put(f"{prefix}/a", b"1")
        rules = f'key_prefix "{prefix}/" {{ policy = "read" }}'
        token = server.make_token(rules)
        telemetry = RecordedTelemetry()
        settings = ConsulSettings(port=server.port, token=token.secret)
        async with store_at(settings, telemetry) as store:
            assert len((await store.watch(f"{prefix}/", 0, 1.0)).entries) == 1
            for call in (
                lambda: store.put(f"{prefix}/a", b"2"),
                lambda: store.delete(f"{prefix}/a"),
                lambda: store.create_session("n", 10.0, 1.0),
                lambda: store.read("elsewhere"),
                lambda: store.acquire(f"{prefix}/l", b"1", NOBODY),
                lambda: store.commit(Fence(f"{prefix}/l", NOBODY), [Put(f"{prefix}/a", b"2")]),
            ):
                with pytest.raises(StoreDenied):
                    await call()
            server.set_rules(token, "")

            async def looks_empty() -> bool:
                return not (await store.watch(f"{prefix}/", 0, 1.0)).entries

            await poll_until(looks_empty, SOON_S, "the listing looks empty")
        assert telemetry.counted(REQUESTS, op="commit", outcome="denied") == 1
        unknown = ConsulSettings(port=server.port, token=NOBODY)
        async with store_at(unknown) as store:
            with pytest.raises(StoreDenied):
                await store.watch(f"{prefix}/", 0, 1.0)
        async with store_at(ConsulSettings(port=server.port, token=server.token)) as store:
            found = await store.read(f"{prefix}/a")
            assert found is not None
            assert found.value == b"1"


# --- what is counted -------------------------------------------------------------------------


async def test_every_call_is_counted_and_blocking_ones_are_not_timed(
    consul: ConsulServer, prefix: str
) -> None:
    telemetry = RecordedTelemetry()
    async with store_at(ConsulSettings(port=consul.port), telemetry) as store:
        await _works(store, prefix)
        await store.put(f"{prefix}/b", b"1")
        assert not await store.delete(f"{prefix}/b", cas=1)
        index = (await store.watch(f"{prefix}/", 0, 1.0)).index
        timed = len(telemetry.observed)
        await store.watch(f"{prefix}/", index, 0.01)
        assert len(telemetry.observed) == timed
    counted = {
        (dict(labels)["op"], dict(labels)["outcome"]): n
        for (name, labels), n in telemetry.counts.items()
        if name == REQUESTS
    }
    assert counted == {
        ("session_create", "ok"): 1,
        ("acquire", "ok"): 1,
        ("commit", "ok"): 1,
        ("commit", "refused"): 1,
        ("watch", "ok"): 3,
        ("release", "ok"): 1,
        ("session_destroy", "ok"): 1,
        ("session_renew", "lost"): 1,
        ("put", "ok"): 1,
        ("delete", "refused"): 1,
    }
    assert {labels["op"] for _, _, labels in telemetry.observed} == {op for op, _ in counted}
    assert {name for name, _, _ in telemetry.observed} == {
        "breaker_consul_request_duration_seconds"
    }


def test_the_adapter_does_not_load_the_synchronous_client() -> None:
    """It would cost each sidecar 6 MB; and who wants it still gets it."""
    code = (
        "import sys, sidecar.store.consul\n"
        "assert not {'requests', 'urllib3', 'consul.std'} & set(sys.modules)\n"
        "import consul, consul.std\n"
        "assert consul.std.Consul.__module__ == 'consul.std'\n"
        "try: consul.Consul()\n"
        "except ImportError as fault: print(fault)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert "consul.std" in done.stdout


def test_the_adapter_takes_py_consul_as_somebody_else_loaded_it() -> None:
    code = (
        "import consul, consul.std, sidecar.store.consul\n"
        "assert consul.Consul is consul.std.Consul\n"
    )
    subprocess.run([sys.executable, "-c", code], timeout=60, check=True)


# --- ways to get there -----------------------------------------------------------------------


@pytest.mark.consul
async def test_a_unix_socket(tmp_path: Path, prefix: str) -> None:
    path = tmp_path / "consul.sock"
    with ConsulServer(unix_path=path):
        async with store_at(ConsulSettings(unix_path=str(path), port=0)) as store:
            await _works(store, prefix)


@pytest.mark.consul
async def test_tls_with_a_client_certificate(tmp_path: Path, prefix: str) -> None:
    def make(*arguments: str) -> None:
        command = [str(consul_binary()), "tls", *arguments]
        subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, timeout=30)

    make("ca", "create")
    make("cert", "create", "-server", "-additional-ipaddress=127.0.0.1")
    make("cert", "create", "-client")
    https = free_port()
    ca = str(tmp_path / "consul-agent-ca.pem")
    client = str(tmp_path / "dc1-client-consul-0")
    config = f"""
        ports {{ https = {https} }}
        tls {{ https {{
          ca_file = "{ca}"
          cert_file = "{tmp_path}/dc1-server-consul-0.pem"
          key_file = "{tmp_path}/dc1-server-consul-0-key.pem"
          verify_incoming = true
        }} }}
    """
    bare = ConsulSettings(
        scheme="https", port=https, client_cert=f"{client}.pem", client_key=f"{client}-key.pem"
    )
    with ConsulServer(config=config):
        for right in (replace(bare, ca_file=ca), replace(bare, tls_verify=False)):
            async with store_at(right) as store:
                await _works(store, f"{prefix}/{right.tls_verify}")
        for wrong in (bare, replace(bare, ca_file=ca, client_cert=None, client_key=None)):
            async with store_at(wrong) as store:
                with pytest.raises(StoreUnreachable):
                    await store.read(f"{prefix}/a")


async def _works(store: ConsulStore, prefix: str) -> None:
    session = await store.create_session("test", 10.0, 0.0)
    fence = Fence(f"{prefix}/lock", session.id)
    assert await store.acquire(fence.key, b"me", session.id) is not None
    assert isinstance(await store.commit(fence, [Put(f"{prefix}/a", b"1")]), Committed)
    assert isinstance(await store.commit(fence, [Put(f"{prefix}/a", b"2", cas=0)]), Refused)
    assert len((await store.watch(f"{prefix}/", 0, 1.0)).entries) == 2
    assert await store.release(fence.key, b"bye", session.id)
    await store.destroy_session(session.id)
    with pytest.raises(SessionLost):
        await store.renew_session(session.id)
