"""What is answered before anything is handed over, and of the spool's orders."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from pytest_aiohttp.plugin import AiohttpClient
from yarl import URL

from sidecar.core.errors import SpoolFault, SpoolUnknown
from sidecar.core.publishing import Delivered, PublishPolicy, TopicPolicy
from sidecar.http import publish
from sidecar.http.publish import STATUS, TOPICS, Held
from sidecar.http.server import HttpSettings, build_app
from tests.servers import ROOT, poll_until
from tests.unit.http.conftest import Client
from tests.unit.http.support import Clock, Desk, Log, Paper, metrics_text

RAW = {"Content-Type": "application/octet-stream"}
PATH = "/v1/publish/orders"
LIMITS = PublishPolicy(
    max_request_bytes=2000, max_outstanding_bytes=3000, topics={"orders": TopicPolicy()}
)


class Served:
    """The application with a desk of paper."""

    def __init__(self, start: AiohttpClient, paper: Paper, clock: Clock) -> None:
        self.desk, self.held = Desk(LIMITS), Held()
        self.desk.outcome = Delivered(0, None)
        self._start, self._paper, self._clock = start, paper, clock

    async def client(self, *, open_orders: bool = True, token_file: str | None = None) -> Client:
        app = build_app(
            self._paper,
            HttpSettings(version="1", open_orders=open_orders, admin_token_file=token_file),
            transport="tcp",
            metrics=metrics_text,
            now=self._clock,
            telemetry=Log(),
            publishing=self.desk,
            held=self.held,
        )
        return await self._start(app)


@pytest.fixture
def served(aiohttp_client: AiohttpClient, paper: Paper, clock: Clock) -> Served:
    return Served(aiohttp_client, paper, clock)


@pytest.mark.parametrize(("size", "together"), [(2001, 3000), (5000, 3000), (1501, 1500)])
async def test_what_is_too_large_for_ever_is_not_to_be_tried_again(
    served: Served, size: int, together: int
) -> None:
    served.desk.policy = replace(LIMITS, max_outstanding_bytes=together)
    client = await served.client()
    answer = await client.post(PATH, data=b"x" * size, headers=RAW)
    assert (answer.status, "Retry-After" in answer.headers) == (413, False)
    assert served.desk.drafts == []


@pytest.mark.parametrize("name", ["%2e", "a%20b", "x" * 250])
async def test_what_can_not_be_a_topic_is_told_so(served: Served, name: str) -> None:
    client = await served.client()
    answer = await client.post(URL(f"/v1/publish/{name}", encoded=True), data=b"x", headers=RAW)
    said = await answer.json()
    assert (answer.status, said["type"]) == (404, "urn:breaker-sidecar:unknown-topic")
    assert "can't be a topic's name" in said["detail"]


async def test_bodies_without_a_length_count_as_they_come(served: Served) -> None:
    client, rest = await served.client(), asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        yield b"x" * 1500
        await rest.wait()
        yield b"x" * 100

    async def quick() -> AsyncIterator[bytes]:
        yield b"x" * 1900

    first = asyncio.ensure_future(client.post(PATH, data=slow(), headers=RAW))
    await poll_until(lambda: served.held.bytes == 1500, 5.0, "the first piece is there")
    refused = await client.post(PATH, data=quick(), headers=RAW)
    body = await refused.json()
    assert (refused.status, body["title"]) == (503, "Too much outstanding")
    rest.set()
    assert (await first).status == 200
    assert (await client.post(PATH, data=quick(), headers=RAW)).status == 200
    assert served.held.bytes == 0
    assert [len(draft.value or b"") for _, draft in served.desk.drafts] == [1600, 1900]


async def test_each_record_of_a_batch_has_its_own_answer_in_its_place(served: Served) -> None:
    served.desk.policy = replace(LIMITS, max_request_bytes=10**6, max_outstanding_bytes=10**6)
    client = await served.client()
    good, bad = {"key": {"type": "STRING", "data": "k"}}, {"key": 1}
    answer = await client.post(PATH, json=[bad if n % 3 == 0 else good for n in range(1000)])
    said = await answer.json()
    assert (answer.status, said["delivered"], said["refused"]) == (207, 666, 334)
    told = [result["status"] for result in said["results"]]
    assert told == ["refused" if n % 3 == 0 else "delivered" for n in range(1000)]
    answer = await client.post(PATH, json=[bad] * 1000)
    said = await answer.json()
    assert (answer.status, said["refused"], len(said["results"])) == (400, 1000, 1000)


async def test_a_keys_content_is_all_of_the_body(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publish, "DIGESTED_BYTES", 10)
    client = await served.client()
    for body in (b"x" * 25 + b"1", b"x" * 25 + b"1", b"x" * 25 + b"2", b"y" + b"x" * 24 + b"1"):
        await client.post(PATH, data=body, headers={**RAW, "Idempotency-Key": "k"})
    first, same, *others = served.desk.keys
    assert first == same
    assert len({first, *others}) == 3


@pytest.mark.parametrize("count", [0, 1, TOPICS, 5 * TOPICS + 1])
async def test_many_topics_are_told_a_few_at_a_time(served: Served, count: int) -> None:
    client = await served.client()
    told = [{"topic": f"t{number}", "records": number} for number in range(count)]
    turn, taken = 0, Counter[int]()

    async def turning() -> None:
        nonlocal turn
        while True:
            turn += 1
            await asyncio.sleep(0)

    def each() -> Iterator[dict[str, object]]:
        for one in told:
            taken[turn] += 1
            yield one

    served.desk.topics = each()
    others = asyncio.create_task(turning(), name="others")
    answer = await client.get("/v1/spool")
    others.cancel()
    assert await answer.read() == msgspec.json.encode({"usable": True, "topics": told})
    assert taken.total() == count
    # Who turns has its own turn before ours at one time and behind it at another.
    assert max(taken.values(), default=0) <= 2 * TOPICS


async def test_an_order_for_what_isnt_there_is_told_from_one_that_can_be_tried_again(
    served: Served,
) -> None:
    client, told = await served.client(), []
    faults = (None, SpoolUnknown("no such topic"), SpoolFault("the disk is gone"))
    for served.desk.fault in faults:
        answer = await client.post("/v1/spool/orders/pause")
        told.append((answer.status, "Retry-After" in answer.headers))
    assert told == [(200, False), (404, False), (503, True)]


async def test_the_mend_for_who_may_not_publish_is_one_for_publishing(served: Served) -> None:
    client = await served.client(open_orders=False)
    answer = await client.post(PATH, data=b"x", headers=RAW)
    said = (await answer.json())["detail"]
    assert answer.status == 403
    assert "admin.token_file" in said
    assert "Consul" not in said


async def test_a_rotated_token_counts_at_once(served: Served, tmp_path: Path) -> None:
    """Though one that was right a moment ago isn't looked for in the file again."""
    token = tmp_path / "token"
    token.write_text("old")
    client = await served.client(token_file=str(token))

    async def told(sent: str | None) -> int:
        headers = RAW if sent is None else {**RAW, "Authorization": f"Bearer {sent}"}
        return (await client.post(PATH, data=b"x", headers=headers)).status

    assert [await told(sent) for sent in ("old", "new", None)] == [200, 401, 401]
    token.write_text("new")
    assert [await told(sent) for sent in ("new", "old")] == [200, 401]
    token.unlink()
    assert [await told(sent) for sent in ("new", "other")] == [200, 503]


def test_each_refusal_is_in_the_reference() -> None:
    page = (ROOT / "docs/reference/http-api.md").read_text("utf-8").partition("## Errors")[2]
    for why, status in STATUS.items():
        (line,) = [line for line in page.splitlines() if f"`{why}`" in line]
        assert f"| {status} |" in line, why
