"""Plan deliveries from the log, give up undeliverable events, and save the events of dead letters."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from service.events import Event
from service.outcomes import DeadLetterReason
from service.storage import people
from service.storage.deliveries import REPORT_AGE_MS, Delivery, ExpiryLimits
from service.storage.people import appearance
from service.storage.postgresql import delivery_identities, schema
from service.storage.postgresql.connection import PostgresqlConnection
from service.storage.postgresql.delivery_database import CLEANING_DELIVERIES, TABLES, PostgresqlDeliveryDatabase, Rows
from service.storage.postgresql.delivery_identities import PostgresqlIdentities
from service.storage.postgresql.delivery_queues import (
    LOCK_IN_ORDER,
    DestinationIds,
    columns,
    drop_empty_queues,
    row,
    rows,
    store_dead_letters,
)
from service.storage.postgresql.schema import SCHEMA as T
from service.storage.protocols import Record
from service.storage.timelines import Timeline

PRUNE_BATCH_ATTEMPTS: Final = 4000


class PostgresqlDeliveryPlanning:
    """Implements `DeliveryPlanning`, `DeliveryCleanup` and `DeadLetterEvents`."""

    def __init__(self, store: PostgresqlDeliveryDatabase) -> None:
        self._store = store
        self._keys = DestinationIds(store)
        self.identities = PostgresqlIdentities(store)

    def require_file(self) -> None:
        """Raise InboxUnavailable if the inbox's URL has changed."""
        self._store.require_url()

    def adopt(self, timelines: Sequence[Timeline]) -> int:
        """Bind the state to the log with these timelines; see `DeliveryPlanning`.

        There is one: the log is in the same database, so a restored backup resets both.
        """
        identity = timelines[0].number
        with self._store.transaction() as db:
            (stored,) = row(db, f"SELECT identity FROM {T}.relay_state FOR UPDATE")
            if stored == identity:
                return 0
            rows(db, f"SELECT 1 FROM {T}.destination ORDER BY id FOR UPDATE")
            counted = f"SELECT (SELECT count(*) FROM {T}.delivery) + (SELECT count(*) FROM {T}.dead_letter)"
            count = schema.number(db, counted)
            if stored is not None:
                for table in TABLES:
                    db.execute(f"DELETE FROM {T}.{table}")
                db.execute(f"UPDATE {T}.destination SET position = 0")
                db.execute(f"UPDATE {T}.relay_state SET learned = 0")
            db.execute(f"UPDATE {T}.relay_state SET identity = %s", (identity,))
            return count if stored is not None else 0

    def join(self, names: Mapping[str, int], *, now: int) -> None:
        """Store *names* as the destinations of the file; see `DeliveryPlanning`."""
        with self._store.transaction() as db:
            db.execute(
                f"UPDATE {T}.destination SET gone_since = %s WHERE gone_since IS NULL AND name <> ALL(%s)",
                (now, list(names)),
            )
            db.execute(
                f"""INSERT INTO {T}.destination (name, position)
                    SELECT * FROM unnest(%s::text[], %s::bigint[]) ORDER BY 1
                    ON CONFLICT (name) DO UPDATE SET gone_since = NULL""",
                (list(names), list(names.values())),
            )
            db.execute(f"UPDATE {T}.relay_state SET seen = %s", (now,))

    def positions(self) -> Mapping[str, int]:
        """Return the position up to which the log was read, by destination; see `DeliveryPlanning`."""
        return dict(self._store.rows(f"SELECT name, position FROM {T}.destination WHERE gone_since IS NULL"))

    def plan(self, name: str, since: int, until: int, deliveries: Sequence[Delivery], *, now: int) -> bool:
        """Store the deliveries between two positions; see `DeliveryPlanning`."""
        key = self._keys[name]
        with self._store.transaction() as db:
            dues = {each.queue: min(each.received_at, now) for each in reversed(deliveries)}
            # The upsert locks the queues: otherwise a concurrent settlement could find one empty, and drop it.
            db.execute(
                f"""INSERT INTO {T}.delivery_queue (destination, queue, due)
                    SELECT %s, * FROM unnest(%s::text[], %s::bigint[]) AS new (queue, due) ORDER BY queue COLLATE "C"
                    ON CONFLICT (destination, queue) DO UPDATE SET due = delivery_queue.due""",
                (key, list(dues), list(dues.values())),
            )
            advance = f"UPDATE {T}.destination SET position = %s WHERE id = %s AND position = %s RETURNING 1"
            if not rows(db, advance, until, key, since):
                drop_empty_queues(db, [(key, queue) for queue in dues])
                return False
            db.execute(
                f"""INSERT INTO {T}.delivery
                    SELECT %s, *, %s, false FROM unnest(%s::bigint[], %s::text[], %s::bigint[])
                    ON CONFLICT DO NOTHING""",
                (key, now, *columns(deliveries, 3)),
            )
            delivery_identities.put_in_order(db, key, deliveries)
            return True

    def expire(
        self, first: int, limits: ExpiryLimits, *, now: int, max_ages_ms: Mapping[str, int]
    ) -> Mapping[tuple[str, DeadLetterReason], int]:
        """Make dead letters of undeliverable events, unless another relay is doing that; see `DeliveryCleanup`."""
        inactive = f"SELECT id FROM {T}.destination WHERE disabled IS NOT NULL OR gone_since IS NOT NULL"
        failing = f"""SELECT id FROM {T}.destination
                      WHERE name = %s AND disabled IS NULL AND failing_since <= %s AND failures >= %s"""
        conditions: list[tuple[DeadLetterReason, str, tuple[str | int, ...]]] = [
            (DeadLetterReason.RETENTION, f"position < %s AND destination IN ({inactive})", (first,))
        ]
        for name, max_age in max_ages_ms.items():
            failing_for = (now - max_age, name, now - max_age, limits.policy.min_attempts)
            conditions.append(
                (DeadLetterReason.EXPIRED, f"planned_at <= %s AND destination IN ({failing})", failing_for)
            )
        counts: Counter[tuple[str, DeadLetterReason]] = Counter()
        with self._store.transaction() as db:
            if not schema.try_lock(db, CLEANING_DELIVERIES):
                return counts
            db.execute(f"UPDATE {T}.relay_state SET seen = %s", (now,))
            db.execute(f"DELETE FROM {T}.dead_letter WHERE at < %s", (now - limits.dead_letter_age_ms,))
            delivery_identities.prune(db, now - limits.retention_ms)
            db.execute(f"DELETE FROM {T}.worker_report WHERE at < %s", (now - REPORT_AGE_MS,))
            db.execute(
                f"""DELETE FROM {T}.saved_event AS saved
                    WHERE NOT EXISTS (SELECT 1 FROM {T}.dead_letter WHERE dead_letter.position = saved.position)
                      AND NOT EXISTS (SELECT 1 FROM {T}.delivery WHERE delivery.position = saved.position)"""
            )
            # A due time beyond the maximum wait was written by a clock that was ahead.
            db.execute(
                f"UPDATE {T}.delivery_queue SET due = %s WHERE due > %s",
                (now, now + limits.policy.max_wait_ms),
            )
            names: dict[int, str] = dict(rows(db, f"SELECT id, name FROM {T}.destination"))
            for reason, condition, values in conditions:
                given_up = self._delete_unclaimed(db, condition, values, now)
                store_dead_letters(
                    db, [(key, position, reason, attempts, now, 0) for key, _, position, attempts in given_up]
                )
                counts.update((names[key], reason) for key, *_ in given_up)
        return counts

    def _delete_unclaimed(
        self, db: PostgresqlConnection, condition: str, values: tuple[str | int, ...], now: int
    ) -> Rows:
        """Delete the deliveries that match *condition*, except those of leased queues; return the deleted rows."""
        queues = rows(db, f"SELECT DISTINCT destination, queue FROM {T}.delivery WHERE {condition}", *values)
        unclaimed = rows(
            db,
            f"""SELECT destination, queue FROM {T}.delivery_queue WHERE (destination, queue) IN (
                  SELECT * FROM unnest(%s::int[], %s::text[])) AND (token IS NULL OR due <= %s) {LOCK_IN_ORDER}""",
            *columns(queues, 2),
            now,
        )
        deleted = rows(
            db,
            f"""DELETE FROM {T}.delivery WHERE {condition} AND (destination, queue) IN (
                  SELECT * FROM unnest(%s::int[], %s::text[])) RETURNING destination, queue, position, attempts""",
            *values,
            *columns(unclaimed, 2),
        )
        drop_empty_queues(db, [(key, queue) for key, queue, *_ in deleted])
        return deleted

    def prune_attempts(self, first: int) -> None:
        """Delete a batch of the attempts of events before *first*; see `DeliveryCleanup`."""
        old = f"SELECT position, destination, at FROM {T}.attempt WHERE position < %s ORDER BY position LIMIT %s"
        if not self._store.rows(old, (first, 1)):
            return
        with self._store.transaction() as db:
            if schema.try_lock(db, CLEANING_DELIVERIES):
                delete = f"DELETE FROM {T}.attempt WHERE (position, destination, at) IN ({old})"
                db.execute(delete, (first, PRUNE_BATCH_ATTEMPTS))

    def unsaved(self, limit: int) -> Sequence[int]:
        """Return dead letters whose event is not saved yet; see `DeadLetterEvents`."""
        query = f"SELECT DISTINCT position FROM {T}.dead_letter WHERE NOT saved ORDER BY position LIMIT %s"
        return [position for (position,) in self._store.rows(query, (limit,))]

    def save(self, positions: Sequence[int], events: Sequence[Record], *, now: int, max_bytes: int) -> None:
        """Save the events of dead letters; see `DeadLetterEvents`."""
        encoded = [(record, msgspec.msgpack.encode(record.event)) for record in events]
        saved = [(len(text), text, *appearance(record)) for record, text in encoded]
        with self._store.transaction() as db:
            if not schema.try_lock(db, CLEANING_DELIVERIES):
                return
            db.execute(
                f"""INSERT INTO {T}.saved_event (saved_at, bytes, event, {people.COLUMNS})
                    SELECT %s, * FROM unnest(%s::bigint[], %s::bytea[], %s::bigint[], %s::text[], %s::text[],
                      %s::text[], %s::text[], %s::text[]) ON CONFLICT (position) DO NOTHING""",
                (now, *columns(saved, 8)),
            )
            db.execute(f"UPDATE {T}.dead_letter SET saved = true WHERE position = ANY(%s)", (list(positions),))
            db.execute(
                f"""DELETE FROM {T}.saved_event WHERE position IN (SELECT position FROM (
                      SELECT position, sum(bytes) OVER (ORDER BY saved_at DESC, position DESC) AS newer
                      FROM {T}.saved_event) AS summed WHERE newer > %s)""",
                (max_bytes,),
            )

    def saved(self, positions: Sequence[int]) -> Mapping[int, Event]:
        """Return the saved events of dead letters; see `DeadLetterEvents`."""
        return saved_events(self._store, positions)


def saved_events(store: PostgresqlDeliveryDatabase, positions: Sequence[int]) -> Mapping[int, Event]:
    """Return the saved events of these positions, by position."""
    saved = store.rows(f"SELECT position, event FROM {T}.saved_event WHERE position = ANY(%s)", (list(positions),))
    return {position: msgspec.msgpack.decode(text, type=Event) for position, text in saved}
