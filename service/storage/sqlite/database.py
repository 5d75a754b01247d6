"""Connection settings, migrations and transactions, shared by the inbox's file and the deliveries' file."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import apsw

from service.errors import InboxUnavailable
from service.outcomes import StorageFailure
from service.storage.migration import Migration

# `user_version` is 4005 for tables of version 5 with which version 4 works too, 5 if only version 5 works with them.
_WORKS_WITH: Final = 1000


def prepare(db: apsw.Connection, *, busy_timeout_ms: int) -> None:
    """Set the lock timeout, and keep temporary data in memory.

    A large batch makes SQLite spill the journal of a statement to a file, and a container's root is read-only.
    """
    db.set_busy_timeout(busy_timeout_ms)
    db.pragma("temp_store", "MEMORY")


def require_version(db: apsw.Connection, migrations: Sequence[Migration], path: Path) -> None:
    """Raise InboxUnavailable if the database at *path* needs a later version."""
    _, works_with = _version(db)
    if works_with > len(migrations):
        raise InboxUnavailable(
            StorageFailure.NEWER, f"{path} was written by a later version of this program: run that version"
        )


def migrate(db: apsw.Connection, migrations: Sequence[Migration], *, application_id: int) -> None:
    """Migrate the database to the current version in one transaction; a current or later one is not written.

    Step N of *migrations* migrates a database from version N to N + 1.
    """
    version, _ = _version(db)
    if version >= len(migrations):
        return
    with transaction(db):
        version, _ = _version(db)  # another process may have migrated it meanwhile
        for number, step in enumerate(migrations[version:], start=version + 1):
            db.execute(step.statements).fetchall()
            db.pragma("application_id", application_id)
            db.pragma("user_version", number if step.works_with == number else step.works_with * _WORKS_WITH + number)


def _version(db: apsw.Connection) -> tuple[int, int]:
    """Return the version of the tables, and the earliest version of a program that works with them."""
    works_with, version = divmod(db.pragma("user_version"), _WORKS_WITH)
    return version, works_with or version


@contextmanager
def transaction(db: apsw.Connection) -> Iterator[None]:
    """Run the block in one transaction: commit it, or roll back if it raises."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:  # after some errors SQLite itself has rolled back
            db.execute("ROLLBACK")
        raise
