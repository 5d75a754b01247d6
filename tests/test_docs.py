"""The documents say what the code does."""

import re
from pathlib import Path
from typing import Any

import prometheus_client
import pytest
import transcript

from service import app, fields, handshake, metrics
from service.config import INBOX_FILE, SETTINGS, Config
from service.errors import InboxUnavailable, NotificationRefused
from service.metrics import relay as relay_metrics

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_the_table_of_settings() -> None:
    """Each setting, with its default and meaning, and no other; the config class has them too."""
    rows = re.findall(r"^\| `(WEBHOOK_[A-Z_]+)` \| (.*?) \| (.*) \|$", README, re.MULTILINE)
    assert rows == [(each.name, f"`{each.default}`" if each.default else "empty", each.meaning) for each in SETTINGS]
    assert [each.name.removeprefix("WEBHOOK_").lower() for each in SETTINGS] == list(Config.__slots__)
    assert INBOX_FILE in README


def test_the_table_of_metrics() -> None:
    """Each metric with its labels, and no other."""
    registry = prometheus_client.CollectorRegistry()
    metrics.Metrics(registry, version="1", engine="sqlite", weak=False)
    made = {}
    for collector in [*registry._collector_to_names, *_of_the_relay()]:
        (family,) = collector.describe()
        name = family.name + ("_total" if family.type == "counter" else "")
        made[name] = sorted(collector._labelnames)
    rows = re.findall(r"^\| `((?:whatsapp_webhook|http_server)_[a-z_]+)` \| (.*?) \|", README, re.MULTILINE)
    assert {name: sorted(re.findall(r"`([a-z_]+)`", labels)) for name, labels in rows} == made


def _of_the_relay() -> list[Any]:
    registry = prometheus_client.CollectorRegistry()
    metrics.RelayMetrics(registry)
    return list(registry._collector_to_names)


def test_the_outcomes_of_a_try() -> None:
    """And the reasons of a dead letter: those that are there from the start are those that the README names."""
    for name, words in (("attempts", relay_metrics.OUTCOMES), ("dead_letters", relay_metrics.REASONS)):
        (row,) = re.findall(rf"^\| `whatsapp_webhook_relay_{name}_total` \| .*? \| (.*) \|$", README, re.MULTILINE)
        assert re.findall("`([a-z0-9]+)`", row) == list(words)


def test_the_table_of_answers() -> None:
    """Each status that an error is turned into stands in the README."""
    table = README.partition("## HTTP")[2].partition("## Configuration")[0]
    for error, answer in app.ANSWERS.items():
        assert f"| {answer.status[:3]}" in table, error
        assert not answer.again or f"{answer.status[:3]} with `Retry-After`" in table


def test_the_outcomes_of_a_notification() -> None:
    """Those that are there from the start are those that errors have, and those that the README names."""
    kinds = {error.outcome for error in app.ANSWERS if issubclass(error, (NotificationRefused, InboxUnavailable))}
    assert kinds | {"accepted", "error"} == set(metrics.OUTCOMES)
    (row,) = re.findall(r"^\| `whatsapp_webhook_notifications_total` \| `outcome` \| (.*) \|$", README, re.MULTILINE)
    assert re.findall(r"`([a-z_]+)`", row) == list(metrics.OUTCOMES)


def test_why_a_handshake_fails() -> None:
    """Each reason is there from the start."""
    documented = re.findall(r"`([a-z_]+)`", (handshake.verify.__doc__ or "").partition("reason:")[2])
    assert {"verified", *documented} == set(metrics.HANDSHAKES)


def test_why_an_inbox_fails() -> None:
    """Each reason that the code gives is there from the start, and the runbook says what to do."""
    code = "".join(path.read_text() for path in (ROOT / "service" / "inbox").rglob("*.py"))
    given = set(re.findall(r'InboxUnavailable\(\s*"(\w+)"', code)) | set(re.findall(r'\(apsw\.\w+, "(\w+)"', code))
    assert given - {"starting"} == set(metrics.FAILURES)  # what waits for the start is no failure
    runbook = (ROOT / "docs" / "runbook.md").read_text().partition("## WebhookInboxErrors")[2].partition("## ")[0]
    rows = re.findall(r"^\| (`.*?) \|", runbook, re.MULTILINE)
    assert sorted(re.findall(r"`(\w+)`", " ".join(rows))) == sorted(metrics.FAILURES)


def test_every_name_in_the_readme_is_there() -> None:
    """Files that it points to, and commands that it shows."""
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target
    for target in re.findall(r"make ([a-z]+)", README):
        assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE) or target in ("are", "it"), (
            target
        )


def test_the_packages_floors_are_named_in_the_architecture() -> None:
    """Every room of the house is on the page."""
    page = (ROOT / "docs" / "architecture.md").read_text()
    for room in (ROOT / "service").iterdir():
        name = room.stem
        if not name.startswith("_"):
            assert f"`{name}" in page, name


@pytest.mark.needs("nginx")
def test_the_transcript() -> None:
    """Is what the commands say: `make transcript` writes it."""
    assert transcript.shown() == transcript.made()


@pytest.mark.parametrize("path", ["README.md", "docs/architecture.md", "CHANGELOG.md"])
def test_a_page_is_readable(path: str) -> None:
    """No line of prose that a terminal would have to wrap twice; tables may be wide."""
    for line in (ROOT / path).read_text().splitlines():
        assert len(line) <= 140 or line.startswith("|"), line


def test_each_field_says_what_it_brings() -> None:
    """One line each."""
    assert all(meaning and "\n" not in meaning for meaning in fields.FIELDS.values())
    assert list(fields.FIELDS) == sorted(fields.FIELDS)
