"""Open the inbox database: its schema and migrations, and the checks that reject an unsafe one."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import apsw

from service.errors import InboxUnavailable
from service.outcomes import StorageFailure
from service.storage.migration import Migration
from service.storage.sqlite.database import migrate, prepare, require_version
from service.storage.sqlite.ownership import Owner, require_ours
from service.storage.timelines import Timeline

MIN_LIBRARY_VERSION: Final = (3, 51, 3)
APPLICATION_ID: Final = 0x57484B31  # "WHK1"
BUSY_TIMEOUT_MS: Final = 1000  # this process is the only writer, so only a backup tool can hold the lock
MIN_CHECKPOINT_PAGES: Final = 50
MAX_CHECKPOINT_PAGES: Final = 4000  # 16 MiB: pages that change repeatedly are copied once
# Rows of `progress`, not a table, so that a version without timelines can still use the inbox.
_TIMELINE: Final = "timeline "
MAX_TIMELINES: Final = 100
LAST_POSITION: Final = "SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'event'"
# Step N migrates a database from version N to N + 1.
MIGRATIONS: Final = (
    Migration(
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
        works_with=1,
    ),
    # With this number a reader notices that the log was replaced.
    Migration("INSERT INTO progress VALUES ('identity', random())", works_with=2),
    Migration("ALTER TABLE event ADD COLUMN businessid TEXT", works_with=3),
    Migration(
        """
        ALTER TABLE event ADD COLUMN userid TEXT;
        ALTER TABLE event ADD COLUMN waid TEXT;
        ALTER TABLE event ADD COLUMN parentuserid TEXT;
        ALTER TABLE event ADD COLUMN previoususerid TEXT;
        ALTER TABLE event ADD COLUMN previouswaid TEXT;
        ALTER TABLE event ADD COLUMN previousparentuserid TEXT;
        ALTER TABLE event ADD COLUMN groupid TEXT;
        ALTER TABLE event ADD COLUMN direction TEXT;
        ALTER TABLE event ADD COLUMN people INTEGER;
        -- In the order of arrival, so that a commit changes few pages; a look-up of a person reads all. It has hashes
        -- of the identifiers: SQLite can leave copies of an index entry in unused parts of pages, which an erasure
        -- misses.
        CREATE INDEX event_people ON event (received_at, people);
        """,
        works_with=4,
    ),
)


def connect(path: Path, *, reserve_bytes: int) -> apsw.Connection:
    """Open or create the database at *path* and migrate it; raises InboxUnavailable or apsw.Error.

    A database of the current version is not written, so it opens on a full volume too. The WAL that is not checkpointed
    yet stays within half of *reserve_bytes*, or 4,000 pages, so that releasing the reserve makes room for a checkpoint.
    """
    db = apsw.Connection(str(path))
    try:
        prepare(db, busy_timeout_ms=BUSY_TIMEOUT_MS)
        require_version(db, MIGRATIONS, path)
        _require_wal(db, path)
        db.pragma("synchronous", "FULL")
        # Deleted content is overwritten with zeros, so erased personal data remains in no page.
        db.pragma("secure_delete", True)
        pages = reserve_bytes // 2 // int(db.pragma("page_size"))
        db.pragma("wal_autocheckpoint", min(max(pages, MIN_CHECKPOINT_PAGES), MAX_CHECKPOINT_PAGES))
        db.pragma("journal_size_limit", 67_108_864)
        migrate(db, MIGRATIONS, application_id=APPLICATION_ID)
        _sync_directory(path.parent)
    except BaseException:
        db.close()
        raise
    return db


def _require_wal(db: apsw.Connection, path: Path) -> None:
    mode = db.pragma("journal_mode", "wal")
    if mode != "wal":
        raise InboxUnavailable(
            StorageFailure.UNSAFE, f"the journal mode of {path} is {mode!r}, not a WAL: use a local disk"
        )


def require_library(version: str) -> None:
    """Raise InboxUnavailable if this *version* of SQLite can corrupt a WAL that two connections use."""
    if tuple(map(int, version.split("."))) < MIN_LIBRARY_VERSION:
        raise InboxUnavailable(
            StorageFailure.UNSAFE, f"SQLite {version} is older than 3.51.3 and can corrupt a WAL: update apsw"
        )


def open_existing(path: Path, *, writable: bool = False) -> apsw.Connection:
    """Open the inbox that a server created at *path*; raises InboxUnavailable, OSError or apsw.Error if none exists."""
    if not path.is_file():
        raise InboxUnavailable(
            StorageFailure.CANNOT_OPEN, f"there is no inbox {path}: is this the path of the server's inbox?"
        )
    if require_ours(path, APPLICATION_ID) is not Owner.OURS:
        raise InboxUnavailable(
            StorageFailure.CANNOT_OPEN, f"there is no inbox in {path} yet: the server creates it at startup"
        )
    db = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE if writable else apsw.SQLITE_OPEN_READONLY)
    try:
        prepare(db, busy_timeout_ms=BUSY_TIMEOUT_MS)
        require_version(db, MIGRATIONS, path)
    except BaseException:
        db.close()
        raise
    return db


def number(db: apsw.Connection, query: str, *values: int) -> int:
    """Return the one number that *query* selects."""
    ((value,),) = db.execute(query, values)
    return int(value)


def identity(db: apsw.Connection) -> int:
    """Return the number of the first timeline, the log itself."""
    return number(db, "SELECT position FROM progress WHERE name = 'identity'")


def timelines(db: apsw.Connection) -> Sequence[Timeline]:
    """Return the timelines, oldest first. The first one is the log itself."""
    rows = db.execute("SELECT name, position FROM progress WHERE name GLOB ? ORDER BY rowid", (f"{_TIMELINE}*",))
    return [Timeline(identity(db), 0), *(Timeline(int(name.removeprefix(_TIMELINE)), start) for name, start in rows)]


def start_timeline(db: apsw.Connection, used: int) -> None:
    """Start a timeline after the newest position and the one *used* elsewhere; delete the oldest of too many."""
    start = max(number(db, LAST_POSITION), used)
    db.execute("INSERT INTO progress VALUES (? || abs(random() >> 1), ?)", (_TIMELINE, start))
    db.execute("DELETE FROM sqlite_sequence WHERE name = 'event'")
    db.execute("INSERT INTO sqlite_sequence (name, seq) VALUES ('event', ?)", (start,))
    db.execute(
        """DELETE FROM progress WHERE name GLOB ?1 AND rowid NOT IN (
             SELECT rowid FROM progress WHERE name GLOB ?1 ORDER BY rowid DESC LIMIT ?2)""",
        (f"{_TIMELINE}*", MAX_TIMELINES),
    )


def _sync_directory(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
