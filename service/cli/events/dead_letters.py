"""`events dead-letters` and `events replay`: list deliveries that were given up, and deliver events again."""

import os
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Final

import click

from service import clock
from service.cli import delivery_store
from service.cli.console import Column, Shorten, print_table
from service.cli.events import filters, reader
from service.cli.events.filters import Filter
from service.cli.load_config import configured
from service.cli.shared_options import dry_run_option, wide_option
from service.config import InboxUrl
from service.events import rfc3339
from service.relay import destinations
from service.relay.destinations import Destination
from service.storage import engines
from service.storage.deliveries import DeliveryAdmin, planned
from service.storage.identities import Identities, by_identifiers
from service.storage.protocols import Log, Record

DEFAULT_DEAD_LETTERS: Final = 50
PAGE_EVENTS: Final = 500


_COLUMNS: Final = (
    Column("given up"),
    Column("destination", least=11),
    Column("position"),
    Column("type", least=13, shorten=Shorten.START),
    Column("reason"),
    Column("attempts"),
)


@click.command(short_help="List dead letters with the reason.")
@filters.inbox_option
@click.option(
    "--limit",
    metavar="COUNT",
    type=click.IntRange(1),
    default=DEFAULT_DEAD_LETTERS,
    show_default=True,
    help="List the newest COUNT dead letters.",
)
@wide_option
def dead_letters(inbox: str | None, limit: int, *, wide: bool) -> None:
    """List dead letters: deliveries that were given up, with the reason and the number of attempts.

    `events show POSITION` prints every attempt; `events replay --dead-letters` delivers them again.

    \b
    whatsapp-webhook events dead-letters
    whatsapp-webhook events replay --dead-letters --dry-run
    """  # noqa: D301  click requires the character
    url = filters.inbox_of(inbox)
    with delivery_store.opened(url) as records:
        letters = records.dead_letters(limit=limit)
        saved = records.saved([letter.position for letter in letters])
    if not letters:
        click.echo("No dead letters.")
        return
    with closing(engines.open_log(url)) as log:
        positions = [letter.position for letter in letters]
        types = {position: event.type for position, event in saved.items()}
        types |= {record.position: record.event.type for record in log.at(positions)}
    print_table(
        _COLUMNS,
        [
            (
                rfc3339(letter.at)[:19],
                letter.destination,
                str(letter.position),
                types.get(letter.position, "(no longer stored)"),
                letter.reason,
                str(letter.attempts),
            )
            for letter in letters
        ],
        wide=wide,
    )


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
@dry_run_option
def replay(
    inbox: str | None, which: tuple[str, ...], wanted: Filter, names: tuple[str, ...], *, only_dead: bool, dry_run: bool
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
    whatsapp-webhook events replay --dead-letters
    """  # noqa: D301  click requires the character
    if not which and wanted == filters.EVERYTHING and not only_dead:
        raise click.UsageError(
            "Which events? Give a position, an id, or an option such as --since 2h or --dead-letters."
        )
    if which and wanted != filters.EVERYTHING:
        raise click.UsageError("Give positions and ids, or options that select events, not both.")
    url = filters.inbox_of(inbox)
    with delivery_store.opened(url) as records, closing(engines.open_log(url)) as log:
        wanted = wanted.in_log(log)
        receivers = _destinations(names, {status.name for status in records.statuses()})
        letters = records.dead_letters(limit=None) if only_dead else ()
        lost = {(letter.destination, letter.position) for letter in letters} if only_dead else None
        counts: Counter[str] = Counter()
        if lost is None:
            selected = _selected(log, which, wanted, url)
        else:
            selected = _of_dead_letters(log, which, wanted, records, lost, url)
        for page in _pages(selected):
            identities = Identities(records.identities.pairs(by_identifiers(page)))
            for name, destination in receivers.items():
                deliveries = [
                    planned(record, identities)
                    for record in page
                    if (destination.wants(record.event) if lost is None else (name, record.position) in lost)
                ]
                counts[name] += len(deliveries) if dry_run else records.replay(name, deliveries, now=clock.now_ms())
    _print_counts(counts, dry_run=dry_run, no_dead_letters=only_dead and not letters)


def _destinations(names: tuple[str, ...], known: set[str]) -> Mapping[str, Destination]:
    path = configured(os.environ).destinations
    if not path:
        raise click.ClickException("WEBHOOK_DESTINATIONS is not set. Set it to the path of the destinations file.")
    known_now = {each.name: each for each in destinations.parse(Path(path).read_bytes(), path) if each.name in known}
    for name in names:
        if name not in known_now:
            there = ", ".join(sorted(known_now)) or "none"
            raise click.BadParameter(f"There is no destination {name!r}. Destinations: {there}.")
    return {name: each for name, each in known_now.items() if not names or name in names}


def _selected(log: Log, which: tuple[str, ...], wanted: Filter, url: InboxUrl) -> Iterator[Record]:
    if which:
        return (reader.one(log, each, url) for each in which)
    return reader.oldest_first(log, reader.positions(log), wanted)


def _of_dead_letters(
    log: Log,
    which: tuple[str, ...],
    wanted: Filter,
    records: DeliveryAdmin,
    lost: Collection[tuple[str, int]],
    url: InboxUrl,
) -> Iterator[Record]:
    """Yield the events of dead letters, from the log or as the relay saved them; report how many are in neither."""
    selected_positions = {reader.one(log, each, url).position for each in which}
    positions = sorted({position for _, position in lost if not which or position in selected_positions})
    gone = 0
    for start in range(0, len(positions), PAGE_EVENTS):
        page = positions[start : start + PAGE_EVENTS]
        events = {**records.saved(page), **dict(log.at(page))}
        gone += len(page) - len(events)
        found = (Record(position, event) for position, event in sorted(events.items()))
        yield from (record for record in found if wanted.matches(record.event, record.position))
    if gone:
        click.echo(f"{gone} dead letters cannot be replayed: their events are no longer stored.", err=True)


def _pages(records: Iterator[Record]) -> Iterator[Sequence[Record]]:
    while page := list(islice(records, PAGE_EVENTS)):
        yield page


def _print_counts(counts: Counter[str], *, dry_run: bool, no_dead_letters: bool) -> None:
    for name, number in sorted(counts.items()):
        events = "1 event" if number == 1 else f"{number} events"
        click.echo(f"{name}: {events} {'would be' if dry_run else 'will be'} delivered again.")
    if no_dead_letters:
        click.echo("No dead letters.")
    elif not counts.total():
        click.echo("No event matches, or all of them are pending already.")
