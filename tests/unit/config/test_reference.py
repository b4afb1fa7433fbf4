"""The reference tells every key with its true default, and its examples load."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from sidecar.config.lint import warnings
from sidecar.config.load import load
from sidecar.config.model import (
    Breaker,
    Config,
    Delivery,
    FailureRatio,
    Lag,
    Local,
    Missing,
    Probe,
    Publish,
    PublishTopic,
    Shed,
    Signals,
    Slow,
    Spool,
    SpoolTopic,
    Stalled,
)
from sidecar.config.render import show

TEXT = (Path(__file__).parents[3] / "docs/reference/configuration.md").read_text("utf-8")
ROWS = dict(re.findall(r"^\| `([a-z_.]+)` \| `([^`]+)` \|", TEXT, re.MULTILINE))
EXAMPLES = re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)


def leaves(tree: dict[str, object], path: str = "") -> Iterator[tuple[str, object]]:
    """The dotted keys and values of a tree."""
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, f"{path}{key}.")
        else:
            yield f"{path}{key}", value


def test_every_key_and_its_default_is_told() -> None:
    every = Signals(
        failure_ratio=FailureRatio(),
        slow=Slow(),
        stalled=Stalled(),
        missing=Missing(),
        delivery=Delivery(local=Local()),
        lag=Lag(),
        probe=Probe(),
    )
    config = Config(
        breakers={"default": Breaker(signals=every, shed=Shed())},
        publish=Publish(topics={"*": PublishTopic()}),
        spool=Spool(topics={"*": SpoolTopic()}),
    )
    shown = dict(leaves(yaml.safe_load(show(config))))
    told = {
        key.removeprefix("breakers.default.")
        .removeprefix("publish.topics.*.")
        .removeprefix("spool.topics.*."): value
        for key, value in shown.items()
    }
    assert set(ROWS) == set(told)
    for key, value in told.items():
        assert str(yaml.safe_load(ROWS[key])) == str(yaml.safe_load(str(value))), key


@pytest.mark.parametrize("text", EXAMPLES)
def test_the_examples_load_without_a_warning(text: str) -> None:
    assert warnings(load(text, environ={})) == []
