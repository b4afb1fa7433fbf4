"""Requests that try the door, and what a client over TCP is to be told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tests.door import request

REPORT = b'{"instance":"c-1","count_ok":1}'
OURS = "Host: localhost"
JSON = "Content-Type: application/json"
LENGTH = f"Content-Length: {len(REPORT)}"
CHUNKED = "Transfer-Encoding: chunked"
CHUNKS = b"%x\r\n%b\r\n0\r\n\r\n" % (len(REPORT), REPORT)
STATUS = "GET /v1/status HTTP/1.1"
ALLOWED = "GET /allowed HTTP/1.1"
POST = "POST /v1/report HTTP/1.1"
EVIL = "evil.example"
SPOILT = "400, closed"

Case = tuple[str, bytes, str]
"""(what is tried, the request, what comes over TCP)."""


def _host(value: str, want: str) -> Case:
    shown = value.encode("ascii", "backslashreplace").decode() or "(empty)"
    return f"`Host: {shown}`", request(STATUS, f"Host: {value}"), want


def _origin(value: str, want: str) -> Case:
    sent = request(POST, OURS, JSON, LENGTH, f"Origin: {value}", body=REPORT)
    return f"report with `Origin: {value or '(empty)'}`", sent, want


def _report(said: str, want: str, *headers: str, body: bytes = REPORT, line: str = POST) -> Case:
    return said, request(line, OURS, *headers, body=body), want


def _path(target: str, want: str, host: str = "localhost", *, said: str = "") -> Case:
    shown = said or f"`{target}`"
    foreign = "" if host == "localhost" else f", `Host: {host}`"
    return shown + foreign, request(f"GET {target} HTTP/1.1", f"Host: {host}"), want


HOST: Sequence[Case] = (
    *(
        _host(name, "200")
        for name in (
            "localhost",
            "LOCALHOST:9100",
            "localhost.",
            "127.0.0.1",
            "127.9.8.7:1",
            "[::1]",
            "[::1]:9100",
            "[0:0:0:0:0:0:0:1]",
            "gateway.example:8080",
        )
    ),
    *(
        _host(name, "403 forbidden-host")
        for name in (
            EVIL,
            "localhost.evil.example",
            "127.0.0.1.nip.io",
            "a.localhost",
            "xn--lcalhost-54a",
            "\xef\xbd\x8cocalhost",
            "localhost@evil.example",
            "evil.example@localhost",
            "localhost,evil.example",
            "localhost evil.example",
            "localhost:port",
            "0.0.0.0",
            "127.1",
            "2130706433",
            "::1",
            "[::ffff:127.0.0.1]",
            "[::1%25lo]",
            "10.0.0.1:9100",
            "",
        )
    ),
    ("no `Host`", request(STATUS), SPOILT),
    ("no `Host`, HTTP/1.0", request("GET /v1/status HTTP/1.0"), "403 forbidden-host, closed"),
    ("`Host` twice, both ours", request(STATUS, OURS, OURS), SPOILT),
    ("`Host` twice, one foreign", request(STATUS, OURS, f"Host: {EVIL}"), SPOILT),
    (
        "target `http://evil.example/v1/status`, `Host: localhost`",
        request(f"GET http://{EVIL}/v1/status HTTP/1.1", OURS),
        "403 forbidden-host",
    ),
    (
        "target `http://localhost/v1/status`, `Host: evil.example`",
        request("GET http://localhost/v1/status HTTP/1.1", f"Host: {EVIL}"),
        "403 forbidden-host",
    ),
    (
        "a rebound name: a page of `evil.example:9100` that resolves to 127.0.0.1 reports",
        request(
            POST,
            f"Host: {EVIL}:9100",
            f"Origin: http://{EVIL}:9100",
            "Sec-Fetch-Site: same-origin",
            JSON,
            LENGTH,
            body=REPORT,
        ),
        "403 forbidden-host",
    ),
    *(
        (
            f"`{path}`, `Host: evil.example`",
            request(f"GET {path} HTTP/1.1", f"Host: {EVIL}"),
            "403 forbidden-host",
        )
        for path in ("/", "/openapi.json", "/v1/nothing", "/V1/status", "//v1/status")
    ),
)

ORIGIN: Sequence[Case] = (
    _origin("http://localhost:3000", "202"),
    _origin("https://127.0.0.1", "202"),
    _origin("http://[::1]:8080", "202"),
    *(
        _origin(value, "403 forbidden-origin")
        for value in (
            "https://evil.example",
            "http://localhost.evil.example",
            "http://localhost@evil.example",
            "null",
            "",
            "file://",
            "chrome-extension://abcdef",
        )
    ),
    (
        "a preflight of another site",
        request(
            "OPTIONS /v1/report HTTP/1.1",
            OURS,
            "Origin: https://evil.example",
            "Access-Control-Request-Method: POST",
        ),
        "403 forbidden-origin",
    ),
    *(
        (
            f"`Sec-Fetch-Site: {site}`",
            request(STATUS, OURS, *(f"Sec-Fetch-Site: {one}" for one in site.split(" and "))),
            want,
        )
        for site, want in (
            ("none", "200"),
            ("same-origin", "200"),
            ("same-site", "200"),
            ("cross-site", "403 cross-site"),
            ("CROSS-SITE", "403 cross-site"),
            ("none and cross-site", "403 cross-site"),
        )
    ),
)

_FOREIGN = (f"Host: {EVIL}", "Origin: https://evil.example", "Sec-Fetch-Site: cross-site")
OPEN: Sequence[Case] = (
    *(
        (
            f"`{method} {path}`, foreign `Host`, `Origin` and `Sec-Fetch-Site`",
            request(f"{method} {path} HTTP/1.1", *_FOREIGN),
            "200",
        )
        for method, path in (
            ("GET", "/allowed"),
            ("HEAD", "/allowed"),
            ("GET", "/allowed/default"),
            ("GET", "/ext_authz/default/any/path"),
            ("POST", "/ext_authz/default/any/path"),
            ("GET", "/livez"),
            ("GET", "/readyz"),
            ("GET", "/metrics"),
            ("GET", "/version"),
        )
    ),
    (
        "`/ext_authz/default/`, a body that is anything",
        request(
            "PUT /ext_authz/default/ HTTP/1.1",
            *_FOREIGN,
            "Content-Type: image/png",
            "Content-Length: 4",
            body=b"\x89PNG",
        ),
        "200",
    ),
)

METHODS: Sequence[Case] = (
    *(
        (f"`{method} {path}`", request(f"{method} {path} HTTP/1.1", OURS), f"405, Allow: {allow}")
        for method, path, allow in (
            ("POST", "/allowed", "GET,HEAD"),
            ("DELETE", "/allowed/default", "GET,HEAD"),
            ("TRACE", "/allowed", "GET,HEAD"),
            ("POST", "/metrics", "GET,HEAD"),
            ("POST", "/v1/status", "GET,HEAD"),
            ("PUT", "/v1/breakers", "GET,HEAD"),
            ("POST", "/v1/breakers/default", "DELETE,GET,HEAD"),
            ("POST", "/v1/breakers/default/override", "DELETE,PUT"),
            ("GET", "/v1/report", "POST"),
            ("PUT", "/v1/report/default", "POST"),
            ("GET", "/v1/report/default/c-1", "DELETE"),
            ("POST", "/openapi.json", "GET,HEAD"),
        )
    ),
    (
        "`POST /v1/report/default/c-1`, `X-HTTP-Method-Override: DELETE`",
        request(
            "POST /v1/report/default/c-1 HTTP/1.1",
            OURS,
            "X-HTTP-Method-Override: DELETE",
            "Content-Length: 0",
        ),
        "405, Allow: DELETE",
    ),
    ("`OPTIONS *`", request("OPTIONS * HTTP/1.1", OURS), "404"),
    ("`CONNECT localhost:9100`", request("CONNECT localhost:9100 HTTP/1.1", OURS), "404"),
    ("`BREW /allowed`", request("BREW /allowed HTTP/1.1", OURS), SPOILT),
    ("`get /allowed`", request("get /allowed HTTP/1.1", OURS), SPOILT),
)

BODIES: Sequence[Case] = (
    _report("`application/json`", "202", JSON, LENGTH),
    _report("`application/json; charset=utf-8`", "202", f"{JSON}; charset=utf-8", LENGTH),
    _report(
        "`application/json; charset=utf-16`: JSON is UTF-8 whatever is said",
        "202",
        f"{JSON}; charset=utf-16",
        LENGTH,
    ),
    _report("no `Content-Type`", "415", LENGTH),
    _report(
        "`text/plain`, as a form of another site sends", "415", "Content-Type: text/plain", LENGTH
    ),
    _report(
        "`application/x-www-form-urlencoded`",
        "415",
        "Content-Type: application/x-www-form-urlencoded",
        LENGTH,
    ),
    _report(
        "`text/plain; application/json`",
        "415",
        "Content-Type: text/plain; application/json",
        LENGTH,
    ),
    _report("`application/json+x`", "415", f"{JSON}+x", LENGTH),
    _report("`Content-Type` twice", SPOILT, JSON, "Content-Type: text/plain", LENGTH),
    _report("`Content-Encoding: gzip`", "415", JSON, LENGTH, "Content-Encoding: gzip"),
    _report(
        "`Transfer-Encoding: gzip, chunked`",
        "501",
        JSON,
        "Transfer-Encoding: gzip, chunked",
        body=CHUNKS,
    ),
    _report("no JSON", "400 bad-report", JSON, "Content-Length: 3", body=b"{a}"),
    _report(
        "no UTF-8", "400 bad-report", JSON, "Content-Length: 17", body=b'{"instance":"\xff\xfe"}'
    ),
    _report(
        "65,536 levels of JSON",
        "400 bad-report",
        JSON,
        "Content-Length: 65536",
        body=b"[" * 65536,
    ),
    _report("64 KiB and a byte announced", "413", JSON, "Content-Length: 65537", body=b""),
    _report(
        "64 KiB and a byte in chunks, no length",
        "413",
        JSON,
        CHUNKED,
        body=b"10001\r\n" + b" " * 65537 + b"\r\n0\r\n\r\n",
    ),
    _report(
        "instance `../../breaker/state`",
        "400 bad-report",
        JSON,
        "Content-Length: 37",
        body=b'{"instance":"../../breaker/state    "}'[:37],
    ),
    _report("`Expect: 100-continue`", "100, 202", JSON, LENGTH, "Expect: 100-continue"),
    _report("`Expect: 200-ok`", "417", JSON, LENGTH, "Expect: 200-ok"),
)

PATHS: Sequence[Case] = (
    _path("/allowed/../v1/status", "404", EVIL),
    _path("/allowed/%2e%2e/v1/status", "404", EVIL),
    _path("/allowed%2f..%2fv1%2fstatus", "404", EVIL),
    _path("/metrics/../v1/status", "404", EVIL),
    _path("/ext_authz/default/../../v1/status", "200", EVIL),
    _path("/v1%2fstatus", "403 forbidden-host", EVIL),
    _path("/v1%2fstatus", "404"),
    _path("/%76%31/status", "403 forbidden-host", EVIL),
    _path("/%76%31/status", "200"),
    _path("//allowed", "404"),
    _path("//evil.example/allowed", "404"),
    _path("/allowed//default", "404"),
    _path("/allowed/", "404"),
    _path("/v1/status/", "404"),
    _path("/v1/status;a=b", "404"),
    _path("/ALLOWED", "404"),
    _path("/allowed\\default", "404"),
    _path("/allowed/%00", "404 unknown-breaker"),
    _path("/allowed/a%0d%0aX-Evil:%201", "404 unknown-breaker"),
    _path("/allowed/%ff", "404 unknown-breaker"),
    _path("/allowed/%c0%ae%c0%ae", "404 unknown-breaker"),
    _path("/allowed/%zz", "404 unknown-breaker"),
    _path("/allowed?deny_status=%00%ff%0a", "400 bad-parameter"),
    _path("/allowed?deny_status=403&deny_status=200", "200"),
    _path("/v1/breakers/default?index=-1", "400 bad-parameter"),
    _path("/v1/breakers/default?index=0&wait=1e9h", "400 bad-parameter"),
    _path("https://localhost/allowed", "200"),
    _path("*", SPOILT),
    _path("localhost:9100", SPOILT),
    _path("\\v1\\status", SPOILT),
    _path("/allowed /x", SPOILT),
    _path("/allowed/\xe9", SPOILT, said="`/allowed/` and the byte E9"),
    _path("/allowed/\x00", SPOILT, said="`/allowed/` and the byte 00"),
)

_GET_EVIL = request(STATUS, f"Host: {EVIL}")
FRAMING: Sequence[Case] = (
    _report(
        "`Content-Length` and `Transfer-Encoding`",
        SPOILT,
        JSON,
        LENGTH,
        CHUNKED,
        body=b"0\r\n\r\n" + _GET_EVIL,
    ),
    _report("two `Content-Length`, equal", SPOILT, JSON, LENGTH, LENGTH),
    _report("two `Content-Length`, different", SPOILT, JSON, LENGTH, "Content-Length: 5"),
    *(
        _report(f"`Content-Length: {value or '(empty)'}`", SPOILT, JSON, f"Content-Length: {value}")
        for value in ("-1", "+31", "0x1f", "3_1", "31, 31", "99999999999999999999", "")
    ),
    *(
        _report(
            f"`Transfer-Encoding: {value}`",
            SPOILT,
            JSON,
            f"Transfer-Encoding: {value}",
            body=CHUNKS,
        )
        for value in ("xchunked", "chunked, chunked", "chunked, gzip", "identity")
    ),
    _report(
        "`Transfer-Encoding` with a vertical tab",
        SPOILT,
        JSON,
        "Transfer-Encoding: \x0bchunked",
        body=CHUNKS,
    ),
    _report(
        "`Transfer-Encoding` twice",
        SPOILT,
        JSON,
        CHUNKED,
        "Transfer-Encoding: identity",
        body=CHUNKS,
    ),
    _report(
        "`Transfer-Encoding : chunked`: a space before the colon",
        SPOILT,
        JSON,
        LENGTH,
        "Transfer-Encoding : chunked",
    ),
    _report(
        "`Transfer-Encoding` folded onto a second line",
        SPOILT,
        JSON,
        "Transfer-Encoding:\r\n chunked",
        body=CHUNKS,
    ),
    _report(
        "`Transfer-Encoding` in HTTP/1.0",
        "202, closed",
        JSON,
        CHUNKED,
        body=CHUNKS,
        line="POST /v1/report HTTP/1.0",
    ),
    _report("chunks", "202", JSON, CHUNKED, body=CHUNKS),
    _report(
        "chunks with an extension",
        "202",
        JSON,
        CHUNKED,
        body=b"1f;a=b\r\n" + REPORT + b"\r\n0\r\n\r\n",
    ),
    _report(
        "chunks, `Host: evil.example` in the trailer",
        "202",
        JSON,
        CHUNKED,
        body=CHUNKS[:-2] + b"Host: evil.example\r\n\r\n",
    ),
    *(
        _report(
            f"chunk size `{shown}`",
            SPOILT,
            JSON,
            CHUNKED,
            body=size + b"\r\n" + REPORT + b"\r\n0\r\n\r\n",
        )
        for shown, size in (
            ("zz", b"zz"),
            ("-1", b"-1"),
            ("0x1f", b"0x1f"),
            ("fffffffffffffffff", b"f" * 17),
            ("1f;(line feed)", b"1f;\n"),
        )
    ),
    _report(
        "a chunk without its end", SPOILT, JSON, CHUNKED, body=b"1f\r\n" + REPORT + b"0\r\n\r\n"
    ),
    ("a header folded onto a second line", request(ALLOWED, OURS, "X: a\r\n b"), SPOILT),
    ("a first header that begins with a space", request(ALLOWED, " X: a", OURS), SPOILT),
    ("lines that end with LF alone", request(ALLOWED, OURS, end="\n"), SPOILT),
    ("lines that end with CR alone", request(ALLOWED, OURS, end="\r"), SPOILT),
    ("CR inside a value", request(ALLOWED, OURS, "X: a\rb"), SPOILT),
    ("NUL inside a value", request(ALLOWED, OURS, "X: a\x00b"), SPOILT),
    ("`Host : localhost`", request(ALLOWED, "Host : localhost"), SPOILT),
    ("a header without a colon", request(ALLOWED, OURS, "colonless"), SPOILT),
    ("a header without a name", request(ALLOWED, OURS, ": x"), SPOILT),
    ("a space in a header's name", request(ALLOWED, OURS, "a b: x"), SPOILT),
    (
        "a foreign request behind a body that ends",
        request(ALLOWED, OURS, "Content-Length: 5", body=b"hello" + _GET_EVIL),
        "200, 403 forbidden-host",
    ),
    (
        "a foreign request behind `Upgrade: websocket`",
        request(ALLOWED, OURS, "Connection: Upgrade", "Upgrade: websocket", body=_GET_EVIL),
        "200, 403 forbidden-host",
    ),
    (
        "three requests at once, the second foreign",
        request(ALLOWED, OURS) + _GET_EVIL + request("GET /livez HTTP/1.1", OURS),
        "200, 403 forbidden-host, 200",
    ),
)

VERSIONS: Sequence[Case] = (
    ("HTTP/1.0", request("GET /allowed HTTP/1.0"), "200, closed"),
    ("HTTP/0.9, without a version", b"GET /allowed\r\n\r\n", "505, closed"),
    ("HTTP/1.2", request("GET /allowed HTTP/1.2", OURS), SPOILT),
    ("HTTP/2.0 in a request line", request("GET /allowed HTTP/2.0", OURS), "505, closed"),
    ("HTTP/9.9", request("GET /allowed HTTP/9.9", OURS), SPOILT),
    ("`http/1.1`", request("GET /allowed http/1.1", OURS), SPOILT),
    ("HTTP/2's preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", SPOILT),
    (
        "`Upgrade: h2c`",
        request(
            ALLOWED,
            OURS,
            "Connection: Upgrade, HTTP2-Settings",
            "Upgrade: h2c",
            "HTTP2-Settings: AAMAAABk",
        ),
        "200",
    ),
    (
        "`Upgrade: websocket`",
        request(ALLOWED, OURS, "Connection: Upgrade", "Upgrade: websocket"),
        "200",
    ),
    (
        "the first bytes of TLS",
        b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03" + b"\x00" * 50,
        SPOILT,
    ),
)

_LARGE_HEAD = request(ALLOWED, OURS)[:-2]
SIZES: Sequence[Case] = (
    ("100 headers", request(ALLOWED, OURS, *(f"X-{n}: 1" for n in range(100))), "200"),
    ("200 headers", request(ALLOWED, OURS, *(f"X-{n}: 1" for n in range(200))), SPOILT),
    ("a header of 40 KB", request(ALLOWED, OURS, "X: " + "x" * 40_000), "200"),
    ("a header of 66 KB", request(ALLOWED, OURS, "X: " + "x" * 66_000), SPOILT),
    (
        "a path of 40 KB",
        request("GET /allowed/" + "a" * 40_000 + " HTTP/1.1", OURS),
        "404 unknown-breaker",
    ),
    ("a path of 66 KB", request("GET /allowed/" + "a" * 66_000 + " HTTP/1.1", OURS), SPOILT),
    ("a method of 100 letters", request("A" * 100 + " /allowed HTTP/1.1", OURS), SPOILT),
    (
        "256 KiB and a byte of headers that each are allowed",
        (_LARGE_HEAD + b"".join(b"X-%d: %b\r\n" % (n, b"x" * 60_000) for n in range(5)))[
            : 256 * 1024 + 1
        ],
        "431, closed",
    ),
)

ALL: Mapping[str, Sequence[Case]] = {
    "host": HOST,
    "origin": ORIGIN,
    "open": OPEN,
    "methods": METHODS,
    "bodies": BODIES,
    "paths": PATHS,
    "framing": FRAMING,
    "versions": VERSIONS,
    "sizes": SIZES,
}
"""By section of docs/security.md."""
