"""The relay's state for commands, and the low-watermark and heartbeat for the receivers."""

from collections.abc import Collection, Mapping, Sequence
from typing import Final

from service.config import InboxUrl
from service.events import Event
from service.storage import people
from service.storage.deliveries import (
    Attempt,
    DeadLetter,
    Delivery,
    DeliveryHistory,
    DestinationStatus,
)
from service.storage.delivery_policy import DeliveryPolicy
from service.storage.people import Appearance
from service.storage.postgresql import delivery_identities, schema
from service.storage.postgresql.connection import ServerAddress, connect
from service.storage.postgresql.delivery_database import TABLES, PostgresqlDeliveryDatabase, require_no_pre_release
from service.storage.postgresql.delivery_identities import PostgresqlIdentities
from service.storage.postgresql.delivery_planning import saved_events
from service.storage.postgresql.delivery_queues import columns, drop_empty_queues, lock_queues
from service.storage.postgresql.errors import map_errors
from service.storage.postgresql.schema import SCHEMA as T

WATERMARK_TIMEOUT_SECONDS: Final = 0.5  # notifications wait for this query


class PostgresqlDeliveryAdmin:
    """Implements `DeliveryAdmin`."""

    def __init__(self, store: PostgresqlDeliveryDatabase) -> None:
        self._store = store
        self.identities = PostgresqlIdentities(store)

    def statuses(self) -> Sequence[DestinationStatus]:
        """Return the state of each destination; see `DeliveryAdmin`."""
        rows = self._store.rows(
            f"""SELECT name, position, disabled, gone_since,
                  (SELECT count(*) FROM {T}.delivery WHERE destination = id),
                  (SELECT received_at FROM {T}.delivery WHERE destination = id ORDER BY position LIMIT 1),
                  (SELECT count(*) FROM {T}.dead_letter WHERE destination = id)
                FROM {T}.destination ORDER BY name"""
        )
        return [DestinationStatus(*row) for row in rows]

    def dead_letters(self, *, limit: int | None) -> Sequence[DeadLetter]:
        """Return the newest dead letters; see `DeliveryAdmin`."""
        rows = self._store.rows(
            f"""SELECT * FROM (SELECT name, dead_letter.position, reason, attempts, at FROM {T}.dead_letter
                  JOIN {T}.destination ON id = destination
                  ORDER BY at DESC, dead_letter.position DESC LIMIT %s) AS newest
                ORDER BY at, position""",
            (limit,),
        )
        return [DeadLetter(*row) for row in rows]

    def history(self, position: int) -> Sequence[DeliveryHistory]:
        """Return the delivery history of the event at *position*; see `DeliveryAdmin`."""
        attempts = self._store.rows(
            f"""SELECT name, at, seconds, status, outcome FROM {T}.attempt JOIN {T}.destination ON id = destination
                WHERE attempt.position = %s ORDER BY at""",
            (position,),
        )
        states = {name: "delivered" for name, *_ in attempts}
        for table, state in (("delivery", "'waiting'"), ("dead_letter", "'dead: ' || reason")):
            query = f"""SELECT name, {state} FROM {T}.destination
                        JOIN {T}.{table} AS t ON t.destination = id AND t.position = %s"""
            states |= dict(self._store.rows(query, (position,)))
        return [
            DeliveryHistory(name, states[name], [Attempt(*row[1:]) for row in attempts if row[0] == name])
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
        pending = f"""SELECT position, name FROM {T}.delivery
                      JOIN unnest(%s::text[]) AS name ON strpos(queue || ':', ':' || name || ':') > 0
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
                f"""INSERT INTO {T}.delivery
                    SELECT %s, *, %s, true FROM unnest(%s::bigint[], %s::text[], %s::bigint[])
                    ON CONFLICT (destination, position) DO NOTHING""",
                (key, now, *columns(replayed, 3)),
            ).rowcount
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
