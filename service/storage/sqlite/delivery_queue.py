"""The relay's state in SQLite: plan deliveries, claim delivery queues, store results and dead letters."""

import itertools
import secrets
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import compress
from typing import Any, Final

import apsw
import msgspec

from service.events import Event
from service.outcomes import DeadLetterReason
from service.storage import people
from service.storage.deliveries import (
    BLOCKED_MS,
    REPORT_AGE_MS,
    Claim,
    Delivery,
    ExpiryLimits,
    QueueKind,
    Settlement,
    Verdict,
    WorkerReport,
    encode_evidence,
    failed_queue_state,
    next_counts,
    next_queue_state,
    parked_queue,
)
from service.storage.people import appearance
from service.storage.protocols import Record
from service.storage.sqlite import delivery_identities
from service.storage.sqlite.delivery_database import INTO_DELIVERY, TABLES, Rows, SqliteDeliveryDatabase
from service.storage.sqlite.delivery_identities import SqliteIdentities
from service.storage.timelines import Timeline, common_end

PRUNE_BATCH_ATTEMPTS: Final = 4000
# Must match the expression of the index `delivery_queue_due`.
_CONDITIONS: Final = {
    QueueKind.HEALTHY: "(attempts > 0) = 0",
    QueueKind.FAILED: "(attempts > 0) = 1",
}
INSERT_DEAD_LETTER: Final = """INSERT OR REPLACE INTO dead_letter (destination, position, reason, attempts, at, status)
                              VALUES (?, ?, ?, ?, ?, ?)"""


class SqliteDeliveries:
    """Implements `DeliveryState`."""

    def __init__(self, store: SqliteDeliveryDatabase) -> None:
        self._store = store
        self._tokens = itertools.count(secrets.randbits(48) << 14)  # unique across processes
        self._relay = secrets.randbits(62)
        self._keys: dict[str, int] = {}
        self.identities = SqliteIdentities(store)

    def require_file(self) -> None:
        """Raise InboxUnavailable if the file is no longer the one that was opened."""
        self._store.require_file()

    def adopt(self, timelines: Sequence[Timeline]) -> int:
        """Bind the state to the log with these timelines; see `DeliveryPlanning`."""
        with self._store.transaction() as db:
            known = [Timeline(*row) for row in _rows(db, "SELECT number, start FROM timeline ORDER BY rowid")]
            _rows(db, "DELETE FROM timeline")
            db.executemany("INSERT INTO timeline (number, start) VALUES (?, ?)", timelines)
            if not known:
                return 0
            if known[0] == timelines[0]:
                end = common_end(known, timelines)
                return 0 if end is None else _go_back(db, end)
            ((count,),) = _rows(db, "SELECT (SELECT count(*) FROM delivery) + (SELECT count(*) FROM dead_letter)")
            for table in TABLES:
                _rows(db, f"DELETE FROM {table}")  # noqa: S608  constants
            _rows(db, "UPDATE destination SET position = 0, backlog = 0")
            _rows(db, "UPDATE heartbeat SET learned = 0")
            return int(count)

    def join(self, names: Mapping[str, int], *, now: int) -> None:
        """Store *names* as the destinations of the file; see `DeliveryPlanning`."""
        with self._store.transaction() as db:
            db.execute(
                f"UPDATE destination SET gone_since = ? WHERE gone_since IS NULL AND name NOT IN ({_marks(names)})",  # noqa: S608  marks only
                (now, *names),
            )
            db.executemany(
                """INSERT INTO destination (name, position) VALUES (?, ?)
                   ON CONFLICT (name) DO UPDATE SET gone_since = NULL""",
                names.items(),
            )
            db.execute("UPDATE heartbeat SET seen = ?", (now,))

    def positions(self) -> Mapping[str, int]:
        """Return the position up to which the log was read, by destination; see `DeliveryPlanning`."""
        return dict(self._store.rows("SELECT name, position FROM destination WHERE gone_since IS NULL"))

    def plan(self, name: str, since: int, until: int, deliveries: Sequence[Delivery], *, now: int) -> bool:
        """Store the deliveries between two positions; see `DeliveryPlanning`."""
        key = self._key(name)
        with self._store.transaction() as db:
            advance = (
                "UPDATE destination SET position = ?, backlog = backlog + ? WHERE id = ? AND position = ? RETURNING 1"
            )
            if not _rows(db, advance, until, len(deliveries), key, since):
                return False
            queues = {each.queue: min(each.received_at, now) for each in reversed(deliveries)}
            db.executemany(
                f"INSERT {INTO_DELIVERY}",
                [(key, each.position, each.queue, each.received_at, now, False) for each in deliveries],
            )
            delivery_identities.put_in_order(db, key, deliveries)
            db.executemany(
                "INSERT OR IGNORE INTO delivery_queue (destination, queue, due) VALUES (?, ?, ?)",
                [(key, queue, due) for queue, due in queues.items()],
            )
            return True

    def expire(
        self, first: int, limits: ExpiryLimits, *, now: int, max_ages_ms: Mapping[str, int]
    ) -> Mapping[tuple[str, DeadLetterReason], int]:
        """Make dead letters of undeliverable events; see `DeliveryCleanup`."""
        inactive = "SELECT id FROM destination WHERE disabled IS NOT NULL OR gone_since IS NOT NULL"
        failing = """SELECT id FROM destination
                     WHERE name = ? AND disabled IS NULL AND failing_since <= ? AND failures >= ?"""
        is_unclaimed = """(destination, queue) NOT IN (
                            SELECT destination, queue FROM delivery_queue WHERE token IS NOT NULL AND due > ?)"""
        conditions: list[tuple[DeadLetterReason, str, tuple[str | int, ...]]] = [
            (DeadLetterReason.RETENTION, f"position < ? AND destination IN ({inactive})", (first,))
        ]
        for name, max_age in max_ages_ms.items():
            failing_for = (now - max_age, name, now - max_age, limits.policy.min_attempts)
            conditions.append(
                (DeadLetterReason.EXPIRED, f"planned_at <= ? AND destination IN ({failing})", failing_for)
            )
        with self._store.transaction() as db:
            db.execute("UPDATE heartbeat SET seen = ?", (now,))
            db.execute("DELETE FROM dead_letter WHERE at < ?", (now - limits.dead_letter_age_ms,))
            delivery_identities.prune(db, now - limits.retention_ms)
            db.execute("DELETE FROM worker_report WHERE at < ?", (now - REPORT_AGE_MS,))
            db.execute(
                """DELETE FROM saved_event WHERE position NOT IN (SELECT position FROM dead_letter)
                     AND position NOT IN (SELECT position FROM delivery)"""
            )
            # A due time beyond the maximum wait was written by a clock that was ahead.
            db.execute("UPDATE delivery_queue SET due = ? WHERE due > ?", (now, now + limits.policy.max_wait_ms))
            names: dict[int, str] = dict(_rows(db, "SELECT id, name FROM destination"))
            counts: Counter[tuple[str, DeadLetterReason]] = Counter()
            for reason, condition, values in conditions:
                given_up = _rows(
                    db,
                    f"""DELETE FROM delivery WHERE {condition} AND {is_unclaimed}
                        RETURNING destination, queue, position, attempts""",  # noqa: S608  constants
                    *values,
                    now,
                )
                drop_empty_queues(db, [(key, queue) for key, queue, *_ in given_up])
                db.executemany(
                    INSERT_DEAD_LETTER,
                    [(key, position, reason, attempts, now, 0) for key, _, position, attempts in given_up],
                )
                counts.update((names[key], reason) for key, *_ in given_up)
        return counts

    def prune_attempts(self, first: int) -> None:
        """Delete a batch of the attempts of events before *first*; see `DeliveryCleanup`."""
        old = "SELECT position, destination, at FROM attempt WHERE position < ? ORDER BY position LIMIT ?"
        if not self._store.rows(old, (first, 1)):
            return
        with self._store.transaction() as db:
            delete = f"DELETE FROM attempt WHERE (position, destination, at) IN ({old})"  # noqa: S608  constants
            db.execute(delete, (first, PRUNE_BATCH_ATTEMPTS))

    def unsaved(self, limit: int) -> Sequence[int]:
        """Return dead letters whose event is not saved yet; see `DeadLetterEvents`."""
        query = "SELECT DISTINCT position FROM dead_letter WHERE saved = 0 ORDER BY position LIMIT ?"
        return [position for (position,) in self._store.rows(query, (limit,))]

    def save(self, positions: Sequence[int], events: Sequence[Record], *, now: int, max_bytes: int) -> None:
        """Save the events of dead letters; see `DeadLetterEvents`."""
        encoded = [(record, msgspec.msgpack.encode(record.event)) for record in events]
        with self._store.transaction() as db:
            db.executemany(
                f"""INSERT OR REPLACE INTO saved_event ({people.COLUMNS}, saved_at, bytes, event)
                    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)""",  # noqa: S608  constants
                [(*appearance(record), now, len(text), text) for record, text in encoded],
            )
            db.executemany(
                "UPDATE dead_letter SET saved = 1 WHERE position = ?", [(position,) for position in positions]
            )
            db.execute(
                """DELETE FROM saved_event WHERE position IN (SELECT position FROM (
                     SELECT position, sum(bytes) OVER (ORDER BY saved_at DESC, position DESC) AS newer FROM saved_event
                   ) WHERE newer > ?)""",
                (max_bytes,),
            )

    def saved(self, positions: Sequence[int]) -> Mapping[int, Event]:
        """Return the saved events of dead letters; see `DeadLetterEvents`."""
        return saved_events(self._store, positions)

    @contextmanager
    def together(self) -> Iterator[None]:
        """Run the block in one transaction; see `DeliveryClaims`."""
        with self._store.transaction():
            yield

    def next_due(self, name: str, kind: QueueKind) -> int | None:
        """Return the earliest due time of a queue; see `DeliveryClaims`."""
        dues = self._store.rows(
            f"""SELECT due FROM delivery_queue WHERE destination =
                  (SELECT id FROM destination WHERE name = ? AND disabled IS NULL) AND {_CONDITIONS[kind]}
                ORDER BY due LIMIT 1""",  # noqa: S608  constants
            (name,),
        )
        return int(dues[0][0]) if dues else None

    def claim(
        self, name: str, most: int, kind: QueueKind, *, now: int, lease: int, at_random: bool = False
    ) -> Sequence[Claim]:
        """Lease queues that are due; see `DeliveryClaims`."""
        key, token = self._key(name), next(self._tokens)
        with self._store.transaction() as db:
            queues = _rows(
                db,
                f"""UPDATE delivery_queue SET due = ?, token = ? WHERE destination = ? AND queue IN (
                      SELECT queue FROM delivery_queue WHERE destination = ? AND {_CONDITIONS[kind]} AND due <= ?
                        AND (SELECT disabled FROM destination WHERE id = ?) IS NULL
                      ORDER BY {"random()" if at_random else "due"} LIMIT ?)
                    RETURNING queue, attempts, first_attempt_at""",  # noqa: S608  constants
                *(now + lease, token, key),
                *(key, now, key, most),
            )
            claims = []
            for queue, queue_attempts, failing_since in queues:
                first, after = self._first_delivery(db, key, queue)
                if after and self._is_any_pending(db, key, after):
                    postpone = "UPDATE delivery_queue SET due = ?, token = NULL WHERE destination = ? AND queue = ?"
                    db.execute(postpone, (now + BLOCKED_MS, key, queue))
                else:
                    position, planned_at, replay, *counts = first
                    claim = Claim(name, queue, position, planned_at, bool(replay), token, queue_attempts, failing_since)
                    claims.append(claim.with_counts(*counts))
            return claims

    def _first_delivery(self, db: apsw.Connection, key: int, queue: str) -> tuple[Sequence[int], str | None]:
        """Return the first delivery of a queue, and the positions, a JSON array, that come before it."""
        first = """SELECT position, planned_at, replay, attempts, rejections, first_attempt_at, skipped, after
                   FROM delivery INDEXED BY delivery_in_queue
                   WHERE destination = ? AND queue = ? ORDER BY position LIMIT 1"""
        ((*delivery, after),) = _rows(db, first, key, queue)
        return delivery, after

    def _is_any_pending(self, db: apsw.Connection, key: int, positions: str) -> bool:
        """Return whether one of *positions*, a JSON array, is pending for a destination, and not skipped."""
        pending = """SELECT 1 FROM delivery JOIN json_each(?) ON position = value
                     WHERE destination = ? AND skipped = 0 LIMIT 1"""
        return bool(_rows(db, pending, positions, key))

    def settle(self, settlements: Sequence[Settlement]) -> Sequence[Claim]:
        """Store the results of claims; see `DeliveryClaims`."""
        with self._store.transaction() as db:
            are_ours = [self._release_queue(db, settlement) for settlement in settlements]
            ours = list(compress(settlements, are_ours))
            attempts = [
                (each.claim.position, self._key(each.claim.destination), *fields, encode_evidence(evidence))
                for each in ours
                for *fields, evidence in (*each.before, each.attempt)
            ]
            db.executemany("INSERT OR REPLACE INTO attempt VALUES (?, ?, ?, ?, ?, ?, ?)", attempts)
            self._put_back(db, [each for each in ours if each.ruling.verdict in (Verdict.RETRY, Verdict.SKIP)])
            finished = [each for each in ours if each.ruling.verdict in (Verdict.DELIVERED, Verdict.DEAD_LETTER)]
            db.executemany(INSERT_DEAD_LETTER, self._dead_letter_rows(finished))
            deleted: Rows = db.executemany(
                "DELETE FROM delivery WHERE destination = ? AND position = ? RETURNING destination, queue",
                [(self._key(each.claim.destination), each.claim.position) for each in finished],
            ).fetchall()
            drop_empty_queues(db, deleted)
            self._record_failures(db, ours)
            disabled = [(each.disables, self._key(each.claim.destination)) for each in ours if each.disables]
            db.executemany("UPDATE destination SET disabled = ? WHERE id = ? AND disabled IS NULL", disabled)
        return [settlement.claim for settlement, is_ours in zip(settlements, are_ours, strict=True) if not is_ours]

    def _release_queue(self, db: apsw.Connection, settlement: Settlement) -> bool:
        """Release the queue and set its next due time; return False if its lease is no longer this claim's."""
        claim = settlement.claim
        queue = (self._key(claim.destination), claim.queue, claim.token)
        return bool(
            _rows(
                db,
                """UPDATE delivery_queue SET due = ?, attempts = ?, first_attempt_at = ?, token = NULL
                   WHERE destination = ? AND queue = ? AND token = ? RETURNING 1""",
                *next_queue_state(settlement),
                *queue,
            )
        )

    def _put_back(self, db: apsw.Connection, retried: Sequence[Settlement]) -> None:
        """Store the counts of deliveries that stay pending; give those that are skipped queues of their own."""
        for each in retried:
            claim, key = each.claim, self._key(each.claim.destination)
            db.execute(
                """UPDATE delivery SET attempts = ?, rejections = ?, first_attempt_at = ?
                   WHERE destination = ? AND position = ?""",
                (*next_counts(each), key, claim.position),
            )
            if each.ruling.verdict is Verdict.SKIP:
                skip = "UPDATE delivery SET queue = ?, skipped = 1 WHERE destination = ? AND position = ? RETURNING 1"
                if not _rows(db, skip, parked_queue(claim), key, claim.position):
                    continue
                db.execute(
                    """INSERT OR REPLACE INTO delivery_queue (destination, queue, due, attempts, first_attempt_at)
                       VALUES (?, ?, ?, ?, ?)""",
                    (key, parked_queue(claim), *failed_queue_state(each, each.ruling.due)),
                )
                delete_if_empty(db, [(key, claim.queue)])

    def _record_failures(self, db: apsw.Connection, ours: Sequence[Settlement]) -> None:
        """Count the failed attempts of each destination since its last success, and when they started."""
        for name in {each.claim.destination for each in ours}:
            own = [each for each in ours if each.claim.destination == name]
            if any(each.ruling.verdict is Verdict.DELIVERED for each in own):
                reset = "UPDATE destination SET failing_since = NULL, failures = 0 WHERE id = ? AND failures > 0"
                _rows(db, reset, self._key(name))
            else:
                count = """UPDATE destination SET failing_since = coalesce(failing_since, ?), failures = failures + ?
                           WHERE id = ?"""
                _rows(db, count, own[0].attempt.at, len(own), self._key(name))

    def _dead_letter_rows(self, finished: Sequence[Settlement]) -> list[tuple[int, int, str, int, int, int]]:
        return [
            (
                *(self._key(claim.destination), claim.position, ruling.reason),
                *(claim.attempts + ruling.counts, attempt.at, attempt.status),
            )
            for claim, attempt, ruling, *_ in finished
            if ruling.reason
        ]

    def report(self, reports: Mapping[str, WorkerReport]) -> None:
        """Store the reports of this relay's workers; see `DeliveryReports`."""
        with self._store.transaction() as db:
            db.executemany(
                "INSERT OR REPLACE INTO worker_report VALUES (?, ?, ?, ?, ?, ?)",
                [
                    (self._key(name), self._relay, at, health, status, next_probe_at)
                    for name, (at, health, status, next_probe_at) in reports.items()
                ],
            )

    def count_relays(self, since: int) -> int:
        """Return how many relays have reported since a time; see `DeliveryReports`."""
        ((count,),) = self._store.rows("SELECT count(DISTINCT relay) FROM worker_report WHERE at >= ?", (since,))
        return int(count)

    def retried_at(self) -> Mapping[str, int]:
        """Return when `destinations retry` was run; see `DeliveryReports`."""
        return dict(self._store.rows("SELECT name, retried_at FROM destination WHERE retried_at > 0"))

    def _key(self, name: str) -> int:
        if name not in self._keys:
            ((self._keys[name],),) = self._store.rows("SELECT id FROM destination WHERE name = ?", (name,))
        return self._keys[name]


def _go_back(db: apsw.Connection, end: int) -> int:
    """Go back to a position after which the log has other events; return how much was dropped."""
    deleted = _rows(db, "DELETE FROM delivery WHERE position > ? RETURNING destination, queue", end)
    drop_empty_queues(db, deleted)
    if deleted:  # an attempt that runs is for another event than the one that gets its position
        _rows(db, "UPDATE delivery_queue SET token = NULL")
    dead_letters = _rows(db, "DELETE FROM dead_letter WHERE position > ? RETURNING 1", end)
    for table in ("attempt", "saved_event"):
        _rows(db, f"DELETE FROM {table} WHERE position > ?", end)  # noqa: S608  constants
    _rows(db, "UPDATE destination SET position = ? WHERE position > ?", end, end)
    delivery_identities.adopt(db, end)
    return len(deleted) + len(dead_letters)


def saved_events(store: SqliteDeliveryDatabase, positions: Sequence[int]) -> Mapping[int, Event]:
    """Return the saved events of these positions, by position."""
    query = f"SELECT position, event FROM saved_event WHERE position IN ({_marks(positions)})"  # noqa: S608  marks only
    return {at: msgspec.msgpack.decode(text, type=Event) for at, text in store.rows(query, tuple(positions))}


def drop_empty_queues(db: apsw.Connection, deleted: Sequence[tuple[Any, ...]]) -> None:
    """Subtract deleted deliveries (rows of destination and queue) from the backlogs, and drop queues that are empty."""
    for key, number in Counter(key for key, _ in deleted).items():
        db.execute("UPDATE destination SET backlog = backlog - ? WHERE id = ?", (number, key))
    delete_if_empty(db, deleted)


def delete_if_empty(db: apsw.Connection, queues: Sequence[tuple[Any, ...]]) -> None:
    """Delete those of the queues (rows of destination and queue) that are empty."""
    db.executemany(
        """DELETE FROM delivery_queue WHERE destination = ? AND queue = ? AND NOT EXISTS (
             SELECT 1 FROM delivery
             WHERE delivery.destination = delivery_queue.destination AND delivery.queue = delivery_queue.queue)""",
        queues,
    )


def _rows(db: apsw.Connection, query: str, *values: int | str | None) -> Rows:
    return db.execute(query, values).fetchall()


def _marks(values: Collection[object]) -> str:
    return ",".join("?" * len(values))
