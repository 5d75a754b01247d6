"""`events replay`: deliver events again."""

import bisect
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from itertools import count, islice
from typing import NamedTuple

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from service import clock
from service.cli import delivery_store
from service.cli.delivery_store import PAGE_EVENTS
from service.cli.events import filters, reader
from service.cli.events.dead_letters import is_selected, reason_option, status_option
from service.cli.events.filters import Filter
from service.cli.load_destinations import configured_destinations
from service.cli.shared_options import dry_run_option
from service.config import InboxUrl
from service.relay.destinations import Destination
from service.storage import engines
from service.storage.deliveries import DeadLetter, DeliveryAdmin, planned
from service.storage.identities import Identities, by_identifiers
from service.storage.protocols import Log, Record


@click.command(short_help="Deliver events again.")
@filters.inbox_option
@click.argument("which", metavar="[POSITION|ID]...", nargs=-1)
@filters.filtered
@click.option(
    "--destination",
    "names",
    metavar="NAME",
    multiple=True,
    help="Only to this destination; can be repeated.",
)
@click.option(
    "--dead-letters", "only_dead", is_flag=True, help="Only dead letters, each to the destination that did not get it."
)
@reason_option
@status_option
@click.option(
    "--rate",
    metavar="NUMBER",
    type=click.IntRange(1),
    help="Start at most NUMBER deliveries per second, so that replayed events do not delay new ones.",
)
@dry_run_option
def replay(
    inbox: str | None,
    which: tuple[str, ...],
    wanted: Filter,
    names: tuple[str, ...],
    reasons: tuple[str, ...],
    statuses: tuple[int, ...],
    rate: int | None,
    *,
    only_dead: bool,
    dry_run: bool,
) -> None:
    """Deliver events again: those with the given positions or ids, or those that the options select.

    Does not ask for confirmation: count the events with --dry-run first. Each destination of WEBHOOK_DESTINATIONS, or
    only those of --destination, gets the events that match its filter. With --dead-letters, each event goes to the
    destination that did not get it. An event keeps its id; in destinations of format `cloudevents` it has the attribute
    `replay`. An event that is still pending for a destination is not delivered twice. A running relay starts the
    deliveries.

    \b
    whatsapp-webhook events replay 42 --destination bot
    whatsapp-webhook events replay --since 2h --dry-run
    whatsapp-webhook events replay --dead-letters --status 422 --rate 50
    """  # noqa: D301  click requires the character
    if not which and wanted == filters.EVERYTHING and not only_dead:
        raise click.UsageError(
            "Which events? Give a position, an id, or an option such as --since 2h or --dead-letters."
        )
    if which and wanted != filters.EVERYTHING:
        raise click.UsageError("Give positions and ids, or options that select events, not both.")
    if (reasons or statuses) and not only_dead:
        raise click.UsageError("--reason and --status select dead letters: add --dead-letters.")
    url = filters.inbox_of(inbox)
    with delivery_store.opened(url) as records, closing(engines.open_log(url)) as log:
        wanted = wanted.in_log(log)
        receivers = _receivers(names, {status.name for status in records.statuses()})
        if only_dead:
            letters = [each for each in records.dead_letters(limit=None) if is_selected(each, names, reasons, statuses)]
            source = _dead_letters(log, which, wanted, records, letters, url)
        else:
            letters, source = [], _stored(log, which, wanted, url)
        counts: Counter[str] = Counter()
        lost = {(letter.destination, letter.position) for letter in letters} if only_dead else None
        with _progress(source.total) as advance:
            for page in _pages(source.records, rate if not dry_run else None):
                identities = Identities(records.identities.pairs(by_identifiers(page)))
                for name, destination in receivers.items():
                    deliveries = [
                        planned(record, identities)
                        for record in page
                        if (destination.selects(record.event) if lost is None else (name, record.position) in lost)
                    ]
                    counts[name] += len(deliveries) if dry_run else records.replay(name, deliveries, now=clock.now_ms())
                advance(source.done_at(page[-1].position))
    _print_counts(counts, dry_run=dry_run, no_dead_letters=only_dead and not letters)


class _Source(NamedTuple):
    """The events to replay, and how far a replay is, in positions or in events, once one of them is done."""

    records: Iterator[Record]
    total: int
    done_at: Callable[[int], int]


def _receivers(names: tuple[str, ...], known: set[str]) -> Mapping[str, Destination]:
    """Return the destinations of the file, or those of *names*, that a relay knows."""
    known_now = {name: each for name, each in configured_destinations(os.environ).items() if name in known}
    for name in names:
        if name not in known_now:
            there = ", ".join(sorted(known_now)) or "none"
            raise click.BadParameter(f"There is no destination {name!r}. Destinations: {there}.")
    return {name: each for name, each in known_now.items() if not names or name in names}


def _stored(log: Log, which: tuple[str, ...], wanted: Filter, url: InboxUrl) -> _Source:
    if which:
        done = count(1)
        return _Source((reader.one(log, each, url) for each in which), len(which), lambda _: next(done))
    stored = reader.positions(log)
    return _Source(reader.oldest_first(log, stored, wanted), len(stored), lambda position: position - stored.start + 1)


def _dead_letters(
    log: Log,
    which: tuple[str, ...],
    wanted: Filter,
    records: DeliveryAdmin,
    letters: Sequence[DeadLetter],
    url: InboxUrl,
) -> _Source:
    given = {reader.one(log, each, url).position for each in which}
    positions = sorted({each.position for each in letters if not which or each.position in given})
    events = _events_of(log, positions, wanted, records)
    return _Source(events, len(positions), lambda position: bisect.bisect_right(positions, position))


def _events_of(log: Log, positions: Sequence[int], wanted: Filter, records: DeliveryAdmin) -> Iterator[Record]:
    """Yield the events of dead letters, from the log or as the relay saved them; report how many are in neither."""
    gone = 0
    for start in range(0, len(positions), PAGE_EVENTS):
        page = positions[start : start + PAGE_EVENTS]
        events = {**records.saved(page), **dict(log.at(page))}
        gone += len(page) - len(events)
        found = (Record(position, event) for position, event in sorted(events.items()))
        yield from (record for record in found if wanted.matches(record.event, record.position))
    if gone:
        click.echo(f"{gone} dead letters cannot be replayed: their events are no longer stored.", err=True)


@contextmanager
def _progress(total: int) -> Iterator[Callable[[int], None]]:
    """Show a progress bar on a terminal; yields what tells it how much is done."""
    bar = Progress(
        TextColumn("replaying"),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
        disable=not sys.stderr.isatty(),
    )
    with bar:
        task = bar.add_task("", total=total)
        yield lambda done: bar.update(task, completed=done)


def _pages(records: Iterator[Record], rate: int | None) -> Iterator[Sequence[Record]]:
    """Yield the records in pages; with a *rate*, a tenth of a second's worth at a time, and not faster."""
    size = PAGE_EVENTS if rate is None else min(max(rate // 10, 1), PAGE_EVENTS)
    due = time.monotonic()
    while page := list(islice(records, size)):
        time.sleep(max(due - time.monotonic(), 0))
        due = time.monotonic() + (len(page) / rate if rate else 0)
        yield page


def _print_counts(counts: Counter[str], *, dry_run: bool, no_dead_letters: bool) -> None:
    for name, number in sorted(counts.items()):
        events = "1 event" if number == 1 else f"{number} events"
        click.echo(f"{name}: {events} {'would be' if dry_run else 'will be'} delivered again.")
    if no_dead_letters:
        click.echo("No dead letters.")
    elif not counts.total():
        click.echo("No event matches, or all of them are pending already.")
