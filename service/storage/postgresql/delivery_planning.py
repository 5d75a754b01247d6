"""From the log to what is owed, and what is no use to wait for."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from service.events import Event
from service.outcomes import DeadLetterReason
from service.storage.deliveries import Delivery
from service.storage.delivery_policy import DeliveryPolicy
from service.storage.postgresql import schema
from service.storage.postgresql.connection import PostgresqlConnection
from service.storage.postgresql.delivery_database import TABLES, TENDING_DELIVERIES, PostgresqlDeliveryDatabase, Rows
from service.storage.postgresql.delivery_queues import ORDER, DestinationIds, columns, drop_empty_queues, row, rows
from service.storage.postgresql.schema import SCHEMA as T
from service.storage.protocols import Record

PRUNED_ATTEMPTS: Final = 4000


class PostgresqlDeliveryPlanning:
    """`DeliveryPlanning`, see there."""

    def __init__(self, store: PostgresqlDeliveryDatabase) -> None:
        self._store = store
        self._keys = DestinationIds(store)

    def require_file(self) -> None:
        """See that the inbox's URL is still the one that was opened; raises InboxUnavailable."""
        self._store.require_url()

    def adopt(self, identity: int, last: int) -> int:  # noqa: ARG002  as below
        """Belong to the log of this identity; see `DeliveryPlanning`.

        That a log was set back can't be seen, nor need it: it lies in the same database, and so does this.
        """
        with self._store.transaction() as db:
            (found,) = row(db, f"SELECT identity FROM {T}.relay_state FOR UPDATE")
            if found == identity:
                return 0
            rows(db, f"SELECT 1 FROM {T}.destination ORDER BY id FOR UPDATE")
            count = schema.number(db, f"SELECT count(*) FROM {T}.delivery")
            if found is not None:
                for table in TABLES:
                    db.execute(f"DELETE FROM {T}.{table}")
                db.execute(f"UPDATE {T}.destination SET position = 0")
            db.execute(f"UPDATE {T}.relay_state SET identity = %s", (identity,))
            return count if found is not None else 0

    def join(self, names: Mapping[str, int], *, now: int) -> None:
        """Have exactly *names* be in the file; see `DeliveryPlanning`."""
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
        """Say how far the log was read; see `DeliveryPlanning`."""
        return dict(self._store.rows(f"SELECT name, position FROM {T}.destination WHERE gone_since IS NULL"))

    def plan(self, name: str, since: int, until: int, deliveries: Sequence[Delivery], *, now: int) -> bool:
        """Note what is owed; see `DeliveryPlanning`."""
        key = self._keys[name]
        with self._store.transaction() as db:
            dues = {each.queue: min(each.received_at, now) for each in reversed(deliveries)}
            # Whoever settles a queue of these waits, or is waited for: else it could find nothing owed, and drop it.
            db.execute(
                f"""INSERT INTO {T}.delivery_queue (destination, queue, due)
                    SELECT %s, * FROM unnest(%s::text[], %s::bigint[]) AS new (queue, due) ORDER BY queue COLLATE "C"
                    ON CONFLICT (destination, queue) DO UPDATE SET due = delivery_queue.due""",
                (key, list(dues), list(dues.values())),
            )
            moved = f"UPDATE {T}.destination SET position = %s WHERE id = %s AND position = %s RETURNING 1"
            if not rows(db, moved, until, key, since):
                drop_empty_queues(db, [(key, queue) for queue in dues])
                return False
            db.execute(
                f"""INSERT INTO {T}.delivery
                    SELECT %s, *, %s, false FROM unnest(%s::bigint[], %s::text[], %s::bigint[])
                    ON CONFLICT DO NOTHING""",
                (key, now, *columns(deliveries, 3)),
            )
            return True

    def expire(
        self, first: int, *, now: int, policy: DeliveryPolicy, dead_letter_age_ms: int
    ) -> Mapping[tuple[str, DeadLetterReason], int]:
        """Give up what is no use to wait for; see `DeliveryPlanning`. One relay at a time does."""
        away = f"SELECT id FROM {T}.destination WHERE disabled IS NOT NULL OR gone_since IS NOT NULL"
        down = f"SELECT id FROM {T}.destination WHERE disabled IS NULL AND failing_since <= %s AND failures >= %s"
        found: Counter[tuple[str, DeadLetterReason]] = Counter()
        with self._store.transaction() as db:
            if not schema.try_lock(db, TENDING_DELIVERIES):
                return found
            db.execute(f"UPDATE {T}.relay_state SET seen = %s", (now,))
            db.execute(f"DELETE FROM {T}.dead_letter WHERE at < %s", (now - dead_letter_age_ms,))
            db.execute(
                f"""DELETE FROM {T}.saved_event AS saved
                    WHERE NOT EXISTS (SELECT 1 FROM {T}.dead_letter WHERE dead_letter.position = saved.position)
                      AND NOT EXISTS (SELECT 1 FROM {T}.delivery WHERE delivery.position = saved.position)"""
            )
            # What waits for longer than anything may was written by a clock that ran ahead.
            db.execute(
                f"UPDATE {T}.delivery_queue SET due = %s WHERE due > %s",
                (now, now + policy.max_wait_ms),
            )
            names: dict[int, str] = dict(rows(db, f"SELECT id, name FROM {T}.destination"))
            long = now - policy.max_age_ms
            for reason, over, values in (
                (DeadLetterReason.RETENTION, f"position < %s AND destination IN ({away})", (first,)),
                (
                    DeadLetterReason.EXPIRED,
                    f"planned_at <= %s AND destination IN ({down})",
                    (long, long, policy.min_attempts),
                ),
            ):
                gone = self._give_up(db, over, values, now)
                db.execute(
                    f"""INSERT INTO {T}.dead_letter (reason, attempts, at, destination, position)
                        SELECT %s, 0, %s, * FROM unnest(%s::int[], %s::bigint[])
                        ON CONFLICT (destination, position) DO UPDATE SET reason = excluded.reason, at = excluded.at""",
                    (reason, now, [key for key, _, _ in gone], [position for _, _, position in gone]),
                )
                found.update((names[key], reason) for key, _, _ in gone)
        return found

    def _give_up(self, db: PostgresqlConnection, over: str, values: tuple[int, ...], now: int) -> Rows:
        """Owe no longer what is *over*, but what somebody is just trying."""
        queues = rows(db, f"SELECT DISTINCT destination, queue FROM {T}.delivery WHERE {over}", *values)
        free = rows(
            db,
            f"""SELECT destination, queue FROM {T}.delivery_queue WHERE (destination, queue) IN (
                  SELECT * FROM unnest(%s::int[], %s::text[])) AND (token IS NULL OR due <= %s) {ORDER}""",
            *columns(queues, 2),
            now,
        )
        gone = rows(
            db,
            f"""DELETE FROM {T}.delivery WHERE {over} AND (destination, queue) IN (
                  SELECT * FROM unnest(%s::int[], %s::text[])) RETURNING destination, queue, position""",
            *values,
            *columns(free, 2),
        )
        drop_empty_queues(db, [(key, queue) for key, queue, _ in gone])
        return gone

    def prune_attempts(self, first: int) -> None:
        """Drop some of what is told of events before *first*; see `DeliveryPlanning`."""
        old = f"SELECT position, destination, at FROM {T}.attempt WHERE position < %s ORDER BY position LIMIT %s"
        if not self._store.rows(old, (first, 1)):
            return
        with self._store.transaction() as db:
            if schema.try_lock(db, TENDING_DELIVERIES):
                forgotten = f"DELETE FROM {T}.attempt WHERE (position, destination, at) IN ({old})"
                db.execute(forgotten, (first, PRUNED_ATTEMPTS))

    def unsaved(self, limit: int) -> Sequence[int]:
        """Return dead letters whose event was not saved yet; see `DeadLetterEvents`."""
        query = f"SELECT DISTINCT position FROM {T}.dead_letter WHERE NOT saved ORDER BY position LIMIT %s"
        return [position for (position,) in self._store.rows(query, (limit,))]

    def save(self, positions: Sequence[int], events: Sequence[Record], *, now: int, max_bytes: int) -> None:
        """Save the events of dead letters; see `DeadLetterEvents`."""
        encoded = [(record, msgspec.msgpack.encode(record.event)) for record in events]
        saved = [(record.position, len(text), record.event.subject, text) for record, text in encoded]
        with self._store.transaction() as db:
            if not schema.try_lock(db, TENDING_DELIVERIES):
                return
            db.execute(
                f"""INSERT INTO {T}.saved_event (saved_at, position, bytes, subject, event)
                    SELECT %s, * FROM unnest(%s::bigint[], %s::bigint[], %s::text[], %s::bytea[])
                    ON CONFLICT (position) DO NOTHING""",
                (now, *columns(saved, 4)),
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
    found = store.rows(f"SELECT position, event FROM {T}.saved_event WHERE position = ANY(%s)", (list(positions),))
    return {position: msgspec.msgpack.decode(text, type=Event) for position, text in found}
