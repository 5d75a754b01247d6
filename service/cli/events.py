"""`events`: look at what is kept."""

import bisect
import fnmatch
import json
import os
import re
import signal
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime
from typing import Final, NamedTuple

import click
from rich.console import Console
from rich.highlighter import JSONHighlighter
from rich.table import Table
from rich.text import Text

from service.cli.settings import configured
from service.config import InboxUrl, inbox_url
from service.events import Event, structured
from service.events.cloudevents import rfc3339
from service.inbox import engine
from service.inbox.base import Log, Record

PAGE: Final = 500
SHOWN: Final = 20
PIPED: Final = 1000  # columns of what is no terminal
# What the table shows, and from how many columns of the terminal on.
COLUMNS: Final = {"position": 0, "received": 0, "type": 0, "subject": 0, "number": 100, "id": 180}
SLACK: Final = 60_000  # milliseconds by which events may be kept in another order than they were received in


_STEERING: Final = re.compile("[\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


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
            and (self.subject is None or event.subject == self.subject.removeprefix("+"))
            and (self.number is None or self.number in event.source.split("/"))
            and (self.since is None or event.received_at >= self.since)
            and (self.until is None or event.received_at < self.until)
        )


class Moment(click.ParamType[int]):
    """A time: RFC 3339, or an age such as 15m, 2h or 3d."""

    name = "time"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Read it into milliseconds since the epoch."""
        text = str(value)
        age = re.fullmatch(r"([0-9]{1,9})([smhd])", text)
        if age:
            seconds = int(age[1]) * {"s": 1, "m": 60, "h": 3600, "d": 86400}[age[2]]
            return int((datetime.now(UTC).timestamp() - seconds) * 1000)
        try:
            found = datetime.fromisoformat(text)
        except (ValueError, OverflowError):
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
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # whoever reads may have enough, as head does


@events.command("list")
@_inbox_option
@click.option("--type", "kind", metavar="TYPE", help="Only this type; * stands for anything: 'com.whatsapp.message.*'")
@click.option("--subject", metavar="WHO", help="Only this person: the number as Meta writes it, or a user id.")
@click.option("--number", metavar="ID", help="Only this phone number id (or account id) of yours.")
@click.option("--since", type=Moment(), help="Received since: 2026-11-23T10:00:00Z, or an age such as 15m, 2h, 3d.")
@click.option("--until", type=Moment(), help="Received before, written as for --since.")
@click.option("--limit", type=click.IntRange(1), help=f"The newest so many; {SHOWN} in the table, all with --json.")
@click.option("--json", "as_json", is_flag=True, help="Every match as a CloudEvents 1.0 object a line, oldest first.")
def list_(
    inbox: str | None,
    kind: str | None,
    subject: str | None,
    number: str | None,
    since: int | None,
    until: int | None,
    limit: int | None,
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
        kept = _positions(log)
        if not as_json:
            _print_table(_newest(log, kept, wanted, limit or SHOWN), len(kept))
            return
        for record in _newest(log, kept, wanted, limit) if limit else _oldest_first(log, kept, wanted):
            sys.stdout.buffer.write(structured(record.event) + b"\n")
        sys.stdout.flush()


@events.command()
@_inbox_option
@click.argument("which", metavar="POSITION|ID")
def show(inbox: str | None, which: str) -> None:
    """Show one event, its attributes and its data, by its position in the list or by its id.

    \b
    whatsapp-webhook events show 42
    """  # noqa: D301  click wants the character
    with closing(engine.open_log(_inbox(inbox))) as log:
        record = _at(log, int(which)) if which.isdecimal() else log.find(which)
    if record is None:
        raise click.ClickException(f"There is no event {which!r}, or its data is past the retention.")
    try:
        told = json.loads(structured(record.event))
    except RecursionError:
        raise click.ClickException("Its data is nested too deep to be shown: take `events list --json`.") from None
    told["received"] = rfc3339(record.event.received_at)
    told["position"] = record.position
    text = json.dumps(told, indent=2, ensure_ascii=False)
    # What somebody wrote must not steer the terminal, nor turn its direction.
    harmless = _STEERING.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
    Console(soft_wrap=True).print(JSONHighlighter()(Text(harmless)))


def _positions(log: Log) -> range:
    first = next(iter(log.read(0, 1)), None)
    return range(first.position, log.last() + 1) if first else range(0)


def _at(log: Log, position: int) -> Record | None:
    return next((record for record in log.read(position - 1, 1) if record.position == position), None)


def _within(log: Log, kept: range, wanted: Filter) -> range:
    """Leave out what was received too early, without reading it."""
    if wanted.since is None:
        return kept

    def received_at(position: int) -> int:
        return next((record.event.received_at for record in log.read(position - 1, 1)), sys.maxsize)

    return kept[bisect.bisect_left(kept, wanted.since - SLACK, key=received_at) :]


def _oldest_first(log: Log, kept: range, wanted: Filter) -> Iterator[Record]:
    position = _within(log, kept, wanted).start - 1
    while page := log.read(position, PAGE):
        yield from (record for record in page if wanted.takes(record.event))
        position = page[-1].position


def _newest(log: Log, kept: range, wanted: Filter, limit: int) -> Sequence[Record]:
    """Give the last matches, oldest first, reading from the end."""
    found: deque[Record] = deque()
    left = _within(log, kept, wanted)
    while left and len(found) < limit:
        page, left = left[-PAGE:], left[:-PAGE]
        read = [record for record in log.read(page.start - 1, PAGE) if record.position in page]
        found.extendleft(record for record in reversed(read) if wanted.takes(record.event))
    return list(found)[-limit:]


def _print_table(found: Sequence[Record], kept: int) -> None:
    console = Console(emoji=False, markup=False)
    if not found:
        few = "No events yet. Send some: whatsapp-webhook simulate --help"
        console.print(f"None of the {kept} events that are kept matches." if kept else few)
        return
    if not console.is_terminal:
        console.width = PIPED
    # Nothing is cut in what is shown: a narrow terminal is shown less, and `events show` the rest.
    columns = [name for name, least in COLUMNS.items() if console.width >= least]
    table = Table(*columns, box=None, header_style="bold")
    for position, event in found:
        cells = {
            "position": str(position),
            "received": rfc3339(event.received_at)[:19],
            "type": event.type,
            "subject": event.subject or "",
            "number": event.source.rpartition("/")[2],
            "id": event.id,
        }
        table.add_row(*(cells[name] for name in columns))
    for column in table.columns:
        column.no_wrap = True
    console.print(table)
    console.print(f"{len(found)} of {kept} events; `events show POSITION` shows one.")
