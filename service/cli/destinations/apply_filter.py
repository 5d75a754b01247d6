"""`destinations apply-filter`: give up pending deliveries that a destination's filter no longer selects."""

import os
from collections.abc import Iterator, Sequence
from contextlib import closing

import click

from service import clock
from service.cli import delivery_store
from service.cli.delivery_store import PAGE_EVENTS
from service.cli.events import filters
from service.cli.load_destinations import configured_destinations
from service.cli.shared_options import dry_run_option, yes_option
from service.outcomes import DeadLetterReason
from service.relay.destinations import Destination
from service.storage import engines
from service.storage.deliveries import DeliveryAdmin
from service.storage.protocols import Log


@click.command("apply-filter", short_help="Give up pending deliveries that a changed filter excludes.")
@filters.inbox_option
@click.argument("name")
@dry_run_option
@yes_option
def apply_filter(inbox: str | None, name: str, *, dry_run: bool, yes: bool) -> None:
    """Make dead letters of the pending deliveries that a destination's filter excludes, with the reason `filtered`.

    The filter of the file of WEBHOOK_DESTINATIONS decides which new events a destination gets. What is pending already
    is delivered, even if a changed filter excludes it, unless you run this command. Asks for confirmation.

    \b
    whatsapp-webhook destinations apply-filter bot --dry-run
    """  # noqa: D301  click requires the character
    url = filters.inbox_of(inbox)
    with delivery_store.opened(url) as records, closing(engines.open_log(url)) as log:
        delivery_store.status_of(records, name)
        configured = configured_destinations(os.environ)
        if name not in configured:
            raise click.ClickException(f"{name} is not in the file of WEBHOOK_DESTINATIONS, so it has no filter.")
        excluded = [each for page in _excluded(records, log, configured[name]) for each in page]
        if dry_run or not excluded:
            click.echo(f"{name}: the filter excludes {len(excluded)} pending deliveries.")
            return
        if not yes:
            click.confirm(f"{name}: make dead letters of {len(excluded)} pending deliveries?", abort=True)
        given_up = 0
        for start in range(0, len(excluded), PAGE_EVENTS):
            page = excluded[start : start + PAGE_EVENTS]
            given_up += len(delivery_store.give_up(records, name, page, DeadLetterReason.FILTERED))
    click.echo(f"{name}: {given_up} pending deliveries are dead letters now, with the reason filtered.")
    if given_up < len(excluded):
        click.echo(f"{name}: {len(excluded) - given_up} were delivered meanwhile.")


def _excluded(records: DeliveryAdmin, log: Log, destination: Destination) -> Iterator[Sequence[int]]:
    """Yield positions of pending events that the filter excludes, a page at a time."""
    after = 0
    while page := records.pending(destination.name, after=after, limit=PAGE_EVENTS, now=clock.now_ms()):
        positions = [each.position for each in page]
        events = {**records.saved(positions), **dict(log.at(positions))}
        yield [position for position, event in sorted(events.items()) if not destination.selects(event)]
        after = positions[-1]
