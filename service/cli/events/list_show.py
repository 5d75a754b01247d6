"""`events list` and `events show`: print stored events."""

import json
import sys
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from typing import Final

import click
from rich.console import Console
from rich.highlighter import JSONHighlighter
from rich.text import Text

from service.cli.console import Column, Shorten, TableLayout, print_header, print_line, print_table, terminal_width
from service.cli.events import filters, reader
from service.cli.events.delivery_history import histories
from service.cli.events.event_summary import MAX_SUMMARY_CHARACTERS, summary
from service.cli.events.filters import Filter
from service.cli.events.pending import print_pending
from service.cli.events.reader import EventSource
from service.cli.shared_options import wide_option
from service.events import rfc3339, structured
from service.storage import engines
from service.storage.protocols import StreamRecord

DEFAULT_EVENTS: Final = 20
# `typical` widths matter for --follow, where the events are not known yet.
_COLUMNS: Final = (
    Column("position", typical=8),
    Column("received", typical=19),
    Column("type", least=13, shorten=Shorten.START, typical=32),
    Column("subject", least=12, typical=15),
)
_TEXT: Final = Column("text", least=20, shorten=Shorten.END, typical=MAX_SUMMARY_CHARACTERS + 1)
_NUMBER: Final = Column("number", least=15, optional=True, typical=15)
_ID: Final = Column("id", least=13, optional=True, typical=60)
MIN_ID_BESIDE_TEXT: Final = 40  # columns; on a narrower terminal the text gets the room


@click.command("list", short_help="List the newest events, or all as JSON.")
@filters.inbox_option
@filters.filtered
@click.option(
    "--limit",
    metavar="COUNT",
    type=click.IntRange(1),
    help=f"Print the newest COUNT events. Default: {DEFAULT_EVENTS} in the table, all with --json.",
)
@click.option("--follow", "-f", is_flag=True, help="Then print new events as they are stored, until Ctrl-C.")
@click.option(
    "--show-text",
    is_flag=True,
    help="Add a column with the start of each message's text, or the status. Without this option the table shows no "
    "text that people wrote.",
)
@click.option(
    "--pending",
    metavar="NAME",
    help="Only events that are pending for this destination, the oldest COUNT, with attempts and next attempt.",
)
@wide_option
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print each event whole, as a CloudEvents 1.0 object per line, oldest first.",
)
def list_(
    inbox: str | None,
    wanted: Filter,
    limit: int | None,
    *,
    follow: bool,
    show_text: bool,
    pending: str | None,
    wide: bool,
    as_json: bool,
) -> None:
    """List stored events: prints the newest 20 as a table, or with --json all of them, in both cases oldest first.

    The options --type, --subject, --number, --since and --until select events; an event must match all of them.
    `events show POSITION` prints one event of the table.

    \b
    whatsapp-webhook events list --since 1h
    whatsapp-webhook events list --follow --show-text
    whatsapp-webhook events list --type 'com.whatsapp.message.*' --json
    whatsapp-webhook events list --pending bot
    """  # noqa: D301  click requires the character
    url = filters.inbox_of(inbox)
    if pending:
        if follow or show_text:
            raise click.UsageError("--pending can't be combined with --follow or --show-text.")
        print_pending(url, pending, wanted, limit, wide=wide, as_json=as_json)
        return
    with reader.opened(url) as events, suppress(KeyboardInterrupt) if follow else nullcontext():
        if as_json:
            _print_json(events, wanted, limit, follow=follow)
        elif follow:
            _follow_table(events, wanted, limit or DEFAULT_EVENTS, show_text=show_text, wide=wide)
        else:
            _print_table(events, wanted, limit or DEFAULT_EVENTS, show_text=show_text, wide=wide)


@click.command(short_help="Show one event with its data and its deliveries.")
@filters.inbox_option
@click.argument("which", metavar="POSITION|ID")
def show(inbox: str | None, which: str) -> None:
    """Show one event as JSON: its attributes, its data, and each delivery with every attempt.

    A failed attempt has the reason, and what the destination answered: some headers, and the start of a text. If a
    destination of the file of WEBHOOK_DESTINATIONS got no delivery, its state says why, such as the option of its
    filter that excludes the event. POSITION is the first column of `events list`.

    \b
    whatsapp-webhook events show 42
    """  # noqa: D301  click requires the character
    url = filters.inbox_of(inbox)
    with reader.opened(url) as events:
        position, event = events.one(which)
    try:
        document = json.loads(structured(event))
    except RecursionError:
        raise click.ClickException(
            "The event's data is nested too deep to be shown: use `events list --json` instead."
        ) from None
    document["received"] = rfc3339(event.received_at)
    document["position"] = int(position) if position.isdecimal() else position
    if engines.load(url).deliveries:
        document["deliveries"] = histories(url, int(position), event)
    text = json.dumps(document, indent=2, ensure_ascii=False)
    Console(soft_wrap=True).print(JSONHighlighter()(Text(text)))


def _print_json(events: EventSource, wanted: Filter, limit: int | None, *, follow: bool) -> None:
    new_events = events.follow(wanted) if follow else ()
    for _, event in events.matching(wanted, limit):
        _write(structured(event))
    sys.stdout.flush()
    for _, event in new_events:
        _write(structured(event))
        sys.stdout.flush()


def _write(line: bytes) -> None:
    """Write a line byte for byte; on a terminal, which it must not steer, as text."""
    if sys.stdout.isatty():
        click.echo(line.decode(errors="backslashreplace"))
    else:
        sys.stdout.buffer.write(line + b"\n")


def _print_table(events: EventSource, wanted: Filter, limit: int, *, show_text: bool, wide: bool) -> None:
    placed = list(events.matching(wanted, limit))
    count = events.count()
    if not placed:
        click.echo(
            f"None of the {count} stored events matches the options."
            if count
            else "No events yet. To send test events: whatsapp-webhook simulate --help"
        )
        return
    print_table(_columns(show_text=show_text), [_cells(each, show_text=show_text) for each in placed], wide=wide)
    of_all = "" if count is None else f" of {count}"
    click.echo(f"{len(placed)}{of_all} events. `events show POSITION` shows one.")


def _follow_table(events: EventSource, wanted: Filter, limit: int, *, show_text: bool, wide: bool) -> None:
    new_events = events.follow(wanted)
    rows = [_cells(each, show_text=show_text) for each in events.matching(wanted, limit)]
    layout = TableLayout(_columns(show_text=show_text), rows, width=terminal_width(wide=wide), more_rows=True)
    print_header(layout)
    for row in rows:
        print_line(layout.row(row))
    for each in new_events:
        print_line(layout.row(_cells(each, show_text=show_text)))


def _columns(*, show_text: bool) -> Sequence[Column]:
    if show_text:
        return (*_COLUMNS, _TEXT, _NUMBER, _ID._replace(least=MIN_ID_BESIDE_TEXT))
    return (*_COLUMNS, _NUMBER, _ID)


def _cells(placed: StreamRecord, *, show_text: bool) -> Sequence[str]:
    position, event = placed
    return (
        position,
        rfc3339(event.received_at)[:19],
        f"{event.type} (test)" if event.test else event.type,
        event.subject or "",
        *((summary(event),) if show_text else ()),
        event.source.rpartition("/")[2],
        event.id,
    )
