"""How the commands ask a sidecar, and what they say when it gives no answer, or no good one."""

from __future__ import annotations

import http.client
import json
from dataclasses import dataclass

import click

from sidecar.client.address import Place
from sidecar.client.blocking import Link
from sidecar.telemetry.lines import printable

DEADLINE_S = 2.0
ANSWER_BYTES = 16 * 1024 * 1024
"""Sixty breakers with all their history take a tenth of it."""
UNKNOWN = ("urn:breaker-sidecar:unknown-breaker", "urn:breaker-sidecar:unknown-topic")
"""A 404 for a name that the caller gave."""


class WrongUsage(click.ClickException):
    """The caller asked for what can't be: an unknown breaker, a bad value."""

    exit_code = 2


class NoAnswer(click.ClickException):
    """Nobody answered, or nobody who could know."""

    exit_code = 3


@dataclass(frozen=True, slots=True)
class Answer:
    """A status and what the JSON body held; None where it was no JSON."""

    status: int
    body: object

    def get(self, key: str) -> object:
        """A member of the body; None where there is none."""
        return self.body.get(key) if isinstance(self.body, dict) else None


class Client:
    """Asks one sidecar. Every request has a deadline, however slowly the answer drips.

    Args:
        places: tried in turn until one takes the connection.
        deadline_s: seconds for one request, connecting included.
    """

    def __init__(self, places: list[Place], deadline_s: float = DEADLINE_S) -> None:
        self.places = places
        self.deadline_s = deadline_s

    def request(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        token: str | None = None,
        deadline_s: float | None = None,
    ) -> Answer:
        """Ask, and hand back whatever was answered. `token` is the bearer's.

        Raises:
            NoAnswer: nobody is there, or it took too long, or it isn't HTTP.
        """
        place = self.places[0]
        data = None if body is None else json.dumps(body).encode()
        try:
            with Link(self.places, self.deadline_s if deadline_s is None else deadline_s) as link:
                place = link.place
                status, said = link.ask(path, method, data, ANSWER_BYTES, token)
        except TimeoutError as error:
            raise _no_answer(place, "it took too long") from error
        except (OSError, http.client.HTTPException) as error:
            raise _no_answer(place, _why(error)) from error
        except ValueError as error:  # of a token that can't be a header's value
            raise WrongUsage("the token is no header value; is that file a token's?") from error
        try:
            return Answer(status, json.loads(said))
        except ValueError:
            return Answer(status, None)

    def get(self, path: str) -> Answer:
        """A GET that succeeded, with a JSON object.

        Raises:
            WrongUsage: the sidecar knows no such breaker or topic, or refuses what was asked.
            NoAnswer: as `request`; the sidecar can't answer now; or it is none.
        """
        return self.checked(self.request("GET", path))

    def checked(self, answer: Answer) -> Answer:
        """The answer, if it is a good one of a sidecar's; raises as `get`."""
        if 200 <= answer.status < 300 and (answer.status == 204 or isinstance(answer.body, dict)):
            return answer
        kind, detail = answer.get("type"), printable(str(answer.get("detail")))
        if answer.status == 404 and kind in UNKNOWN:
            raise WrongUsage(detail)
        if not isinstance(kind, str):
            raise _no_answer(
                self.places[0],
                f"what answers there (with {answer.status}) is no sidecar",
            )
        if 400 <= answer.status < 500 and answer.status not in {404, 429}:
            raise WrongUsage(detail)
        raise NoAnswer(f"{self.places[0]} answered {answer.status}: {detail}")


def _no_answer(place: Place, why: str) -> NoAnswer:
    return NoAnswer(
        f"no answer from {printable(str(place))}: {printable(why)}\n"
        "Is the sidecar running there? "
        "--address or BREAKER_SIDECAR_ADDRESS says where else to look."
    )


def _why(fault: Exception) -> str:
    """The system's words where there are any; else what came apart."""
    return getattr(fault, "strerror", None) or f"{type(fault).__name__}: {fault}"
