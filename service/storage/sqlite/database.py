"""What the inbox's file and the deliveries' file have in common: how they are opened, migrated and written."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import apsw

from service.errors import InboxUnavailable
from service.outcomes import StorageFailure


def prepare(db: apsw.Connection, *, busy_timeout_ms: int) -> None:
    """Set what every connection needs: to wait for a lock, and no file beside the database.

    A large batch makes SQLite spill the journal of a statement, and a container's root can't be written.
    """
    db.set_busy_timeout(busy_timeout_ms)
    db.pragma("temp_store", "MEMORY")


def require_version(db: apsw.Connection, migrations: Sequence[str], path: Path) -> None:
    """Raise InboxUnavailable if the database at *path* was made by a later version."""
    if db.pragma("user_version") > len(migrations):
        raise InboxUnavailable(
            StorageFailure.NEWER, f"{path} was made by a later version of this program: run that version"
        )


def migrate(db: apsw.Connection, migrations: Sequence[str], *, application_id: int) -> None:
    """Bring the database to the present version, all or nothing; one that is of it is not written.

    Each of *migrations* takes a database of the version that is its index to the next one.
    """
    if db.pragma("user_version") == len(migrations):
        return
    with transaction(db):
        for step in range(db.pragma("user_version"), len(migrations)):  # another process may have been faster
            db.execute(migrations[step]).fetchall()
            db.pragma("application_id", application_id)
            db.pragma("user_version", step + 1)


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
