"""The relay's state for commands, and the low-watermark and heartbeat for the receiver."""

import json
from collections.abc import Collection, Mapping, Sequence
from contextlib import closing
from pathlib import Path

import apsw

from service.errors import InboxUnavailable
from service.events import Event
from service.outcomes import StorageFailure
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
from service.storage.sqlite import delivery_identities
from service.storage.sqlite.delivery_database import (
    DELIVERIES_APPLICATION_ID,
    INTO_DELIVERY,
    PRE_RELEASE_APPLICATION_ID,
    TABLES,
    Rows,
    SqliteDeliveryDatabase,
)
from service.storage.sqlite.delivery_identities import SqliteIdentities
from service.storage.sqlite.delivery_queue import drop_empty_queues, saved_events
from service.storage.sqlite.ownership import Owner, require_ours


class SqliteDeliveryAdmin:
    """Implements `DeliveryAdmin`."""

    def __init__(self, store: SqliteDeliveryDatabase) -> None:
        self._store = store
        self.identities = SqliteIdentities(store)

    def statuses(self) -> Sequence[DestinationStatus]:
        """Return the state of each destination; see `DeliveryAdmin`."""
        rows = self._store.rows(
            """SELECT name, position, disabled, gone_since, backlog,
                 (SELECT received_at FROM delivery WHERE destination = id ORDER BY position LIMIT 1),
                 (SELECT count(*) FROM dead_letter WHERE destination = id)
               FROM destination ORDER BY name"""
        )
        return [DestinationStatus(*row) for row in rows]

    def dead_letters(self, *, limit: int | None) -> Sequence[DeadLetter]:
        """Return the newest dead letters; see `DeliveryAdmin`."""
        rows = self._store.rows(
            """SELECT * FROM (SELECT name, dead_letter.position, reason, attempts, at FROM dead_letter
                 JOIN destination ON id = destination ORDER BY at DESC, dead_letter.position DESC LIMIT ?)
               ORDER BY at, position""",
            (-1 if limit is None else limit,),
        )
        return [DeadLetter(*row) for row in rows]

    def history(self, position: int) -> Sequence[DeliveryHistory]:
        """Return the delivery history of the event at *position*; see `DeliveryAdmin`."""
        attempts = self._store.rows(
            """SELECT name, at, seconds, status, outcome FROM attempt JOIN destination ON id = destination
               WHERE attempt.position = ? ORDER BY at""",
            (position,),
        )
        states = {name: "delivered" for name, *_ in attempts}
        for table, state in (("delivery", "'waiting'"), ("dead_letter", "'dead: ' || reason")):
            query = f"SELECT name, {state} FROM destination JOIN {table} AS t ON t.destination = id AND t.position = ?"  # noqa: S608  constants
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
        names = json.dumps(list(identifiers))
        saved = f"""WITH wanted AS MATERIALIZED (SELECT value FROM json_each(?))
                    SELECT {people.COLUMNS} FROM saved_event WHERE subject IN wanted OR userid IN wanted
                      OR waid IN wanted OR previoususerid IN wanted OR previouswaid IN wanted"""  # noqa: S608  constants
        pending = """SELECT position, value FROM delivery
                     JOIN json_each(?) ON instr(queue || ':', ':' || value || ':') ORDER BY position"""
        found = [Appearance(*row) for row in self._store.rows(saved, (names,))]
        return found + [people.pending(*row) for row in self._store.rows(pending, (names,))]

    def heartbeat(self) -> int:
        """Return the time of a relay's last heartbeat; see `DeliveryAdmin`."""
        ((seen,),) = self._store.rows("SELECT seen FROM heartbeat")
        return int(seen)

    def clear(self) -> None:
        """Delete the whole state; see `DeliveryAdmin`."""
        with self._store.transaction() as db:
            for table in (*TABLES, "destination", "origin"):
                db.execute(f"DELETE FROM {table}")  # noqa: S608  constants
            db.execute("UPDATE heartbeat SET seen = 0, learned = 0")
        self._store.truncate_wal()

    def replay(self, name: str, deliveries: Sequence[Delivery], *, now: int) -> int:
        """Store deliveries again as a replay; see `DeliveryAdmin`."""
        with self._store.transaction() as db:
            ((key, read),) = db.execute("SELECT id, position FROM destination WHERE name = ?", (name,))
            added = 0
            for each in deliveries:
                if each.position > read:  # the relay has not read it yet, and will plan it
                    continue
                row = (key, each.position, each.queue, each.received_at, now, True)
                new = db.execute(f"INSERT OR IGNORE {INTO_DELIVERY} RETURNING 1", row).fetchall()
                added += len(new)
                delivery_identities.put_in_order(db, key, [each] if new else [])
                queue = "INSERT OR IGNORE INTO delivery_queue (destination, queue, due) VALUES (?, ?, ?)"
                db.execute(queue, (key, each.queue, now))
                db.execute("DELETE FROM dead_letter WHERE destination = ? AND position = ?", (key, each.position))
            db.execute("UPDATE destination SET backlog = backlog + ? WHERE id = ?", (added, key))
        return added

    def disable(self, name: str, reason: str | None) -> bool:
        """Disable or enable a destination; see `DestinationAdmin`."""
        change = """UPDATE destination SET disabled = ?, failing_since = NULL, failures = 0
                    WHERE name = ? AND (disabled IS NULL) <> (? IS NULL) RETURNING 1"""
        with self._store.transaction() as db:
            return bool(db.execute(change, (reason, name, reason)).fetchall())

    def erase(self, positions: Sequence[int], identifiers: Collection[str]) -> bool:
        """Delete everything about these events and identifiers; see `DeliveryErasure`."""
        values = [(position,) for position in positions]
        condition = "WHERE (destination, position) IN (SELECT id, ? FROM destination)"
        delete_deliveries = f"DELETE FROM delivery {condition} RETURNING destination, queue"  # noqa: S608  constants
        with self._store.transaction() as db:
            deleted: Rows = db.executemany(delete_deliveries, values).fetchall()
            drop_empty_queues(db, deleted)
            db.executemany(f"DELETE FROM dead_letter {condition}", values)  # noqa: S608  constants
            for table in ("attempt", "saved_event"):
                db.executemany(f"DELETE FROM {table} WHERE position = ?", values)  # noqa: S608  constants
            delivery_identities.erase(db, identifiers)
        return self._store.truncate_wal()


def low_watermark(path: Path, *, now: int, policy: DeliveryPolicy) -> int | None:
    """Return the oldest position of the log that the relay of *path* still has to read, to deliver or to save.

    None if it needs none, or its last heartbeat is older than the policy allows. Raises InboxUnavailable if the state
    can't be read.
    """
    try:
        owner = require_ours(path, DELIVERIES_APPLICATION_ID, pre_release_id=PRE_RELEASE_APPLICATION_ID)
        if owner is not Owner.OURS:  # there is no file, or a relay is just creating it
            return None
        db = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
        try:
            db.set_busy_timeout(100)
            ((position,),) = db.execute(
                """SELECT min(position) FROM (
                     SELECT coalesce((SELECT min(position) FROM delivery WHERE destination = id), position + 1)
                       AS position
                     FROM destination WHERE disabled IS NULL AND (gone_since IS NULL OR gone_since > ?)
                     UNION ALL SELECT min(position) FROM dead_letter WHERE saved = 0
                   ) WHERE (SELECT seen FROM heartbeat) BETWEEN ? AND ?""",
                (now - policy.max_absence_ms, now - policy.max_heartbeat_age_ms + 1, now + policy.max_clock_ahead_ms),
            )
        finally:
            db.close()
    except (apsw.Error, OSError) as ex:
        raise InboxUnavailable(StorageFailure.RELAY_STATE, f"the relay's state {path} can't be read: {ex}") from ex
    return None if position is None else int(position)


def heartbeat(path: Path) -> int | None:
    """Return the last heartbeat of the relay of *path*, in milliseconds since the epoch; None if there was none.

    For a file that can't be read, returns when it was last written, so that a damaged file does not stop the purge
    forever.
    """
    if not path.exists():
        return None
    try:
        owner = require_ours(path, DELIVERIES_APPLICATION_ID, pre_release_id=PRE_RELEASE_APPLICATION_ID)
        if owner is not Owner.OURS:
            return None
        with closing(apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)) as db:
            db.set_busy_timeout(100)
            ((seen,),) = db.execute("SELECT seen FROM heartbeat")
    except (apsw.Error, OSError, InboxUnavailable):
        return _written_at(path)
    return int(seen) or None


def _written_at(path: Path) -> int | None:
    try:
        return int(path.stat().st_mtime * 1000)
    except OSError:
        return None
