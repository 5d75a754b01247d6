"""`events`: look at what is kept."""

import fnmatch
import json
import os
import re
import sys
from collections import deque
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from typing import Final, NamedTuple

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from service.cli.settings import configured
from service.config import InboxUrl, inbox_url
from service.events import Event, structured
from service.events.cloudevents import rfc3339
from service.inbox import engine
from service.inbox.base import Log

PAGE: Final = 500


class Filter(NamedTuple):
    """Which events to give; None lets everything through. Times are milliseconds since the epoch."""

    kind: str | None
    subject: str | None
    number: str | None
    since: int | None
    until: int | None

    def takes(self, event: Event) -> bool:
        """Say whether *event* is one of those asked for."""
        return (
            (self.kind is None or fnmatch.fnmatchcase(event.type, self.kind))
            and (self.subject is None or event.subject == self.subject)
            and (self.number is None or self.number in event.source.split("/"))
            and (self.since is None or event.time >= self.since)
            and (self.until is None or event.time < self.until)
        )


class Moment(click.ParamType[int]):
    """A time: RFC 3339, or an age such as 15m, 2h or 3d."""

    name = "time"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Read it into milliseconds since the epoch."""
        text = str(value)
        age = re.fullmatch(r"(\d+)([smhd])", text)
        if age:
            seconds = int(age[1]) * {"s": 1, "m": 60, "h": 3600, "d": 86400}[age[2]]
            return int((datetime.now(UTC).timestamp() - seconds) * 1000)
        try:
            found = datetime.fromisoformat(text)
        except ValueError:
            self.fail(f"{text!r} is no time: write 2026-11-23T10:00:00Z, or an age such as 15m or 2h", param, ctx)
        return int((found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp() * 1000)


def _inbox(value: str | None) -> InboxUrl:
    if value is None:
        return configured(os.environ).inbox
    try:
        return inbox_url(value)
    except ValueError as ex:
        raise click.BadParameter(f"it {ex}.", param_hint="--inbox") from ex


_inbox_option = click.option(
    "--inbox", metavar="URL", help="Where the events are, if not where WEBHOOK_INBOX says: sqlite:///path/inbox.db"
)


@click.group()
def events() -> None:
    """Look at the events that are kept, while the server goes on writing."""


@events.command("list")
@_inbox_option
@click.option("--type", "kind", metavar="TYPE", help="Only this type; * stands for anything: 'com.whatsapp.message.*'")
@click.option("--subject", metavar="WHO", help="Only this person: the number as Meta writes it, or a user id.")
@click.option("--number", metavar="ID", help="Only this phone number id (or account id) of yours.")
@click.option("--since", type=Moment(), help="Not before: 2026-11-23T10:00:00Z, or an age such as 15m, 2h, 3d.")
@click.option("--until", type=Moment(), help="Only before, written as for --since.")
@click.option(
    "--limit", type=click.IntRange(1), default=20, show_default=True, help="The newest so many, in the table."
)
@click.option("--json", "as_json", is_flag=True, help="Every match as a CloudEvents 1.0 object a line, oldest first.")
def list_(
    inbox: str | None,
    kind: str | None,
    subject: str | None,
    number: str | None,
    since: int | None,
    until: int | None,
    limit: int,
    *,
    as_json: bool,
) -> None:
    """List events: the newest as a table, or every match as JSON lines.

    \b
    whatsapp-webhook events list --since 1h
    whatsapp-webhook events list --type 'com.whatsapp.message.*' --json | jq .data
    """  # noqa: D301  click wants the character
    wanted = Filter(kind, subject, number, since, until)
    with closing(engine.open_log(_inbox(inbox))) as log:
        matches = (event for event in _all(log) if wanted.takes(event))
        if as_json:
            out = sys.stdout.buffer
            for event in matches:
                out.write(structured(event) + b"\n")
            out.flush()
        else:
            _print_table(deque(matches, maxlen=limit))


@events.command()
@_inbox_option
@click.argument("event_id", metavar="ID")
def show(inbox: str | None, event_id: str) -> None:
    """Show one event, its attributes and its data, by its id."""
    with closing(engine.open_log(_inbox(inbox))) as log:
        record = log.find(event_id)
    if record is None:
        raise click.ClickException(f"There is no event {event_id!r}, or its data is past the retention.")
    told = json.loads(structured(record.event))
    told["received"] = rfc3339(record.event.received_at)
    told["position"] = record.position
    Console(soft_wrap=True).print_json(json.dumps(told))


def _all(log: Log) -> Iterator[Event]:
    position = 0
    while page := log.read(position, PAGE):
        yield from (record.event for record in page)
        position = page[-1].position


def _print_table(found: deque[Event]) -> None:
    console = Console()
    if not found:
        console.print("No events. Send some: whatsapp-webhook simulate http://127.0.0.1:8080/webhooks")
        return
    table = Table("time", "type", "subject", "number", "id", box=None, header_style="bold")
    for event in found:
        number = event.source.rpartition("/")[2]
        cells = (rfc3339(event.time), event.type, event.subject or "", number, event.id)
        table.add_row(*map(escape, cells))  # what Meta sent is no markup
    for column in table.columns:
        column.no_wrap = not console.is_terminal
    if not console.is_terminal:
        console.width = 1000
    console.print(table)
