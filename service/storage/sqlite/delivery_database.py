"""The file of the relay's deliveries, `relay.db`: its schema, migrations and transactions."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeAlias

import apsw

from service.errors import InboxUnavailable
from service.outcomes import StorageFailure
from service.storage.migration import Migration
from service.storage.sqlite.database import migrate, prepare, require_version, transaction
from service.storage.sqlite.errors import access
from service.storage.sqlite.ownership import make_private, require_ours

FILE_NAME: Final = "relay.db"
DELIVERIES_APPLICATION_ID: Final = 0x57484B44  # "WHKD"
PRE_RELEASE_APPLICATION_ID: Final = 0x57484B52  # of files that a version before the first release made
DELIVERIES_BUSY_TIMEOUT_MS: Final = 5000  # another relay, or a command, holds the lock only briefly
# Step N migrates a database from version N to N + 1.
DELIVERIES_MIGRATIONS: Final = (
    Migration(
        """
        CREATE TABLE origin (identity INTEGER NOT NULL) STRICT;
        CREATE TABLE heartbeat (one INTEGER PRIMARY KEY CHECK (one = 1), seen INTEGER NOT NULL) STRICT;
        INSERT INTO heartbeat VALUES (1, 0);
        CREATE TABLE destination (
            id INTEGER PRIMARY KEY,
            name TEXT NOT NULL UNIQUE,
            position INTEGER NOT NULL,
            disabled TEXT,
            gone_since INTEGER,
            failing_since INTEGER,
            failures INTEGER NOT NULL DEFAULT 0,
            backlog INTEGER NOT NULL DEFAULT 0
        ) STRICT;
        CREATE TABLE delivery (
            destination INTEGER NOT NULL,
            position INTEGER NOT NULL,
            queue TEXT NOT NULL,
            received_at INTEGER NOT NULL,
            planned_at INTEGER NOT NULL,
            replay INTEGER NOT NULL,
            PRIMARY KEY (destination, position)
        ) STRICT, WITHOUT ROWID;
        CREATE INDEX delivery_in_queue ON delivery (destination, queue, position, planned_at, replay);
        CREATE TABLE delivery_queue (
            destination INTEGER NOT NULL,
            queue TEXT NOT NULL,
            due INTEGER NOT NULL,
            attempts INTEGER NOT NULL DEFAULT 0,
            first_attempt_at INTEGER NOT NULL DEFAULT 0,
            token INTEGER,
            PRIMARY KEY (destination, queue)
        ) STRICT, WITHOUT ROWID;
        CREATE INDEX delivery_queue_due ON delivery_queue (destination, (attempts > 0), due);
        CREATE TABLE dead_letter (
            destination INTEGER NOT NULL,
            position INTEGER NOT NULL,
            reason TEXT NOT NULL,
            attempts INTEGER NOT NULL,
            at INTEGER NOT NULL,
            saved INTEGER NOT NULL DEFAULT 0,
            PRIMARY KEY (destination, position)
        ) STRICT, WITHOUT ROWID;
        CREATE INDEX dead_letter_unsaved ON dead_letter (position) WHERE saved = 0;
        CREATE TABLE saved_event (
            position INTEGER PRIMARY KEY,
            saved_at INTEGER NOT NULL,
            bytes INTEGER NOT NULL,
            subject TEXT,
            event BLOB NOT NULL
        ) STRICT;
        CREATE INDEX saved_event_of_subject ON saved_event (subject);
        CREATE TABLE attempt (
            position INTEGER NOT NULL,
            destination INTEGER NOT NULL,
            at INTEGER NOT NULL,
            seconds REAL NOT NULL,
            status INTEGER NOT NULL,
            outcome TEXT NOT NULL,
            PRIMARY KEY (position, destination, at)
        ) STRICT, WITHOUT ROWID;
        """,
        works_with=1,
    ),
    Migration(
        """
        ALTER TABLE heartbeat ADD COLUMN learned INTEGER NOT NULL DEFAULT 0;
        CREATE TABLE identity (
            phone TEXT NOT NULL,
            waid TEXT NOT NULL,
            userid TEXT NOT NULL,
            since INTEGER NOT NULL,
            until INTEGER,
            person INTEGER NOT NULL,
            used_at INTEGER NOT NULL,
            PRIMARY KEY (phone, waid, userid, since)
        ) STRICT, WITHOUT ROWID;
        CREATE INDEX identity_of_userid ON identity (phone, userid);
        CREATE INDEX identity_of_person ON identity (person);
        ALTER TABLE delivery ADD COLUMN after TEXT;
        DROP INDEX delivery_in_queue;
        CREATE INDEX delivery_in_queue ON delivery (destination, queue, position, planned_at, replay, after);
        ALTER TABLE saved_event ADD COLUMN userid TEXT;
        ALTER TABLE saved_event ADD COLUMN waid TEXT;
        ALTER TABLE saved_event ADD COLUMN previoususerid TEXT;
        ALTER TABLE saved_event ADD COLUMN previouswaid TEXT;
        DROP INDEX saved_event_of_subject;
        CREATE INDEX saved_event_person ON saved_event (subject, userid, waid, previoususerid, previouswaid);
        """,
        works_with=2,
    ),
    Migration(
        """
        ALTER TABLE destination ADD COLUMN retried_at INTEGER NOT NULL DEFAULT 0;
        ALTER TABLE delivery ADD COLUMN attempts INTEGER NOT NULL DEFAULT 0;
        ALTER TABLE delivery ADD COLUMN rejections INTEGER NOT NULL DEFAULT 0;
        ALTER TABLE delivery ADD COLUMN first_attempt_at INTEGER NOT NULL DEFAULT 0;
        ALTER TABLE delivery ADD COLUMN skipped INTEGER NOT NULL DEFAULT 0;
        DROP INDEX delivery_in_queue;
        CREATE INDEX delivery_in_queue ON delivery
            (destination, queue, position, planned_at, replay, after, attempts, rejections, first_attempt_at, skipped);
        ALTER TABLE dead_letter ADD COLUMN status INTEGER NOT NULL DEFAULT 0;
        ALTER TABLE attempt ADD COLUMN evidence TEXT;
        CREATE TABLE worker_report (
            destination INTEGER NOT NULL,
            relay INTEGER NOT NULL,
            at INTEGER NOT NULL,
            health TEXT NOT NULL,
            status INTEGER,
            next_probe_at INTEGER NOT NULL,
            PRIMARY KEY (destination, relay)
        ) STRICT, WITHOUT ROWID;
        """,
        works_with=3,
    ),
    Migration(
        """
        CREATE TABLE timeline (number INTEGER NOT NULL, start INTEGER NOT NULL) STRICT;
        INSERT INTO timeline SELECT identity, 0 FROM origin;
        DROP TABLE origin;
        """,
        works_with=4,
    ),
)
TABLES: Final = ("delivery", "delivery_queue", "dead_letter", "attempt", "saved_event", "identity", "worker_report")

INTO_DELIVERY: Final = """
    INTO delivery (destination, position, queue, received_at, planned_at, replay) VALUES (?, ?, ?, ?, ?, ?)
"""

Rows: TypeAlias = list[tuple[Any, ...]]


def path_beside(inbox: Path) -> Path:
    """Return the path of the deliveries' file for the inbox file *inbox*."""
    return inbox.with_name(FILE_NAME)


class SqliteDeliveryDatabase:
    """One connection to the file, shared by all threads of a process; any number of processes may have one."""

    def __init__(self, path: Path) -> None:
        """Open or create the file; raises InboxUnavailable if it can't be used."""
        self.path = path
        self._lock = threading.RLock()
        try:
            require_ours(path, DELIVERIES_APPLICATION_ID, pre_release_id=PRE_RELEASE_APPLICATION_ID)
            make_private(path)
            self._db = apsw.Connection(str(path))
            self._prepare()
            self._inode = path.stat().st_ino
        except (apsw.Error, OSError) as ex:
            raise InboxUnavailable(StorageFailure.CANNOT_OPEN, f"the relay's state {access(path)}: {ex}") from ex

    def _prepare(self) -> None:
        db = self._db
        prepare(db, busy_timeout_ms=DELIVERIES_BUSY_TIMEOUT_MS)
        require_version(db, DELIVERIES_MIGRATIONS, self.path)
        db.pragma("secure_delete", True)  # the name of a delivery queue contains a phone number
        db.pragma("journal_mode", "wal")
        # A power failure may undo the last transactions: then events are delivered again, but none is lost.
        db.pragma("synchronous", "NORMAL")
        db.pragma("wal_autocheckpoint", 1000)  # pages; more would make a longer sync, which delays the inbox's sync
        migrate(db, DELIVERIES_MIGRATIONS, application_id=DELIVERIES_APPLICATION_ID)

    def require_file(self) -> None:
        """Raise InboxUnavailable if the file was moved or deleted while in use."""
        try:
            same = self.path.stat().st_ino == self._inode
        except OSError:
            same = False
        if not same:
            raise InboxUnavailable(
                StorageFailure.VANISHED, f"{self.path} was moved or deleted while in use: restart the relay"
            )

    @contextmanager
    def transaction(self) -> Iterator[apsw.Connection]:
        """Run the block in a transaction, or in the enclosing one if there is one. Raises InboxUnavailable."""
        with self._lock:
            if self._db.in_transaction:
                yield self._db
                return
            with self._map_errors(), transaction(self._db):
                yield self._db

    @contextmanager
    def _map_errors(self) -> Iterator[None]:
        try:
            yield
        except apsw.Error as ex:
            detail = f"the relay's state {self.path} can't be used: {ex}"
            raise InboxUnavailable(StorageFailure.RELAY_STATE, detail) from ex

    def rows(self, query: str, values: tuple[Any, ...] = ()) -> Rows:
        """Return the rows of *query*; raises InboxUnavailable if the file can't be used."""
        with self._lock, self._map_errors():
            return self._db.execute(query, values).fetchall()

    def truncate_wal(self) -> bool:
        """Checkpoint and truncate the WAL, so that it has no deleted data; False if a reader prevents that."""
        with self._lock:
            try:
                self._db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
            except apsw.BusyError:
                return False
        return True

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._db.close()
