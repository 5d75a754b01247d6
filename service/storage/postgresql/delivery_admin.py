"""What a person asks of the relay's state, and does; and what the receivers must know of it."""

from collections.abc import Mapping, Sequence
from typing import Final

from service.config import InboxUrl
from service.events import Event
from service.storage.deliveries import (
    GONE_LONG,
    MAX_CLOCK_AHEAD_MS,
    MAX_HEARTBEAT_AGE_MS,
    Dead,
    Owed,
    Standing,
    Story,
    Try,
)
from service.storage.postgresql import schema
from service.storage.postgresql.connection import Address, connect
from service.storage.postgresql.delivery_database import TABLES, Store
from service.storage.postgresql.delivery_planning import saved_events
from service.storage.postgresql.delivery_queues import let_go, lock
from service.storage.postgresql.errors import map_errors
from service.storage.postgresql.schema import NAME as T

ASKING: Final = 0.5  # seconds; who asks keeps notifications waiting meanwhile


class PostgresqlRecords:
    """`Records`, see there."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def standings(self) -> Sequence[Standing]:
        """Say how each destination stands; see `Records`."""
        rows = self._store.rows(
            f"""SELECT name, position, disabled, gone_since,
                  (SELECT count(*) FROM {T}.owed WHERE destination = id),
                  (SELECT received_at FROM {T}.owed WHERE destination = id ORDER BY position LIMIT 1),
                  (SELECT count(*) FROM {T}.dead WHERE destination = id)
                FROM {T}.destination ORDER BY name"""
        )
        return [Standing(*row) for row in rows]

    def dead(self, *, limit: int | None) -> Sequence[Dead]:
        """Give the dead letters of last; see `Records`."""
        rows = self._store.rows(
            f"""SELECT * FROM (SELECT name, dead.position, reason, tries, at FROM {T}.dead
                  JOIN {T}.destination ON id = destination ORDER BY at DESC, dead.position DESC LIMIT %s) AS newest
                ORDER BY at, position""",
            (limit,),
        )
        return [Dead(*row) for row in rows]

    def story(self, position: int) -> Sequence[Story]:
        """Tell what became of the event at *position*; see `Records`."""
        tried = self._store.rows(
            f"""SELECT name, at, seconds, status, outcome FROM {T}.tried JOIN {T}.destination ON id = destination
                WHERE tried.position = %s ORDER BY at""",
            (position,),
        )
        stands = {name: "delivered" for name, *_ in tried}
        for table, word in (("owed", "'waiting'"), ("dead", "'dead: ' || reason")):
            query = f"""SELECT name, {word} FROM {T}.destination
                        JOIN {T}.{table} AS t ON t.destination = id AND t.position = %s"""
            stands |= dict(self._store.rows(query, (position,)))
        return [
            Story(name, stands[name], [Try(*row[1:]) for row in tried if row[0] == name]) for name in sorted(stands)
        ]

    def saved(self, positions: Sequence[int]) -> Mapping[int, Event]:
        """Return the saved events of dead letters; see `Records`."""
        return saved_events(self._store, positions)

    def positions_of(self, subject: str) -> Sequence[int]:
        """Return the positions of what is kept of a person; see `Records`."""
        query = f"""SELECT position FROM {T}.saved_event WHERE subject = %s
                    UNION SELECT position FROM {T}.owed WHERE right(lane, length(%s) + 1) = ':' || %s
                    ORDER BY position"""
        return [position for (position,) in self._store.rows(query, (subject, subject, subject))]

    def heartbeat(self) -> int:
        """Return when a relay last said that it runs; see `Records`."""
        ((seen,),) = self._store.rows(f"SELECT seen FROM {T}.relay")
        return int(seen)

    def clear(self) -> None:
        """Drop everything; see `Records`."""
        with self._store.transaction() as db:
            for table in (*TABLES, "destination"):
                db.execute(f"DELETE FROM {T}.{table}")
            db.execute(f"UPDATE {T}.relay SET identity = NULL, seen = 0")

    def replay(self, name: str, owed: Sequence[Owed], *, now: int) -> int:
        """Owe events once more; see `Records`."""
        with self._store.transaction() as db:
            key, read = db.execute(f"SELECT id, position FROM {T}.destination WHERE name = %s", (name,)).fetchall()[0]
            wanted = [each for each in owed if each.position <= read]  # what comes after will be owed anyway
            lanes = sorted({each.lane for each in wanted})
            db.execute(
                f"""INSERT INTO {T}.lane (destination, lane, due)
                    SELECT %s, lane, %s FROM unnest(%s::text[]) AS new (lane)
                    ORDER BY lane COLLATE "C" ON CONFLICT (destination, lane) DO UPDATE SET due = lane.due""",
                (key, now, lanes),
            )
            added = db.execute(
                f"""INSERT INTO {T}.owed
                    SELECT %s, *, %s, true FROM unnest(%s::bigint[], %s::text[], %s::bigint[])
                    ON CONFLICT (destination, position) DO NOTHING""",
                (key, now, *([each[at] for each in wanted] for at in range(3))),
            ).rowcount
            db.execute(
                f"DELETE FROM {T}.dead WHERE destination = %s AND position = ANY(%s)",
                (key, [each.position for each in wanted]),
            )
        return added

    def disable(self, name: str, reason: str | None) -> bool:
        """Deliver nothing more to a destination, or go on; see `Switch`."""
        change = f"""UPDATE {T}.destination SET disabled = %s, failing_since = NULL, failures = 0
                     WHERE name = %s AND (disabled IS NULL) <> (%s::text IS NULL) RETURNING 1"""
        with self._store.transaction() as db:
            return bool(db.execute(change, (reason, name, reason)).fetchall())

    def forget(self, positions: Sequence[int]) -> bool:
        """Owe these events to nobody, and tell nothing of them; see `Records`."""
        which = (list(positions),)
        with self._store.transaction() as db:
            lanes = db.execute(f"SELECT destination, lane FROM {T}.owed WHERE position = ANY(%s)", which).fetchall()
            lock(db, lanes)
            for table in ("owed", "dead", "tried", "saved_event"):
                db.execute(f"DELETE FROM {T}.{table} WHERE position = ANY(%s)", which)
            let_go(db, lanes)
        return True


def needed(url: InboxUrl, *, now: int) -> int | None:
    """Return the oldest position of the log that a relay still has to read, to deliver or to save.

    None if nobody waits for any, or no relay gave a sign of life within `MAX_HEARTBEAT_AGE_MS`. Raises InboxUnavailable
    if that can't be told.
    """
    db = connect(Address.of(url, timeout=ASKING))
    try:
        with map_errors():
            if not schema.exists(db, "relay"):
                return None
            found = db.execute(
                f"""SELECT min(position) FROM (
                      SELECT coalesce((SELECT min(position) FROM {T}.owed WHERE destination = id), position + 1)
                        AS position
                      FROM {T}.destination WHERE disabled IS NULL AND (gone_since IS NULL OR gone_since > %s)
                      UNION ALL SELECT min(position) FROM {T}.dead WHERE NOT saved
                    ) AS wanted WHERE (SELECT seen FROM {T}.relay) BETWEEN %s AND %s""",
                (now - GONE_LONG, now - MAX_HEARTBEAT_AGE_MS + 1, now + MAX_CLOCK_AHEAD_MS),
            ).fetchone()
    finally:
        db.close()
    return None if found is None or found[0] is None else int(found[0])


def heartbeat(url: InboxUrl) -> int | None:
    """Return when a relay last said that it runs, in milliseconds since the epoch; None if none ever did.

    Raises InboxUnavailable.
    """
    db = connect(Address.of(url, timeout=ASKING))
    try:
        with map_errors():
            return schema.number(db, f"SELECT seen FROM {T}.relay") or None if schema.exists(db, "relay") else None
    finally:
        db.close()
