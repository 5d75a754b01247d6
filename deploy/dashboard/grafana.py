"""The dashboard in Grafana's classic JSON, which every sidecar loads. The chart replaces the runbook's URL."""

import json
from collections.abc import Sequence
from typing import Any, Final

from dashboard.panel import PLAIN, RED, Graph, Panel, Stat
from dashboard.panels import ALERTS, OURS, OURS_ALONE, PANELS, POD, P

GRID_WIDTH: Final = 24
GRAPHS_PER_LINE: Final = 3
MAX_GRAPHS_PER_LINE: Final = 4
SCRAPE_INTERVAL: Final = "30s"  # a rate spans several
SOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}


def dashboard() -> dict[str, Any]:
    """Return the dashboard."""
    panels: list[dict[str, Any]] = []
    top = 0
    for title, row in PANELS.items():
        place = {"x": 0, "y": top, "w": GRID_WIDTH, "h": 1}
        panels.append({"type": "row", "title": title, "collapsed": False, "gridPos": place, "panels": []})
        top += 1
        for line in _lines(row):
            width = GRID_WIDTH // len(line)
            panels += [
                _panel(each, {"x": index * width, "y": top, "w": width, "h": each.height})
                for index, each in enumerate(line)
            ]
            top += line[0].height
    for number, panel in enumerate(panels, 1):
        panel["id"] = number
    return {
        "uid": "whatsapp-webhook",
        "title": "WhatsApp webhook",
        "tags": ["whatsapp", "webhook"],
        "schemaVersion": 39,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "links": [{"type": "link", "title": "Runbook", "url": "__RUNBOOK__", "icon": "doc", "targetBlank": True}],
        "annotations": {
            "list": [
                _annotation("Alerts", ALERTS, RED) | {"titleFormat": "{{alertname}}"},
                _annotation("Starts", f"process_start_time_seconds{OURS} * 1000", "blue")
                | {"titleFormat": f"start of {POD}", "useValueForTime": True},
            ]
        },
        "templating": {
            "list": [
                {"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Data source"},
                _variable("namespace", f"label_values({P}build_info, namespace)"),
                _variable("pod", f'label_values({{__name__=~"{OURS_ALONE}", namespace=~"$namespace"}}, pod)'),
            ]
        },
        "panels": panels,
    }


def _lines(row: Sequence[Panel]) -> list[list[Panel]]:
    """Split a row into lines: stats first, then graphs."""
    stats: list[Panel] = [panel for panel in row if isinstance(panel, Stat)]
    graphs: list[Panel] = [panel for panel in row if isinstance(panel, Graph)]
    width = len(graphs) if len(graphs) == MAX_GRAPHS_PER_LINE else GRAPHS_PER_LINE
    return [stats] * bool(stats) + [graphs[start : start + width] for start in range(0, len(graphs), width)]


def _panel(panel: Panel, place: dict[str, int]) -> dict[str, Any]:
    is_stat = isinstance(panel, Stat)
    return {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.description,
        "datasource": SOURCE,
        "interval": SCRAPE_INTERVAL,
        "gridPos": place,
        "fieldConfig": _stat_field(panel) if isinstance(panel, Stat) else _graph_field(panel),
        "options": _stat_options(panel) if isinstance(panel, Stat) else {"tooltip": {"mode": "multi", "sort": "desc"}},
        "targets": [
            {
                "refId": chr(ord("A") + index),
                "expr": query,
                "legendFormat": legend or "__auto",
                "datasource": SOURCE,
                "instant": is_stat,
                "range": not is_stat,
            }
            for index, (legend, query) in enumerate(panel.queries.items())
        ],
    }


def _stat_field(panel: Stat) -> dict[str, Any]:
    defaults: dict[str, Any] = {
        "unit": panel.unit,
        "noValue": panel.none,
        "color": {"mode": "thresholds"},
        "thresholds": _steps(*panel.steps),
    }
    if panel.unit == "percentunit":
        defaults["decimals"] = 2
    return {"defaults": defaults, "overrides": []}


def _stat_options(panel: Stat) -> dict[str, Any]:
    return {
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        "colorMode": "value",
        "graphMode": "none",
        "textMode": panel.text,
    }


def _graph_field(panel: Graph) -> dict[str, Any]:
    defaults: dict[str, Any] = {"unit": panel.unit, "min": 0}
    if panel.limit is not None:
        defaults |= {
            "thresholds": _steps((PLAIN, None), (RED, panel.limit)),
            "custom": {"thresholdsStyle": {"mode": "dashed"}},
        }
    overrides = [
        {
            "matcher": {"id": "byRegexp", "options": f"/^({names})$/"},
            "properties": [{"id": "color", "value": {"mode": "fixed", "fixedColor": colour}}],
        }
        for names, colour in panel.colours.items()
    ]
    return {"defaults": defaults, "overrides": overrides}


def _steps(*steps: tuple[str, float | None]) -> dict[str, Any]:
    return {"mode": "absolute", "steps": [{"color": colour, "value": lowest} for colour, lowest in steps]}


def _annotation(name: str, query: str, colour: str) -> dict[str, Any]:
    return {
        "name": name,
        "datasource": SOURCE,
        "enable": True,
        "expr": query,
        "iconColor": colour,
        "step": SCRAPE_INTERVAL,
    }


def _variable(name: str, query: str) -> dict[str, Any]:
    # Without `allValue`, "All" means the values that the query found: our pods, and no others.
    return {
        "name": name,
        "type": "query",
        "datasource": SOURCE,
        "query": {"query": query, "refId": name},
        "refresh": 2,
        "includeAll": True,
        "multi": True,
        "current": {"text": "All", "value": "$__all"},
    }


def text() -> str:
    """Return the JSON text of the file."""
    return json.dumps(dashboard(), indent=1) + "\n"
