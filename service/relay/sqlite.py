"""The relay's state in SQLite: a file beside the inbox, which is never written from here."""

import itertools
import secrets
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import apsw

from service.errors import InboxUnavailable
from service.relay.state import Claim, Dead, Owed, Standing, Try, Verdict

APPLICATION_ID: Final = 0x57484B52  # "WHKR"
BUSY_TIMEOUT: Final = 5000  # milliseconds: another relay, or a command, holds the lock for moments
# Each step takes a database of the version that is its index to the next one. Never change one that was released.
MIGRATIONS: Final = (
    """
    CREATE TABLE destination (
        id INTEGER PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        position INTEGER NOT NULL,
        disabled TEXT,
        owed INTEGER NOT NULL DEFAULT 0
    ) STRICT;
    CREATE TABLE owed (
        destination INTEGER NOT NULL,
        position INTEGER NOT NULL,
        lane TEXT NOT NULL,
        received_at INTEGER NOT NULL,
        replay INTEGER NOT NULL,
        PRIMARY KEY (destination, position)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX owed_in_lane ON owed (destination, lane, position);
    CREATE TABLE lane (
        destination INTEGER NOT NULL,
        lane TEXT NOT NULL,
        due INTEGER NOT NULL,
        tries INTEGER NOT NULL DEFAULT 0,
        first_tried INTEGER NOT NULL DEFAULT 0,
        token INTEGER,
        PRIMARY KEY (destination, lane)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX lane_due ON lane (destination, due);
    CREATE TABLE dead (
        destination INTEGER NOT NULL,
        position INTEGER NOT NULL,
        reason TEXT NOT NULL,
        tries INTEGER NOT NULL,
        at INTEGER NOT NULL,
        PRIMARY KEY (destination, position)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE tried (
        position INTEGER NOT NULL,
        destination INTEGER NOT NULL,
        at INTEGER NOT NULL,
        seconds REAL NOT NULL,
        status INTEGER NOT NULL,
        outcome TEXT NOT NULL
    ) STRICT;
    CREATE INDEX tried_of ON tried (position);
    """,
)


class SqliteState:
    """`Plans` and `Claims`, and what the commands ask; any number of processes and threads."""

    def __init__(self, path: Path) -> None:
        """Open or make the file; raises InboxUnavailable where that can't be."""
        self._lock = threading.Lock()
        self._tokens = itertools.count(secrets.randbits(48) << 14)
        try:
            self._db = apsw.Connection(str(path))
            self._prepare()
        except apsw.Error as ex:
            raise InboxUnavailable("cannot_open", f"the relay's state {path} can't be used: {ex}") from ex

    def _prepare(self) -> None:
        db = self._db
        db.set_busy_timeout(BUSY_TIMEOUT)
        db.pragma("temp_store", "MEMORY")
        if db.pragma("application_id") not in (0, APPLICATION_ID):
            raise apsw.NotADBError("it is another program's")
        db.pragma("journal_mode", "wal")
        # A power cut takes the last moments back, and with them deliveries are repeated, never lost.
        db.pragma("synchronous", "NORMAL")
        with self._transaction():
            for step in range(db.pragma("user_version"), len(MIGRATIONS)):
                _rows(db, MIGRATIONS[step])
                db.pragma("application_id", APPLICATION_ID)
                db.pragma("user_version", step + 1)

    @contextmanager
    def _transaction(self) -> Iterator[apsw.Connection]:
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    # The planner's half.

    def join(self, name: str, position: int) -> None:
        """Make a destination known; see `Plans`."""
        with self._transaction() as db:
            db.execute("INSERT OR IGNORE INTO destination (name, position) VALUES (?, ?)", (name, position))

    def plan(self, name: str, since: int, until: int, owed: Sequence[Owed]) -> bool:
        """Note what is owed; see `Plans`."""
        with self._transaction() as db:
            found = _rows(
                db,
                "UPDATE destination SET position = ?, owed = owed + ? WHERE name = ? AND position = ? RETURNING id",
                (until, len(owed), name, since),
            )
            if not found:
                return False
            ((key,),) = found
            db.executemany(
                "INSERT INTO owed VALUES (?, ?, ?, ?, 0)",
                [(key, each.position, each.lane, each.received_at) for each in owed],
            )
            lanes = {each.lane: each.received_at for each in reversed(owed)}
            db.executemany(
                "INSERT OR IGNORE INTO lane (destination, lane, due) VALUES (?, ?, ?)",
                [(key, lane, received_at) for lane, received_at in lanes.items()],
            )
            return True

    def positions(self) -> Sequence[tuple[str, int]]:
        """Say how far the log was read; see `Plans`."""
        with self._lock:
            rows = _rows(self._db, "SELECT name, position FROM destination WHERE disabled IS NULL")
        return [(name, position) for name, position in rows]

    def standings(self) -> Sequence[Standing]:
        """Say how each destination that was ever known stands."""
        with self._lock:
            rows = _rows(
                self._db,
                """SELECT name, position, disabled, owed,
                     (SELECT received_at FROM owed WHERE destination = id ORDER BY position LIMIT 1),
                     (SELECT count(*) FROM dead WHERE destination = id)
                   FROM destination ORDER BY name""",
            )
        return [Standing(*row) for row in rows]

    # The deliverers' half.

    def take(self, name: str, *, now: int, lease: int) -> Claim | None:
        """Take the lane that waited longest; see `Claims`."""
        with self._transaction() as db:
            found = _rows(
                db,
                """SELECT destination.id, lane.lane, tries, first_tried FROM destination
                   JOIN lane ON lane.destination = destination.id
                   WHERE name = ? AND disabled IS NULL AND due <= ? ORDER BY due LIMIT 1""",
                (name, now),
            )
            if not found:
                return None
            ((key, lane, tries, first_tried),) = found
            ((position, replay),) = _rows(
                db,
                "SELECT position, replay FROM owed WHERE destination = ? AND lane = ? ORDER BY position LIMIT 1",
                (key, lane),
            )
            token = next(self._tokens)
            db.execute(
                "UPDATE lane SET due = ?, token = ? WHERE destination = ? AND lane = ?", (now + lease, token, key, lane)
            )
            return Claim(name, lane, position, tries, first_tried, bool(replay), token)

    def settle(self, claim: Claim, tried: Try, verdict: Verdict, *, due: int = 0, reason: str = "") -> bool:
        """Write down how a try went; see `Claims`."""
        with self._transaction() as db:
            found = _rows(
                db,
                """SELECT destination.id FROM destination JOIN lane ON lane.destination = destination.id
                   WHERE name = ? AND lane = ? AND token = ?""",
                (claim.destination, claim.lane, claim.token),
            )
            if not found:
                return False
            ((key,),) = found
            db.execute("INSERT INTO tried VALUES (?, ?, ?, ?, ?, ?)", (claim.position, key, *tried))
            if verdict is Verdict.AGAIN:
                db.execute(
                    """UPDATE lane SET due = ?, token = NULL, tries = tries + 1,
                         first_tried = CASE first_tried WHEN 0 THEN ? ELSE first_tried END
                       WHERE destination = ? AND lane = ?""",
                    (due, tried.at, key, claim.lane),
                )
                return True
            if verdict is Verdict.DEAD:
                db.execute(
                    "INSERT OR REPLACE INTO dead VALUES (?, ?, ?, ?, ?)",
                    (key, claim.position, reason, claim.tries + 1, tried.at),
                )
            self._go_on(db, key, claim, due=tried.at)
            return True

    def _go_on(self, db: apsw.Connection, key: int, claim: Claim, *, due: int) -> None:
        db.execute("DELETE FROM owed WHERE destination = ? AND position = ?", (key, claim.position))
        db.execute("UPDATE destination SET owed = owed - 1 WHERE id = ?", (key,))
        more = _rows(db, "SELECT 1 FROM owed WHERE destination = ? AND lane = ? LIMIT 1", (key, claim.lane))
        lane = (key, claim.lane)
        if more:
            db.execute(
                "UPDATE lane SET due = ?, token = NULL, tries = 0, first_tried = 0 WHERE destination = ? AND lane = ?",
                (due, *lane),
            )
        else:
            db.execute("DELETE FROM lane WHERE destination = ? AND lane = ?", lane)

    def next_due(self, name: str) -> int | None:
        """Say when the next lane is due; see `Claims`."""
        with self._lock:
            ((due,),) = _rows(
                self._db,
                """SELECT min(due) FROM lane WHERE destination =
                     (SELECT id FROM destination WHERE name = ? AND disabled IS NULL)""",
                (name,),
            )
        return None if due is None else int(due)

    # What an operator does.

    def disable(self, name: str, reason: str | None) -> bool:
        """Stop delivering to a destination, or, with None, go on; False where it is not known."""
        with self._transaction() as db:
            return bool(_rows(db, "UPDATE destination SET disabled = ? WHERE name = ? RETURNING 1", (reason, name)))

    def dead(self, *, limit: int = 1000) -> Sequence[Dead]:
        """Give dead letters, the newest last."""
        with self._lock:
            rows = _rows(
                self._db,
                """SELECT * FROM (SELECT name, dead.position, reason, tries, at FROM dead
                     JOIN destination ON id = destination ORDER BY at DESC LIMIT ?) ORDER BY at""",
                (limit,),
            )
        return [Dead(*row) for row in rows]

    def tries(self, position: int) -> Sequence[tuple[str, Try]]:
        """Give what was tried with the event at *position*, by destination, in order."""
        with self._lock:
            rows = _rows(
                self._db,
                """SELECT name, at, seconds, status, outcome FROM tried JOIN destination ON id = destination
                   WHERE tried.position = ? ORDER BY at, tried.rowid""",
                (position,),
            )
        return [(row[0], Try(*row[1:])) for row in rows]

    def replay(self, name: str, owed: Sequence[Owed], *, now: int) -> int:
        """Owe events once more, marked as a replay; gives how many were not owed already."""
        with self._transaction() as db:
            ((key,),) = _rows(db, "SELECT id FROM destination WHERE name = ?", (name,))
            added = 0
            for each in owed:
                added += len(
                    _rows(
                        db,
                        "INSERT OR IGNORE INTO owed VALUES (?, ?, ?, ?, 1) RETURNING 1",
                        (key, each.position, each.lane, each.received_at),
                    )
                )
                db.execute(
                    "INSERT OR IGNORE INTO lane (destination, lane, due) VALUES (?, ?, ?)", (key, each.lane, now)
                )
                db.execute("DELETE FROM dead WHERE destination = ? AND position = ?", (key, each.position))
            db.execute("UPDATE destination SET owed = owed + ? WHERE id = ?", (added, key))
            return added

    def forget(self, before: int) -> None:
        """Drop what is told of events that were received, tried or given up before *before*."""
        with self._transaction() as db:
            db.execute("DELETE FROM tried WHERE rowid IN (SELECT rowid FROM tried WHERE at < ? LIMIT 1000)", (before,))
            db.execute("DELETE FROM dead WHERE at < ?", (before,))

    def needed(self) -> int | None:
        """Give the oldest position of the log that is still to be read or delivered; None where nobody waits."""
        with self._lock:
            ((position,),) = _rows(
                self._db,
                """SELECT min(coalesce((SELECT min(position) FROM owed WHERE destination = id), position + 1))
                   FROM destination WHERE disabled IS NULL""",
            )
        return None if position is None else int(position)

    def close(self) -> None:
        """Let go of the file."""
        with self._lock:
            self._db.close()


def _rows(db: apsw.Connection, query: str, values: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    return db.execute(query, values).fetchall()
