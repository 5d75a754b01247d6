"""The reader of the SQLite inbox."""

from collections.abc import Collection, Sequence
from pathlib import Path

import apsw

from service.errors import InboxUnavailable
from service.outcomes import StorageFailure
from service.storage.people import Appearance
from service.storage.protocols import Record
from service.storage.sqlite import rows, schema
from service.storage.sqlite.errors import map_errors
from service.storage.timelines import Timeline


class SqliteLog:
    """The reader of a SQLite inbox, in short transactions so that the writer can checkpoint its WAL."""

    def __init__(self, path: Path) -> None:
        """Open the database read-only; raises InboxUnavailable if there is none or it can't be read."""
        schema.require_library(apsw.sqlite_lib_version())
        self._path = path
        with map_errors(self._path):
            self._db = schema.open_existing(path)
            self._inode = path.stat().st_ino

    def read(self, after: int, limit: int, *, data: bool = True) -> Sequence[Record]:
        """Return the events after a position; see `Log`."""
        self._require_file()
        columns = rows.COLUMNS if data else rows.COLUMNS.replace(", data", ", x''")
        return self._records(
            "position > ? AND data IS NOT NULL ORDER BY position LIMIT ?", after, limit, columns=columns
        )

    def at(self, positions: Sequence[int]) -> Sequence[Record]:
        """Return the events at these positions; see `Log`."""
        marks = ",".join("?" * len(positions))
        return self._records(f"position IN ({marks}) AND data IS NOT NULL ORDER BY position", *positions)

    def timelines(self) -> Sequence[Timeline]:
        """Return the timelines, oldest first; see `Log`."""
        with map_errors(self._path):
            return schema.timelines(self._db)

    def first(self) -> int:
        """Return the oldest position; see `Log`."""
        with map_errors(self._path):
            dropped = schema.number(self._db, "SELECT position FROM progress WHERE name = 'bodies_dropped'")
        return next((record.position for record in self.read(dropped, 1)), self.last() + 1)

    def last(self) -> int:
        """Return the newest position; see `Log`."""
        with map_errors(self._path):
            return schema.number(self._db, schema.LAST_POSITION)

    def find(self, event_id: str) -> Record | None:
        """Return the event with this id, None if there is none; reads the whole index."""
        same_hash = f"SELECT position FROM event WHERE substr(digest, {rows.SECOND_BYTES + 1}) = ?"  # noqa: S608  no value is in the text
        condition = f"position IN ({same_hash}) AND data IS NOT NULL"
        return next(iter(self._records(condition, rows.hash_id(event_id))), None)

    def appearances(self, identifiers: Collection[str]) -> Sequence[Appearance]:
        """Return the events in which one of these numbers or user ids appears; see `LogEvents`."""
        with map_errors(self._path):
            return rows.appearances(self._db, identifiers)

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def _require_file(self) -> None:
        try:
            same = self._path.stat().st_ino == self._inode
        except OSError:
            same = False
        if not same:
            raise InboxUnavailable(
                StorageFailure.VANISHED, f"{self._path} was moved or replaced while it was being read", reopen=True
            )

    def _records(self, condition: str, *values: int | bytes, columns: str = rows.COLUMNS) -> Sequence[Record]:
        query = f"SELECT position, {columns} FROM event WHERE {condition}"  # noqa: S608  the condition is a constant of this module
        with map_errors(self._path):
            selected = self._db.execute(query, values).fetchall()
        return [rows.record(row) for row in selected]
