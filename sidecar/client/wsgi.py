"""WSGI middleware (Flask, Django, Pyramid …).

app = BreakerWSGI(app, "orders", on_no_answer=True)
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from sidecar.client.guard import Gate, Guard, unsafe_methods
from sidecar.client.threads import Breaker

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment


class BreakerWSGI:
    """Answers guarded requests with 503 and `Retry-After` while the breaker rejects.

    Follows the sidecar on a daemon thread from the first guarded request on, in each process of a
    prefork server anew; `breaker.close()` ends it earlier than the process does.

    Args:
        app: the application behind it.
        breaker: a breaker's name, None for the sidecar's default one, or a client.
        on_no_answer: what to decide while no sidecar answers; a client has its own.
        guard: which requests are guarded; by default all but GET, HEAD, OPTIONS and TRACE.
        status: of a rejection.
        address: where the sidecar is; found as `Breaker` finds it by default.
    """

    def __init__(
        self,
        app: WSGIApplication,
        breaker: str | Breaker | None = None,
        *,
        on_no_answer: bool,
        guard: Guard = unsafe_methods,
        status: int = 503,
        address: str | None = None,
    ) -> None:
        self._app = app
        if not isinstance(breaker, Breaker):
            breaker = Breaker(breaker, on_no_answer=on_no_answer, address=address)
        self.breaker = breaker
        self._gate = Gate(breaker, guard, status)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """One request."""
        method = str(environ["REQUEST_METHOD"])
        path = f"{environ.get('SCRIPT_NAME', '')}{environ.get('PATH_INFO', '')}"
        path = path.encode("latin-1", "replace").decode("utf-8", "replace")  # PEP 3333's strings
        if self._gate.guards(method, path) and (rejection := self._gate.reject()) is not None:
            status = rejection.status
            start_response(f"{status.value} {status.phrase}", list(rejection.headers))
            return [] if method == "HEAD" else [rejection.body]
        return self._app(environ, start_response)
