"""The tables in the docs that are generated from the code: `make docs` writes them, a test compares them."""

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final

from prometheus_client import CollectorRegistry

from service.config import SETTINGS
from service.doctor.check_table import CHECKS
from service.meta import webhook_fields
from service.outcomes import INBOX_FAILURES, RELAY_REASONS, AttemptOutcome, HandshakeOutcome, NotificationOutcome
from service.telemetry import metrics
from service.telemetry.metrics.relay import BREAKER_STATES
from tests.support import chart_docs

ROOT: Final = Path(__file__).parents[2]
# The label values of closed sets, by metric.
LABEL_VALUES: Final[dict[str, Iterable[str]]] = {
    "whatsapp_webhook_handshakes_total": HandshakeOutcome,
    "whatsapp_webhook_notifications_total": NotificationOutcome,
    "whatsapp_webhook_events_total": ("new", "duplicate", "unknown", "ignored"),
    "whatsapp_webhook_inbox_errors_total": INBOX_FAILURES,
    "whatsapp_webhook_relay_attempts_total": AttemptOutcome,
    "whatsapp_webhook_relay_dead_letters_total": RELAY_REASONS,
    "whatsapp_webhook_relay_breaker_state": BREAKER_STATES,
}


def settings() -> str:
    """Return a row for each environment variable."""
    rows = [
        f"| `{each.name}` | {f'`{each.default}`' if each.default else 'empty'} | {each.meaning} |" for each in SETTINGS
    ]
    return "\n".join(["| variable | default | meaning |", "|---|---|---|", *rows])


def receiver_metrics() -> str:
    """Return a row for each metric of the receiver."""
    registry = CollectorRegistry()
    metrics.Metrics(registry, version="1", engine="sqlite", weak=False)
    return _metrics(registry)


def relay_metrics() -> str:
    """Return a row for each metric of the relay."""
    registry = CollectorRegistry()
    metrics.RelayMetrics(registry)
    return _metrics(registry)


def _metrics(registry: CollectorRegistry) -> str:
    return "\n".join(
        ["| metric | type | labels | meaning |", "|---|---|---|---|", *map(_metric, registry._collector_to_names)]
    )


def _metric(collector: Any) -> str:
    (family,) = collector.describe()
    name = family.name + ("_total" if family.type == "counter" else "")
    labels = ", ".join(f"`{label}`" for label in collector._labelnames)
    values = ", ".join(f"`{value}`" for value in LABEL_VALUES.get(name, ()))
    return f"| `{name}` | {family.type} | {labels} | {family.documentation}{f' {values}.' if values else ''} |"


def doctor_checks() -> str:
    """Return a row for each check of the doctor, with an anchor."""
    rows = [
        f'| <a id="check-{check.id.replace(" ", "-")}"></a>`{check.id}` | {check.may_be_wrong} | {check.to_do} |'
        for check in CHECKS
    ]
    return "\n".join(["| check | what may be wrong | what to do |", "|---|---|---|", *rows])


def event_types() -> str:
    """Return a row for each family of event types, with the known words that its types end with."""
    rows, first = [], {}
    for family in webhook_fields.families():
        words = " ".join(f"`{word}`" for word in family.words)
        if len(family.words) > 1 and (name := first.setdefault(words, family.name)) != family.name:
            words = f"as for `{name}`"
        name = f"`{family.name}`" if family.has_bare else f"`{family.name}.<word>`"
        field = f"`{family.field}`" if family.field else ""
        rows.append(f"| {name} | {family.meaning} | {field} | {words} |")
    return "\n".join(["| type | meaning | Meta's field | known words after it |", "|---|---|---|---|", *rows])


TABLES: Final[dict[str, tuple[str, Callable[[], str]]]] = {
    "doctor-checks": ("docs/meta.md", doctor_checks),
    "event-types": ("docs/events.md", event_types),
    "settings": ("docs/configuration.md", settings),
    "receiver-metrics": ("docs/metrics.md", receiver_metrics),
    "relay-metrics": ("docs/metrics.md", relay_metrics),
    "chart-values": ("deploy/helm/README.md", chart_docs.table),
}


def written(page: str, name: str, table: str) -> str:
    """Return the page with *table* between the markers of *name*."""
    pattern = rf"(?s)(<!-- {name}: made by `make docs` -->\n).*?(\n<!-- end of {name} -->)"
    return re.sub(pattern, lambda match: match[1] + table + match[2], page)


if __name__ == "__main__":
    for name, (path, make) in TABLES.items():
        file = ROOT / path
        file.write_text(written(file.read_text(), name, make()))
    chart_docs.SCHEMA.write_text(chart_docs.schema_with_descriptions())
