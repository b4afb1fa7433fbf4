"""What the pages point at is there: links and their headings, files, make's targets."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("nomad/*.md"), *ROOT.glob("docs/**/*.md")])
IDS = [str(page.relative_to(ROOT)) for page in PAGES]
FENCE = re.compile(r"^[ >]*```.*?^[ >]*```$", re.M | re.S)


@functools.cache
def prose(page: Path) -> str:
    """The page without its code blocks."""
    return FENCE.sub("", page.read_text("utf-8"))


@functools.cache
def anchors(page: Path) -> frozenset[str]:
    """Its headings, as links name them; the second of one name has a number."""
    found: list[str] = []
    for heading in re.findall(r"^#{1,6} (.+)$", prose(page), re.M):
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).strip().lower()
        slug = re.sub(r"[^\w\- ]", "", text).replace(" ", "-")
        again = sum(one == slug or re.fullmatch(rf"{slug}-\d+", one) is not None for one in found)
        found.append(f"{slug}-{again}" if again else slug)
    return frozenset(found)


def links(page: Path) -> Iterator[tuple[Path, str]]:
    """Where its relative links lead: a file or folder, and a heading or nothing."""
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if not re.match(r"[a-z]+:", target):
            name, _, anchor = target.partition("#")
            yield ((page.parent / name).resolve() if name else page), anchor


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_every_link_leads_somewhere(page: Path) -> None:
    for target, anchor in links(page):
        assert target.exists(), target
        assert not anchor or anchor in anchors(target), (target, anchor)


def test_every_page_is_found_from_the_readme() -> None:
    """A folder that is linked shows all its pages."""
    found: set[Path] = set()
    ahead = [ROOT / "README.md"]
    while ahead:
        page = ahead.pop()
        if page in found:
            continue
        found.add(page)
        for target, _ in links(page):
            ahead += (
                sorted(target.glob("*.md"))
                if target.is_dir()
                else [target] * (target.suffix == ".md")
            )
    assert [name for name, page in zip(IDS, PAGES, strict=True) if page not in found] == []


def test_the_map_names_what_is_there() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    files = set(re.findall(r"`((?:\w+/)*\w+\.py)`", text))
    assert len(files) > 50
    homes = [ROOT, ROOT / "sidecar", *(ROOT / "sidecar").glob("*/"), ROOT / "tools" / "demo"]
    assert [name for name in sorted(files) if not any((at / name).exists() for at in homes)] == []
    paths = set(re.findall(r"`((?:sidecar|tools|tests|bench|examples)/[\w/.]+)`", text))
    assert [path for path in sorted(paths) if not (ROOT / path).exists()] == []


def test_the_map_has_every_folder_of_the_sidecar() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    folders = [at.parent.name for at in (ROOT / "sidecar").glob("*/__init__.py")]
    assert [name for name in folders if f"| `sidecar/{name}` |" not in text] == []


def test_make_has_every_target_that_is_named() -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    targets = set(re.findall(r"^([a-z-]+):.*## ", makefile, re.M))
    (phony,) = re.findall(r"^\.PHONY: (.+)$", makefile, re.M)
    assert targets == set(phony.split()) - {"help"}
    for page in PAGES:
        named = set(re.findall(r"(?:`|^\$ )make ([a-z][a-z-]*)", page.read_text("utf-8"), re.M))
        assert named <= targets, page


def test_decisions_are_numbered() -> None:
    pages = sorted((ROOT / "docs" / "decisions").glob("*.md"))
    for number, page in enumerate(pages, 1):
        assert page.name.startswith(f"{number:04}-")
        assert page.read_text("utf-8").startswith(f"# {number}. ")
