"""Opening the relay's state for commands, which never create it, and what they do with pending deliveries."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

import click

from service import clock
from service.config import InboxUrl
from service.outcomes import DeadLetterReason
from service.storage import engines
from service.storage.deliveries import DeliveryAdmin, DestinationStatus

PAGE_EVENTS: Final = 500
RUNNING_POLL_SECONDS: Final = 0.1  # between two looks at a delivery whose attempt runs


@contextmanager
def opened(url: InboxUrl) -> Iterator[DeliveryAdmin]:
    """Open the state beside the inbox; raises ClickException if no relay ever ran."""
    storage = engines.deliveries(url)
    with opened_if_any(url) as records:
        if records is None:
            raise click.ClickException(f"There is no {storage.location(url)}: no relay has run with this inbox.")
        yield records


@contextmanager
def opened_if_any(url: InboxUrl) -> Iterator[DeliveryAdmin | None]:
    """Open the state beside the inbox; None if no relay ever ran."""
    storage = engines.load(url).deliveries
    if storage is None or not storage.exists(url):
        yield None
        return
    store = storage.open(url)
    try:
        yield store.records
    finally:
        store.close()


def status_of(records: DeliveryAdmin, name: str) -> DestinationStatus:
    """Return the state of a destination; raises ClickException with the known names if there is none."""
    known = {each.name: each for each in records.statuses()}
    if name not in known:
        there = ", ".join(sorted(known)) or "none yet"
        raise click.ClickException(f"There is no destination {name!r}. Destinations: {there}.")
    return known[name]


def give_up(records: DeliveryAdmin, name: str, positions: Sequence[int], reason: DeadLetterReason) -> Sequence[int]:
    """Make dead letters of pending deliveries, and return their positions.

    Waits for running attempts, each of which ends at its timeout: what is delivered meanwhile is no dead letter.
    """
    given_up, running = records.give_up(name, positions, reason, now=clock.now_ms())
    done = [*given_up]
    while running:
        time.sleep(RUNNING_POLL_SECONDS)
        given_up, running = records.give_up(name, running, reason, now=clock.now_ms())
        done += given_up
    return sorted(done)
