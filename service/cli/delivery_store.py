"""The relay's state, as the commands open it: never made by them."""

from collections.abc import Iterator
from contextlib import contextmanager

import click

from service.config import InboxUrl
from service.storage import engines
from service.storage.deliveries import DeliveryAdmin


@contextmanager
def opened(url: InboxUrl) -> Iterator[DeliveryAdmin]:
    """Open the state that lies beside the inbox; raises ClickException where no relay ever ran."""
    stored = engines.deliveries(url)
    with opened_if_any(url) as records:
        if records is None:
            raise click.ClickException(f"There is no {stored.location(url)}: no relay has run with this inbox.")
        yield records


@contextmanager
def opened_if_any(url: InboxUrl) -> Iterator[DeliveryAdmin | None]:
    """Open the state that lies beside the inbox; None where no relay ever ran."""
    stored = engines.load(url).deliveries
    if stored is None or not stored.exists(url):
        yield None
        return
    found = stored.open(url)
    try:
        yield found.records
    finally:
        found.close()
