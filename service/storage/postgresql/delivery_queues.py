"""Queues, as who plans and who settles must treat them; and rows as PostgreSQL wants them."""

from collections.abc import Iterable, Sequence
from typing import Any, Final

from service.storage.postgresql.connection import PostgresqlConnection
from service.storage.postgresql.delivery_database import PostgresqlDeliveryDatabase, Rows
from service.storage.postgresql.schema import SCHEMA as T

ORDER: Final = "ORDER BY destination, queue FOR UPDATE"


class DestinationIds:
    """Destinations' numbers by their names, each looked up once."""

    def __init__(self, store: PostgresqlDeliveryDatabase) -> None:
        self._store = store
        self._known: dict[str, int] = {}
        self._connections = 0

    def __getitem__(self, name: str) -> int:
        if self._connections != self._store.connections:  # it may be another database by now
            self._known.clear()
            self._connections = self._store.connections
        if name not in self._known:
            ((self._known[name],),) = self._store.rows(f"SELECT id FROM {T}.destination WHERE name = %s", (name,))
        return self._known[name]


def lock(db: PostgresqlConnection, queues: Iterable[tuple[Any, ...]]) -> None:
    """Wait for whoever has these queues, in the order in which everybody does."""
    db.execute(
        f"""SELECT 1 FROM {T}.delivery_queue
            WHERE (destination, queue) IN (SELECT * FROM unnest(%s::int[], %s::text[])) {ORDER}""",
        columns(list(queues), 2),
    )


def drop_empty_queues(db: PostgresqlConnection, queues: Iterable[tuple[Any, ...]]) -> None:
    """Drop the queues, of those that are locked, in which nothing is owed."""
    db.execute(
        f"""DELETE FROM {T}.delivery_queue WHERE (destination, queue) IN (SELECT * FROM unnest(%s::int[], %s::text[]))
              AND NOT EXISTS (
                SELECT 1 FROM {T}.delivery
                WHERE delivery.destination = delivery_queue.destination AND delivery.queue = delivery_queue.queue)""",
        columns(list(queues), 2),
    )


def columns(rows: Sequence[tuple[Any, ...]], number: int) -> list[list[Any]]:
    """Give rows as arrays, one a column."""
    return [[row[at] for row in rows] for at in range(number)]


def rows(db: PostgresqlConnection, query: str, *values: object) -> Rows:
    """Give what *query* finds."""
    return db.execute(query, values).fetchall()


def row(db: PostgresqlConnection, query: str) -> tuple[Any, ...]:
    """Give the one row that *query* finds."""
    (found,) = rows(db, query)
    return found
