"""The relay's state for commands, and the low-watermark and heartbeat for the receiver."""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

import apsw

from service.errors import InboxUnavailable
from service.events import Event
from service.outcomes import DeadLetterReason, StorageFailure
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
from service.storage.sqlite.delivery_queue import INSERT_DEAD_LETTER, drop_empty_queues, saved_events
from service.storage.sqlite.ownership import Owner, require_ours

# The position of the first delivery of a pending delivery's queue.
_FIRST: Final = """(SELECT min(position) FROM delivery AS first
    WHERE first.destination = delivery.destination AND first.queue = delivery.queue)"""
# A pending delivery: its queue, attempts, last status, and whether its attempt runs.
_PENDING: Final = f"""
    SELECT delivery.queue, delivery.attempts,
        (SELECT status FROM attempt WHERE attempt.position = delivery.position
           AND attempt.destination = delivery.destination ORDER BY at DESC LIMIT 1),
        token IS NOT NULL AND due > ? AND delivery.position = {_FIRST}
    FROM delivery JOIN delivery_queue AS queue
        ON queue.destination = delivery.destination AND queue.queue = delivery.queue
    WHERE delivery.destination = ? AND delivery.position = ?
"""  # noqa: S608  constants


class SqliteDeliveryAdmin:
    """Implements `DeliveryAdmin`."""

    def __init__(self, store: SqliteDeliveryDatabase) -> None:
        self._store = store
        self.identities = SqliteIdentities(store)

    def statuses(self) -> Sequence[DestinationStatus]:
        """Return the state of each destination; see `DeliveryAdmin`."""
        rows = self._store.rows(
            """SELECT id, name, destination.position, disabled, gone_since, backlog, oldest.received_at,
                 oldest.position, (SELECT min(due) FROM delivery_queue WHERE destination = id),
                 (SELECT count(*) FROM dead_letter WHERE destination = id)
               FROM destination LEFT JOIN delivery AS oldest ON (oldest.destination, oldest.position) =
                 (id, (SELECT min(position) FROM delivery WHERE destination = id))
               ORDER BY name"""
        )
        return [DestinationStatus(*row)._replace(reports=self._reports(key)) for key, *row in rows]

    def _reports(self, key: int) -> Sequence[WorkerReport]:
        query = "SELECT at, health, status, next_probe_at FROM worker_report WHERE destination = ? ORDER BY at DESC"
        rows = self._store.rows(query, (key,))
        return [WorkerReport(at, DeliveryHealth(health), *state) for at, health, *state in rows]

    def pending(self, name: str, *, after: int, limit: int, now: int) -> Sequence[PendingDelivery]:
        """Return pending deliveries; see `PendingAdmin`."""
        rows = self._store.rows(
            f"""SELECT delivery.position, delivery.attempts, due, {_FIRST}, skipped, token IS NOT NULL AND due > ?
               FROM destination JOIN delivery ON delivery.destination = id
               JOIN delivery_queue AS queue ON queue.destination = id AND queue.queue = delivery.queue
               WHERE name = ? AND delivery.position > ? ORDER BY delivery.position LIMIT ?""",  # noqa: S608  constants
            (now, name, after, limit),
        )
        return [
            PendingDelivery(position, attempts, due, first, bool(skipped), bool(leased) and position == first)
            for position, attempts, due, first, skipped, leased in rows
        ]

    def retry(self, name: str, *, now: int) -> None:
        """Make all pending deliveries due; see `PendingAdmin`."""
        with self._store.transaction() as db:
            ((key,),) = db.execute("UPDATE destination SET retried_at = ? WHERE name = ? RETURNING id", (now, name))
            due = "UPDATE delivery_queue SET due = ? WHERE destination = ? AND token IS NULL AND due > ?"
            db.execute(due, (now, key, now))

    def give_up(
        self, name: str, positions: Sequence[int], reason: DeadLetterReason, *, now: int
    ) -> tuple[Sequence[int], Sequence[int]]:
        """Make dead letters of pending deliveries; see `PendingAdmin`."""
        given_up: list[tuple[str, int, int, int]] = []
        leased: list[int] = []
        with self._store.transaction() as db:
            ((key,),) = db.execute("SELECT id FROM destination WHERE name = ?", (name,))
            for position in positions:
                found: Rows = db.execute(_PENDING, (now, key, position)).fetchall()
                for queue, attempts, status, is_leased in found:
                    if is_leased:
                        leased.append(position)
                    else:
                        given_up.append((queue, position, attempts, status or 0))
            due = f"""UPDATE delivery_queue SET due = min(due, ?) WHERE destination = ? AND queue = ?
                        AND EXISTS (SELECT 1 FROM delivery WHERE destination = ? AND position = ?
                          AND delivery.queue = delivery_queue.queue AND position = {_FIRST})"""  # noqa: S608  constants
            db.executemany(due, [(now, key, queue, key, position) for queue, position, *_ in given_up])
            db.executemany(
                "DELETE FROM delivery WHERE destination = ? AND position = ?",
                [(key, position) for _, position, *_ in given_up],
            )
            drop_empty_queues(db, [(key, queue) for queue, *_ in given_up])
            db.executemany(
                INSERT_DEAD_LETTER,
                [(key, position, reason, attempts, now, status) for _, position, attempts, status in given_up],
            )
        return [position for _, position, *_ in given_up], leased

    def dead_letters(self, *, limit: int | None) -> Sequence[DeadLetter]:
        """Return the newest dead letters; see `DeliveryAdmin`."""
        rows = self._store.rows(
            """SELECT * FROM (SELECT name, dead_letter.position, reason, attempts, at, status FROM dead_letter
                 JOIN destination ON id = destination ORDER BY at DESC, dead_letter.position DESC LIMIT ?)
               ORDER BY at, position""",
            (-1 if limit is None else limit,),
        )
        return [DeadLetter(*row) for row in rows]

    def dead_letter_groups(self) -> Sequence[DeadLetterGroup]:
        """Return all dead letters in groups; see `DeliveryAdmin`."""
        return [
            DeadLetterGroup(*row)
            for row in self._store.rows(
                """SELECT name, reason, status, count(*), max(at), dead_letter.position
                   FROM dead_letter JOIN destination ON id = destination
                   GROUP BY name, reason, status ORDER BY name, reason, status"""  # position: of the row with max(at)
            )
        ]

    def history(self, position: int) -> Sequence[DeliveryHistory]:
        """Return the delivery history of the event at *position*; see `DeliveryAdmin`."""
        attempts = self._store.rows(
            """SELECT name, evidence, at, seconds, status, outcome FROM attempt JOIN destination ON id = destination
               WHERE attempt.position = ? ORDER BY at""",
            (position,),
        )
        states = {name: "delivered" for name, *_ in attempts}
        waiting = "iif(skipped, 'skipped', 'waiting')"
        for table, state in (("delivery", waiting), ("dead_letter", "'dead: ' || reason")):
            query = f"SELECT name, {state} FROM destination JOIN {table} AS t ON t.destination = id AND t.position = ?"  # noqa: S608  constants
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
        names = json.dumps(list(identifiers))
        saved = f"""WITH wanted AS MATERIALIZED (SELECT value FROM json_each(?))
                    SELECT {people.COLUMNS} FROM saved_event WHERE subject IN wanted OR userid IN wanted
                      OR waid IN wanted OR previoususerid IN wanted OR previouswaid IN wanted"""  # noqa: S608  constants
        # The queue of a skipped delivery is its partition key, `#` and its position.
        pending = """SELECT position, value FROM (
                       SELECT position, iif(skipped, substr(queue, 1, length(queue) - length(position) - 1), queue)
                         AS partitionkey FROM delivery
                     ) JOIN json_each(?) ON instr(partitionkey || ':', ':' || value || ':') ORDER BY position"""
        found = [Appearance(*row) for row in self._store.rows(saved, (names,))]
        return found + [people.pending(*row) for row in self._store.rows(pending, (names,))]

    def heartbeat(self) -> int:
        """Return the time of a relay's last heartbeat; see `DeliveryAdmin`."""
        ((seen,),) = self._store.rows("SELECT seen FROM heartbeat")
        return int(seen)

    def clear(self) -> None:
        """Delete the whole state; see `DeliveryAdmin`."""
        with self._store.transaction() as db:
            for table in (*TABLES, "destination", "timeline"):
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
                if new:
                    delivery_identities.put_in_order(db, key, [each])
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


@contextmanager
def _read_only(path: Path) -> Iterator[apsw.Connection | None]:
    """Open a relay's state; yields None if there is no file, or a relay is just creating it.

    Raises InboxUnavailable for a file of another program, apsw.Error or OSError.
    """
    owner = require_ours(path, DELIVERIES_APPLICATION_ID, pre_release_id=PRE_RELEASE_APPLICATION_ID)
    if owner is not Owner.OURS:
        yield None
        return
    with closing(apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)) as db:
        db.set_busy_timeout(100)
        yield db


def low_watermark(path: Path, *, now: int, policy: DeliveryPolicy) -> int | None:
    """Return the oldest position of the log that the relay of *path* still has to read, to deliver or to save.

    None if it needs none, or its last heartbeat is older than the policy allows. Raises InboxUnavailable if the state
    can't be read.
    """
    try:
        with _read_only(path) as db:
            if db is None:
                return None
            ((position,),) = db.execute(
                """SELECT min(position) FROM (
                     SELECT coalesce((SELECT min(position) FROM delivery WHERE destination = id), position + 1)
                       AS position
                     FROM destination WHERE disabled IS NULL AND (gone_since IS NULL OR gone_since > ?)
                     UNION ALL SELECT min(position) FROM dead_letter WHERE saved = 0
                   ) WHERE (SELECT seen FROM heartbeat) BETWEEN ? AND ?""",
                (now - policy.max_absence_ms, now - policy.max_heartbeat_age_ms + 1, now + policy.max_clock_ahead_ms),
            )
    except (apsw.Error, OSError) as ex:
        raise InboxUnavailable(StorageFailure.RELAY_STATE, f"the relay's state {path} can't be read: {ex}") from ex
    return None if position is None else int(position)


def read_position(path: Path, identity: int) -> int:
    """Return the highest position of the log with this *identity* that the relay of *path* has read.

    0 if it has read nothing, or another log, or if its file can't be read.
    """
    try:
        with _read_only(path) as db:
            if db is None:
                return 0
            known = "SELECT number FROM timeline ORDER BY rowid LIMIT 1"
            if not db.table_exists("main", "timeline"):  # of a version without timelines
                known = "SELECT identity FROM origin"
            if db.execute(known).fetchall() != [(identity,)]:
                return 0
            ((position,),) = db.execute("SELECT coalesce(max(position), 0) FROM destination")
    except (apsw.Error, OSError, InboxUnavailable):
        return 0
    return int(position)


def heartbeat(path: Path) -> int | None:
    """Return the last heartbeat of the relay of *path*, in milliseconds since the epoch; None if there was none.

    For a file that can't be read, returns when it was last written, so that a damaged file does not stop the purge
    forever.
    """
    if not path.exists():
        return None
    try:
        with _read_only(path) as db:
            if db is None:
                return None
            ((seen,),) = db.execute("SELECT seen FROM heartbeat")
    except (apsw.Error, OSError, InboxUnavailable):
        return _written_at(path)
    return int(seen) or None


def _written_at(path: Path) -> int | None:
    try:
        return int(path.stat().st_mtime * 1000)
    except OSError:
        return None
