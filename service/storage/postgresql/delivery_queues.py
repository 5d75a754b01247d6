"""Statements on delivery queues that planning and settling share, and helpers for rows and columns."""

from collections.abc import Iterable, Sequence
from typing import Any, Final

from service.storage.postgresql.connection import PostgresqlConnection
from service.storage.postgresql.delivery_database import PostgresqlDeliveryDatabase, Rows
from service.storage.postgresql.schema import SCHEMA as T

LOCK_IN_ORDER: Final = "ORDER BY destination, queue FOR UPDATE"


class DestinationIds:
    """Cache of the destinations' ids by name."""

    def __init__(self, store: PostgresqlDeliveryDatabase) -> None:
        self._store = store
        self._ids: dict[str, int] = {}
        self._connections = 0

    def __getitem__(self, name: str) -> int:
        if self._connections != self._store.connections:  # a new connection may be to another database
            self._ids.clear()
            self._connections = self._store.connections
        if name not in self._ids:
            ((self._ids[name],),) = self._store.rows(f"SELECT id FROM {T}.destination WHERE name = %s", (name,))
        return self._ids[name]


def lock_queues(db: PostgresqlConnection, queues: Iterable[tuple[Any, ...]]) -> None:
    """Lock these queues, given as destination and name, in the order that avoids deadlocks."""
    db.execute(
        f"""SELECT 1 FROM {T}.delivery_queue
            WHERE (destination, queue) IN (SELECT * FROM unnest(%s::int[], %s::text[])) {LOCK_IN_ORDER}""",
        columns(list(queues), 2),
    )


def drop_empty_queues(db: PostgresqlConnection, queues: Iterable[tuple[Any, ...]]) -> None:
    """Drop those of the queues that have no deliveries; they must be locked."""
    db.execute(
        f"""DELETE FROM {T}.delivery_queue WHERE (destination, queue) IN (SELECT * FROM unnest(%s::int[], %s::text[]))
              AND NOT EXISTS (
                SELECT 1 FROM {T}.delivery
                WHERE delivery.destination = delivery_queue.destination AND delivery.queue = delivery_queue.queue)""",
        columns(list(queues), 2),
    )


def store_dead_letters(db: PostgresqlConnection, dead_letters: Sequence[tuple[Any, ...]]) -> None:
    """Store dead letters: destination, position, reason, attempts, time and last status."""
    db.execute(
        f"""INSERT INTO {T}.dead_letter (destination, position, reason, attempts, at, status)
            SELECT * FROM unnest(%s::int[], %s::bigint[], %s::text[], %s::int[], %s::bigint[], %s::int[])
            ON CONFLICT (destination, position) DO UPDATE SET reason = excluded.reason,
              attempts = excluded.attempts, at = excluded.at, status = excluded.status""",
        columns(dead_letters, 6),
    )


def columns(rows: Sequence[tuple[Any, ...]], number: int) -> list[list[Any]]:
    """Return rows of *number* columns as one array per column."""
    return [[row[column] for row in rows] for column in range(number)]


def rows(db: PostgresqlConnection, query: str, *values: object) -> Rows:
    """Return the rows that *query* selects."""
    return db.execute(query, values).fetchall()


def row(db: PostgresqlConnection, query: str) -> tuple[Any, ...]:
    """Return the one row that *query* selects."""
    (only_row,) = rows(db, query)
    return only_row
