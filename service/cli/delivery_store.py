"""Opening the relay's state for commands, which never create it."""

from collections.abc import Iterator
from contextlib import contextmanager

import click

from service.config import InboxUrl
from service.storage import engines
from service.storage.deliveries import DeliveryAdmin


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
