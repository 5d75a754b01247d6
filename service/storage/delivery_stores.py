"""Where the relay remembers: beside the inbox, in what keeps that."""

from collections.abc import Callable
from typing import NamedTuple

from service.config import InboxUrl
from service.errors import ConfigurationError
from service.storage import engines, url_reload
from service.storage.deliveries import Records, State
from service.storage.low_watermark import Hold
from service.storage.sqlite import deliveries as sqlite


class Stores(NamedTuple):
    """The relay's state, opened."""

    work: State
    records: Records
    close: Callable[[], None]
    url: Callable[[], InboxUrl]  # of the database that it is in now, where its log is too


def require_log(url: InboxUrl) -> None:
    """Raise ConfigurationError where the inbox is none that a relay reads."""
    if url.engine in engines.STREAMS:
        raise ConfigurationError(
            [f"There is no relay for {url.engine}: consumers of yours read it, docs/engines.md shows how."]
        )
    if url.engine == "memory":
        raise ConfigurationError(["The relay can't read an inbox in memory: use SQLite or PostgreSQL."])


def opened(url: InboxUrl) -> Stores:
    """Open the state, and make it where there is none; raises InboxUnavailable."""
    if url.engine == "postgresql":
        from service.storage.postgresql import deliveries as postgresql  # noqa: PLC0415  its client is an optional part of the installation

        tables = postgresql.Store(url)
        work, records = postgresql.PostgresqlWork(tables), postgresql.PostgresqlRecords(tables)
        return Stores(work, records, tables.close, lambda: tables.url)
    store = sqlite.Store(url.path.with_name(sqlite.NAME))
    return Stores(sqlite.SqliteWork(store), sqlite.SqliteRecords(store), store.close, lambda: url)


def exists(url: InboxUrl) -> bool:
    """Say whether a relay ever made its state; raises InboxUnavailable."""
    if url.engine == "postgresql":
        from service.storage.postgresql import deliveries as postgresql  # noqa: PLC0415  as above

        return postgresql.exists(url)
    return url.engine == "sqlite" and url.path.with_name(sqlite.NAME).exists()


def place(url: InboxUrl) -> str:
    """Say, to a person, where the state is."""
    return str(url.path.with_name(sqlite.NAME)) if url.engine == "sqlite" else f"relay's table in {url}"


def hold(url: InboxUrl) -> Hold:
    """Make what says which position of the inbox a relay still needs."""
    if url.engine == "postgresql":
        from service.storage.postgresql import deliveries as postgresql  # noqa: PLC0415  as above

        return Hold(
            lambda now: postgresql.needed(url_reload.in_force(url), now=now),
            lambda: postgresql.heartbeat(url_reload.in_force(url)),
        )
    if url.engine == "sqlite":
        path = url.path.with_name(sqlite.NAME)
        return Hold(lambda now: sqlite.needed(path, now=now), lambda: sqlite.heartbeat(path))
    return Hold(lambda _: None)
