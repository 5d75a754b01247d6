"""What a person asks of the relay's state, and does; and what the receiver must know of it."""

from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path

import apsw

from service.errors import InboxUnavailable
from service.events import Event
from service.outcomes import StorageFailure
from service.storage.deliveries import (
    GONE_LONG,
    MAX_CLOCK_AHEAD_MS,
    MAX_HEARTBEAT_AGE_MS,
    Dead,
    Owed,
    Standing,
    Story,
    Try,
)
from service.storage.sqlite.delivery_database import APPLICATION_ID, TABLES, Rows, Store
from service.storage.sqlite.delivery_queue import let_go, saved_events
from service.storage.sqlite.ownership import Owner, require_ours


class SqliteRecords:
    """`Records`, see there."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def standings(self) -> Sequence[Standing]:
        """Say how each destination stands; see `Records`."""
        rows = self._store.rows(
            """SELECT name, position, disabled, gone_since, owed,
                 (SELECT received_at FROM owed WHERE destination = id ORDER BY position LIMIT 1),
                 (SELECT count(*) FROM dead WHERE destination = id)
               FROM destination ORDER BY name"""
        )
        return [Standing(*row) for row in rows]

    def dead(self, *, limit: int | None) -> Sequence[Dead]:
        """Give the dead letters of last; see `Records`."""
        rows = self._store.rows(
            """SELECT * FROM (SELECT name, dead.position, reason, tries, at FROM dead
                 JOIN destination ON id = destination ORDER BY at DESC, dead.position DESC LIMIT ?)
               ORDER BY at, position""",
            (-1 if limit is None else limit,),
        )
        return [Dead(*row) for row in rows]

    def story(self, position: int) -> Sequence[Story]:
        """Tell what became of the event at *position*; see `Records`."""
        tried = self._store.rows(
            """SELECT name, at, seconds, status, outcome FROM tried JOIN destination ON id = destination
               WHERE tried.position = ? ORDER BY at""",
            (position,),
        )
        stands = {name: "delivered" for name, *_ in tried}
        for table, word in (("owed", "'waiting'"), ("dead", "'dead: ' || reason")):
            query = f"SELECT name, {word} FROM destination JOIN {table} AS t ON t.destination = id AND t.position = ?"  # noqa: S608  constants
            stands |= dict(self._store.rows(query, (position,)))
        return [
            Story(name, stands[name], [Try(*row[1:]) for row in tried if row[0] == name]) for name in sorted(stands)
        ]

    def saved(self, positions: Sequence[int]) -> Mapping[int, Event]:
        """Return the saved events of dead letters; see `Records`."""
        return saved_events(self._store, positions)

    def positions_of(self, subject: str) -> Sequence[int]:
        """Return the positions of what is kept of a person; see `Records`."""
        query = """SELECT position FROM saved_event WHERE subject = ?
                   UNION SELECT position FROM owed WHERE substr(lane, -length(?) - 1) = ':' || ? ORDER BY position"""
        return [position for (position,) in self._store.rows(query, (subject, subject, subject))]

    def heartbeat(self) -> int:
        """Return when a relay last said that it runs; see `Records`."""
        ((seen,),) = self._store.rows("SELECT seen FROM heartbeat")
        return int(seen)

    def clear(self) -> None:
        """Drop everything; see `Records`."""
        with self._store.transaction() as db:
            for table in (*TABLES, "destination", "origin"):
                db.execute(f"DELETE FROM {table}")  # noqa: S608  one of these
            db.execute("UPDATE heartbeat SET seen = 0")
        self._store.clean()

    def replay(self, name: str, owed: Sequence[Owed], *, now: int) -> int:
        """Owe events once more; see `Records`."""
        with self._store.transaction() as db:
            ((key, read),) = db.execute("SELECT id, position FROM destination WHERE name = ?", (name,))
            added = 0
            for each in owed:
                if each.position > read:  # it will be owed anyway
                    continue
                insert = "INSERT OR IGNORE INTO owed VALUES (?, ?, ?, ?, ?, 1) RETURNING 1"
                added += len(db.execute(insert, (key, *each, now)).fetchall())
                lane = "INSERT OR IGNORE INTO lane (destination, lane, due) VALUES (?, ?, ?)"
                db.execute(lane, (key, each.lane, now))
                db.execute("DELETE FROM dead WHERE destination = ? AND position = ?", (key, each.position))
            db.execute("UPDATE destination SET owed = owed + ? WHERE id = ?", (added, key))
        return added

    def disable(self, name: str, reason: str | None) -> bool:
        """Deliver nothing more to a destination, or go on; see `Switch`."""
        change = """UPDATE destination SET disabled = ?, failing_since = NULL, failures = 0
                    WHERE name = ? AND (disabled IS NULL) <> (? IS NULL) RETURNING 1"""
        with self._store.transaction() as db:
            return bool(db.execute(change, (reason, name, reason)).fetchall())

    def forget(self, positions: Sequence[int]) -> bool:
        """Owe these events to nobody, and tell nothing of them; see `Records`."""
        one = [(position,) for position in positions]
        every = "WHERE (destination, position) IN (SELECT id, ? FROM destination)"
        with self._store.transaction() as db:
            gone: Rows = db.executemany(f"DELETE FROM owed {every} RETURNING destination, lane", one).fetchall()  # noqa: S608  constants
            let_go(db, gone)
            db.executemany(f"DELETE FROM dead {every}", one)  # noqa: S608  constants
            for table in ("tried", "saved_event"):
                db.executemany(f"DELETE FROM {table} WHERE position = ?", one)  # noqa: S608  one of these
        return self._store.clean()


def needed(path: Path, *, now: int) -> int | None:
    """Return the oldest position of the log that the relay of *path* still has to read, to deliver or to save.

    None if nobody waits for any, or no relay gave a sign of life within `MAX_HEARTBEAT_AGE_MS`. Raises InboxUnavailable
    if that can't be told.
    """
    try:
        if require_ours(path, APPLICATION_ID) is not Owner.OURS:  # there is none, or a relay is making it
            return None
        db = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
        try:
            db.set_busy_timeout(100)
            ((position,),) = db.execute(
                """SELECT min(position) FROM (
                     SELECT coalesce((SELECT min(position) FROM owed WHERE destination = id), position + 1) AS position
                     FROM destination WHERE disabled IS NULL AND (gone_since IS NULL OR gone_since > ?)
                     UNION ALL SELECT min(position) FROM dead WHERE saved = 0
                   ) WHERE (SELECT seen FROM heartbeat) BETWEEN ? AND ?""",
                (now - GONE_LONG, now - MAX_HEARTBEAT_AGE_MS + 1, now + MAX_CLOCK_AHEAD_MS),
            )
        finally:
            db.close()
    except (apsw.Error, OSError) as ex:
        raise InboxUnavailable(StorageFailure.RELAY_STATE, f"the relay's state {path} can't be read: {ex}") from ex
    return None if position is None else int(position)


def heartbeat(path: Path) -> int | None:
    """Return when the relay of *path* last said that it runs, in milliseconds since the epoch; None if none ever did.

    Of a file that can't be read, when it was last written: a relay that left a damaged one holds nothing for ever.
    """
    if not path.exists():
        return None
    try:
        if require_ours(path, APPLICATION_ID) is not Owner.OURS:
            return None
        with closing(apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)) as db:
            db.set_busy_timeout(100)
            ((seen,),) = db.execute("SELECT seen FROM heartbeat")
    except (apsw.Error, OSError, InboxUnavailable):
        return _written_at(path)
    return int(seen) or None


def _written_at(path: Path) -> int | None:
    try:
        return int(path.stat().st_mtime * 1000)
    except OSError:
        return None
