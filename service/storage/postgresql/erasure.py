"""Erase one person's events from the tables while servers write them."""

from collections.abc import Collection, Sequence
from types import TracebackType
from typing import Self

from service.storage import people
from service.storage.people import Appearance
from service.storage.postgresql import rows, schema
from service.storage.postgresql.connection import ServerAddress, connect
from service.storage.postgresql.errors import map_errors
from service.storage.postgresql.schema import SCHEMA


class PostgresqlErasure:
    """Implements `Erasure`."""

    def __init__(self, address: ServerAddress) -> None:
        """Connect; raises InboxUnavailable."""
        self._db = connect(address)
        with map_errors(self._db):
            schema.require_version(self._db, "inbox", schema.MIGRATIONS)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, raised: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._db.close()

    def appearances(self, identifiers: Collection[str]) -> Sequence[Appearance]:
        """Return the events in which one of these numbers or user ids appears; see `LogEvents`."""
        with map_errors(self._db):
            return rows.appearances(self._db, identifiers)

    def erase(self, positions: Sequence[int]) -> bool:
        """Remove all personal data of these events, except a hash of the id; see `Erasure`."""
        with map_errors(self._db):
            self._db.execute(f"UPDATE {SCHEMA}.event SET {people.ERASE} WHERE position = ANY(%s)", (list(positions),))
            leaves = f"SELECT relid::regclass::text FROM pg_partition_tree('{SCHEMA}.event') WHERE isleaf"
            for (table,) in self._db.execute(leaves).fetchall():
                self._db.execute(f"VACUUM {table}")
        return True

    def remains(self) -> str:
        """Return that PostgreSQL's write-ahead log still has the erased rows; see `Erasure`."""
        return (
            "PostgreSQL's write-ahead log, its archive and its standbys contain the erased rows until their segments "
            "are recycled (max_wal_size, wal_keep_size, archive retention). If a transaction was open during the "
            "erasure, the table contains them until the next VACUUM after that transaction."
        )
