"""Partitions by the day of the event's own time, so that a retry after midnight is still recognized as a duplicate.

A partition is dropped once all its events are past the retention: a drop is cheap, while deletes keep autovacuum busy.
"""

import time
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from psycopg import errors

from service.clock import DAY_MS
from service.storage.postgresql import schema
from service.storage.postgresql.connection import PostgresqlConnection
from service.storage.postgresql.rows import date
from service.storage.postgresql.schema import SCHEMA, TIMELESS
from service.storage.protocols import Terms

PURGE_BATCH_EVENTS: Final = 256
# How long a drop waits for current readers and writers; all later ones wait for the drop meanwhile.
DROP_LOCK_TIMEOUT_MS: Final = 100
DROP_RETRY_SECONDS: Final = 60.0  # after a drop that did not get its lock in time
DAYS_AHEAD: Final = range(3)  # days from today for which partitions are created in advance


class Partition(NamedTuple):
    """A table with the events of one day; *day* counts from the epoch."""

    name: str
    day: int


def make(db: PostgresqlConnection, days: Iterable[int]) -> None:
    """Create the partitions of these days, unless they exist."""
    required = set(days) - {TIMELESS}
    if required <= {each.day for each in all_of(db)}:
        return
    with schema.transaction(db):
        schema.lock(db, schema.MIGRATING)  # if two workers created the same one, the second would fail
        for day in sorted(required - {each.day for each in all_of(db)}):
            table = f"{SCHEMA}.event_{date(day)}"
            # In two steps: CREATE TABLE ... PARTITION OF would wait for all readers, and block new ones meanwhile.
            db.execute(f"CREATE TABLE {table} (LIKE {SCHEMA}.event INCLUDING DEFAULTS INCLUDING INDEXES)")
            db.execute(f"ALTER TABLE {SCHEMA}.event ATTACH PARTITION {table} FOR VALUES IN ({day})")


def all_of(db: PostgresqlConnection) -> list[Partition]:
    """Return the partitions of days, the oldest first."""
    partitions = db.execute(
        f"""SELECT relname, substring(pg_get_expr(relpartbound, pg_class.oid) FROM '[0-9]+')::integer
            FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid
            WHERE inhparent = '{SCHEMA}.event'::regclass AND relispartition ORDER BY 2"""
    ).fetchall()
    return [Partition(*each) for each in partitions if each[1] != TIMELESS]


class Purge:
    """Purges events past the retention, in small batches."""

    def __init__(self, terms: Terms) -> None:
        self._terms = terms
        self._not_before = float("-inf")

    def __call__(self, db: PostgresqlConnection, now: int) -> bool:
        """Drop one partition, or a batch of the events without a day; return whether there may be more."""
        terms, cutoff = self._terms, now - self._terms.retention
        with schema.transaction(db):
            if not schema.try_lock(db, schema.PURGING):
                return False  # another worker is purging
            watermark = _Watermark(terms, now)
            dropped = self._drop_day(db, cutoff, watermark) or _drop_timeless(db, cutoff, watermark)
            if not dropped and terms.body_retention < terms.retention:
                dropped = _drop_bodies(db, now - terms.body_retention, watermark)
        return dropped

    def _drop_day(self, db: PostgresqlConnection, cutoff: int, watermark: "_Watermark") -> bool:
        if time.monotonic() < self._not_before:
            return False
        old = next((each for each in _past_days(db, cutoff) if _is_old(db, each, cutoff, watermark)), None)
        if old is None:
            return False
        db.execute(f"SET LOCAL lock_timeout = {DROP_LOCK_TIMEOUT_MS}")
        try:
            with db.transaction():
                db.execute(f"LOCK TABLE {SCHEMA}.event IN ACCESS EXCLUSIVE MODE")
                # Check again under the lock: an event may have been appended since the first check.
                if not _is_old(db, old, cutoff, watermark):
                    return False
                _record_dropped(db, f"SELECT max(position) FROM {SCHEMA}.{old.name}")
                db.execute(f"DROP TABLE {SCHEMA}.{old.name}")
        except errors.LockNotAvailable:
            self._not_before = time.monotonic() + DROP_RETRY_SECONDS
            return False
        return True


def _record_dropped(db: PostgresqlConnection, highest: str) -> None:
    """Store the highest position that was dropped, which is the log's last position if the log is empty."""
    db.execute(
        f"UPDATE {SCHEMA}.progress SET position = greatest(position, coalesce(({highest}), 0)) WHERE name = 'dropped'"
    )


class _Watermark:
    """The low-watermark, read only if there is something to purge, and at most once."""

    def __init__(self, terms: Terms, now: int) -> None:
        self._terms = terms
        self._now = now
        self._position: list[int | None] = []  # empty until it was read

    def allows(self, position: int) -> bool:
        """Return whether the event at *position* may be purged."""
        if not self._position:
            self._position.append(self._terms.low_watermark(self._now))
        low_watermark = self._position[0]
        return low_watermark is None or position < low_watermark


def _past_days(db: PostgresqlConnection, cutoff: int) -> Iterator[Partition]:
    """Yield partitions whose day is past the cutoff; events are received on the day of their partition or later."""
    return (each for each in all_of(db) if (each.day + 1) * DAY_MS <= cutoff)


def _is_old(db: PostgresqlConnection, partition: Partition, cutoff: int, watermark: _Watermark) -> bool:
    """Return whether all events of the partition can be purged."""
    newest = db.execute(
        f"SELECT position, received_at FROM {SCHEMA}.{partition.name} ORDER BY position DESC LIMIT 1"
    ).fetchone()
    return newest is None or (newest[1] < cutoff and watermark.allows(newest[0]))


def _drop_timeless(db: PostgresqlConnection, cutoff: int, watermark: _Watermark) -> bool:
    oldest = db.execute(
        f"""SELECT position FROM {SCHEMA}.event_timeless WHERE received_at < %s
            ORDER BY position LIMIT {PURGE_BATCH_EVENTS}""",
        (cutoff,),
    ).fetchall()
    purged = [position for (position,) in oldest if watermark.allows(position)]
    if not purged:
        return False
    _record_dropped(db, f"SELECT {purged[-1]}")
    db.execute(f"DELETE FROM {SCHEMA}.event_timeless WHERE position = ANY(%s)", (purged,))
    return len(purged) == PURGE_BATCH_EVENTS


def _drop_bodies(db: PostgresqlConnection, cutoff: int, watermark: _Watermark) -> bool:
    start = schema.number(db, f"SELECT position FROM {SCHEMA}.progress WHERE name = 'bodies_dropped'")
    page = db.execute(
        f"""SELECT position, received_at FROM {SCHEMA}.event WHERE position > %s
            ORDER BY position LIMIT {PURGE_BATCH_EVENTS}""",
        (start,),
    ).fetchall()
    purged = [position for position, received_at in page if received_at < cutoff and watermark.allows(position)]
    if not purged:
        return False
    db.execute(f"UPDATE {SCHEMA}.event SET data = NULL WHERE position = ANY(%s)", (purged,))
    db.execute(f"UPDATE {SCHEMA}.progress SET position = %s WHERE name = 'bodies_dropped'", (purged[-1],))
    return len(purged) == PURGE_BATCH_EVENTS
