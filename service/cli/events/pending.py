"""`events list --pending`: the events that are pending for a destination."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from itertools import islice
from typing import Final, NamedTuple

import click

from service import clock
from service.cli import delivery_store
from service.cli.console import Column, Shorten, in_seconds, print_table
from service.cli.delivery_store import PAGE_EVENTS
from service.cli.events.filters import EVERYTHING, Filter
from service.config import InboxUrl
from service.events import Event, rfc3339, structured
from service.storage import engines
from service.storage.deliveries import DeliveryAdmin, PendingDelivery
from service.storage.protocols import Log

DEFAULT_PENDING: Final = 20
_COLUMNS: Final = (
    Column("position"),
    Column("received"),
    Column("type", least=13, shorten=Shorten.START),
    Column("subject", least=12),
    Column("attempts"),
    Column("next attempt"),
)


class _Pending(NamedTuple):
    delivery: PendingDelivery
    event: Event | None  # None: it is no longer stored


def print_pending(url: InboxUrl, name: str, wanted: Filter, limit: int | None, *, wide: bool, as_json: bool) -> None:
    """Print the oldest events that are pending for a destination: 20 as a table, or all as JSON."""
    now = clock.now_ms()
    with delivery_store.opened(url) as records, closing(engines.open_log(url)) as log:
        status = delivery_store.status_of(records, name)
        wanted = wanted.in_log(log)
        matching = (each for each in _pending(records, log, name, now) if _matches(each, wanted))
        if as_json:
            for _, event in islice(matching, limit):
                if event is not None:
                    sys.stdout.buffer.write(structured(event) + b"\n")
            return
        found = list(islice(matching, limit or DEFAULT_PENDING))
    if not found:
        click.echo(f"No event is pending for {name}." if not status.backlog else "No pending event matches.")
        return
    print_table(_COLUMNS, [_cells(each, now) for each in found], wide=wide)
    click.echo(f"{len(found)} of {status.backlog} pending events. `events show POSITION` shows one with its attempts.")


def _pending(records: DeliveryAdmin, log: Log, name: str, now: int) -> Iterator[_Pending]:
    after = 0
    while page := records.pending(name, after=after, limit=PAGE_EVENTS, now=now):
        positions = [each.position for each in page]
        events = {**records.saved(positions), **dict(log.at(positions))}
        yield from (_Pending(each, events.get(each.position)) for each in page)
        after = positions[-1]


def _matches(pending: _Pending, wanted: Filter) -> bool:
    if pending.event is None:
        return wanted == EVERYTHING
    return wanted.matches(pending.event, pending.delivery.position)


def _cells(pending: _Pending, now: int) -> Sequence[str]:
    delivery, event = pending
    return (
        str(delivery.position),
        rfc3339(event.received_at)[:19] if event else "",
        event.type if event else "(no longer stored)",
        (event.subject or "") if event else "",
        f"{delivery.attempts} (skipped)" if delivery.skipped else str(delivery.attempts),
        _next_attempt(delivery, now),
    )


def _next_attempt(delivery: PendingDelivery, now: int) -> str:
    if delivery.leased:
        return "running"
    return in_seconds(delivery.due, now) if delivery.position == delivery.first else f"after {delivery.first}"
