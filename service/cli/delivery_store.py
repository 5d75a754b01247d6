"""The relay's state, as the commands open it: never made by them."""

from collections.abc import Iterator
from contextlib import contextmanager

import click

from service.config import InboxUrl
from service.storage import delivery_stores
from service.storage.deliveries import Records


@contextmanager
def opened(url: InboxUrl) -> Iterator[Records]:
    """Open the state that lies beside the inbox; raises ClickException where no relay ever ran."""
    delivery_stores.require_log(url)
    with opened_if_any(url) as records:
        if records is None:
            raise click.ClickException(f"There is no {delivery_stores.place(url)}: no relay has run with this inbox.")
        yield records


@contextmanager
def opened_if_any(url: InboxUrl) -> Iterator[Records | None]:
    """Open the state that lies beside the inbox; None where no relay ever ran."""
    if not delivery_stores.exists(url):
        yield None
        return
    found = delivery_stores.opened(url)
    try:
        yield found.records
    finally:
        found.close()
