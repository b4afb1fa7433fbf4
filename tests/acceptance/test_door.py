"""The door: every rule of who may, and of what is HTTP, tried on a real daemon.

What was seen is compared with the tables of docs/security.md; see tests/door.py.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import pytest

from tests.acceptance import door_cases
from tests.acceptance.door_cases import JSON, OURS, REPORT
from tests.acceptance.support import Place, events
from tests.daemon import Daemon
from tests.door import (
    SECTIONS,
    Address,
    Row,
    Wire,
    check_section,
    documented,
    request,
    tried,
)
from tests.servers import free_port, poll_until_sync

HEADS: Row = ("request tried", "TCP", "unix socket", "diagnostics")
TOKEN = "an-operators-token"
LIVEZ = request("GET /livez HTTP/1.1", OURS)


@dataclass(frozen=True)
class House:
    """A daemon with all three listeners."""

    daemon: Daemon
    unix: str
    diagnostics: Address

    @property
    def tcp(self) -> Address:
        return self.daemon.host, self.daemon.port


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    path, port = tmp_path_factory.mktemp("door") / "s", free_port()
    listen = {
        "socket": str(path),
        "diagnostics": f"127.0.0.1:{port}",
        "allowed_hosts": ["gateway.example"],
    }
    with Daemon({"store": "memory", "listen": listen}) as daemon:
        yield House(daemon, str(path), ("127.0.0.1", port))


def test_the_page_has_every_section() -> None:
    assert tuple(documented()) == SECTIONS


@pytest.mark.parametrize("section", door_cases.ALL)
def test_requests(house: House, section: str) -> None:
    """Alone and behind another request (the fast lane, and aiohttp's own way): the same answer."""
    rows, wrong = [], []
    for said, sent, want in door_cases.ALL[section]:
        seen = tried(house.tcp, sent, want)
        # The size of a head counts from where the parser waits for one.
        again = tried(house.tcp, sent, want, first=b"" if section == "sizes" else LIVEZ)
        if not seen == again == want:
            wrong.append(f"{said}: wanted {want}, got {seen}, and {again} in second place")
        unix = tried(house.unix, sent, want)
        rows.append((said, seen, unix, tried(house.diagnostics, sent, want)))
    assert not wrong, "\n".join(wrong)
    check_section(section, HEADS, rows)
    assert house.daemon.get("/livez").status == 200
    assert not [line for line in house.daemon.logs() if line["event"] == "request_failed"]


# --- slow clients ----------------------------------------------------------------------------

SLOW_S = 10.0
_HALF_POST = request("POST /v1/report HTTP/1.1", OURS, JSON, "Content-Length: 31")
SLOW = (
    ("a head of which nothing more comes", b"GET /allowed HTTP/1.1\r\nHost: lo", b"", "closed"),
    ("a head, byte by byte without an end", b"GET /v1/status HTTP/1.1\r\n", b"X", "closed"),
    ("half of a report's head", _HALF_POST[:-4], b"", "closed"),
    ("a body of which nothing more comes", _HALF_POST + REPORT[:4], b"", "408"),
    ("a body, byte by byte", _HALF_POST[:-6] + b"9999\r\n\r\n", b" ", "408"),
)


class _Slow(threading.Thread):
    """A client that sends a part, and then a byte every so often, until it is told something."""

    def __init__(self, address: Address, first: bytes, drip: bytes) -> None:
        super().__init__(daemon=True)
        self._wire, self._first, self._drip = Wire(address), first, drip
        self.seen, self.took_s = "nothing", 0.0

    def run(self) -> None:
        began = time.monotonic()
        self._wire.send(self._first)
        ended = threading.Event()
        dripping = threading.Thread(target=self._keep_dripping, args=(ended,), daemon=True)
        dripping.start()
        try:
            said = self._wire.answer()
            self.seen = "closed" if said is None else str(said)
        except TimeoutError:
            self.seen = "still open"
        self.took_s = time.monotonic() - began
        ended.set()
        dripping.join()
        self._wire.close()

    def _keep_dripping(self, ended: threading.Event) -> None:
        while self._drip and not ended.wait(0.5):
            self._wire.send(self._drip)


@pytest.mark.slow
def test_slow_clients_are_let_go_and_others_served_meanwhile(house: House) -> None:
    clients = [
        [_Slow(address, first, drip) for address in (house.tcp, house.unix)]
        for _, first, drip, _ in SLOW
    ]
    running = list(chain.from_iterable(clients))
    for one in running:
        one.start()
    while any(one.is_alive() for one in running):
        assert house.daemon.allowed().status == 200
        time.sleep(0.1)
    rows = []
    for (said, _, _, want), pair in zip(SLOW, clients, strict=True):
        for one in pair:
            assert one.seen == want, said
            assert SLOW_S - 1 <= one.took_s < 3 * SLOW_S, (said, one.took_s)
        rows.append((said, *(f"{one.seen} within {SLOW_S + 2:g} s" for one in pair)))
    check_section("slow", HEADS[:3], rows)


# --- many ------------------------------------------------------------------------------------

FEW_FILES = (
    sys.executable,
    "-c",
    (
        "import resource, runpy; resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256)); "
        "runpy.run_module('sidecar', run_name='__main__', alter_sys=True)"
    ),
)
MIB = 1 << 20


def _resident(daemon: Daemon) -> int:
    fields = Path(f"/proc/{daemon.pid}/statm").read_text().split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")


def _descriptors(daemon: Daemon) -> int:
    return sum(1 for _ in Path(f"/proc/{daemon.pid}/fd").iterdir())


def _post(instance: str) -> bytes:
    body = json.dumps({"instance": instance, "count_ok": 1}).encode()
    return request(
        "POST /v1/report HTTP/1.1", OURS, JSON, f"Content-Length: {len(body)}", body=body
    )


@pytest.mark.slow
def test_crowds(tmp_path: Path) -> None:
    """Nothing that clients make up without end takes up room without end."""
    state = tmp_path / "state.json"
    nowhere = {
        "consul": {"address": f"127.0.0.1:{free_port()}"},
        "listen": {"state_file": str(state)},
    }
    rows: list[Row] = []
    with Daemon(nowhere, program=FEW_FILES) as daemon, ExitStack() as stack:
        here = (daemon.host, daemon.port)
        metrics = len(daemon.get("/metrics").content)
        before = _resident(daemon)
        for _ in range(400):
            stack.enter_context(closing(socket.create_connection(here, timeout=30)))
        assert daemon.allowed().status == 200
        assert _descriptors(daemon) < 256 - 32
        written = state.stat().st_mtime_ns
        poll_until_sync(lambda: state.stat().st_mtime_ns > written, 30, "the state file is kept up")
        assert any("longest idle" in line["message"] for line in events(daemon, "library"))
        rows.append(
            (
                "400 idle connections where 256 files may be open",
                "200 for the next one; the longest idle are closed; the state file is written on",
            )
        )
        wire = stack.enter_context(closing(Wire(here)))
        for number in range(10_000):
            wire.send(_post(f"made-up-{number}"))
            answer = wire.answer()
            assert answer is not None
            assert answer.status == 202, number
        wire.send(_post("one-too-many"))
        rows.append(("10,001 report instances", f"202 for 10,000 of them, then {wire.answer()}"))
        for number in range(2_000):
            wire.send(request(f"GET /allowed/made-up-{number} HTTP/1.1", OURS, f"X-Id: {number}"))
            answer = wire.answer()
            assert answer is not None
            assert answer.status == 404
        rows.append(("2,000 breakers that don't exist, 2,000 header values", "404"))
        unread = stack.enter_context(closing(socket.create_connection(here)))
        unread.setblocking(False)
        _fill(unread, LIVEZ * 2_000)
        assert daemon.allowed().status == 200
        rows.append(("requests without end, answers unread", "no more is read; others are served"))
        assert len(daemon.get("/metrics").content) < metrics + 16_384
        rows.append(("`/metrics` after all that", "as long as before, to 16 KB"))
        assert _resident(daemon) - before < 96 * MIB
        rows.append(("memory after all that", "grown by less than 96 MiB"))
    check_section("crowds", ("tried", "seen"), rows)


def _fill(sock: socket.socket, data: bytes) -> None:
    """Send until for a while nothing is taken any more; 64 MiB say that there is no bound."""
    sent, since = 0, time.monotonic()
    while time.monotonic() < since + 1.0:
        try:
            sent += sock.send(data)
            since = time.monotonic()
        except BlockingIOError:
            time.sleep(0.02)
        assert sent < 64 * MIB


# --- orders ----------------------------------------------------------------------------------

_FORCE = json.dumps({"mode": "shadow", "ttl_s": 60, "reason": "a test"}).encode()


def _order(*headers: str) -> bytes:
    length = f"Content-Length: {len(_FORCE)}"
    line = "PUT /v1/breakers/default/override HTTP/1.1"
    return request(line, OURS, JSON, length, *headers, body=_FORCE)


def _bearer(value: str) -> str:
    return f"Authorization: {value}"


RELEASE = request("DELETE /v1/breakers/default/override HTTP/1.1", OURS)
FORGET = request("DELETE /v1/breakers/default HTTP/1.1", OURS)
ORDERS_WITH_TOKEN = (
    ("no token", _order(), "401 unauthorized"),
    ("release without a token", RELEASE, "401 unauthorized"),
    ("forget without a token", FORGET, "401 unauthorized"),
    ("a wrong token", _order(_bearer("Bearer wrong")), "401 unauthorized"),
    ("the token's beginning", _order(_bearer(f"Bearer {TOKEN[:-1]}")), "401 unauthorized"),
    ("the token and more", _order(_bearer(f"Bearer {TOKEN}x")), "401 unauthorized"),
    ("an empty token", _order(_bearer("Bearer ")), "401 unauthorized"),
    ("a token of bytes beyond ASCII", _order(_bearer("Bearer \xff\xfe")), "401 unauthorized"),
    ("`Basic` with the token", _order(_bearer(f"Basic {TOKEN}")), "401 unauthorized"),
    ("the token without a scheme", _order(_bearer(TOKEN)), "401 unauthorized"),
    (
        "the token twice, one wrong",
        _order(_bearer("Bearer wrong"), _bearer(f"Bearer {TOKEN}")),
        "401 unauthorized",
    ),
    (
        "the token in the query",
        _order().replace(b"/override ", f"/override?token={TOKEN} ".encode(), 1),
        "401 unauthorized",
    ),
    (
        "the token, from a foreign `Origin`",
        _order(_bearer(f"Bearer {TOKEN}"), "Origin: https://evil.example"),
        "403 forbidden-origin",
    ),
    ("the token", _order(_bearer(f"Bearer {TOKEN}")), "200"),
    ("`bearer` and the token", _order(_bearer(f"bearer {TOKEN}")), "200"),
)


@pytest.mark.consul
def test_orders(place: Place, house: House, tmp_path: Path) -> None:
    """Who may force a breaker: a bearer token over TCP, the socket's file mode, or nobody."""
    token, path = tmp_path / "token", tmp_path / "s"
    token.write_text(TOKEN + "\n")
    rows: list[Row] = []
    listen = {"socket": str(path)}
    with Daemon(place.config(admin={"token_file": str(token)}, listen=listen)) as daemon:
        poll_until_sync(lambda: place.state() == "CLOSED", 30, "a record")
        here = (daemon.host, daemon.port)

        def note(how: str, what: str, sent: bytes, want: str, address: Address = here) -> None:
            seen = tried(address, sent, want)
            assert seen == want, (how, what, seen)
            rows.append((how, what, seen))

        with_token = "TCP, `admin.token_file` set"
        for what, sent, want in ORDERS_WITH_TOKEN:
            note(with_token, what, sent, want)
        note("unix socket", "no token", _order(), "200", str(path))
        token.write_text("another\n")
        note(
            with_token,
            "the token before it was changed",
            ORDERS_WITH_TOKEN[-1][1],
            "401 unauthorized",
        )
        token.write_text("")
        note(
            with_token,
            "an empty token, the file being empty",
            _order(_bearer("Bearer ")),
            "503 token-file-unusable",
        )
        token.unlink()
        note(
            with_token,
            "the token, the file being gone",
            ORDERS_WITH_TOKEN[-2][1],
            "503 token-file-unusable",
        )
    with Daemon(place.config(listen=listen)) as daemon:
        here = (daemon.host, daemon.port)
        for what, sent in (("force", _order()), ("release", RELEASE), ("forget", FORGET)):
            note("TCP, no token configured", what, sent, "403 orders-need-a-token", here)
        note(
            "TCP, no token configured",
            "force with some token",
            _order(_bearer(f"Bearer {TOKEN}")),
            "403 orders-need-a-token",
            here,
        )
        note("unix socket, no token configured", "force", _order(), "200", str(path))
    note("TCP, `store: memory`", "force", _order(), "200", house.tcp)
    note("TCP, `store: memory`", "release", RELEASE, "204", house.tcp)
    note("diagnostics", "force", _order(), "404", house.diagnostics)
    check_section("orders", ("where", "request tried", "seen"), rows)
