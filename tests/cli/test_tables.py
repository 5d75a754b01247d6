"""Tables fit the terminal; with `--wide`, on a wide terminal and in a pipe, every value is whole."""

import json
import os
from collections.abc import Sequence
from pathlib import Path

import pytest
from rich.cells import cell_len

from service.cli.console import Column, Shorten, TableLayout
from service.events import Event, parse
from service.meta import catalogue
from service.storage.deliveries import Attempt, Delivery, QueueKind, Ruling, Settlement, Verdict
from service.storage.protocols import Terms
from service.storage.sqlite import SqliteInbox
from service.storage.sqlite.delivery_database import SqliteDeliveryDatabase
from service.storage.sqlite.delivery_queue import SqliteDeliveries
from service.storage.timelines import Timeline
from tests.support import commands
from tests.support.events import HOUR, NOW
from tests.support.terminal import lines_on_terminal

LONG_NAME = "the-customer-relationship-management-of-the-whole-company"
KINDS = ("message text", "message interactive, button reply", "template approved", "status failed", "call offered")


@pytest.fixture
def stored(tmp_path: Path) -> list[Event]:
    """An inbox with long types and ids, and a destination with a long name, a dead letter and a backlog."""
    bodies = [catalogue.notification(kind) for kind in KINDS]
    events = [event for body in bodies for event in parse(body, received_at=NOW, nonce="n")]
    inbox = SqliteInbox(tmp_path / "inbox.db", Terms(HOUR, HOUR))
    inbox.put(events)
    inbox.close()
    store = SqliteDeliveryDatabase(tmp_path / "relay.db")
    work = SqliteDeliveries(store)
    work.adopt([Timeline(1, 0)])
    work.join({LONG_NAME: 0, "app": 0}, now=NOW)
    planned = [Delivery(at, event.partitionkey, NOW) for at, event in enumerate(events, start=1)]
    assert work.plan(LONG_NAME, 0, 5, planned, now=NOW)
    claims = work.claim(LONG_NAME, 3, QueueKind.HEALTHY, now=NOW, lease=1000)
    failed = Attempt(NOW, 0.1, 500, "5xx")
    ruling = Ruling(Verdict.DEAD_LETTER, reason="expired")
    work.settle([Settlement(claim, failed, ruling, disables="HTTP 410 Gone: it said to stop") for claim in claims])
    store.close()
    return events


def environ(directory: Path) -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("WEBHOOK_", "OTEL_"))}
    return clean | {"WEBHOOK_INBOX": f"sqlite://{directory}/inbox.db"}


TABLES = [
    ("events", "list"),
    ("events", "list", "--show-text"),
    ("events", "dead-letters"),
    ("destinations", "list"),
]


@pytest.mark.parametrize("command", TABLES, ids=" ".join)
def test_a_table_fits_80_columns(tmp_path: Path, stored: list[Event], command: Sequence[str]) -> None:
    """No line is longer than the terminal, every row is one line, and positions are never shortened."""
    lines = lines_on_terminal(80, environ(tmp_path), *command)
    assert max(map(cell_len, lines)) <= 80, lines
    assert any("…" in line for line in lines)
    if command[:2] == ("events", "list"):
        assert len(lines) == 1 + len(stored) + 1
        assert [line.split()[0] for line in lines[1:-1]] == ["1", "2", "3", "4", "5"]


@pytest.mark.parametrize("command", TABLES, ids=" ".join)
def test_wide_shows_every_value_whole(tmp_path: Path, stored: list[Event], command: Sequence[str]) -> None:
    """`--wide`, a wide terminal and a pipe print the same table, without an ellipsis."""
    wide = lines_on_terminal(80, environ(tmp_path), *command, "--wide")
    piped = commands.run(*command, environ=environ(tmp_path)).stdout.splitlines()
    assert wide == piped == lines_on_terminal(400, environ(tmp_path), *command)
    text = "\n".join(piped)
    assert "…" not in text
    if command[:2] == ("events", "list"):
        for event in stored:
            assert all(value in text for value in (event.id, event.type, event.source.rpartition("/")[2]))
    else:
        assert LONG_NAME in text


def test_a_colour_forced_on_a_pipe_shortens_nothing(tmp_path: Path, stored: list[Event]) -> None:
    """FORCE_COLOR, which CI systems set, does not make a terminal of a pipe."""
    forced = environ(tmp_path) | {"FORCE_COLOR": "1", "COLUMNS": "80"}
    text = commands.run("events", "list", environ=forced).stdout
    assert all(event.id in text for event in stored)


def test_json_is_whole_on_a_terminal(tmp_path: Path, stored: list[Event]) -> None:
    """`--json` shortens nothing, whatever the width."""
    lines = lines_on_terminal(80, environ(tmp_path), "events", "list", "--json")
    assert [json.loads(line)["id"] for line in lines] == [event.id for event in stored]
    lines = lines_on_terminal(80, environ(tmp_path), "destinations", "list", "--json")
    assert LONG_NAME in [json.loads(line)["name"] for line in lines]


def test_escapes_are_measured_as_they_are_shown() -> None:
    """A control character takes six columns; a line break in a value does not break the row."""
    layout = TableLayout([Column("name", least=10)], [["\x1b\x9b\u202ea\nb"]], width=12)
    (line,) = layout.row(["\x1b\x9b\u202ea\nb"]).splitlines()
    assert cell_len(line) <= 12
    assert line.isprintable()


@pytest.mark.parametrize(
    ("shorten", "expected"),
    [(Shorten.MIDDLE, "abcde…wxyz"), (Shorten.START, "…rstuvwxyz"), (Shorten.END, "abcdefghi…")],
)
def test_where_a_value_is_shortened(shorten: Shorten, expected: str) -> None:
    """Ids in the middle, types at the start, sentences at the end."""
    alphabet = "abcdefghijklmnopqrstuvwxyz"
    layout = TableLayout([Column("x", least=10, shorten=shorten)], [[alphabet]], width=10)
    assert layout.row([alphabet]) == expected


@pytest.mark.parametrize("text", ["中文字符宽度测试中文字符", "👍👍👍👍👍👍👍👍👍", "e\u0301" * 30, "a" * 500])
def test_wide_characters_are_two_columns(text: str) -> None:
    """A shortened value never takes more columns than it may."""
    for width in range(10, 15):
        layout = TableLayout([Column("x", least=10)], [[text]], width=width)
        assert cell_len(layout.row([text])) <= width


def test_optional_columns_are_left_out() -> None:
    """One after the other, if the table does not fit even with every value shortened; without a width never."""
    columns = [Column("a"), Column("b", least=4, optional=True), Column("c", least=4, optional=True)]
    row = ["x" * 10, "y" * 10, "z" * 10]
    assert TableLayout(columns, [row], width=None).row(row).split() == row
    assert len(TableLayout(columns, [row], width=22).row(row).split()) == 3
    assert TableLayout(columns, [row], width=16).row(row).split() == ["x" * 10, "zz…z"]
    assert TableLayout(columns, [row], width=5).row(row).split() == ["x" * 10]
