"""The writing half."""

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
from service.storage.sqlite.errors import map_errors, mapped
from service.storage.sqlite.ownership import make_private, require_ours
from service.storage.sqlite.reserve import Reserve, free_bytes
from service.storage.sqlite.volume import PROBE_BYTES, VolumeProbe, full

PURGED_EVENTS: Final = 256
MAX_PURGES_FOR_ROOM: Final = 64  # by one put, so that the requests behind it do not wait for too long


class SqliteInbox:
    """The writing half. One process at a time; a second one is refused."""

    def __init__(self, path: Path, terms: Terms) -> None:
        """Open or make the database.

        Raises InboxUnavailable where this could not keep its promise: an old library, a journal that is not a WAL, a
        directory that can't be written, a file of a later version, another process that writes.
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
        self._at_once = PURGED_EVENTS
        self._is_stuck = False  # what is too old can't be purged for want of room
        try:
            with map_errors(self._path):
                make_private(path)
                self._db = self._connect()
                self._last = schema.number(self._db, schema.LAST)
                self._first = schema.number(self._db, "SELECT coalesce(min(position), ?) FROM event", self._last + 1)
                self._bodies_dropped = schema.number(
                    self._db, "SELECT position FROM progress WHERE name = 'bodies_dropped'"
                )
                self._inodes = [file.stat().st_ino for file in self._files()]
                with suppress(apsw.FullError):  # the start needs no room; the first put does, and says so
                    self._checkpoint_once()
        except BaseException:
            os.close(self._lock)
            raise
        self._reserve.make()
        if max(self._volume.free(), self._reusable_bytes()) < PROBE_BYTES:
            self._volume.failed()  # so that it is not called ready before a write went well

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
        """Append what is new, and return the digests of what is not; *size* is that of the events, in bytes."""
        self._require_room(size)
        try:
            self._append(distinct)
        except apsw.ConstraintError:  # some are duplicates: rare, so that the lookup is paid only then
            known = self._known(list(distinct))
            self._append({digest: event for digest, event in distinct.items() if digest not in known})
            return known
        return set()

    def probe(self) -> None:
        """Write a page, or on a volume that was full 1 MiB now and then; see `Inbox`."""
        with self._map_errors():
            self._checkpoint_once()
            if self._volume.is_full:
                self._probe_full_volume()
            else:
                with transaction(self._db):
                    self._db.execute("UPDATE progress SET position = position")
                    self._db.execute("DROP TABLE IF EXISTS scratch").fetchall()  # of a process that was killed
        self._require_file()

    def purge(self, now: int) -> bool:
        """Drop what is too old; see `Inbox`."""
        with self._map_errors():
            self._is_stuck = True
            more = self._purge_what_fits(now)
            self._is_stuck = False
            if not more and not self._volume.is_full:
                self._reserve.make()
                if self._reserve.size():
                    self._at_once = PURGED_EVENTS
        return more

    def _purge_what_fits(self, now: int) -> bool:
        """Purge a batch; if there is no room in the WAL for it, give the reserve up, and then halve the batch."""
        while True:
            try:
                if self._volume.is_full:  # what makes the database grow comes first; then the WAL starts over
                    self._db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
                return self._purge(now)
            except apsw.FullError:
                self._volume.failed()
                if not self._is_purge_due(now):
                    return False  # the reserve is kept for a purge that makes room
                if not self._reserve.release():
                    if self._at_once == 1:
                        raise
                    self._at_once //= 2

    def _is_purge_due(self, now: int) -> bool:
        """Return whether something is too old, and nobody needs it."""
        ids, bodies = now - self._terms.retention, now - self._terms.body_retention
        start = max(self._bodies_dropped + 1, self._first)
        return self._until(self._first, ids, now) is not None or self._until(start, bodies, now) is not None

    def _make_room(self, size: int) -> bool:
        """Start the WAL over, and purge what is too old until *size* bytes fit; return whether they do."""
        now = clock.now_ms()
        if not self._is_old(self._first, now - self._terms.retention):
            return False  # the reserve is not for that
        for _ in range(MAX_PURGES_FOR_ROOM):
            self._db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
            if self._fits(size):
                return True
            if not self._purge_what_fits(now):
                break
        return self._fits(size)

    def _purge(self, now: int) -> bool:
        more = self._drop_events(now - self._terms.retention, now)
        if self._terms.body_retention < self._terms.retention:
            more = self._drop_bodies(now - self._terms.body_retention, now) or more
        return more

    def _require_room(self, size: int) -> None:
        """Raise FullError if storing *size* bytes would use up what a purge needs to get out of a full volume.

        That is the reserve; without it as much free room on the volume, or free pages in the database, so that it need
        not grow: else its WAL could not be taken in any more, nor anything be purged.
        """
        if self._reserve.size() or self._volume.free() >= self._reserve.bytes + size:
            return
        if not self._fits(size):
            raise apsw.FullError("what is left is kept to purge with")

    def _fits(self, size: int) -> bool:
        """Return whether the free pages of the database take *size* bytes, and a probe besides."""
        return self._reusable_bytes() >= PROBE_BYTES + 2 * size

    @contextmanager
    def _map_errors(self, size: int = 0) -> Iterator[None]:
        """Raise InboxUnavailable for whatever SQLite raises; if *size* bytes have no room, with what is needed."""
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
                taken=self.size().bytes or 0,
                holding=self._holding(),
            ) from ex

    def _holding(self) -> str:
        """Return why nothing more may be purged, as the end of a sentence."""
        now = clock.now_ms()
        if (needed := self._terms.hold(now)) is not None and needed <= self._first:
            return f"the relay has yet to deliver what follows position {needed - 1}"
        if self._is_old(self._first, now - self._terms.retention):
            return f"events past the retention {'find no room to be' if self._is_stuck else 'are being'} purged"
        return f"none of its events is older than the retention ({self._terms.retention / DAY_MS:g} days)"

    def _checkpoint_once(self) -> None:
        """Take in what an earlier process left in the WAL, before anything is promised.

        What it left can be read but may not be on the disk: it is taken into the database, which is synced, before
        anybody is told that it is a duplicate.
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
            raise apsw.FullError("not tried again yet")
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
        """Say how much is held, by the positions and the files; see `Inbox`."""
        taken = sum(_file_size(self._path.with_name(self._path.name + end)) for end in ("", "-wal", "-shm"))
        taken += self._reserve.size()
        return Size(max(self._last - self._first + 1, 0), taken, _free(self._path.parent))

    def close(self) -> None:
        """Close the database, which takes the WAL in, and let another process write."""
        try:
            self._db.close()
            self._reserve.make_of_what_is_left()
        except (apsw.Error, OSError):  # what is in the WAL is taken in at the next start
            pass
        finally:
            os.close(self._lock)

    def _append(self, events: Mapping[bytes, Event]) -> None:
        if not events:
            return
        whole = [rows.row(digest, event) for digest, event in events.items()]
        if len(whole) <= rows.ROWS_AT_ONCE:
            rows.insert(self._db, whole)  # one statement is a transaction of its own
        else:
            with transaction(self._db):
                for start in range(0, len(whole), rows.ROWS_AT_ONCE):
                    rows.insert(self._db, whole[start : start + rows.ROWS_AT_ONCE])
        self._last = self._db.last_insert_rowid()

    def _known(self, digests: Sequence[bytes]) -> set[bytes]:
        known: set[bytes] = set()
        for start in range(0, len(digests), rows.ROWS_AT_ONCE):
            some = digests[start : start + rows.ROWS_AT_ONCE]
            query = f"SELECT digest FROM event WHERE digest IN ({','.join('?' * len(some))})"  # noqa: S608  no value is in the text
            known.update(digest for (digest,) in self._db.execute(query, some))
        return known

    def _require_file(self) -> None:
        try:
            same = [file.stat().st_ino for file in self._files()] == self._inodes
        except OSError:
            same = False
        if not same:
            raise InboxUnavailable(
                StorageFailure.VANISHED, f"{self._path} or its WAL was moved or deleted while in use", reopen=True
            )

    def _files(self) -> tuple[Path, Path]:
        return self._path, self._wal

    def _is_old(self, position: int, cutoff: int) -> bool:
        query = "SELECT received_at FROM event WHERE position >= ? ORDER BY position LIMIT 1"
        found: list[tuple[Any, ...]] = self._db.execute(query, (position,)).fetchall()
        return bool(found) and bool(found[0][0] < cutoff)

    def _until(self, start: int, cutoff: int, now: int) -> int | None:
        """Give where a batch from *start* on ends; None where nothing there is too old, or somebody needs it."""
        if not self._is_old(start, cutoff):
            return None
        needed, end = self._terms.hold(now), start + self._at_once
        end = end if needed is None else min(end, needed)
        return end if end > start else None

    def _drop_events(self, cutoff: int, now: int) -> bool:
        end = self._until(self._first, cutoff, now)
        if end is None:
            return False
        with transaction(self._db):
            batch = (end, cutoff)
            self._db.execute("DELETE FROM event WHERE position < ? AND received_at < ?", batch)
            first = schema.number(self._db, "SELECT coalesce(min(position), ?) FROM event", self._last + 1)
        self._first = first  # not before the commit, which may fail for want of room
        return self._is_old(self._first, cutoff)

    def _drop_bodies(self, cutoff: int, now: int) -> bool:
        start = max(self._bodies_dropped + 1, self._first)
        end = self._until(start, cutoff, now)
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
            StorageFailure.LOCKED, f"another process writes {path}: SQLite serves one worker of one pod"
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
