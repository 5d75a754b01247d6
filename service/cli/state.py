"""The relay's state, as the commands open it: never made by them."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from service.config import InboxUrl
from service.relay.sqlite import NAME, Store


@contextmanager
def opened(url: InboxUrl) -> Iterator[Store]:
    """Open the state that lies beside the inbox; raises ClickException where no relay ever ran."""
    with opened_if_any(url) as store:
        if store is None:
            raise click.ClickException(f"There is no {_path(url)}: no relay has run with this inbox.")
        yield store


@contextmanager
def opened_if_any(url: InboxUrl) -> Iterator[Store | None]:
    """Open the state that lies beside the inbox; None where no relay ever ran."""
    if url.engine != "sqlite" or not _path(url).exists():
        yield None
        return
    store = Store(_path(url))
    try:
        yield store
    finally:
        store.close()


def _path(url: InboxUrl) -> Path:
    return url.path.with_name(NAME)
