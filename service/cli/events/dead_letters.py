"""`events dead-letters` and `events replay`: what was given up, and another chance."""

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
from service.cli.console import print_table
from service.cli.events import filters, reader
from service.cli.events.filters import Filter
from service.cli.load_config import configured
from service.cli.shared_options import dry_run_option
from service.config import InboxUrl
from service.events import rfc3339
from service.relay import destinations
from service.relay.destinations import Destination
from service.storage import engines
from service.storage.deliveries import Delivery, DeliveryAdmin
from service.storage.protocols import Log, Record

DEFAULT_DEAD_LETTERS: Final = 50
REPLAYED_AT_ONCE: Final = 500


@click.command(short_help="List dead letters, with the reason.")
@filters.inbox_option
@click.option(
    "--limit", type=click.IntRange(1), default=DEFAULT_DEAD_LETTERS, show_default=True, help="The newest so many."
)
def dead_letters(inbox: str | None, limit: int) -> None:
    """List dead letters: events that a destination will not get, why, and after how many attempts.

    \b
    whatsapp-webhook events dead-letters
    whatsapp-webhook events replay --dead-letters --dry-run
    """  # noqa: D301  click wants the character
    url = filters.where(inbox)
    with delivery_store.opened(url) as records:
        letters = records.dead_letters(limit=limit)
        saved = records.saved([letter.position for letter in letters])
    if not letters:
        click.echo("No dead letters.")
        return
    with closing(engines.open_log(url)) as log:
        positions = [letter.position for letter in letters]
        kinds = {position: event.type for position, event in saved.items()}
        kinds |= {record.position: record.event.type for record in log.at(positions)}
    print_table(
        ("given up", "destination", "position", "type", "reason", "attempts"),
        [
            (
                rfc3339(letter.at)[:19],
                letter.destination,
                str(letter.position),
                kinds.get(letter.position, "(no longer stored)"),
                letter.reason,
                str(letter.attempts),
            )
            for letter in letters
        ],
    )


@click.command(short_help="Deliver events again.")
@filters.inbox_option
@click.argument("which", metavar="[POSITION|ID]...", nargs=-1)
@filters.filtered
@click.option("--destination", "names", metavar="NAME", multiple=True, help="Only to this one; may be repeated.")
@click.option(
    "--dead-letters", "only_dead", is_flag=True, help="Only dead letters, to the destination that did not get them."
)
@dry_run_option
def replay(
    inbox: str | None, which: tuple[str, ...], wanted: Filter, names: tuple[str, ...], *, only_dead: bool, dry_run: bool
) -> None:
    """Deliver events once more: by position or id, or those that the options choose.

    A destination gets what its filter wants (the file is WEBHOOK_DESTINATIONS), with the same id as before, marked
    with the attribute `replay` where its format has attributes. What it is owed already is not owed twice.

    \b
    whatsapp-webhook events replay 42 --destination bot
    whatsapp-webhook events replay --since 2h --type 'com.whatsapp.message.*' --dry-run
    whatsapp-webhook events replay --dead-letters
    """  # noqa: D301  click wants the character
    if not which and wanted == filters.EVERYTHING and not only_dead:
        raise click.UsageError("Say which: a position, an id, or options such as --since 2h or --dead-letters.")
    if which and wanted != filters.EVERYTHING:
        raise click.UsageError("Give positions and ids, or options that choose: not both.")
    url = filters.where(inbox)
    with delivery_store.opened(url) as records, closing(engines.open_log(url)) as log:
        takers = _takers(names, {status.name for status in records.statuses()})
        letters = records.dead_letters(limit=None) if only_dead else ()
        lost = {(letter.destination, letter.position) for letter in letters} if only_dead else None
        counts: Counter[str] = Counter()
        found = _found(log, which, wanted, url) if lost is None else _dead(log, which, wanted, records, lost, url)
        for page in _pages(found):
            for name, taker in takers.items():
                deliveries = [
                    Delivery(position, event.partitionkey, event.received_at)
                    for position, event in page
                    if (taker.wants(event) if lost is None else (name, position) in lost)
                ]
                counts[name] += len(deliveries) if dry_run else records.replay(name, deliveries, now=clock.now_ms())
    _tell(counts, dry_run=dry_run)


def _takers(names: tuple[str, ...], known: set[str]) -> Mapping[str, Destination]:
    path = configured(os.environ).destinations
    if not path:
        raise click.ClickException("WEBHOOK_DESTINATIONS is not set: it names the file with the destinations.")
    takers = {each.name: each for each in destinations.parse(Path(path).read_bytes(), path) if each.name in known}
    for name in names:
        if name not in takers:
            raise click.BadParameter(f"there is no {name!r}; there are: {', '.join(sorted(takers))}.")
    return {name: taker for name, taker in takers.items() if not names or name in names}


def _found(log: Log, which: tuple[str, ...], wanted: Filter, url: InboxUrl) -> Iterator[Record]:
    if which:
        return (reader.one(log, each, url) for each in which)
    return reader.oldest_first(log, reader.positions(log), wanted)


def _dead(
    log: Log,
    which: tuple[str, ...],
    wanted: Filter,
    records: DeliveryAdmin,
    lost: Collection[tuple[str, int]],
    url: InboxUrl,
) -> Iterator[Record]:
    """Yield the events of dead letters, from the log or as they were saved; those that are in neither are counted."""
    chosen_positions = {reader.one(log, each, url).position for each in which}
    positions = sorted({position for _, position in lost if not which or position in chosen_positions})
    gone = 0
    for start in range(0, len(positions), REPLAYED_AT_ONCE):
        page = positions[start : start + REPLAYED_AT_ONCE]
        found = {**records.saved(page), **dict(log.at(page))}
        gone += len(page) - len(found)
        yield from (Record(position, event) for position, event in sorted(found.items()) if wanted.takes(event))
    if gone:
        click.echo(f"{gone} dead letters cannot be replayed: their events are no longer stored.", err=True)


def _pages(found: Iterator[Record]) -> Iterator[Sequence[Record]]:
    while page := list(islice(found, REPLAYED_AT_ONCE)):
        yield page


def _tell(counts: Counter[str], *, dry_run: bool) -> None:
    for name, number in sorted(counts.items()):
        click.echo(f"{name}: {number} events {'would be' if dry_run else 'are'} delivered once more.")
    if not counts.total():
        click.echo("Nothing is chosen, or all of it is owed already.")
