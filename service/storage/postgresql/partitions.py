"""Partitions by the day that comes from the event itself: a repeat after midnight still meets the first one.

What is too old goes with its partition, once all in it is: a drop costs nothing, where deletes keep autovacuum busy.
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

PURGED_EVENTS: Final = 256
# Milliseconds that a change of partitions waits for those who read and write, as whoever comes after waits for it.
PATIENCE: Final = 100
AGAIN: Final = 60.0  # seconds until the next try, where somebody reads for longer than that
AHEAD: Final = range(3)  # days for which partitions are made before anybody needs them


class Partition(NamedTuple):
    """A table of one day's events; the day is one since the epoch."""

    name: str
    day: int


def make(db: PostgresqlConnection, days: Iterable[int]) -> None:
    """Make the partitions of these days, those that are not there."""
    wanted = set(days) - {TIMELESS}
    if wanted <= {each.day for each in all_of(db)}:
        return
    with schema.transaction(db):
        schema.lock(db, schema.MIGRATING)  # two that make the same one would fail
        for day in sorted(wanted - {each.day for each in all_of(db)}):
            table = f"{SCHEMA}.event_{date(day)}"
            # In two steps: as one, it would wait for whoever just reads, and all that comes after it for both.
            db.execute(f"CREATE TABLE {table} (LIKE {SCHEMA}.event INCLUDING DEFAULTS INCLUDING INDEXES)")
            db.execute(f"ALTER TABLE {SCHEMA}.event ATTACH PARTITION {table} FOR VALUES IN ({day})")


def all_of(db: PostgresqlConnection) -> list[Partition]:
    """Give the partitions of days, the oldest first."""
    found = db.execute(
        f"""SELECT relname, substring(pg_get_expr(relpartbound, pg_class.oid) FROM '[0-9]+')::integer
            FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid
            WHERE inhparent = '{SCHEMA}.event'::regclass AND relispartition ORDER BY 2"""
    ).fetchall()
    return [Partition(*each) for each in found if each[1] != TIMELESS]


class Purge:
    """Drops what is too old, a little at a time."""

    def __init__(self, terms: Terms) -> None:
        self._terms = terms
        self._not_before = float("-inf")

    def __call__(self, db: PostgresqlConnection, now: int) -> bool:
        """Drop one partition, or a few of the events that have no day; says whether there may be more."""
        terms, cutoff = self._terms, now - self._terms.retention
        with schema.transaction(db):
            if not schema.try_lock(db, schema.TENDING):
                return False  # another worker does it
            needed = _Needed(terms, now)
            dropped = self._drop_days(db, cutoff, needed) or _drop_timeless(db, cutoff, needed)
            if not dropped and terms.body_retention < terms.retention:
                dropped = _drop_bodies(db, now - terms.body_retention, needed)
        return dropped

    def _drop_days(self, db: PostgresqlConnection, cutoff: int, needed: "_Needed") -> bool:
        if time.monotonic() < self._not_before:
            return False
        old = next((each for each in _past(db, cutoff) if _is_old(db, each, cutoff, needed)), None)
        if old is None:
            return False
        db.execute(f"SET LOCAL lock_timeout = {PATIENCE}")
        try:
            with db.transaction():
                db.execute(f"LOCK TABLE {SCHEMA}.event IN ACCESS EXCLUSIVE MODE")
                # Now nobody is just appending to it: what was there a moment ago may not be all.
                if not _is_old(db, old, cutoff, needed):
                    return False
                _note(db, f"SELECT max(position) FROM {SCHEMA}.{old.name}")
                db.execute(f"DROP TABLE {SCHEMA}.{old.name}")
        except errors.LockNotAvailable:
            self._not_before = time.monotonic() + AGAIN
            return False
        return True


def _note(db: PostgresqlConnection, highest: str) -> None:
    """Remember the highest position that was dropped: where nothing is left, it is where the log ends."""
    db.execute(
        f"UPDATE {SCHEMA}.progress SET position = greatest(position, coalesce(({highest}), 0)) WHERE name = 'dropped'"
    )


class _Needed:
    """The oldest position that somebody needs, asked for once and only where something could go."""

    def __init__(self, terms: Terms, now: int) -> None:
        self._terms = terms
        self._now = now
        self._found: list[int | None] = []

    def passes(self, position: int) -> bool:
        """Say whether the event at *position* may go."""
        if not self._found:
            self._found.append(self._terms.hold(self._now))
        needed = self._found[0]
        return needed is None or position < needed


def _past(db: PostgresqlConnection, cutoff: int) -> Iterator[Partition]:
    """Give partitions of days that are past: what is of a day was received on it or later."""
    return (each for each in all_of(db) if (each.day + 1) * DAY_MS <= cutoff)


def _is_old(db: PostgresqlConnection, partition: Partition, cutoff: int, needed: _Needed) -> bool:
    """Say whether everything in it is too old, and nobody needs anything."""
    newest = db.execute(
        f"SELECT position, received_at FROM {SCHEMA}.{partition.name} ORDER BY position DESC LIMIT 1"
    ).fetchone()
    return newest is None or (newest[1] < cutoff and needed.passes(newest[0]))


def _drop_timeless(db: PostgresqlConnection, cutoff: int, needed: _Needed) -> bool:
    oldest = db.execute(
        f"SELECT position FROM {SCHEMA}.event_timeless WHERE received_at < %s ORDER BY position LIMIT {PURGED_EVENTS}",
        (cutoff,),
    ).fetchall()
    gone = [position for (position,) in oldest if needed.passes(position)]
    if not gone:
        return False
    _note(db, f"SELECT {gone[-1]}")
    db.execute(f"DELETE FROM {SCHEMA}.event_timeless WHERE position = ANY(%s)", (gone,))
    return len(gone) == PURGED_EVENTS


def _drop_bodies(db: PostgresqlConnection, cutoff: int, needed: _Needed) -> bool:
    start = schema.number(db, f"SELECT position FROM {SCHEMA}.progress WHERE name = 'bodies_dropped'")
    page = db.execute(
        f"SELECT position, received_at FROM {SCHEMA}.event WHERE position > %s ORDER BY position LIMIT {PURGED_EVENTS}",
        (start,),
    ).fetchall()
    gone = [position for position, received_at in page if received_at < cutoff and needed.passes(position)]
    if not gone:
        return False
    db.execute(f"UPDATE {SCHEMA}.event SET data = NULL WHERE position = ANY(%s)", (gone,))
    db.execute(f"UPDATE {SCHEMA}.progress SET position = %s WHERE name = 'bodies_dropped'", (gone[-1],))
    return len(gone) == PURGED_EVENTS
