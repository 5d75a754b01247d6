"""Connection settings, migrations and transactions, shared by the inbox's file and the deliveries' file."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import apsw

from service.errors import InboxUnavailable
from service.outcomes import StorageFailure


def prepare(db: apsw.Connection, *, busy_timeout_ms: int) -> None:
    """Set the lock timeout, and keep temporary data in memory.

    A large batch makes SQLite spill the journal of a statement to a file, and a container's root is read-only.
    """
    db.set_busy_timeout(busy_timeout_ms)
    db.pragma("temp_store", "MEMORY")


def require_version(db: apsw.Connection, migrations: Sequence[str], path: Path) -> None:
    """Raise InboxUnavailable if the database at *path* was made by a later version."""
    if db.pragma("user_version") > len(migrations):
        raise InboxUnavailable(
            StorageFailure.NEWER, f"{path} was written by a later version of this program: run that version"
        )


def migrate(db: apsw.Connection, migrations: Sequence[str], *, application_id: int) -> None:
    """Migrate the database to the current version in one transaction; a current one is not written.

    Step N of *migrations* migrates a database from version N to N + 1.
    """
    if db.pragma("user_version") == len(migrations):
        return
    with transaction(db):
        for step in range(db.pragma("user_version"), len(migrations)):  # another process may have migrated it meanwhile
            db.execute(migrations[step]).fetchall()
            db.pragma("application_id", application_id)
            db.pragma("user_version", step + 1)


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
