"""Lanes, as who plans and who settles must treat them; and rows as PostgreSQL wants them."""

from collections.abc import Iterable, Sequence
from typing import Any, Final

from service.storage.postgresql.connection import Connection
from service.storage.postgresql.delivery_database import Rows, Store
from service.storage.postgresql.schema import NAME as T

ORDER: Final = "ORDER BY destination, lane FOR UPDATE"


class Keys:
    """Destinations' numbers by their names, each looked up once."""

    def __init__(self, store: Store) -> None:
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


def lock(db: Connection, lanes: Iterable[tuple[Any, ...]]) -> None:
    """Wait for whoever has these lanes, in the order in which everybody does."""
    db.execute(
        f"SELECT 1 FROM {T}.lane WHERE (destination, lane) IN (SELECT * FROM unnest(%s::int[], %s::text[])) {ORDER}",
        columns(list(lanes), 2),
    )


def let_go(db: Connection, lanes: Iterable[tuple[Any, ...]]) -> None:
    """Drop the lanes, of those that are locked, in which nothing is owed."""
    db.execute(
        f"""DELETE FROM {T}.lane WHERE (destination, lane) IN (SELECT * FROM unnest(%s::int[], %s::text[]))
              AND NOT EXISTS (
                SELECT 1 FROM {T}.owed WHERE owed.destination = lane.destination AND owed.lane = lane.lane)""",
        columns(list(lanes), 2),
    )


def columns(rows: Sequence[tuple[Any, ...]], number: int) -> list[list[Any]]:
    """Give rows as arrays, one a column."""
    return [[row[at] for row in rows] for at in range(number)]


def rows(db: Connection, query: str, *values: object) -> Rows:
    """Give what *query* finds."""
    return db.execute(query, values).fetchall()


def row(db: Connection, query: str) -> tuple[Any, ...]:
    """Give the one row that *query* finds."""
    (found,) = rows(db, query)
    return found
