"""The writer of the SQLite inbox."""

import fcntl
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import apsw

from service import clock
from service.clock import DAY_MS
from service.errors import InboxUnavailable
from service.events import Event
from service.outcomes import StorageFailure
from service.storage.protocols import Outcome, Size, Terms
from service.storage.sqlite import rows, schema
from service.storage.sqlite.database import transaction
from service.storage.sqlite.delivery_admin import read_position
from service.storage.sqlite.delivery_database import path_beside
from service.storage.sqlite.errors import map_errors, mapped
from service.storage.sqlite.ownership import make_private, require_ours
from service.storage.sqlite.reserve import Reserve, free_bytes
from service.storage.sqlite.volume import PROBE_BYTES, VolumeProbe, full

PURGE_BATCH_EVENTS: Final = 256
MAX_PURGES_PER_PUT: Final = 64  # limits how long the requests behind it wait


class SqliteInbox:
    """The writer of a SQLite inbox, at most one per file: a second process is rejected."""

    def __init__(self, path: Path, terms: Terms) -> None:
        """Open or create the database.

        Raises InboxUnavailable if events could not be stored durably: an unsafe SQLite library, a journal that is not a
        WAL, a directory that is not writable, a file of a later version, another process that writes the file.
        """
        schema.require_library(apsw.sqlite_lib_version())
        self._path, self._wal = path, path.with_name(path.name + "-wal")
        self._terms = terms
        with map_errors(self._path):
            require_ours(path, schema.APPLICATION_ID)
        self._lock = _lock(path)
        self._reserve = Reserve(path)
        self._volume = VolumeProbe(path.parent)
        self._is_checkpointed = False
        self._has_timeline = False  # of this process; the first put starts it, as opening needs no room
        self._purge_batch_events = PURGE_BATCH_EVENTS
        self._is_purge_stuck = False  # old events can't be purged for lack of room
        try:
            with map_errors(self._path):
                make_private(path)
                self._db = self._connect()
                self._last = schema.number(self._db, schema.LAST_POSITION)
                self._first = schema.number(self._db, "SELECT coalesce(min(position), ?) FROM event", self._last + 1)
                self._bodies_dropped = schema.number(
                    self._db, "SELECT position FROM progress WHERE name = 'bodies_dropped'"
                )
                self._inodes = [file.stat().st_ino for file in self._files()]
                with suppress(apsw.FullError):  # opening needs no room; the first put does, and reports it
                    self._checkpoint_once()
        except BaseException:
            os.close(self._lock)
            raise
        self._reserve.make()
        if max(self._volume.free(), self._reusable_bytes()) < PROBE_BYTES:
            self._volume.failed()  # not ready until a probe has succeeded

    def _connect(self) -> apsw.Connection:
        try:
            return schema.connect(self._path, reserve_bytes=self._reserve.bytes)
        except (apsw.FullError, apsw.IOError, apsw.CantOpenError):
            if not self._reserve.release():
                raise
            return schema.connect(self._path, reserve_bytes=self._reserve.bytes)

    def put(self, events: Sequence[Event]) -> Sequence[Outcome]:
        """Append *events* in one transaction; see `Inbox`."""
        digests = [rows.digest(event) for event in events]
        distinct: dict[bytes, Event] = {}
        for digest, event in zip(digests, events, strict=True):
            distinct.setdefault(digest, event)
        size = sum(len(event.data) for event in distinct.values())
        with self._map_errors(size):
            self._checkpoint_once()
            try:
                known = self._store(distinct, size)
            except apsw.FullError:
                if not self._make_room(size):
                    raise
                known = self._store(distinct, size)
        self._require_file()
        return [_outcome(digest, known) for digest in digests]

    def _store(self, distinct: Mapping[bytes, Event], size: int) -> set[bytes]:
        """Append the new events, and return the digests of the duplicates; *size* is in bytes."""
        self._require_room(size)
        try:
            self._append(distinct)
        except apsw.ConstraintError:  # only now, as duplicates are rare, is the lookup worth its cost
            known = self._known(list(distinct))
            self._append({digest: event for digest, event in distinct.items() if digest not in known})
            return known
        return set()

    def probe(self) -> None:
        """Write a page, or if the volume was full, 1 MiB at intervals; see `Inbox`."""
        with self._map_errors():
            self._checkpoint_once()
            if self._volume.is_full:
                self._probe_full_volume()
            else:
                with transaction(self._db):
                    self._db.execute("UPDATE progress SET position = position WHERE name = 'identity'")
                    self._db.execute("DROP TABLE IF EXISTS scratch").fetchall()  # left by a killed process
        self._require_file()

    def purge(self, now: int) -> bool:
        """Purge old events; see `Inbox`."""
        with self._map_errors():
            self._is_purge_stuck = True
            more = self._purge_batch_that_fits(now)
            self._is_purge_stuck = False
            if not more and not self._volume.is_full:
                self._reserve.make()
                if self._reserve.size():
                    self._purge_batch_events = PURGE_BATCH_EVENTS
        return more

    def _purge_batch_that_fits(self, now: int) -> bool:
        """Purge a batch; if the WAL has no room for it, release the reserve, then halve the batch until it fits."""
        while True:
            try:
                if self._volume.is_full:  # a checkpoint lets the WAL start over, so the purge needs no new room in it
                    self._db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
                return self._purge(now)
            except apsw.FullError:
                self._volume.failed()
                if not self._is_purge_due(now):
                    return False  # the reserve is kept for a purge that makes room
                if not self._reserve.release():
                    if self._purge_batch_events == 1:
                        raise
                    self._purge_batch_events //= 2

    def _is_purge_due(self, now: int) -> bool:
        """Return whether something is past its retention and below the low-watermark."""
        id_cutoff, body_cutoff = now - self._terms.retention, now - self._terms.body_retention
        start = max(self._bodies_dropped + 1, self._first)
        return (
            self._batch_end(self._first, id_cutoff, now) is not None
            or self._batch_end(start, body_cutoff, now) is not None
        )

    def _make_room(self, size: int) -> bool:
        """Checkpoint the WAL, and purge old events until *size* bytes fit; return whether they do."""
        now = clock.now_ms()
        if not self._is_old(self._first, now - self._terms.retention):
            return False  # nothing can be purged, and the reserve is not for new events
        for _ in range(MAX_PURGES_PER_PUT):
            self._db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
            if self._fits(size):
                return True
            if not self._purge_batch_that_fits(now):
                break
        return self._fits(size)

    def _purge(self, now: int) -> bool:
        more = self._drop_events(now - self._terms.retention, now)
        if self._terms.body_retention < self._terms.retention:
            more = self._drop_bodies(now - self._terms.body_retention, now) or more
        return more

    def _require_room(self, size: int) -> None:
        """Raise FullError if storing *size* bytes would use up the room that a purge of a full volume needs.

        That room is the reserve. Without a reserve, it is as much free space on the volume, or enough free pages in the
        database that it need not grow. Otherwise the WAL could not be checkpointed any more, nor anything be purged.
        """
        if self._reserve.size() or self._volume.free() >= self._reserve.bytes + size:
            return
        if not self._fits(size):
            raise apsw.FullError("the remaining room is reserved for the purge")

    def _fits(self, size: int) -> bool:
        """Return whether the free pages of the database have room for *size* bytes and a probe."""
        return self._reusable_bytes() >= PROBE_BYTES + 2 * size

    @contextmanager
    def _map_errors(self, size: int = 0) -> Iterator[None]:
        """Raise InboxUnavailable instead of an SQLite error; if *size* bytes have no room, with the bytes needed."""
        try:
            with map_errors(self._path):
                yield
        except InboxUnavailable as ex:
            if ex.reason != StorageFailure.FULL:
                raise
            self._volume.failed(size)
            raise full(
                self._path,
                needed=self._volume.needed + (0 if self._reserve.size() else self._reserve.bytes),
                free=self._volume.free(),
                used=self.size().bytes or 0,
                why_not_purged=self._why_not_purged(),
            ) from ex

    def _why_not_purged(self) -> str:
        """Return why no events can be purged, as the end of a sentence."""
        now = clock.now_ms()
        if (low_watermark := self._terms.low_watermark(now)) is not None and low_watermark <= self._first:
            return f"the relay has not delivered the events after position {low_watermark - 1} yet"
        if self._is_old(self._first, now - self._terms.retention):
            if self._is_purge_stuck:
                return "there is no room to purge the events that are past the retention"
            return "events past the retention are being purged"
        return f"none of its events is older than the retention ({self._terms.retention / DAY_MS:g} days)"

    def _checkpoint_once(self) -> None:
        """Checkpoint the WAL that an earlier process left, before any event is stored or called a duplicate.

        Its events can be read but may not be synced to disk. The checkpoint moves them into the database and syncs it,
        so that no event that a power failure could still remove is answered as a duplicate.
        """
        if self._is_checkpointed:
            return
        try:
            self._db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
        except apsw.FullError:
            if not self._reserve.release():
                raise
            self._db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
        self._is_checkpointed = True

    def _probe_full_volume(self) -> None:
        if not self._volume.is_due(self._reusable_bytes()):
            raise apsw.FullError("the next probe is not due yet")
        self._require_room(self._volume.needed // 2)
        self._volume.trying()
        try:
            with transaction(self._db):
                self._db.execute("DROP TABLE IF EXISTS scratch").fetchall()
                self._db.execute("CREATE TABLE scratch (data BLOB)").fetchall()
                self._db.execute("INSERT INTO scratch VALUES (randomblob(?))", (self._volume.needed,)).fetchall()
            self._db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
        finally:
            with transaction(self._db):
                self._db.execute("DROP TABLE IF EXISTS scratch").fetchall()
        self._volume.succeeded()

    def _reusable_bytes(self) -> int:
        return int(self._db.pragma("freelist_count")) * int(self._db.pragma("page_size"))

    def size(self) -> Size:
        """Return the size by the positions and the files; see `Inbox`."""
        used = sum(_file_size(self._path.with_name(self._path.name + suffix)) for suffix in ("", "-wal", "-shm"))
        used += self._reserve.size()
        return Size(max(self._last - self._first + 1, 0), used, _free(self._path.parent))

    def close(self) -> None:
        """Close the database, which checkpoints the WAL, and release the lock for another process."""
        try:
            self._db.close()
            self._reserve.make_from_free_space()
        except (apsw.Error, OSError):  # the next start checkpoints the WAL
            pass
        finally:
            os.close(self._lock)

    def _append(self, events: Mapping[bytes, Event]) -> None:
        if not events:
            return
        new_rows = [rows.row(digest, event) for digest, event in events.items()]
        if self._has_timeline and len(new_rows) <= rows.ROWS_PER_STATEMENT:
            rows.insert(self._db, new_rows)  # one statement is a transaction by itself
        else:
            with transaction(self._db):
                if not self._has_timeline:
                    used = read_position(path_beside(self._path), schema.identity(self._db))
                    schema.start_timeline(self._db, used)
                for start in range(0, len(new_rows), rows.ROWS_PER_STATEMENT):
                    rows.insert(self._db, new_rows[start : start + rows.ROWS_PER_STATEMENT])
            self._has_timeline = True
        self._last = self._db.last_insert_rowid()

    def _known(self, digests: Sequence[bytes]) -> set[bytes]:
        known: set[bytes] = set()
        for start in range(0, len(digests), rows.ROWS_PER_STATEMENT):
            batch = digests[start : start + rows.ROWS_PER_STATEMENT]
            query = f"SELECT digest FROM event WHERE digest IN ({','.join('?' * len(batch))})"  # noqa: S608  no value is in the text
            known.update(digest for (digest,) in self._db.execute(query, batch))
        return known

    def _require_file(self) -> None:
        try:
            same = [file.stat().st_ino for file in self._files()] == self._inodes
        except OSError:
            same = False
        if not same:
            raise InboxUnavailable(
                StorageFailure.VANISHED,
                f"{self._path} or its WAL was moved or deleted while in use: an inbox is opened at that path again",
                reopen=True,
            )

    def _files(self) -> tuple[Path, Path]:
        return self._path, self._wal

    def _is_old(self, position: int, cutoff: int) -> bool:
        query = "SELECT received_at FROM event WHERE position >= ? ORDER BY position LIMIT 1"
        oldest: list[tuple[Any, ...]] = self._db.execute(query, (position,)).fetchall()
        return bool(oldest) and bool(oldest[0][0] < cutoff)

    def _batch_end(self, start: int, cutoff: int, now: int) -> int | None:
        """Return the position before which a batch from *start* ends; None if no event there can be purged."""
        if not self._is_old(start, cutoff):
            return None
        low_watermark, end = self._terms.low_watermark(now), start + self._purge_batch_events
        end = end if low_watermark is None else min(end, low_watermark)
        return end if end > start else None

    def _drop_events(self, cutoff: int, now: int) -> bool:
        end = self._batch_end(self._first, cutoff, now)
        if end is None:
            return False
        with transaction(self._db):
            batch = (end, cutoff)
            self._db.execute("DELETE FROM event WHERE position < ? AND received_at < ?", batch)
            first = schema.number(self._db, "SELECT coalesce(min(position), ?) FROM event", self._last + 1)
        self._first = first  # only after the commit, which may fail for lack of room
        return self._is_old(self._first, cutoff)

    def _drop_bodies(self, cutoff: int, now: int) -> bool:
        start = max(self._bodies_dropped + 1, self._first)
        end = self._batch_end(start, cutoff, now)
        if end is None:
            return False
        batch = (start, end, cutoff)
        with transaction(self._db):
            self._db.execute(
                "UPDATE event SET data = NULL WHERE position >= ? AND position < ? AND received_at < ?", batch
            )
            dropped = schema.number(
                self._db,
                "SELECT max(position) FROM event WHERE position >= ? AND position < ? AND received_at < ?",
                *batch,
            )
            self._db.execute("UPDATE progress SET position = ? WHERE name = 'bodies_dropped'", (dropped,))
        self._bodies_dropped = dropped
        return self._is_old(self._bodies_dropped + 1, cutoff)


def _outcome(digest: bytes, known: set[bytes]) -> Outcome:
    if digest in known:
        return Outcome.DUPLICATE
    known.add(digest)
    return Outcome.NEW


def _lock(path: Path) -> int:
    try:
        handle = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as ex:
        raise mapped(ex, path) from ex
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as ex:
        os.close(handle)
        raise InboxUnavailable(
            StorageFailure.LOCKED,
            f"another process writes {path}: stop it, as SQLite supports only one worker in one pod",
        ) from ex
    return handle


def _free(directory: Path) -> int | None:
    try:
        return free_bytes(directory)
    except OSError:
        return None


def _file_size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
