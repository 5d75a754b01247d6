"""The reader of the PostgreSQL inbox."""

import hashlib
from collections.abc import Collection, Sequence

from service.storage.people import Appearance
from service.storage.postgresql import rows, schema
from service.storage.postgresql.connection import ServerAddress, connect
from service.storage.postgresql.errors import map_errors
from service.storage.postgresql.schema import SCHEMA
from service.storage.protocols import Record
from service.storage.timelines import Timeline

# Not the sequence's value: it includes uncommitted events, which a reader that starts there would skip.
_LAST = f"""SELECT greatest((SELECT position FROM {SCHEMA}.event ORDER BY position DESC LIMIT 1),
                            (SELECT position FROM {SCHEMA}.progress WHERE name = 'dropped'))"""


class PostgresqlLog:
    """The reader of the PostgreSQL inbox, on its own connection; each query is its own transaction."""

    def __init__(self, address: ServerAddress) -> None:
        """Connect; raises InboxUnavailable, also if no server has created the tables yet."""
        self._db = connect(address)
        try:
            with map_errors():
                schema.require_version(self._db, "inbox", schema.MIGRATIONS)
        except BaseException:
            self._db.close()
            raise

    def read(self, after: int, limit: int, *, data: bool = True) -> Sequence[Record]:
        """Return the events after a position; see `Log`."""
        columns = rows.COLUMNS if data else rows.COLUMNS.replace(", data", ", ''::bytea")
        return self._records(
            "position > %s AND data IS NOT NULL ORDER BY position LIMIT %s", after, limit, columns=columns
        )

    def at(self, positions: Sequence[int]) -> Sequence[Record]:
        """Return the events at these positions; see `Log`."""
        return self._records("position = ANY(%s) AND data IS NOT NULL ORDER BY position", list(positions))

    def find(self, event_id: str) -> Record | None:
        """Return the event with this id, None if there is none; see `Log`."""
        digest = hashlib.sha256(event_id.encode()).digest()[:16]
        return next(iter(self._records("digest = %s AND data IS NOT NULL", digest)), None)

    def timelines(self) -> Sequence[Timeline]:
        """Return the only timeline; see `Log`. A backup of the database restores the relay's state with the log."""
        return [Timeline(self._number(f"SELECT position FROM {SCHEMA}.progress WHERE name = 'identity'"), 0)]

    def first(self) -> int:
        """Return the oldest position, in one statement so that it is consistent with `last`; see `Log`."""
        oldest = f"""SELECT position FROM {SCHEMA}.event WHERE data IS NOT NULL
                       AND position > (SELECT position FROM {SCHEMA}.progress WHERE name = 'bodies_dropped')
                     ORDER BY position LIMIT 1"""
        return self._number(f"SELECT coalesce(({oldest}), ({_LAST}) + 1)")

    def last(self) -> int:
        """Return the newest position; uncommitted events have higher ones; see `Log`."""
        return self._number(_LAST)

    def appearances(self, identifiers: Collection[str]) -> Sequence[Appearance]:
        """Return the events in which one of these numbers or user ids appears; see `LogEvents`."""
        with map_errors(self._db):
            return rows.appearances(self._db, identifiers)

    def close(self) -> None:
        """Close the connection."""
        self._db.close()

    def _number(self, query: str) -> int:
        with map_errors(self._db):
            return schema.number(self._db, query)

    def _records(self, condition: str, *values: object, columns: str = rows.COLUMNS) -> Sequence[Record]:
        query = f"SELECT position, {columns} FROM {SCHEMA}.event WHERE {condition}"
        with map_errors(self._db):
            selected = self._db.execute(query, values, binary=True).fetchall()
        return [rows.record(row) for row in selected]
