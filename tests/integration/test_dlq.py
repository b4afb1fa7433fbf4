"""`breaker-sidecar dlq` against a real Kafka, as a person at a terminal uses it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.client import AIOKafkaClient
from click.testing import CliRunner, Result

from sidecar.cli.main import cli
from sidecar.consumer.dlq import DeadLetters
from sidecar.consumer.headers import origin_of, written
from tests.kafka import Kafka, blocking
from tests.misnamed import READ_AS, produce
from tests.unit.consumer.records import Rec

LETTERS = 30

Run = Callable[..., Result]


@pytest.fixture
def orders(kafka: Kafka, prefix: str) -> str:
    """A topic with thirty dead letters: every third of them exhausted, the others permanent."""
    kafka.create_topic(prefix, 2)
    kafka.create_topic(f"{prefix}.dlq", 2)

    async def write() -> None:
        async with AIOKafkaProducer(**kafka.client_options()) as producer:
            for n in range(LETTERS):
                event = Rec(offset=n, topic=prefix, key=b"k%d" % n, headers=(("id", b"%d" % n),))
                exhausted = n % 3 == 0
                headers = written(
                    event,
                    origin_of(event, moved=False),
                    group="billing",
                    attempts=12 if exhausted else 1,
                    error="OSError: away" if exhausted else "Permanent: never",
                    stack="  in handle",
                    at_ms=1_795_000_000_000 + n * 1000,
                    reason="exhausted" if exhausted else "permanent",
                )
                await producer.send_and_wait(
                    f"{prefix}.dlq", b"v%d" % n, key=event.key, partition=n % 2, headers=headers
                )

    blocking(write())
    return prefix


@pytest.fixture
def run(kafka: Kafka) -> Run:
    def invoke(*arguments: str, bootstrap: str | None = None) -> Result:
        where = ["--bootstrap", kafka.bootstrap if bootstrap is None else bootstrap]
        return CliRunner().invoke(cli, ["dlq", *arguments, *where], env={"NO_COLOR": "1"})

    return invoke


def told(result: Result) -> Any:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


async def test_many_topics_take_hardly_longer_than_one(
    kafka: Kafka, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"{prefix}-{n}.dlq" for n in range(20)]

    async def make(admin: AIOKafkaAdminClient) -> None:
        await admin.create_topics([NewTopic(name, 1, 1) for name in names])

    kafka.ask(make)
    updates = 0
    update = AIOKafkaClient.force_metadata_update

    def counted(client: AIOKafkaClient) -> Any:
        nonlocal updates
        updates += 1
        return update(client)

    monkeypatch.setattr(AIOKafkaClient, "force_metadata_update", counted)
    counts = await DeadLetters(kafka.client_options(), 20.0).topics()
    assert [counts[name] for name in names] == [0] * len(names)
    assert updates < len(names)


async def test_what_somebody_else_put_there_is_a_letter_too(
    kafka: Kafka, run: Run, orders: str
) -> None:
    async with AIOKafkaProducer(**kafka.client_options()) as producer:
        await produce(producer, f"{orders}.dlq", 1, [b"junk", b"more"], [0])
    found = await asyncio.to_thread(run, "ls", orders, "-o", "json")
    assert len(told(found)) == LETTERS + 2
    one = await asyncio.to_thread(run, "show", orders, f"1:{LETTERS // 2}", "-o", "json")
    assert (told(one)["value"], told(one)["headers"][1]["name"]) == ("junk", READ_AS)


def test_looking_and_filtering(run: Run, orders: str) -> None:
    assert told(run("ls", "-o", "json"))["topics"][f"{orders}.dlq"] == LETTERS
    assert len(told(run("ls", orders, "-o", "json"))) == LETTERS
    some = told(run("ls", f"{orders}.dlq", "--reason", "exhausted", "-o", "json"))
    assert sorted(each["key"] for each in some) == sorted(f"k{n}" for n in range(0, LETTERS, 3))
    (one,) = told(run("ls", orders, "--key", "k7", "-o", "json"))
    assert (one["attempts"], one["origin"]["offset"]) == (1, 7)
    times = ["--since", "2026-11-18T11:06:45Z", "--until", "2026-11-18T11:06:50Z"]
    assert len(told(run("ls", orders, *times, "-o", "json"))) == 5
    assert len(told(run("ls", orders, "--since", "0s", "-o", "json"))) == 0

    few = run("ls", orders, "--limit", "2")
    assert few.exit_code == 0
    assert few.stdout.splitlines()[0].split()[:4] == ["PLACE", "FAILED", "REASON", "ATTEMPTS"]
    assert len(few.stdout.splitlines()) == 3
    assert "there are more" in few.stderr


def test_showing_all_of_one(run: Run, orders: str) -> None:
    (one,) = told(run("ls", orders, "--key", "k7", "-o", "json"))
    whole = told(run("show", orders, one["place"], "-o", "json"))
    assert (whole["value"], whole["stack"]) == ("v7", "  in handle")
    assert whole["headers"] == [{"name": "id", "value": "7"}]
    text = run("show", orders, one["place"]).stdout
    assert "error     Permanent: never" in text
    assert "header    id: 7" in text


def test_putting_back_what_is_meant_once_it_is_not_a_dry_run(
    run: Run, orders: str, kafka: Kafka
) -> None:
    meant = ["replay", orders, "--reason", "exhausted", "-o", "json"]
    dry = told(run(*meant, "--dry-run"))
    assert dry == {"matched": 10, "put_back": 0, "dry_run": True, "topics": {orders: 10}}
    assert sum(kafka.end_offsets(orders).values()) == 0

    assert told(run(*meant, "--rate", "200"))["put_back"] == 10
    back = kafka.read(orders, 10)
    assert sorted(record.key for record in back) == sorted(b"k%d" % n for n in range(0, LETTERS, 3))
    for record in back:
        assert record.headers == (("id", record.key[1:]), ("breaker-replays", b"1"))
    assert len(told(run("ls", orders, "-o", "json"))) == LETTERS


def test_deleting_keeps_what_did_not_fail_before(run: Run, orders: str) -> None:
    # Letter n failed n seconds after 11:06:40.
    before = ["purge", orders, "--before", "2026-11-18T11:06:50Z", "-o", "json"]
    count = told(run(*before, "--dry-run"))["matched"]
    assert told(run("ls", "-o", "json"))["topics"][f"{orders}.dlq"] == LETTERS
    assert told(run(*before)) == {"deleted": count, "matched": count}
    left = told(run("ls", orders, "-o", "json"))
    assert len(left) == LETTERS - count
    assert told(run("purge", orders, "--all", "-o", "json"))["deleted"] == LETTERS - count
    assert told(run("ls", orders, "-o", "json")) == []


@pytest.mark.parametrize(
    "arguments",
    [
        ("ls", "no-such-topic"),
        ("show", "no-such-topic", "0:0"),
        ("show", "{orders}", "0:999"),
        ("show", "{orders}", "zero"),
        ("purge", "{orders}"),
        ("purge", "{orders}", "--all", "--before", "1h"),
        ("ls", "{orders}", "--since", "yesterday"),
    ],
)
def test_wrong_usage_is_2(run: Run, orders: str, arguments: tuple[str, ...]) -> None:
    result = run(*(each.format(orders=orders) for each in arguments))
    assert (result.exit_code, result.stdout) == (2, ""), result.output


def test_no_answer_is_3(run: Run, orders: str) -> None:
    result = run("ls", bootstrap="127.0.0.1:1")
    assert (result.exit_code, result.stdout) == (3, "")
    assert "Kafka" in result.stderr


def test_a_topic_that_takes_nothing_back_is_3_and_says_how_many_it_took(
    run: Run, orders: str
) -> None:
    result = run("replay", orders, "--to", f"{orders}.not-there")
    assert result.exit_code == 3
    assert "ended after 0" in result.stderr
