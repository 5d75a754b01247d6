"""Erase one person's events from the database while the server writes it."""

from collections.abc import Collection, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import apsw

from service.storage import people
from service.storage.people import Appearance
from service.storage.sqlite import rows, schema
from service.storage.sqlite.database import transaction
from service.storage.sqlite.errors import map_errors

LOCK_TIMEOUT_MS: Final = 10_000  # maximum wait for the server's lock, and for readers to finish
ERASED_EVENTS_PER_TRANSACTION: Final = 256  # the server waits meanwhile


class SqliteErasure:
    """The only second process that writes the database, in short transactions."""

    def __init__(self, path: Path, *, lock_timeout_ms: int = LOCK_TIMEOUT_MS) -> None:
        """Open the database; raises InboxUnavailable if there is no inbox at *path*."""
        self._path = path
        with map_errors(path):
            self._db = schema.open_existing(path, writable=True)
            self._db.set_busy_timeout(lock_timeout_ms)
            self._db.pragma("secure_delete", True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, raised: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._db.close()

    def appearances(self, identifiers: Collection[str]) -> Sequence[Appearance]:
        """Return the events in which one of these numbers or user ids appears; see `LogEvents`."""
        with map_errors(self._path):
            return rows.appearances(self._db, identifiers)

    def erase(self, positions: Sequence[int]) -> bool:
        """Remove all personal data of these events; a hash of the id stays, so that duplicates are recognized.

        Then truncate the WAL by a checkpoint; returns False if a reader prevented that.
        """
        with map_errors(self._path):
            for start in range(0, len(positions), ERASED_EVENTS_PER_TRANSACTION):
                batch = tuple(positions[start : start + ERASED_EVENTS_PER_TRANSACTION])
                marks = ",".join("?" * len(batch))
                with transaction(self._db):
                    self._db.execute(
                        f"UPDATE event SET people = NULL, {people.ERASE} WHERE position IN ({marks})",  # noqa: S608  constants
                        batch,
                    )
            try:
                self._db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
            except apsw.BusyError:
                return False
        return True

    def remains(self) -> str:
        """Return "": the pages were overwritten, so nothing remains; see `Erasure`."""
        return ""
