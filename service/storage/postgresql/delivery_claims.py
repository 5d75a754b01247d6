"""Lease delivery queues for attempts, and store the results."""

import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final

from service.storage.deliveries import (
    BLOCKED_MS,
    Claim,
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
from service.storage.postgresql.connection import PostgresqlConnection
from service.storage.postgresql.delivery_database import PostgresqlDeliveryDatabase
from service.storage.postgresql.delivery_queues import (
    LOCK_IN_ORDER,
    DestinationIds,
    columns,
    drop_empty_queues,
    rows,
    store_dead_letters,
)
from service.storage.postgresql.schema import SCHEMA as T

# Must match the expression of the index; PostgreSQL rewrites a negated condition so that it no longer matches.
_CONDITIONS: Final = {QueueKind.HEALTHY: "least(attempts, 1) = 0", QueueKind.FAILED: "least(attempts, 1) = 1"}


class PostgresqlDeliveryClaims:
    """Implements `DeliveryClaims` and `DeliveryReports`."""

    def __init__(self, store: PostgresqlDeliveryDatabase) -> None:
        self._store = store
        self._keys = DestinationIds(store)

    @contextmanager
    def together(self) -> Iterator[None]:
        """Run the block in one transaction; see `DeliveryClaims`."""
        with self._store.transaction():
            yield

    def next_due(self, name: str, kind: QueueKind) -> int | None:
        """Return the earliest due time of a queue; see `DeliveryClaims`."""
        dues = self._store.rows(
            f"""SELECT due FROM {T}.delivery_queue WHERE destination =
                  (SELECT id FROM {T}.destination WHERE name = %s AND disabled IS NULL) AND {_CONDITIONS[kind]}
                ORDER BY due LIMIT 1""",
            (name,),
        )
        return int(dues[0][0]) if dues else None

    def claim(
        self, name: str, most: int, kind: QueueKind, *, now: int, lease: int, at_random: bool = False
    ) -> Sequence[Claim]:
        """Lease queues that are due, without waiting for concurrent claims; see `DeliveryClaims`."""
        key, token = self._keys[name], secrets.randbits(62)
        with self._store.transaction() as db:
            queues = rows(
                db,
                f"""UPDATE {T}.delivery_queue SET due = %s, token = %s WHERE destination = %s AND queue = ANY(ARRAY(
                      SELECT queue FROM {T}.delivery_queue WHERE destination = %s AND {_CONDITIONS[kind]} AND due <= %s
                        AND (SELECT disabled FROM {T}.destination WHERE id = %s) IS NULL
                      ORDER BY {"random()" if at_random else "due, queue"} LIMIT %s FOR UPDATE SKIP LOCKED))
                    RETURNING queue, attempts, first_attempt_at""",
                *(now + lease, token, key),
                *(key, now, key, most),
            )
            # A separate statement, so that it sees the deliveries that the previous owners of the queues have settled.
            first_rows = rows(
                db,
                f"""SELECT claimed.queue, head.* FROM unnest(%s::text[]) AS claimed (queue), LATERAL (
                      SELECT position, planned_at, replay, attempts, rejections, first_attempt_at, skipped,
                        after IS NOT NULL AND EXISTS (
                          SELECT 1 FROM {T}.delivery AS earlier WHERE earlier.destination = delivery.destination
                            AND earlier.position = ANY(delivery.after) AND NOT earlier.skipped)
                      FROM {T}.delivery
                      WHERE destination = %s AND delivery.queue = claimed.queue ORDER BY position LIMIT 1) AS head""",
                [queue for queue, *_ in queues],
                key,
            )
            blocked = [queue for queue, *_, is_blocked in first_rows if is_blocked]
            if blocked:
                db.execute(
                    f"""UPDATE {T}.delivery_queue SET due = %s, token = NULL
                        WHERE destination = %s AND queue = ANY(%s)""",
                    (now + BLOCKED_MS, key, blocked),
                )
        first_deliveries = {queue: delivery for queue, *delivery, is_blocked in first_rows if not is_blocked}
        claims = []
        for queue, queue_attempts, failing_since in queues:
            if queue in first_deliveries:
                position, planned_at, replay, *counts = first_deliveries[queue]
                claim = Claim(name, queue, position, planned_at, replay, token, queue_attempts, failing_since)
                claims.append(claim.with_counts(*counts))
        return claims

    def settle(self, settlements: Sequence[Settlement]) -> Sequence[Claim]:
        """Store the results of claims; see `DeliveryClaims`."""
        if not settlements:
            return []
        with self._store.transaction() as db:
            current_leases = {
                tuple(row)
                for row in rows(
                    db,
                    f"""SELECT destination, queue, token FROM {T}.delivery_queue WHERE (destination, queue) IN (
                          SELECT * FROM unnest(%s::int[], %s::text[])) {LOCK_IN_ORDER}""",
                    *columns([self._queue_of(each) for each in settlements], 2),
                )
            }
            ours = [each for each in settlements if (*self._queue_of(each), each.claim.token) in current_leases]
            self._release_queues(db, ours)
            self._put_back(db, [each for each in ours if each.ruling.verdict in (Verdict.RETRY, Verdict.SKIP)])
            self._finish(db, [each for each in ours if each.ruling.verdict in (Verdict.DELIVERED, Verdict.DEAD_LETTER)])
            self._record_failures(db, ours)
            for each in ours:
                if each.disables:
                    change = f"UPDATE {T}.destination SET disabled = %s WHERE id = %s AND disabled IS NULL"
                    db.execute(change, (each.disables, self._keys[each.claim.destination]))
        return [each.claim for each in settlements if (*self._queue_of(each), each.claim.token) not in current_leases]

    def _queue_of(self, settlement: Settlement) -> tuple[int, str]:
        return self._keys[settlement.claim.destination], settlement.claim.queue

    def _release_queues(self, db: PostgresqlConnection, ours: Sequence[Settlement]) -> None:
        """Release the queues, set their next due times, and store the attempts."""
        db.execute(
            f"""UPDATE {T}.delivery_queue
                SET due = new.due, attempts = new.attempts, first_attempt_at = new.first_attempt_at, token = NULL
                FROM unnest(%s::int[], %s::text[], %s::bigint[], %s::int[], %s::bigint[])
                  AS new (destination, queue, due, attempts, first_attempt_at)
                WHERE delivery_queue.destination = new.destination AND delivery_queue.queue = new.queue""",
            columns([(*self._queue_of(each), *next_queue_state(each)) for each in ours], 5),
        )
        attempts = [
            (each.claim.position, self._keys[each.claim.destination], *fields, encode_evidence(evidence))
            for each in ours
            for *fields, evidence in (*each.before, each.attempt)
        ]
        db.execute(
            f"""INSERT INTO {T}.attempt SELECT * FROM unnest(
                  %s::bigint[], %s::int[], %s::bigint[], %s::float8[], %s::int[], %s::text[], %s::text[])
                ON CONFLICT DO NOTHING""",
            columns(attempts, 7),
        )

    def _put_back(self, db: PostgresqlConnection, retried: Sequence[Settlement]) -> None:
        """Store the counts of deliveries that stay pending; give those that are skipped queues of their own."""
        if not retried:
            return
        db.execute(
            f"""UPDATE {T}.delivery SET attempts = new.attempts, rejections = new.rejections,
                  first_attempt_at = new.first_attempt_at
                FROM unnest(%s::int[], %s::bigint[], %s::int[], %s::int[], %s::bigint[])
                  AS new (destination, position, attempts, rejections, first_attempt_at)
                WHERE delivery.destination = new.destination AND delivery.position = new.position""",
            columns(
                [(self._keys[each.claim.destination], each.claim.position, *next_counts(each)) for each in retried], 5
            ),
        )
        skipped = [each for each in retried if each.ruling.verdict is Verdict.SKIP]
        for each in skipped:
            key, queue = self._keys[each.claim.destination], parked_queue(each.claim)
            skip = f"""UPDATE {T}.delivery SET queue = %s, skipped = true
                       WHERE destination = %s AND position = %s RETURNING 1"""
            if rows(db, skip, queue, key, each.claim.position):
                db.execute(
                    f"""INSERT INTO {T}.delivery_queue (destination, queue, due, attempts, first_attempt_at)
                        VALUES (%s, %s, %s, %s, %s)""",
                    (key, queue, *failed_queue_state(each, each.ruling.due)),
                )
        drop_empty_queues(db, [self._queue_of(each) for each in skipped])

    def _finish(self, db: PostgresqlConnection, finished: Sequence[Settlement]) -> None:
        """Delete the deliveries that were delivered or given up, and store the dead letters."""
        dead_letters = [
            (
                *(self._keys[claim.destination], claim.position, ruling.reason),
                *(claim.attempts + ruling.counts, attempt.at, attempt.status),
            )
            for claim, attempt, ruling, *_ in finished
            if ruling.verdict is Verdict.DEAD_LETTER
        ]
        if dead_letters:
            store_dead_letters(db, dead_letters)
        db.execute(
            f"""DELETE FROM {T}.delivery
                WHERE (destination, position) IN (SELECT * FROM unnest(%s::int[], %s::bigint[]))""",
            columns([(self._keys[each.claim.destination], each.claim.position) for each in finished], 2),
        )
        drop_empty_queues(db, [self._queue_of(each) for each in finished])

    def _record_failures(self, db: PostgresqlConnection, ours: Sequence[Settlement]) -> None:
        """Count the failed attempts of each destination since its last success, and when they started."""
        for name in sorted({each.claim.destination for each in ours}):
            own = [each for each in ours if each.claim.destination == name]
            if any(each.ruling.verdict is Verdict.DELIVERED for each in own):
                reset = f"UPDATE {T}.destination SET failing_since = NULL, failures = 0 WHERE id = %s AND failures > 0"
                db.execute(reset, (self._keys[name],))
            else:
                count = f"""UPDATE {T}.destination
                            SET failing_since = coalesce(failing_since, %s), failures = failures + %s WHERE id = %s"""
                db.execute(count, (own[0].attempt.at, len(own), self._keys[name]))

    def report(self, reports: Mapping[str, WorkerReport]) -> None:
        """Store the reports of this relay's workers; see `DeliveryReports`."""
        values = [(self._keys[name], self._store.relay, *report) for name, report in sorted(reports.items())]
        with self._store.transaction() as db:
            db.execute(
                f"""INSERT INTO {T}.worker_report SELECT * FROM unnest(
                      %s::int[], %s::bigint[], %s::bigint[], %s::text[], %s::int[], %s::bigint[])
                    ON CONFLICT (destination, relay) DO UPDATE SET at = excluded.at, health = excluded.health,
                      status = excluded.status, next_probe_at = excluded.next_probe_at""",
                columns(values, 6),
            )

    def count_relays(self, since: int) -> int:
        """Return how many relays have reported since a time; see `DeliveryReports`."""
        ((count,),) = self._store.rows(f"SELECT count(DISTINCT relay) FROM {T}.worker_report WHERE at >= %s", (since,))
        return int(count)

    def retried_at(self) -> Mapping[str, int]:
        """Return when `destinations retry` was run; see `DeliveryReports`."""
        return dict(self._store.rows(f"SELECT name, retried_at FROM {T}.destination WHERE retried_at > 0"))
