"""`events list` and `events show`: look at what is kept."""

import json
import sys
from collections.abc import Sequence
from typing import Any, Final

import click
from rich.console import Console
from rich.highlighter import JSONHighlighter
from rich.text import Text

from service.cli import console, delivery_store
from service.cli.events import filters, reader
from service.cli.events.filters import Filter
from service.config import InboxUrl
from service.events import rfc3339, structured
from service.storage import engines
from service.storage.protocols import Placed

DEFAULT_EVENTS: Final = 20
# What the table shows, and from how many columns of the terminal on.
MIN_COLUMNS: Final = {"position": 0, "received": 0, "type": 0, "subject": 0, "number": 100, "id": 180}


@click.command("list", short_help="List the newest events, or all as JSON.")
@filters.inbox_option
@filters.filtered
@click.option(
    "--limit", type=click.IntRange(1), help=f"The newest so many; {DEFAULT_EVENTS} in the table, all with --json."
)
@click.option("--json", "as_json", is_flag=True, help="Every match as a CloudEvents 1.0 object a line, oldest first.")
def list_(inbox: str | None, wanted: Filter, limit: int | None, *, as_json: bool) -> None:
    """List events: the newest as a table, or every match as JSON lines.

    \b
    whatsapp-webhook events list --since 1h
    whatsapp-webhook events list --type 'com.whatsapp.message.*' --json | jq .data
    """  # noqa: D301  click wants the character
    url = filters.where(inbox)
    most = limit or (None if as_json else DEFAULT_EVENTS)
    with reader.looking(url) as at:
        if as_json:
            for _, event in at.found(wanted, most):
                _write(structured(event))
            sys.stdout.flush()
        else:
            _print_table(list(at.found(wanted, most)), at.kept())


@click.command(short_help="Show one event, and what became of it.")
@filters.inbox_option
@click.argument("which", metavar="POSITION|ID")
def show(inbox: str | None, which: str) -> None:
    """Show one event, its attributes, its data and what became of it, by its position in the list or by its id.

    \b
    whatsapp-webhook events show 42
    """  # noqa: D301  click wants the character
    url = filters.where(inbox)
    with reader.looking(url) as at:
        position, event = at.one(which)
    try:
        told = json.loads(structured(event))
    except RecursionError:
        raise click.ClickException("Its data is nested too deep to be shown: take `events list --json`.") from None
    told["received"] = rfc3339(event.received_at)
    told["position"] = int(position) if position.isdecimal() else position
    if engines.load(url).deliveries:
        told["deliveries"] = _story(url, int(position))
    text = json.dumps(told, indent=2, ensure_ascii=False)
    Console(soft_wrap=True).print(JSONHighlighter()(Text(text)))


def _write(line: bytes) -> None:
    """Write a line byte for byte; on a terminal, which it must not steer, as text."""
    if sys.stdout.isatty():
        click.echo(line.decode(errors="backslashreplace"))
    else:
        sys.stdout.buffer.write(line + b"\n")


def _story(url: InboxUrl, position: int) -> list[dict[str, Any]]:
    with delivery_store.opened_if_any(url) as records:
        stories = records.history(position) if records else []
    return [
        {
            "destination": story.destination,
            "state": story.state,
            "attempts": [
                attempt._asdict() | {"at": rfc3339(attempt.at), "seconds": round(attempt.seconds, 3)}
                for attempt in story.attempts
            ],
        }
        for story in stories
    ]


def _print_table(found: Sequence[Placed], kept: int | None) -> None:
    if not found:
        few = "No events yet. Send some: whatsapp-webhook simulate --help"
        click.echo(f"None of the {kept} events that are kept matches." if kept else few)
        return
    # Nothing is cut in what is shown: a narrow terminal is shown less, and `events show` the rest.
    width = console.console().width
    columns = [name for name, least in MIN_COLUMNS.items() if width >= least]
    rows = []
    for position, event in found:
        cells = {
            "position": position,
            "received": rfc3339(event.received_at)[:19],
            "type": f"{event.type} (test)" if event.test else event.type,
            "subject": event.subject or "",
            "number": event.source.rpartition("/")[2],
            "id": event.id,
        }
        rows.append([cells[name] for name in columns])
    console.print_table(columns, rows)
    of_all = "" if kept is None else f" of {kept}"
    click.echo(f"{len(found)}{of_all} events; `events show POSITION` shows one.")
