"""What a PromQL expression asks for: metrics, their matchers, and the labels it groups by.

Good for the expressions of this repository, no parser: strings hold no braces and no parentheses
stand in a label list.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

SCRAPED = frozenset({"job", "instance", "fleet", "node"})
"""Labels that the scrape adds, by monitoring/prometheus-*.yml."""
NOT_METRICS = frozenset({"and", "or", "unless", "bool", "offset"})

_GROUPING = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^()]*)\)")
_SELECTOR = re.compile(r"([a-zA-Z_:][\w:]*)?\s*\{([^{}]*)\}")
_MATCHER = re.compile(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"')
_RANGE = re.compile(r"\[[^\]]*\]|\boffset\s+\w+")
_NAME = re.compile(r"(?<![\w:.$])[a-zA-Z_:][\w:]*(?!\s*\()(?![\w:])")


@dataclass(frozen=True)
class Asked:
    """One expression's needs.

    Attributes:
        matchers: (metric, label, operator, value); the metric is empty where `__name__` says it.
    """

    metrics: frozenset[str]
    matchers: tuple[tuple[str, str, str, str], ...]
    grouped: frozenset[str]


def asked(expr: str) -> Asked:
    """Take an expression apart."""
    grouped = {label.strip() for found in _GROUPING.findall(expr) for label in found.split(",")}
    rest = _GROUPING.sub(" ", expr)
    matchers = tuple(
        ("" if selector[1] in NOT_METRICS else selector[1] or "", *matcher)
        for selector in _SELECTOR.finditer(rest)
        for matcher in _MATCHER.findall(selector[2])
    )
    rest = _SELECTOR.sub(lambda found: f"{found[1] or ''} ", rest)
    names = set(_NAME.findall(_RANGE.sub(" ", rest))) - NOT_METRICS
    names |= {
        name for _, label, _, value in matchers if label == "__name__" for name in _each(value)
    }
    return Asked(frozenset(names), matchers, frozenset(grouped - {""}))


def _each(pattern: str) -> Iterator[str]:
    """The alternatives of `prefix(a|b)`, or the pattern itself."""
    found = re.fullmatch(r"(\w*)\(([\w|]+)\)", pattern)
    if found is None:
        yield pattern
    else:
        yield from (found[1] + one for one in found[2].split("|"))
