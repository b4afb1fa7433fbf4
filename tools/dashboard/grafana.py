"""Grafana's JSON of the dashboard: its classic model, which Grafana 9 and later import."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from tools.dashboard import flows, machinery, publishing, spool
from tools.dashboard.model import MATCHERS, Annotation, Panel

SCHEMA_VERSION = 37
ALL_ROWS = (*flows.ROWS, *publishing.ROWS, *spool.ROWS, *machinery.ROWS)
"""Top to bottom."""

HEIGHT = 8
STAT_HEIGHT = 4
WIDTH = 24

Json = dict[str, Any]
SOURCE: Json = {"type": "prometheus", "uid": "${datasource}"}


def expand(expr: str) -> str:
    """The expression with its matchers written out."""
    for mark, matchers in MATCHERS.items():
        expr = expr.replace(mark, matchers)
    return expr


def _variable(name: str, label: str, query: str) -> Json:
    """A choice of label values; `All` also matches what has no such label."""
    return {
        "name": name,
        "label": label,
        "type": "query",
        "datasource": SOURCE,
        "query": {"query": query, "refId": name},
        "definition": query,
        "refresh": 2,  # anew whenever the time range changes
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
        "hide": 0,
        "options": [],
        "regex": "",
    }


def _variables() -> list[Json]:
    return [
        {
            "name": "datasource",
            "label": "Prometheus",
            "type": "datasource",
            "query": "prometheus",
            "refresh": 1,
            "current": {},
            "hide": 0,
            "includeAll": False,
            "multi": False,
            "options": [],
            "regex": "",
        },
        _variable("fleet", "Fleet", "label_values(breaker_build_info, fleet)"),
        _variable("job", "Job", 'label_values(breaker_build_info{fleet=~"$fleet"}, job)'),
        _variable(
            "breaker",
            "Breaker",
            'label_values(breaker_admit_ratio{fleet=~"$fleet", job=~"$job"}, breaker)',
        ),
    ]


def _annotation(annotation: Annotation) -> Json:
    return {
        "name": annotation.name,
        "datasource": SOURCE,
        "enable": True,
        "hide": False,
        "iconColor": annotation.colour,
        "expr": expand(annotation.expr),
        "step": "15s",
        "titleFormat": annotation.name,
        "textFormat": annotation.text,
        "tagKeys": "fleet,breaker",
        "useValueForTime": False,
    }


def _targets(panel: Panel) -> list[Json]:
    return [
        {
            "refId": chr(ord("A") + number),
            "datasource": SOURCE,
            "expr": expand(query.expr),
            "legendFormat": query.legend or "__auto",
            "range": panel.kind != "table",
            "instant": panel.kind == "table",
            "format": "table" if panel.kind == "table" else "time_series",
        }
        for number, query in enumerate(panel.queries)
    ]


def _field(panel: Panel) -> Json:
    """How values are written and coloured."""
    custom: Json = {}
    if panel.kind == "timeseries":
        custom = {
            "drawStyle": "line",
            "lineInterpolation": "stepAfter",
            "fillOpacity": 20 if panel.stacked else 0,
            "stacking": {"mode": "normal" if panel.stacked else "none", "group": "A"},
        }
    elif panel.kind == "state-timeline":
        custom = {"fillOpacity": 80, "lineWidth": 0}
    options = {
        str(number): {"text": text, "color": colour, "index": number}
        for number, (text, colour) in panel.mapped.items()
    }
    defaults: Json = {
        "unit": panel.unit,
        "min": 0,
        "custom": custom,
        "mappings": [{"type": "value", "options": options}] if options else [],
        "thresholds": {
            "mode": "absolute",
            "steps": [{"color": colour, "value": value} for value, colour in panel.steps],
        },
    }
    if panel.kind == "timeseries":
        defaults["color"] = {"mode": "palette-classic"}
    if panel.top is not None:
        defaults["max"] = panel.top
    return {"defaults": defaults, "overrides": []}


def _options(panel: Panel) -> Json:
    """What is particular to a kind of panel."""
    match panel.kind:
        case "stat":
            calc = {"calcs": ["lastNotNull"], "fields": "", "values": False}
            return {"reduceOptions": calc, "colorMode": "value", "textMode": "value_and_name"}
        case "state-timeline":
            return {"mergeValues": True, "showValue": "auto", "rowHeight": 0.8}
        case "table":
            return {"showHeader": True}
        case "timeseries":
            return {
                "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
                "tooltip": {"mode": "multi", "sort": "desc"},
            }


def _panel(panel: Panel, number: int, place: Json) -> Json:
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.says,
        "datasource": SOURCE,
        "gridPos": place,
        "targets": _targets(panel),
        "fieldConfig": _field(panel),
        "options": _options(panel),
    }


def _panels() -> Iterator[Json]:
    """Rows and panels with their places, top to bottom."""
    number = top = 0
    for title, panels in ALL_ROWS:
        number += 1
        place = {"h": 1, "w": WIDTH, "x": 0, "y": top}
        yield {"id": number, "type": "row", "title": title, "collapsed": False, "gridPos": place}
        top += 1
        left = tallest = 0
        for panel in panels:
            if left + panel.width > WIDTH:
                top, left, tallest = top + tallest, 0, 0
            number += 1
            height = STAT_HEIGHT if panel.kind == "stat" else HEIGHT
            yield _panel(panel, number, {"h": height, "w": panel.width, "x": left, "y": top})
            left, tallest = left + panel.width, max(tallest, height)
        top += tallest


def dashboard() -> Json:
    """The whole dashboard as Grafana imports it."""
    return {
        "uid": "breaker-sidecar",
        "title": "Breaker sidecars",
        "description": "Fleet-wide breakers: what is in force, why, and how the sidecars do.",
        "tags": ["breaker-sidecar"],
        "editable": True,
        "graphTooltip": 1,  # one crosshair over all graphs
        "schemaVersion": SCHEMA_VERSION,
        "time": {"from": "now-3h", "to": "now"},
        "refresh": "30s",
        "timezone": "",
        "annotations": {"list": [_annotation(one) for one in flows.ANNOTATIONS]},
        "templating": {"list": _variables()},
        "panels": list(_panels()),
    }


def render() -> str:
    """The file's text."""
    return json.dumps(dashboard(), indent=2, ensure_ascii=False) + "\n"
