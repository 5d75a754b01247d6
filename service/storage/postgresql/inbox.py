"""The writer of the PostgreSQL inbox."""

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

MAX_COUNTED_EVENTS: Final = 20_000  # above this number, events are estimated instead of counted
SIZE_INTERVAL_SECONDS: Final = 15.0  # between measurements of the size
_COUNT: Final = f"SELECT count(*) FROM (SELECT 1 FROM {SCHEMA}.event LIMIT {MAX_COUNTED_EVENTS + 1}) AS counted"
_TREE: Final = f"pg_partition_tree('{SCHEMA}.event') JOIN pg_class ON pg_class.oid = relid WHERE isleaf"
_ESTIMATE: Final = f"SELECT sum(greatest(reltuples, 0))::bigint FROM {_TREE}"
_BYTES: Final = f"SELECT sum(pg_total_relation_size(relid)) FROM {_TREE}"


class PostgresqlInbox:
    """A writer of the PostgreSQL inbox; any number of processes may have one."""

    def __init__(self, address: ServerAddress, terms: Terms) -> None:
        """Connect, and create the tables if there are none.

        Raises InboxUnavailable if the server can't be reached, or fails the durability check.
        """
        self._purge = partitions.Purge(terms)
        self._weak = address.weak
        self._db = connect(address)
        self._unsafe: Unavailability | None = None
        self._measured_at = float("-inf")
        self._is_purging = False
        self._partitions_until_day = 0
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
        distinct = deduplication.distinct(events)
        duplicate_ids = self._append(distinct) if distinct else set()
        self._size = self._size._replace(events=(self._size.events or 0) + len(distinct) - len(duplicate_ids))
        return deduplication.outcomes(events, duplicate_ids)

    def _append(self, events: Sequence[Event]) -> set[str]:
        """Append the new events, and return the ids of those that were stored already."""
        with map_errors(self._db):
            encoded = rows.encode(events)
            self._db.warning = ""
            try:
                duplicates = self._db.execute(rows.APPEND, (encoded,)).fetchall()
            except errors.CheckViolation:  # a day without a partition
                partitions.make(self._db, {rows.day(event) for event in events})
                duplicates = self._db.execute(rows.APPEND, (encoded,)).fetchall()
        if self._db.warning:
            raise InboxUnavailable(
                StorageFailure.SLOW,
                f"the standbys may not have the events: the server's warning is {self._db.warning!r}",
            )
        return {events[number - 1].id for (number,) in duplicates}

    def probe(self) -> None:
        """Write a row, so that a full disk is noticed; see `Inbox`."""
        with map_errors(self._db):
            self._check_durability()
            self._db.execute(f"UPDATE {SCHEMA}.progress SET position = position WHERE name = 'identity'")

    def purge(self, now: int) -> bool:
        """Check the server's settings, create the next days' partitions, purge old events; see `Inbox`."""
        with map_errors(self._db):
            self._check_durability()
            today = now // DAY_MS
            if self._partitions_until_day < today + partitions.DAYS_AHEAD.stop:
                partitions.make(self._db, (today + days for days in partitions.DAYS_AHEAD))
                self._partitions_until_day = today + partitions.DAYS_AHEAD.stop
            more = self._purge(self._db, now)
            if (self._is_purging and not more) or time.monotonic() - self._measured_at >= SIZE_INTERVAL_SECONDS:
                self._measure()
            self._is_purging = more
        return more

    def size(self) -> Size:
        """Return the last measured size plus the events put since; see `Inbox`."""
        return self._size

    def close(self) -> None:
        """Close the connection."""
        self._db.close()

    def _check_durability(self) -> None:
        try:
            durability.require(self._db, weak=self._weak)
        except InboxUnavailable as ex:
            self._unsafe = ex.stored()
            raise
        self._unsafe = None

    def _measure(self) -> None:
        self._measured_at = time.monotonic()
        events = self._size.events or 0
        if events <= MAX_COUNTED_EVENTS:
            events = schema.number(self._db, _COUNT)
        if events > MAX_COUNTED_EVENTS:  # notifications wait during a count
            events = max(schema.number(self._db, _ESTIMATE), MAX_COUNTED_EVENTS)
        self._size = Size(events, schema.number(self._db, _BYTES))
