"""docs/gateways.md shows the very files that the gateway tests run."""

import re

import pytest

from tests.servers import ROOT

EXAMPLES = ROOT / "examples" / "gateways"
TEXT = (ROOT / "docs" / "gateways.md").read_text("utf-8")
BLOCKS = re.findall(
    r"\(\.\./examples/gateways/(\S+)\)( differs in)?:\n\n```\w+\n(.*?)```\n", TEXT, re.DOTALL
)
FILES = sorted(str(file.relative_to(EXAMPLES)) for file in EXAMPLES.rglob("*") if file.is_file())


def test_every_example_is_in_the_recipes_once_and_nothing_else_is() -> None:
    assert sorted(name for name, _, _ in BLOCKS) == FILES
    assert TEXT.count("```") == 2 * len(BLOCKS)


@pytest.mark.parametrize(("name", "part", "shown"), BLOCKS, ids=[name for name, _, _ in BLOCKS])
def test_a_recipe_is_its_file(name: str, part: str, shown: str) -> None:
    whole = (EXAMPLES / name).read_text("utf-8")
    assert shown in whole if part else shown == whole


@pytest.mark.parametrize("name", [name for name, part, _ in BLOCKS if part])
def test_where_only_the_difference_is_shown_the_other_variant_lacks_it(name: str) -> None:
    shown = next(text for shown_name, _, text in BLOCKS if shown_name == name)
    other = name.replace("fail-open", "fail-closed")
    assert shown not in (EXAMPLES / other).read_text("utf-8")
