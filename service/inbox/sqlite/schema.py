"""The database itself: how it is opened, what is in it, and what is refused."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import apsw

from service.errors import InboxUnavailable

OLDEST_LIBRARY: Final = (3, 51, 3)
APPLICATION_ID: Final = 0x57484B31  # "WHK1"
BUSY_TIMEOUT: Final = 1000  # milliseconds; nobody else writes, so only a backup tool can hold the lock
LAST: Final = "SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'event'"
# Each step takes a database of the version that is its index to the next one. Never change one that was released.
MIGRATIONS: Final = (
    """
    CREATE TABLE event (
        position INTEGER PRIMARY KEY AUTOINCREMENT,
        digest BLOB NOT NULL UNIQUE,
        id TEXT NOT NULL,
        type TEXT NOT NULL,
        source TEXT NOT NULL,
        subject TEXT,
        partitionkey TEXT NOT NULL,
        time INTEGER NOT NULL,
        own_time INTEGER NOT NULL,
        received_at INTEGER NOT NULL,
        field TEXT NOT NULL,
        test INTEGER NOT NULL,
        traceparent TEXT,
        data BLOB
    ) STRICT;
    CREATE TABLE progress (name TEXT PRIMARY KEY, position INTEGER NOT NULL) STRICT;
    INSERT INTO progress VALUES ('bodies_dropped', 0);
    """,
    "INSERT INTO progress VALUES ('identity', random())",  # so that a reader sees that it is another one
)


def connect(path: Path) -> apsw.Connection:
    """Open or make the database at *path*, durable and of the present version; raises InboxUnavailable or apsw's."""
    db = apsw.Connection(str(path))
    try:
        prepare(db)
        require_version(db)  # before anything is written: it may be another program's
        _require_wal(db, path)
        db.pragma("synchronous", "FULL")
        db.pragma("wal_autocheckpoint", 4000)  # pages: those that change again and again are copied once
        db.pragma("journal_size_limit", 67_108_864)
        _migrate(db)
        # What a process that died, or a sync that failed, left in the WAL can be read but may not be on the disk: it
        # is taken into the database, which is synced, before anybody is told that it is a repeat.
        db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
        _sync_directory(path.parent)
    except BaseException:
        db.close()
        raise
    return db


def prepare(db: apsw.Connection) -> None:
    """Set what every connection needs: patience with a lock, and no file beside the database.

    A large batch makes SQLite spill the journal of a statement, and a container's root can't be written.
    """
    db.set_busy_timeout(BUSY_TIMEOUT)
    db.pragma("temp_store", "MEMORY")


def _require_wal(db: apsw.Connection, path: Path) -> None:
    journal = db.pragma("journal_mode", "wal")
    if journal != "wal":
        raise InboxUnavailable("unsafe", f"the journal of {path} is {journal!r} and not a WAL: use a local disk")


def _migrate(db: apsw.Connection) -> None:
    for step in range(db.pragma("user_version"), len(MIGRATIONS)):
        with transaction(db):
            db.execute(MIGRATIONS[step]).fetchall()
            db.pragma("application_id", APPLICATION_ID)
            db.pragma("user_version", step + 1)


def require_library(version: str) -> None:
    """Raise InboxUnavailable where the SQLite library can damage a WAL that two connections use."""
    if tuple(map(int, version.split("."))) < OLDEST_LIBRARY:
        raise InboxUnavailable("unsafe", f"SQLite {version} is older than 3.51.3 and can damage a WAL: update apsw")


def require_version(db: apsw.Connection) -> None:
    """Raise InboxUnavailable where the database is not ours, or a later version's."""
    owner, version = db.pragma("application_id"), db.pragma("user_version")
    if (owner or version) and owner != APPLICATION_ID:
        raise InboxUnavailable("foreign", "the file is another program's database: name another file")
    if version > len(MIGRATIONS):
        raise InboxUnavailable("newer", "the file was made by a later version of this program: run that version")


@contextmanager
def transaction(db: apsw.Connection) -> Iterator[None]:
    """Make one transaction of what is within: all of it or nothing."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:  # SQLite itself rolls back after some failures
            db.execute("ROLLBACK")
        raise


def number(db: apsw.Connection, query: str, *values: int) -> int:
    """Give the one number that *query* finds."""
    ((found,),) = db.execute(query, values)
    return int(found)


def _sync_directory(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
