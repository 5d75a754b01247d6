"""The writing half."""

import time
from collections.abc import Sequence
from typing import Final

from psycopg import errors

from service.clock import DAY_MS
from service.errors import InboxUnavailable, Unavailability
from service.events import Event
from service.outcomes import StorageFailure
from service.storage import deduplication
from service.storage.postgresql import durability, partitions, rows, schema
from service.storage.postgresql.connection import ServerAddress, connect
from service.storage.postgresql.errors import map_errors
from service.storage.postgresql.schema import SCHEMA
from service.storage.protocols import Outcome, Size, Terms

MAX_COUNTED_EVENTS: Final = 20_000  # events up to which they are counted, and not estimated
SIZE_INTERVAL_SECONDS: Final = 15.0  # seconds between looks at how much there is
_COUNT: Final = f"SELECT count(*) FROM (SELECT 1 FROM {SCHEMA}.event LIMIT {MAX_COUNTED_EVENTS + 1}) AS counted"
_TREE: Final = f"pg_partition_tree('{SCHEMA}.event') JOIN pg_class ON pg_class.oid = relid WHERE isleaf"
_ESTIMATE: Final = f"SELECT sum(greatest(reltuples, 0))::bigint FROM {_TREE}"
_BYTES: Final = f"SELECT sum(pg_total_relation_size(relid)) FROM {_TREE}"


class PostgresqlInbox:
    """The writing half; any number of processes have one each."""

    def __init__(self, address: ServerAddress, terms: Terms) -> None:
        """Connect, and make the tables where there are none.

        Raises InboxUnavailable where the server can't be reached, or could not keep the promise.
        """
        self._purge = partitions.Purge(terms)
        self._weak = address.weak
        self._db = connect(address)
        self._unsafe: Unavailability | None = None
        self._measured = float("-inf")
        self._purging = False
        self._made_until = 0
        self._size = Size(0, 0)
        try:
            with map_errors():
                durability.require(self._db, weak=self._weak)
                schema.migrate(self._db, "inbox", schema.MIGRATIONS)
                self._measure()
        except BaseException:
            self._db.close()
            raise

    def put(self, events: Sequence[Event]) -> Sequence[Outcome]:
        """Append *events* in one statement; see `Inbox`."""
        if self._unsafe:
            raise self._unsafe.error()
        waiting = deduplication.distinct(events)
        there = self._append(waiting) if waiting else set()
        self._size = self._size._replace(events=(self._size.events or 0) + len(waiting) - len(there))
        return deduplication.outcomes(events, there)

    def _append(self, events: Sequence[Event]) -> set[str]:
        """Give the ids of those that were there."""
        with map_errors(self._db):
            encoded = rows.encoded(events)
            self._db.warned = ""
            try:
                found = self._db.execute(rows.APPEND, (encoded,)).fetchall()
            except errors.CheckViolation:  # a day that has no partition yet
                partitions.make(self._db, {rows.day(event) for event in events})
                found = self._db.execute(rows.APPEND, (encoded,)).fetchall()
        if self._db.warned:
            raise InboxUnavailable(
                StorageFailure.SLOW, f"its standbys may not have it: the server warns {self._db.warned!r}"
            )
        return {events[number - 1].id for (number,) in found}

    def probe(self) -> None:
        """Write a row, so that a full disk is seen; see `Inbox`."""
        with map_errors(self._db):
            self._look()
            self._db.execute(f"UPDATE {SCHEMA}.progress SET position = position WHERE name = 'identity'")

    def purge(self, now: int) -> bool:
        """Look at the server's settings, make the next days' partitions, drop what is too old; see `Inbox`."""
        with map_errors(self._db):
            self._look()
            today = now // DAY_MS
            if self._made_until < today + partitions.AHEAD.stop:
                partitions.make(self._db, (today + ahead for ahead in partitions.AHEAD))
                self._made_until = today + partitions.AHEAD.stop
            more = self._purge(self._db, now)
            if (self._purging and not more) or time.monotonic() - self._measured >= SIZE_INTERVAL_SECONDS:
                self._measure()
            self._purging = more
        return more

    def size(self) -> Size:
        """Say how much was held when it was last looked at, and what was put since; see `Inbox`."""
        return self._size

    def close(self) -> None:
        """Let go of the connection."""
        self._db.close()

    def _look(self) -> None:
        try:
            durability.require(self._db, weak=self._weak)
        except InboxUnavailable as ex:
            self._unsafe = ex.stored()
            raise
        self._unsafe = None

    def _measure(self) -> None:
        self._measured = time.monotonic()
        events = self._size.events or 0
        if events <= MAX_COUNTED_EVENTS:
            events = schema.number(self._db, _COUNT)
        if events > MAX_COUNTED_EVENTS:  # notifications wait while it is counted
            events = max(schema.number(self._db, _ESTIMATE), MAX_COUNTED_EVENTS)
        self._size = Size(events, schema.number(self._db, _BYTES))
