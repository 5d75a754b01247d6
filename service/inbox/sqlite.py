"""The SQLite inbox: a WAL that is synced before the answer, one writing process, any number of readers.

Sources: https://sqlite.org/wal.html (also for the WAL-reset bug, fixed in 3.51.3), https://sqlite.org/pragma.html
#pragma_synchronous. `apsw` brings a library of its own; the one of Python or of the distribution is not used.
"""

import fcntl
import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any, Final, TypeAlias

import apsw

from service.errors import InboxUnavailable
from service.events import Event
from service.inbox.base import Outcome, Record, Size

Value: TypeAlias = int | bytes | str | None

OLDEST_LIBRARY: Final = (3, 51, 3)
APPLICATION_ID: Final = 0x57484B31  # "WHK1"
PURGED_AT_ONCE: Final = 256
BUSY_TIMEOUT: Final = 1000  # milliseconds; nobody else writes, so only a backup tool can hold the lock
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
        received_at INTEGER NOT NULL,
        field TEXT NOT NULL,
        test INTEGER NOT NULL,
        traceparent TEXT,
        data BLOB
    ) STRICT;
    CREATE TABLE progress (name TEXT PRIMARY KEY, position INTEGER NOT NULL) STRICT;
    INSERT INTO progress VALUES ('bodies_dropped', 0);
    """,
)
COLUMNS: Final = "id, type, source, subject, partitionkey, time, received_at, field, test, traceparent, data"
ROW: Final = f"({','.join('?' * 12)})"
ROWS_AT_ONCE: Final = 64  # rows of one statement: each statement gives up the interpreter once, whatever its rows

_REASONS: Final[tuple[tuple[type[apsw.Error], str, str, bool], ...]] = (
    (apsw.FullError, "full", "the disk is full: make room, or let the retention be shorter", False),
    (apsw.BusyError, "locked", "another process holds the database's lock: end it", False),
    (apsw.LockedError, "locked", "another process holds the database's lock: end it", False),
    (apsw.ReadOnlyError, "read_only", "the file or its directory can't be written: mend its owner or mount", True),
    (apsw.PermissionsError, "read_only", "the file or its directory can't be written: mend its owner or mount", True),
    (apsw.CantOpenError, "cannot_open", "the file can't be opened: see that its directory is there and writable", True),
    (apsw.CorruptError, "corrupt", "the file is damaged: move it away, restore a backup or start anew", True),
    (apsw.NotADBError, "corrupt", "the file is no SQLite database: move it away", True),
    (apsw.IOError, "io_error", "the disk does not do what it is told: look at the node's log", True),
)


class SqliteInbox:
    """The writing half. One process at a time; a second one is refused."""

    def __init__(self, path: Path, *, retention: int, body_retention: int) -> None:
        """Open or make the database; both retentions are in milliseconds.

        Raises InboxUnavailable where this could not keep its promise: an old library, a journal that is not a
        WAL, a directory that can't be written, a file of a later version, another process that writes.
        """
        require_library(apsw.sqlite_lib_version())
        self._path = path
        self._retention = retention
        self._body_retention = body_retention
        self._lock = _lock(path)
        try:
            with _translating():
                self._db = _connect(path)
                self._last = _number(self._db, "SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'event'")
                self._first = _number(self._db, "SELECT coalesce(min(position), ?) FROM event", self._last + 1)
                self._bodies_dropped = _number(self._db, "SELECT position FROM progress WHERE name = 'bodies_dropped'")
                self._inode = path.stat().st_ino
        except BaseException:
            os.close(self._lock)
            raise

    def put(self, events: Sequence[Event]) -> Sequence[Outcome]:
        """Append *events* in one transaction; see `Inbox`."""
        digests = [_digest(event.id) for event in events]
        rows: dict[bytes, Event] = {}
        for digest, event in zip(digests, events, strict=True):
            rows.setdefault(digest, event)
        with _translating():
            try:
                self._append(rows)
                known = set()
            except apsw.ConstraintError:  # some are repeats: rare, so that the lookup is paid only then
                known = self._known(list(rows))
                self._append({digest: event for digest, event in rows.items() if digest not in known})
        self._require_file()
        return [_outcome(digest, known) for digest in digests]

    def probe(self) -> None:
        """Write a page, so that a full disk or a lost one is seen; see `Inbox`."""
        with _translating(), _transaction(self._db):
            self._db.execute("UPDATE progress SET position = position")
        self._require_file()

    def purge(self, now: int) -> bool:
        """Drop what is too old; see `Inbox`."""
        with _translating():
            more = self._drop_events(now - self._retention)
            if self._body_retention < self._retention:
                more = self._drop_bodies(now - self._body_retention) or more
        return more

    def size(self) -> Size:
        """Say how much is held, by the positions and the files; see `Inbox`."""
        taken = sum(_file_size(self._path.with_name(self._path.name + end)) for end in ("", "-wal", "-shm"))
        return Size(max(self._last - self._first + 1, 0), taken)

    def close(self) -> None:
        """Close the database, which takes the WAL in, and let another process write."""
        try:
            self._db.close()
        except apsw.Error:  # what is in the WAL is taken in at the next start
            pass
        finally:
            os.close(self._lock)

    def _append(self, rows: Mapping[bytes, Event]) -> None:
        if not rows:
            return
        whole = [_row(digest, event) for digest, event in rows.items()]
        if len(whole) <= ROWS_AT_ONCE:
            _insert(self._db, whole)  # one statement is a transaction of its own
        else:
            with _transaction(self._db):
                for start in range(0, len(whole), ROWS_AT_ONCE):
                    _insert(self._db, whole[start : start + ROWS_AT_ONCE])
        self._last = self._db.last_insert_rowid()

    def _known(self, digests: Sequence[bytes]) -> set[bytes]:
        known: set[bytes] = set()
        for start in range(0, len(digests), ROWS_AT_ONCE):
            some = digests[start : start + ROWS_AT_ONCE]
            query = f"SELECT digest FROM event WHERE digest IN ({','.join('?' * len(some))})"  # noqa: S608  no value is in the text
            known.update(digest for (digest,) in self._db.execute(query, some))
        return known

    def _require_file(self) -> None:
        try:
            same = self._path.stat().st_ino == self._inode
        except OSError:
            same = False
        if not same:
            raise InboxUnavailable("vanished", f"{self._path} was moved or deleted while in use", reopen=True)

    def _is_old(self, position: int, cutoff: int) -> bool:
        query = "SELECT received_at FROM event WHERE position >= ? ORDER BY position LIMIT 1"
        found: list[tuple[Any, ...]] = self._db.execute(query, (position,)).fetchall()
        return bool(found) and bool(found[0][0] < cutoff)

    def _drop_events(self, cutoff: int) -> bool:
        if not self._is_old(self._first, cutoff):
            return False
        with _transaction(self._db):
            batch = (self._first + PURGED_AT_ONCE, cutoff)
            self._db.execute("DELETE FROM event WHERE position < ? AND received_at < ?", batch)
            self._first = _number(self._db, "SELECT coalesce(min(position), ?) FROM event", self._last + 1)
        return self._is_old(self._first, cutoff)

    def _drop_bodies(self, cutoff: int) -> bool:
        start = max(self._bodies_dropped + 1, self._first)
        if not self._is_old(start, cutoff):
            return False
        batch = (start, start + PURGED_AT_ONCE, cutoff)
        with _transaction(self._db):
            self._db.execute(
                "UPDATE event SET data = NULL WHERE position >= ? AND position < ? AND received_at < ?", batch
            )
            self._bodies_dropped = _number(
                self._db,
                "SELECT max(position) FROM event WHERE position >= ? AND position < ? AND received_at < ?",
                *batch,
            )
            self._db.execute("UPDATE progress SET position = ? WHERE name = 'bodies_dropped'", (self._bodies_dropped,))
        return self._is_old(self._bodies_dropped + 1, cutoff)


class SqliteLog:
    """The reading half: short transactions, so that the writer's WAL is never held back."""

    def __init__(self, path: Path) -> None:
        """Open the database for reading; raises InboxUnavailable where there is none that can be read."""
        require_library(apsw.sqlite_lib_version())
        with _translating():
            self._db = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
            self._db.set_busy_timeout(BUSY_TIMEOUT)
            _require_version(self._db)

    def read(self, after: int, limit: int) -> Sequence[Record]:
        """Give what follows *after*; see `Log`."""
        return self._records(f"position > ? AND data IS NOT NULL ORDER BY position LIMIT {int(limit)}", after)

    def find(self, event_id: str) -> Record | None:
        """Give the event with this id, if it is there."""
        return next(iter(self._records("digest = ? AND data IS NOT NULL", _digest(event_id))), None)

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()

    def _records(self, condition: str, value: int | bytes) -> Sequence[Record]:
        with _translating():
            rows = self._db.execute(f"SELECT position, {COLUMNS} FROM event WHERE {condition}", (value,)).fetchall()  # noqa: S608  the condition is one of ours
        return [_record(row) for row in rows]


def _record(row: tuple[Any, ...]) -> Record:
    names = COLUMNS.split(", ")
    attributes = dict(zip(names, row[1:], strict=True))
    return Record(row[0], Event(**{**attributes, "test": bool(attributes["test"])}))


def _row(digest: bytes, event: Event) -> tuple[Value, ...]:
    return (
        digest,
        event.id,
        event.type,
        event.source,
        event.subject,
        event.partitionkey,
        event.time,
        event.received_at,
        event.field,
        event.test,
        event.traceparent,
        event.data,
    )


def _insert(db: apsw.Connection, rows: Sequence[tuple[Value, ...]]) -> None:
    places = ",".join([ROW] * len(rows))
    statement = f"INSERT INTO event (digest, {COLUMNS}) VALUES {places}"  # noqa: S608  no value is in the text
    db.execute(statement, tuple(chain.from_iterable(rows)))


def _digest(event_id: str) -> bytes:
    # The unique index is over 16 bytes of a hash: over the long ids themselves it costs twice the CPU.
    return hashlib.sha256(event_id.encode()).digest()[:16]


def _outcome(digest: bytes, known: set[bytes]) -> Outcome:
    if digest in known:
        return Outcome.REPEAT
    known.add(digest)
    return Outcome.NEW


def _connect(path: Path) -> apsw.Connection:
    db = apsw.Connection(str(path))
    db.set_busy_timeout(BUSY_TIMEOUT)
    journal = db.pragma("journal_mode", "wal")
    if journal != "wal":
        db.close()
        raise InboxUnavailable("unsafe", f"the journal of {path} is {journal!r} and not a WAL: use a local disk")
    db.pragma("synchronous", "FULL")
    db.pragma("wal_autocheckpoint", 4000)  # pages: pages of the index that change again and again are copied once
    db.pragma("journal_size_limit", 67_108_864)
    _require_version(db)
    _migrate(db)
    # What a process that died, or a sync that failed, left in the WAL can be read but may not be on the disk: it is
    # taken into the database, which is synced, before anybody is told that it is a repeat.
    db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
    _sync_directory(path.parent)
    return db


def _migrate(db: apsw.Connection) -> None:
    for step in range(db.pragma("user_version"), len(MIGRATIONS)):
        with _transaction(db):
            db.execute(MIGRATIONS[step]).fetchall()
            db.pragma("application_id", APPLICATION_ID)
            db.pragma("user_version", step + 1)


def require_library(version: str) -> None:
    """Raise InboxUnavailable where the SQLite library can damage a WAL that two connections use."""
    if tuple(map(int, version.split("."))) < OLDEST_LIBRARY:
        raise InboxUnavailable("unsafe", f"SQLite {version} is older than 3.51.3 and can damage a WAL: update apsw")


def _require_version(db: apsw.Connection) -> None:
    owner, version = db.pragma("application_id"), db.pragma("user_version")
    if (owner or version) and owner != APPLICATION_ID:
        raise InboxUnavailable("foreign", "the file is another program's database: name another file")
    if version > len(MIGRATIONS):
        raise InboxUnavailable("newer", "the file was made by a later version of this program: run that version")


def _sync_directory(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _lock(path: Path) -> int:
    try:
        handle = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as ex:
        raise _translated(ex) from ex
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as ex:
        os.close(handle)
        raise InboxUnavailable("locked", f"another process writes {path}: SQLite serves one worker of one pod") from ex
    return handle


def _number(db: apsw.Connection, query: str, *values: int) -> int:
    ((found,),) = db.execute(query, values)
    return int(found)


def _file_size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


@contextmanager
def _transaction(db: apsw.Connection) -> Iterator[None]:
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:  # SQLite itself rolls back after some failures
            db.execute("ROLLBACK")
        raise


@contextmanager
def _translating() -> Iterator[None]:
    try:
        yield
    except (apsw.Error, OSError) as ex:
        raise _translated(ex) from ex


def _translated(ex: apsw.Error | OSError) -> InboxUnavailable:
    for kind, reason, remedy, reopen in _REASONS:
        if isinstance(ex, kind):
            return InboxUnavailable(reason, remedy, reopen=reopen)
    if isinstance(ex, OSError):
        return InboxUnavailable("cannot_open", f"{ex.filename} can't be used ({ex.strerror})", reopen=True)
    return InboxUnavailable("error", f"SQLite says {type(ex).__name__}: {ex}", reopen=True)


def opener(path: Path, *, retention: int, body_retention: int) -> Callable[[], SqliteInbox]:
    """Make what opens the inbox, anew each time; the retentions are in milliseconds."""
    return lambda: SqliteInbox(path, retention=retention, body_retention=body_retention)
