"""Writes deploy/helm/files/dashboard.json, which the on-call engineer reads top down: `make dashboard`.

Each panel is one entry of PANELS: its title, what a reader learns from it, its unit, its queries. A test runs every
query on a real Prometheus.
"""

import json
from pathlib import Path
from typing import Any, Final, NamedTuple

FILE: Final = Path(__file__).parent / "helm" / "files" / "dashboard.json"
WIDTH, HEIGHT = 8, 7
OURS: Final = '{namespace=~"$namespace", pod=~"$pod"}'


class Panel(NamedTuple):
    """One picture; a query is a legend and an expression, in which `OURS` selects what the reader chose."""

    title: str
    tells: str
    unit: str
    queries: dict[str, str]
    kind: str = "timeseries"


def _rate(metric: str, by: str = "", having: str = "") -> str:
    selector = OURS[:-1] + (f", {having}}}" if having else "}")
    return f"sum by ({by}) (rate({metric}{selector}[$__rate_interval]))"


def _quantile(share: float, metric: str, having: str = "") -> str:
    return f"histogram_quantile({share}, {_rate(metric + '_bucket', 'le', having)})"


ANSWERS: Final = "http_server_request_duration_seconds"
ACCEPTED: Final = 'http_request_method="POST", http_response_status_code="200"'
P: Final = "whatsapp_webhook_"
NOTIFICATIONS: Final = P + "notifications_total"
KEPT: Final = 'outcome="accepted"'
RIGHTLY_SIGNED: Final = 'outcome=~"accepted|unavailable|error|overloaded|not_configured"'

PANELS: Final[dict[str, list[Panel]]] = {
    "Is Meta being answered?": [
        Panel("Ready", "1: a receiver is scraped.", "short", {"{{pod}}": f"{P}build_info{OURS}"}, "stat"),
        Panel(
            "Notifications kept at the first try",
            "The share of rightly signed notifications that was answered 200. The objective is 99.9 %.",
            "percentunit",
            {"kept": f"{_rate(NOTIFICATIONS, having=KEPT)} / {_rate(NOTIFICATIONS, having=RIGHTLY_SIGNED)}"},
            "stat",
        ),
        Panel(
            "Notifications by outcome",
            "Everything but `accepted` is a question: see the runbook.",
            "reqps",
            {"{{outcome}}": _rate(P + "notifications_total", "outcome")},
        ),
        Panel(
            "Answer time of accepted notifications",
            "Meta waits; past some seconds it sends again. Mostly the inbox's time.",
            "s",
            {f"p{share * 100:g}": _quantile(share, ANSWERS, ACCEPTED) for share in (0.5, 0.99)},
        ),
        Panel(
            "Answers by status",
            "All requests, whoever sends them.",
            "reqps",
            {"{{http_response_status_code}}": _rate(ANSWERS + "_count", "http_response_status_code")},
        ),
        Panel(
            "Delay from Meta's timestamp",
            "Minutes here and a good answer time mean that Meta was late, or sends again what failed.",
            "s",
            {f"p{share * 100:g}": _quantile(share, P + "event_delay_seconds") for share in (0.5, 0.99)},
        ),
    ],
    "Is anything refused, and why?": [
        Panel(
            "Refused notifications",
            "`bad_signature` after a reset of the app secret: put the new one into the Secret.",
            "reqps",
            {"{{outcome}}": _rate(P + "notifications_total", "outcome", 'outcome!="accepted"')},
        ),
        Panel(
            "Handshakes",
            "Meta's are `verified`; others are strangers, or a wrong token at Meta.",
            "short",
            {"{{outcome}}": f"sum by (outcome) (increase({P}handshakes_total{OURS}[$__rate_interval]))"},
        ),
        Panel(
            "Events by outcome",
            "`repeat` is what Meta sent again and was already kept.",
            "cps",
            {"{{outcome}}": _rate(P + "events_total", "outcome")},
        ),
        Panel(
            "New events by type",
            "What the users do.",
            "cps",
            {"{{type}}": _rate(P + "events_total", "type", 'outcome="new"')},
        ),
    ],
    "Is the inbox keeping up?": [
        Panel(
            "Commit time",
            "One group commit until it is durable: the disk's sync.",
            "s",
            {f"p{share * 100:g}": _quantile(share, P + "inbox_put_seconds") for share in (0.5, 0.99)},
        ),
        Panel(
            "Requests that wait for it",
            "Rising: the disk is slower than Meta.",
            "short",
            {"{{pod}}": f"{P}inbox_waiting{OURS}"},
        ),
        Panel(
            "Events of a commit",
            "Under load many share one sync.",
            "short",
            {"mean": f"{_rate(P + 'inbox_commit_events_sum')} / {_rate(P + 'inbox_commit_events_count')}"},
        ),
        Panel(
            "Failures",
            "Each reason is in the runbook.",
            "cps",
            {"{{reason}}": _rate(P + "inbox_errors_total", "reason") + " or vector(0)"},
        ),
        Panel(
            "Events kept", "They grow until the retention is reached.", "short", {"{{pod}}": f"{P}inbox_events{OURS}"}
        ),
        Panel(
            "Volume",
            "Full, nothing can be kept.",
            "bytes",
            {"taken": f"sum({P}inbox_bytes{OURS})", "free": f"min({P}inbox_free_bytes{OURS})"},
        ),
    ],
    "Credentials": [
        Panel(
            "In force",
            "None: waiting for the Secret. Two: a rotation is under way.",
            "short",
            {"{{credential}}": f"{P}credentials_in_force{OURS}"},
            "stat",
        ),
        Panel(
            "Stale",
            "1: the Secret no longer gives what is in force.",
            "short",
            {"{{pod}}": f"{P}credentials_stale{OURS}"},
            "stat",
        ),
        Panel(
            "Last change",
            "When the values in force changed.",
            "dateTimeFromNow",
            {"{{pod}}": f"{P}credentials_changed_timestamp_seconds{OURS} * 1000"},
            "stat",
        ),
        Panel(
            "Which line was used",
            "Position 2 standing still ends a rotation.",
            "cps",
            {"{{credential}} {{position}}": _rate(P + "credential_matches_total", "credential, position")},
        ),
    ],
    "The process": [
        Panel("CPU", "Cores.", "short", {"{{pod}}": _rate("process_cpu_seconds_total", "pod")}),
        Panel(
            "Memory",
            "Of one process; the limit is the container's.",
            "bytes",
            {"{{pod}}": f"process_resident_memory_bytes{OURS}"},
        ),
        Panel("Open files", "Each connection is one.", "short", {"{{pod}}": f"process_open_fds{OURS}"}),
        Panel(
            "Requests being answered",
            "Waiting clients included.",
            "short",
            {"{{pod}}": f"http_server_active_requests{OURS}"},
        ),
        Panel(
            "Up since",
            "A young process was restarted.",
            "dateTimeFromNow",
            {"{{pod}}": f"process_start_time_seconds{OURS} * 1000"},
            "stat",
        ),
        Panel("Version", "What runs.", "short", {"{{version}}": f"sum by (version) ({P}build_info{OURS})"}, "stat"),
    ],
}


def dashboard() -> dict[str, Any]:
    """Make the dashboard in Grafana's classic form, which every sidecar loads."""
    panels: list[dict[str, Any]] = []
    top = 0
    for title, row in PANELS.items():
        panels.append(
            {"type": "row", "title": title, "collapsed": False, "gridPos": _place(0, top, 24, 1), "panels": []}
        )
        top += 1
        for index, panel in enumerate(row):
            place = _place(index % 3 * WIDTH, top + index // 3 * HEIGHT, WIDTH, HEIGHT)
            panels.append(_panel(panel, place))
        top += (len(row) + 2) // 3 * HEIGHT
    for number, made in enumerate(panels, 1):
        made["id"] = number
    return {
        "uid": "whatsapp-webhook",
        "title": "WhatsApp webhook",
        "tags": ["whatsapp", "webhook"],
        "schemaVersion": 39,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {
            "list": [
                {"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Data source"},
                _variable("namespace", f"label_values({P}build_info, namespace)"),
                _variable("pod", f'label_values({P}build_info{{namespace=~"$namespace"}}, pod)'),
            ]
        },
        "panels": panels,
    }


def _place(left: int, top: int, width: int, height: int) -> dict[str, int]:
    return {"x": left, "y": top, "w": width, "h": height}


def _panel(panel: Panel, place: dict[str, int]) -> dict[str, Any]:
    source = {"type": "prometheus", "uid": "${datasource}"}
    return {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.tells,
        "datasource": source,
        "gridPos": place,
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "options": {} if panel.kind == "stat" else {"tooltip": {"mode": "multi", "sort": "desc"}},
        "targets": [
            {"refId": chr(ord("A") + index), "expr": query, "legendFormat": legend, "datasource": source}
            for index, (legend, query) in enumerate(panel.queries.items())
        ],
    }


def _variable(name: str, query: str) -> dict[str, Any]:
    return {
        "name": name,
        "type": "query",
        "datasource": {"type": "prometheus", "uid": "${datasource}"},
        "query": {"query": query, "refId": name},
        "definition": query,
        "refresh": 2,
        "includeAll": True,
        "allValue": ".*",
        "multi": True,
        "current": {"text": "All", "value": "$__all"},
    }


def text() -> str:
    """Write the file's text."""
    return json.dumps(dashboard(), indent=1) + "\n"


if __name__ == "__main__":
    FILE.write_text(text(), encoding="utf-8")
