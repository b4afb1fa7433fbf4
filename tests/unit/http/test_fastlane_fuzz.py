"""The fast lane and aiohttp's own path give the same answers, whatever bytes come.

Raw bytes go to two real listeners that know the same, and everything that can be told from outside
must be equal: each byte but those of the date, whether the connection is still open and idle,
what was counted and spent, and which reports were taken in.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import uvloop
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from tests.unit.http.support import Clock
from tests.unit.http.twins import Fate, Happening, Side, converse, known

Conversation = tuple[list[bytes | Happening], bool, float]
"""(what is sent, each part in a read of its own, with what happens in between; wait after each;
how far the clock moves before it)"""

PLAIN = [
    b"GET /allowed HTTP/1.1\r\nHost: localhost:9100\r\n\r\n",
    b"HEAD /allowed HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\n\r\n",
    b"GET /allowed/open?deny_status=403 HTTP/1.1\r\nhost: a.b\r\nX-Original-URI: /x?y\r\n\r\n",
    b"GET /allowed/half.open_1 HTTP/1.1\r\nHost: [::1]:9100\r\nUser-Agent: curl/8\r\n\r\n",
    b"HEAD /allowed/shadow HTTP/1.1\r\nHost:  x \r\nAccept: */*\r\nCookie: a=b; c=d\r\n\r\n",
]
REPORT = b'{"instance":"c-1","count_ok":1}'
REPORTS = [
    b'{"instance":"c-2","count_ok":10,"count_fail":2.5,"lag":120,"latency_ms":12.5}',
    b' {"instance" : "c.3", "role":"producer","in_flight":null,"timestamp":[1]}\r\n\r\n',
    b'{"count_fail":1,"instance":"' + b"x" * 128 + b'"}',
    b'{"instance":"c-1","count_ok":1e15,"rate_ok":1}',
]
FAULTY = [
    *[b"", b"{", b"[]", b'{"instance":"-"}', b'{"instance":"c","count_ok":-1}', b"GET / HTTP/1.1"],
    *[b'{"instance":"c","zz":1}', b'\xef\xbb\xbf{"instance":"c"}', b'{"instance":"c","lag":NaN}'],
    *[b'{"instance":"\xff"}', b'{"instance":"c","count_ok":true}', b'{"instance":"c"}{}'],
]
PLACES = [
    *[b"/v1/report/default", b"/v1/report/open", b"/v1/report/half.open_1", b"/v1/report/shadow"],
    *[b"/v1/report/", b"/v1/report/nobody", b"/v1/report?x=1", b"/v1/report/open/c-1", b"/v1"],
]
HOSTS = [
    *[b"Host: 127.0.0.1:9100", b"Host: LOCALHOST", b"Host: evil.example", b"Host:", b"Host: a b"],
    *[b"Host: localhost:x", b"Host: [::1", b"Host: localhost.evil"],
]
TYPES = [
    *[b"content-type:application/json; charset=utf-8", b"Content-Type: APPLICATION/JSON;a=b"],
    *[b"Content-Type: text/plain", b"Content-Type: application/jsonx", b"Content-Type: ,"],
    *[b"Content-Type: application/json, text/plain", b"Content-Type: application/json;"],
]
BESIDE = [
    *[b"Accept: */*", b"User-Agent: curl/8", b"Connection: keep-alive", b"X-Request-Id: 1"],
    *[b"Origin: https://evil.example", b"Origin: http://localhost", b"Sec-Fetch-Site: cross-site"],
    *[b"Sec-Fetch-Site: none", b"Content-Encoding: gzip", b"Content-Encoding: identity"],
    *[b"Expect: 100-continue", b"Transfer-Encoding: chunked", b"Connection: close"],
]

methods = st.sampled_from(
    [b"GET"] * 8 + [b"HEAD"] * 4 + [b"POST", b"get", b"GETX", b"OPTIONS", b"CONNECT", b"PRI", b""]
)
targets = st.sampled_from(
    [
        *[b"/allowed", b"/allowed/default", b"/allowed/open", b"/allowed/half.open_1"] * 3,
        *[b"/allowed/sheds"] * 3,
        *[b"/allowed/shadow", b"/allowed/open?deny_status=401", b"/allowed?deny_status=429"] * 2,
        *[b"/allowed/", b"/allowed/nobody", b"/allowed/..", b"/allowed/open/x", b"/Allowed"],
        *[b"/allowed?deny_status=500", b"/allowed?deny_status=403&peek=1", b"/allowed?peek=1"],
        *[b"/allowed/%6fpen", b"/allowed/open?", b"/allowed#x", b"//allowed", b"/allowed/op en"],
        *[b"http://localhost/allowed", b"*", b"/allowed/\xc3\xa9", b"/allowed/half.open_1?x=%"],
        *[b"/livez", b"/v1/breakers", b"/v1/report", b"/ext_authz/open/x", b"/nothing"],
    ]
)
versions = st.sampled_from(
    [b"HTTP/1.1"] * 12 + [b"HTTP/1.0", b"HTTP/2.0", b"HTTP/0.9", b"http/1.1", b"HTTP/1.1 ", b""]
)
names = st.sampled_from(
    [
        *[b"X-Request-Id", b"User-Agent", b"Accept", b"accept-encoding", b"Cookie", b"Origin"] * 2,
        *[b"Connection", b"Content-Length", b"Transfer-Encoding", b"Expect", b"Upgrade", b"Host"],
        *[b"TE", b"Trailer", b"Proxy-Connection", b"Keep-Alive", b"Content-Type", b"X_Y", b"a b"],
        *[b"Content-Encoding", b"Sec-WebSocket-Key1", b"Sec-WebSocket-Key", b"X-\xe9", b"", b" x"],
        *[b"HTTP2-Settings", b"Range", b"If-None-Match", b"X-HTTP-Method-Override", b"ETag"],
    ]
)
values = st.one_of(
    st.sampled_from(
        [
            *[
                b"x",
                b"",
                b"keep-alive",
                b"Keep-Alive",
                b"close",
                b"upgrade",
                b"keep-alive, Upgrade",
            ],
            *[b"0", b"1", b"5", b"31", b"-1", b"+1", b"99999", b"chunked", b"gzip, chunked"],
            *[b"100-continue", b"websocket", b"h2c", b"GZIP", b"a\tb", b" x \t", b"\x00", b"\x7f"],
            *[b"\xc3\xa9", b"a\x0bb", b"a\rb", b"folded\r\n more", b"identity", b"localhost"],
        ]
    ),
    st.binary(max_size=12),
)
ends = st.sampled_from([b"\r\n"] * 30 + [b"\n", b"\r", b"\r\r\n", b" \r\n"])
bodies = st.sampled_from([b""] * 12 + [b"x", b"hello", REPORT, b"5\r\nhello\r\n0\r\n\r\n", b"\r\n"])


@st.composite
def built(draw: st.DrawFn) -> bytes:
    """A request from parts, most of them ordinary."""
    end = draw(ends)
    lines = [b" ".join([draw(methods), draw(targets), draw(versions)])]
    if draw(st.integers(0, 11)):
        lines.append(b"Host: localhost")
    for name, value in draw(st.lists(st.tuples(names, values), max_size=4)):
        lines.append(name + draw(st.sampled_from([b": ", b":", b" : ", b""])) + value)
    headers = draw(st.permutations(lines[1:]))
    return end.join([lines[0], *headers]) + end + draw(ends) + draw(bodies)


def posted(body: bytes, place: bytes = b"/v1/report") -> bytes:
    """A report as clients send it."""
    return (
        b"POST %b HTTP/1.1\r\nHost: localhost:9100\r\nAccept: */*\r\n"
        b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
    ) % (place, len(body), body)


@st.composite
def reported(draw: st.DrawFn) -> bytes:
    """A report with its body, in any order, and perhaps something wrong with it."""
    body = draw(st.sampled_from([REPORT] * 6 + REPORTS + FAULTY))
    length = len(body) + draw(st.sampled_from([0] * 12 + [1, -1]))
    lines = [
        draw(st.sampled_from([b"Host: localhost", b"host:[::1]:9100"] * 5 + HOSTS)),
        draw(st.sampled_from([b"Content-Type: application/json"] * 8 + TYPES)),
        b"Content-Length: %d" % length,
        *draw(st.lists(st.sampled_from(BESIDE), max_size=1)),
    ]
    what = draw(st.integers(0, 7))
    if what == 0:
        del lines[draw(st.integers(0, 2))]
    elif what == 1:
        lines.append(b": ".join(draw(st.tuples(names, values))))
    line = b"POST " + draw(st.sampled_from([b"/v1/report"] * 9 + PLACES)) + b" HTTP/1.1"
    return b"\r\n".join([line, *draw(st.permutations(lines)), b"", body])


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A plain request with a few bytes changed, dropped, doubled or put in."""
    data = bytearray(draw(st.one_of(plain, report)))
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(data) - 1))
        what = draw(st.integers(0, 3))
        if what == 0:
            data[at] = draw(st.integers(0, 255))
        elif what == 1 and len(data) > 1:
            del data[at]
        elif what == 2:
            data[at:at] = draw(st.sampled_from([b"\r", b"\n", b"\r\n", b" ", b"\x00", b":", b"/"]))
        else:
            data[at:at] = data[at : at + draw(st.integers(1, 20))]
    return bytes(data)


@st.composite
def spiced(draw: st.DrawFn) -> bytes:
    """A plain request with one more header, often one that means something to HTTP itself."""
    steering = st.sampled_from(
        [
            *[b"Connection: close", b"connection:Close", b"Connection: keep-alive, close"],
            *[b"Connection: Upgrade", b"Proxy-Connection: close", b"Upgrade: websocket"],
            *[b"Content-Length: 0", b"Content-Length: 5", b"Content-Length: 48", b"Host: b"],
            *[
                b"Transfer-Encoding: chunked",
                b"Expect: 100-continue",
                b"Expect: x",
                b"TE: trailers",
            ],
        ]
    )
    ordinary = st.tuples(names, values).map(b": ".join)
    head, _, body = draw(st.one_of(plain, report)).partition(b"\r\n\r\n")
    return head + b"\r\n" + draw(st.one_of(steering, ordinary)) + b"\r\n\r\n" + body


@st.composite
def broken_off(draw: st.DrawFn) -> bytes:
    """The beginning of a request; what is sent next is its rest, whatever it looks like."""
    whole = draw(st.one_of(plain, report))
    return whole[: draw(st.integers(1, len(whole) - 1))]


plain = st.sampled_from(PLAIN)
report = st.builds(posted, st.sampled_from([REPORT, *REPORTS]), st.sampled_from(PLACES[:4]))
# Not `one_of`, to which twice the same is once.
requests = st.sampled_from(
    [*[plain] * 5, *[report] * 5, *[reported()] * 2, built(), mutated(), spiced(), broken_off()]
).flatmap(lambda strategy: strategy)


changes: st.SearchStrategy[Happening] = st.sampled_from(
    [0.3, 1.0, "opens", "closes", "halves", "goes", "comes", "answers 403"]
)


@st.composite
def again(draw: st.DrawFn, whole: st.SearchStrategy[bytes]) -> list[bytes]:
    """The same more than once, as producers ask."""
    asked = [draw(plain), *draw(st.lists(whole, max_size=3))]
    return [one for one in asked for _ in range(draw(st.integers(1, 4)))]


@st.composite
def changing(draw: st.DrawFn) -> list[bytes | Happening]:
    """Plain requests, again and again, while something changes.

    Only whole ones: aiohttp looks a breaker up when it has a head, the lane when it has all.
    """
    said: list[bytes | Happening] = []
    for one in draw(again(st.one_of(plain, report))):
        said += [one, draw(changes)] if draw(st.integers(0, 2)) == 0 else [one]
    return said


@st.composite
def conversations(draw: st.DrawFn) -> Conversation:
    """What may be said over one connection."""
    how = draw(st.sampled_from(["each", "each", "again", "changing", "apart", "pipelined", "cut"]))
    if how == "changing":
        said = draw(changing())
    else:
        asked = draw(
            again(requests) if how == "again" else st.lists(requests, min_size=1, max_size=4)
        )
        if how == "pipelined":
            asked = [b"".join(asked)]
        elif how == "apart":  # head and body
            parts = [whole.partition(b"\r\n\r\n") for whole in asked]
            asked = [part for head, end, body in parts for part in (head + end, body)]
        elif how == "cut":
            whole = b"".join(asked)
            cuts = sorted(draw(st.lists(st.integers(0, len(whole)), min_size=1, max_size=3)))
            asked = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
        said = [part for part in asked if part]
    return said, draw(st.booleans()), draw(st.sampled_from([0.0, 0.0, 0.3, 1.0]))


class Twins:
    """Both listeners on one event loop."""

    def __init__(self, folder: Path, runner: asyncio.Runner) -> None:
        self.runner = runner
        self.sides = [
            Side(folder / name, known(clock), lane, clock)
            for name, lane, clock in (("lane", True, Clock()), ("aiohttp", False, Clock()))
        ]
        for side in self.sides:
            runner.run(side.start())

    def converse(
        self, chunks: list[bytes | Happening], *, settle: bool, ahead_s: float
    ) -> list[Fate]:
        for side in self.sides:
            side.happen(ahead_s)
            side.reset()  # one difference must not look like many

        async def both() -> list[Fate]:
            return [await converse(side, chunks, settle=settle) for side in self.sides]

        return self.runner.run(both())

    def close(self) -> None:
        for side in self.sides:
            if side.listeners is not None:
                self.runner.run(side.listeners.stop(1.0))


@pytest.fixture(scope="module", params=["asyncio", "uvloop"])
def twins(request: pytest.FixtureRequest) -> Iterator[Twins]:
    factory: Callable[[], asyncio.AbstractEventLoop] | None = (
        uvloop.new_event_loop if request.param == "uvloop" else None
    )
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="twins-")))
        runner = stack.enter_context(asyncio.Runner(loop_factory=factory))
        both = Twins(folder, runner)
        stack.callback(both.close)
        yield both


def compare(twins: Twins, conversation: Conversation) -> None:
    chunks, settle, ahead_s = conversation
    lane, aiohttp = twins.sides
    before = lane.in_lane, lane.again
    with_lane, without = twins.converse(chunks, settle=settle, ahead_s=ahead_s)
    event(f"{lane.in_lane - before[0]} answered by the lane")
    event(f"{lane.again - before[1]} answered as the one before")
    # Told in full: what depends on the moment may not come twice.
    assert with_lane == without, f"{conversation!r}: {with_lane!r} instead of {without!r}"
    assert lane.log.events == aiohttp.log.events, f"{conversation!r}"


def cases(count: int) -> settings:
    """So many on both event loops together."""
    return settings(
        max_examples=count // 2,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


@cases(2_000)
@given(conversation=conversations())
def test_both_paths_say_the_same(twins: Twins, conversation: Conversation) -> None:
    compare(twins, conversation)


@pytest.mark.slow
@cases(20_000)
@given(conversation=conversations())
def test_both_paths_say_the_same_for_long(twins: Twins, conversation: Conversation) -> None:
    compare(twins, conversation)
