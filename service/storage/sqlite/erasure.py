"""Taking one person's events out of the database, beside the server that writes it."""

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import apsw

from service.storage.sqlite import schema
from service.storage.sqlite.database import transaction
from service.storage.sqlite.errors import map_errors

LOCK_TIMEOUT_MS: Final = 10_000  # how long the server's lock, and the end of a reader, are waited for
ERASED_AT_ONCE: Final = 256  # the server waits for us meanwhile


class SqliteErasure:
    """What nobody else does: a second process that writes, in short transactions."""

    def __init__(self, path: Path, *, lock_timeout_ms: int = LOCK_TIMEOUT_MS) -> None:
        """Open the database; raises InboxUnavailable if there is none of ours."""
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

    def find(self, subject: str) -> Sequence[int]:
        """Give the positions of the events of *subject*; reads all that is kept."""
        with map_errors(self._path):
            return [row[0] for row in self._db.execute("SELECT position FROM event WHERE subject = ?", (subject,))]

    def erase(self, positions: Sequence[int]) -> bool:
        """Leave of these events what tells a duplicate, a hash of the id, and no personal data.

        Ends with a checkpoint that empties the WAL; returns False if a reader kept that from being done.
        """
        with map_errors(self._path):
            for start in range(0, len(positions), ERASED_AT_ONCE):
                some = tuple(positions[start : start + ERASED_AT_ONCE])
                marks = ",".join("?" * len(some))
                with transaction(self._db):
                    self._db.execute(
                        f"""UPDATE event SET id = '', subject = NULL, partitionkey = '', traceparent = NULL, data = NULL
                            WHERE position IN ({marks})""",  # noqa: S608  marks only
                        some,
                    )
            try:
                self._db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
            except apsw.BusyError:
                return False
        return True

    def remains(self) -> str:
        """Return "": the pages were overwritten; see `Erasure`."""
        return ""
