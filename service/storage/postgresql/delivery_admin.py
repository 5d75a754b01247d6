"""The relay's state for commands, and the low-watermark and heartbeat for the receivers."""

from collections.abc import Collection, Mapping, Sequence
from typing import Final

from service.config import InboxUrl
from service.events import Event
from service.outcomes import DeadLetterReason
from service.storage import people
from service.storage.deliveries import (
    Attempt,
    DeadLetter,
    DeadLetterGroup,
    Delivery,
    DeliveryHealth,
    DeliveryHistory,
    DestinationStatus,
    PendingDelivery,
    WorkerReport,
    decode_evidence,
)
from service.storage.delivery_policy import DeliveryPolicy
from service.storage.people import Appearance
from service.storage.postgresql import delivery_identities, schema
from service.storage.postgresql.connection import ServerAddress, connect
from service.storage.postgresql.delivery_database import TABLES, PostgresqlDeliveryDatabase, require_no_pre_release
from service.storage.postgresql.delivery_identities import PostgresqlIdentities
from service.storage.postgresql.delivery_planning import saved_events
from service.storage.postgresql.delivery_queues import (
    LOCK_IN_ORDER,
    columns,
    drop_empty_queues,
    lock_queues,
    store_dead_letters,
)
from service.storage.postgresql.errors import map_errors
from service.storage.postgresql.schema import SCHEMA as T

WATERMARK_TIMEOUT_SECONDS: Final = 0.5  # notifications wait for this query
# The position of the first delivery of a pending delivery's queue.
_FIRST: Final = f"""(SELECT min(position) FROM {T}.delivery AS first
    WHERE first.destination = delivery.destination AND first.queue = delivery.queue)"""
# Pending deliveries: position, queue, attempts, last status, and whether the attempt runs.
_PENDING: Final = f"""
    SELECT delivery.position, delivery.queue, delivery.attempts,
        (SELECT status FROM {T}.attempt WHERE attempt.position = delivery.position
           AND attempt.destination = delivery.destination ORDER BY at DESC LIMIT 1),
        token IS NOT NULL AND due > %s AND delivery.position = {_FIRST}
    FROM {T}.delivery JOIN {T}.delivery_queue AS queue
        ON queue.destination = delivery.destination AND queue.queue = delivery.queue
    WHERE delivery.destination = %s AND delivery.position = ANY(%s) ORDER BY delivery.position
"""


class PostgresqlDeliveryAdmin:
    """Implements `DeliveryAdmin`."""

    def __init__(self, store: PostgresqlDeliveryDatabase) -> None:
        self._store = store
        self.identities = PostgresqlIdentities(store)

    def statuses(self) -> Sequence[DestinationStatus]:
        """Return the state of each destination; see `DeliveryAdmin`."""
        rows = self._store.rows(
            f"""SELECT id, name, destination.position, disabled, gone_since,
                  (SELECT count(*) FROM {T}.delivery WHERE destination = id), oldest.received_at, oldest.position,
                  (SELECT min(due) FROM {T}.delivery_queue WHERE destination = id),
                  (SELECT count(*) FROM {T}.dead_letter WHERE destination = id)
                FROM {T}.destination LEFT JOIN LATERAL (
                  SELECT received_at, delivery.position FROM {T}.delivery WHERE delivery.destination = id
                  ORDER BY delivery.position LIMIT 1) AS oldest ON true
                ORDER BY name"""
        )
        return [DestinationStatus(*row)._replace(reports=self._reports(key)) for key, *row in rows]

    def _reports(self, key: int) -> Sequence[WorkerReport]:
        rows = self._store.rows(
            f"""SELECT at, health, status, next_probe_at FROM {T}.worker_report
                WHERE destination = %s ORDER BY at DESC""",
            (key,),
        )
        return [WorkerReport(at, DeliveryHealth(health), *state) for at, health, *state in rows]

    def pending(self, name: str, *, after: int, limit: int, now: int) -> Sequence[PendingDelivery]:
        """Return pending deliveries; see `PendingAdmin`."""
        rows = self._store.rows(
            f"""SELECT delivery.position, delivery.attempts, due, {_FIRST}, skipped,
                  token IS NOT NULL AND due > %s AND delivery.position = {_FIRST}
                FROM {T}.destination JOIN {T}.delivery ON delivery.destination = id
                JOIN {T}.delivery_queue AS queue ON queue.destination = id AND queue.queue = delivery.queue
                WHERE name = %s AND delivery.position > %s ORDER BY delivery.position LIMIT %s""",
            (now, name, after, limit),
        )
        return [PendingDelivery(*row) for row in rows]

    def retry(self, name: str, *, now: int) -> None:
        """Make all pending deliveries due; see `PendingAdmin`."""
        with self._store.transaction() as db:
            db.execute(
                f"""UPDATE {T}.delivery_queue SET due = %s FROM (
                      SELECT destination, queue FROM {T}.delivery_queue WHERE token IS NULL AND due > %s
                        AND destination = (SELECT id FROM {T}.destination WHERE name = %s) {LOCK_IN_ORDER}
                    ) AS waiting
                    WHERE delivery_queue.destination = waiting.destination AND delivery_queue.queue = waiting.queue""",
                (now, now, name),
            )
            db.execute(f"UPDATE {T}.destination SET retried_at = %s WHERE name = %s", (now, name))

    def give_up(
        self, name: str, positions: Sequence[int], reason: DeadLetterReason, *, now: int
    ) -> tuple[Sequence[int], Sequence[int]]:
        """Make dead letters of pending deliveries; see `PendingAdmin`."""
        with self._store.transaction() as db:
            ((key,),) = db.execute(f"SELECT id FROM {T}.destination WHERE name = %s", (name,)).fetchall()
            pending = f"SELECT destination, queue FROM {T}.delivery WHERE destination = %s AND position = ANY(%s)"
            lock_queues(db, db.execute(pending, (key, list(positions))).fetchall())
            found = db.execute(_PENDING, (now, key, list(positions))).fetchall()
            given_up = [row for row in found if not row[-1]]
            db.execute(
                f"""UPDATE {T}.delivery_queue AS queue SET due = least(due, %s) FROM {T}.delivery
                    WHERE delivery.destination = %s AND delivery.position = ANY(%s)
                      AND queue.destination = delivery.destination AND queue.queue = delivery.queue
                      AND delivery.position = {_FIRST}""",
                (now, key, [position for position, *_ in given_up]),
            )
            db.execute(
                f"DELETE FROM {T}.delivery WHERE destination = %s AND position = ANY(%s)",
                (key, [position for position, *_ in given_up]),
            )
            drop_empty_queues(db, [(key, queue) for _, queue, *_ in given_up])
            store_dead_letters(
                db,
                [(key, position, reason, attempts, now, status or 0) for position, _, attempts, status, _ in given_up],
            )
        return [position for position, *_ in given_up], [position for position, *_, leased in found if leased]

    def dead_letters(self, *, limit: int | None) -> Sequence[DeadLetter]:
        """Return the newest dead letters; see `DeliveryAdmin`."""
        rows = self._store.rows(
            f"""SELECT * FROM (SELECT name, dead_letter.position, reason, attempts, at, status FROM {T}.dead_letter
                  JOIN {T}.destination ON id = destination
                  ORDER BY at DESC, dead_letter.position DESC LIMIT %s) AS newest
                ORDER BY at, position""",
            (limit,),
        )
        return [DeadLetter(*row) for row in rows]

    def dead_letter_groups(self) -> Sequence[DeadLetterGroup]:
        """Return all dead letters in groups; see `DeliveryAdmin`."""
        return [
            DeadLetterGroup(*row)
            for row in self._store.rows(
                f"""SELECT name, reason, status, count(*), max(at),
                      (array_agg(dead_letter.position ORDER BY at DESC))[1]
                    FROM {T}.dead_letter JOIN {T}.destination ON id = destination
                    GROUP BY name, reason, status ORDER BY name COLLATE "C", reason, status"""
            )
        ]

    def history(self, position: int) -> Sequence[DeliveryHistory]:
        """Return the delivery history of the event at *position*; see `DeliveryAdmin`."""
        attempts = self._store.rows(
            f"""SELECT name, evidence, at, seconds, status, outcome
                FROM {T}.attempt JOIN {T}.destination ON id = destination
                WHERE attempt.position = %s ORDER BY at""",
            (position,),
        )
        states = {name: "delivered" for name, *_ in attempts}
        waiting = "CASE WHEN skipped THEN 'skipped' ELSE 'waiting' END"
        for table, state in (("delivery", waiting), ("dead_letter", "'dead: ' || reason")):
            query = f"""SELECT name, {state} FROM {T}.destination
                        JOIN {T}.{table} AS t ON t.destination = id AND t.position = %s"""
            states |= dict(self._store.rows(query, (position,)))
        return [
            DeliveryHistory(
                name,
                states[name],
                [Attempt(*row)._replace(evidence=decode_evidence(text)) for of, text, *row in attempts if of == name],
            )
            for name in sorted(states)
        ]

    def saved(self, positions: Sequence[int]) -> Mapping[int, Event]:
        """Return the saved events of dead letters; see `DeliveryAdmin`."""
        return saved_events(self._store, positions)

    def appearances(self, identifiers: Collection[str]) -> Sequence[Appearance]:
        """Return saved events and pending deliveries of a person; see `DeliveryErasure`."""
        names = list(identifiers)
        saved = f"""SELECT {people.COLUMNS} FROM {T}.saved_event WHERE subject = ANY(%s) OR userid = ANY(%s)
                      OR waid = ANY(%s) OR previoususerid = ANY(%s) OR previouswaid = ANY(%s)"""
        # The queue of a skipped delivery is its partition key, `#` and its position.
        pending = f"""SELECT position, name FROM {T}.delivery
                      JOIN unnest(%s::text[]) AS name ON strpos(
                        CASE WHEN skipped THEN left(queue, -length(position::text) - 1) ELSE queue END || ':',
                        ':' || name || ':') > 0
                      ORDER BY position"""
        found = [Appearance(*row) for row in self._store.rows(saved, (names,) * 5)]
        return found + [people.pending(*row) for row in self._store.rows(pending, (names,))]

    def heartbeat(self) -> int:
        """Return the time of a relay's last heartbeat; see `DeliveryAdmin`."""
        ((seen,),) = self._store.rows(f"SELECT seen FROM {T}.relay_state")
        return int(seen)

    def clear(self) -> None:
        """Delete the whole state; see `DeliveryAdmin`."""
        with self._store.transaction() as db:
            for table in (*TABLES, "destination"):
                db.execute(f"DELETE FROM {T}.{table}")
            db.execute(f"UPDATE {T}.relay_state SET identity = NULL, seen = 0, learned = 0")

    def replay(self, name: str, deliveries: Sequence[Delivery], *, now: int) -> int:
        """Store deliveries again as a replay; see `DeliveryAdmin`."""
        with self._store.transaction() as db:
            key, read = db.execute(f"SELECT id, position FROM {T}.destination WHERE name = %s", (name,)).fetchall()[0]
            replayed = [each for each in deliveries if each.position <= read]  # the relay will plan later ones
            queues = sorted({each.queue for each in replayed})
            db.execute(
                f"""INSERT INTO {T}.delivery_queue (destination, queue, due)
                    SELECT %s, queue, %s FROM unnest(%s::text[]) AS new (queue)
                    ORDER BY queue COLLATE "C"
                    ON CONFLICT (destination, queue) DO UPDATE SET due = delivery_queue.due""",
                (key, now, queues),
            )
            added = db.execute(
                f"""INSERT INTO {T}.delivery (destination, position, queue, received_at, planned_at, replay)
                    SELECT %s, *, %s, true FROM unnest(%s::bigint[], %s::text[], %s::bigint[])
                    ON CONFLICT (destination, position) DO NOTHING""",
                (key, now, *columns(replayed, 3)),
            ).rowcount
            drop_empty_queues(db, [(key, queue) for queue in queues])  # of deliveries that are skipped
            delivery_identities.put_in_order(db, key, replayed)
            db.execute(
                f"DELETE FROM {T}.dead_letter WHERE destination = %s AND position = ANY(%s)",
                (key, [each.position for each in replayed]),
            )
        return added

    def disable(self, name: str, reason: str | None) -> bool:
        """Disable or enable a destination; see `DestinationAdmin`."""
        change = f"""UPDATE {T}.destination SET disabled = %s, failing_since = NULL, failures = 0
                     WHERE name = %s AND (disabled IS NULL) <> (%s::text IS NULL) RETURNING 1"""
        with self._store.transaction() as db:
            return bool(db.execute(change, (reason, name, reason)).fetchall())

    def erase(self, positions: Sequence[int], identifiers: Collection[str]) -> bool:
        """Delete everything about these events and identifiers; see `DeliveryErasure`."""
        values = (list(positions),)
        with self._store.transaction() as db:
            queues = db.execute(
                f"SELECT destination, queue FROM {T}.delivery WHERE position = ANY(%s)", values
            ).fetchall()
            lock_queues(db, queues)
            for table in ("delivery", "dead_letter", "attempt", "saved_event"):
                db.execute(f"DELETE FROM {T}.{table} WHERE position = ANY(%s)", values)
            drop_empty_queues(db, queues)
            delivery_identities.erase(db, identifiers)
        return True


def low_watermark(url: InboxUrl, *, now: int, policy: DeliveryPolicy) -> int | None:
    """Return the oldest position of the log that a relay still has to read, to deliver or to save.

    None if none needs any, or the last heartbeat is older than the policy allows. Raises InboxUnavailable if the state
    can't be read.
    """
    db = connect(ServerAddress.of(url, timeout=WATERMARK_TIMEOUT_SECONDS))
    try:
        with map_errors():
            require_no_pre_release(db)
            if not schema.exists(db, "relay_state"):
                return None
            row = db.execute(
                f"""SELECT min(position) FROM (
                      SELECT coalesce((SELECT min(position) FROM {T}.delivery WHERE destination = id), position + 1)
                        AS position
                      FROM {T}.destination WHERE disabled IS NULL AND (gone_since IS NULL OR gone_since > %s)
                      UNION ALL SELECT min(position) FROM {T}.dead_letter WHERE NOT saved
                    ) AS wanted WHERE (SELECT seen FROM {T}.relay_state) BETWEEN %s AND %s""",
                (now - policy.max_absence_ms, now - policy.max_heartbeat_age_ms + 1, now + policy.max_clock_ahead_ms),
            ).fetchone()
    finally:
        db.close()
    return None if row is None or row[0] is None else int(row[0])


def heartbeat(url: InboxUrl) -> int | None:
    """Return the time of a relay's last heartbeat, in milliseconds since the epoch; None if there was none.

    Raises InboxUnavailable.
    """
    db = connect(ServerAddress.of(url, timeout=WATERMARK_TIMEOUT_SECONDS))
    try:
        with map_errors():
            # Also from pre-release tables, so that a relay that left them does not stop the purge forever.
            table = "relay_state" if schema.exists(db, "relay_state") else "relay"
            return schema.number(db, f"SELECT seen FROM {T}.{table}") or None if schema.exists(db, table) else None
    finally:
        db.close()
