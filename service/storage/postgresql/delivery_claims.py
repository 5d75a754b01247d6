"""What is owed, one lane at a time: taking it, and writing down how it ended."""

import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from service.storage.deliveries import Claim, Queues, Settlement, Verdict, freed
from service.storage.postgresql.connection import Connection
from service.storage.postgresql.delivery_database import Store
from service.storage.postgresql.delivery_queues import ORDER, Keys, columns, let_go, rows
from service.storage.postgresql.schema import NAME as T

# As the index has it; PostgreSQL rewrites a negated condition so that it does not.
_WHICH: Final = {Queues.HEALTHY: "least(tries, 1) = 0", Queues.FAILED: "least(tries, 1) = 1"}


class PostgresqlClaims:
    """`Claims`, see there."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._keys = Keys(store)

    @contextmanager
    def together(self) -> Iterator[None]:
        """Make one transaction of what is within; see `Claims`."""
        with self._store.transaction():
            yield

    def next_due(self, name: str, queues: Queues) -> int | None:
        """Return when the next queue is due; see `Claims`."""
        dues = self._store.rows(
            f"""SELECT due FROM {T}.lane WHERE destination =
                  (SELECT id FROM {T}.destination WHERE name = %s AND disabled IS NULL) AND {_WHICH[queues]}
                ORDER BY due LIMIT 1""",
            (name,),
        )
        return int(dues[0][0]) if dues else None

    def take(
        self, name: str, most: int, queues: Queues, *, now: int, lease: int, at_random: bool = False
    ) -> Sequence[Claim]:
        """Take what is due and nobody else is just taking; see `Claims`."""
        key, token = self._keys[name], secrets.randbits(62)
        with self._store.transaction() as db:
            lanes = rows(
                db,
                f"""UPDATE {T}.lane SET due = %s, token = %s WHERE destination = %s AND lane = ANY(ARRAY(
                      SELECT lane FROM {T}.lane WHERE destination = %s AND {_WHICH[queues]} AND due <= %s
                        AND (SELECT disabled FROM {T}.destination WHERE id = %s) IS NULL
                      ORDER BY {"random()" if at_random else "due, lane"} LIMIT %s FOR UPDATE SKIP LOCKED))
                    RETURNING lane, tries, first_tried""",
                *(now + lease, token, key),
                *(key, now, key, most),
            )
            # A statement of its own: it sees what those had settled whose lanes these were.
            heads = rows(
                db,
                f"""SELECT taken.lane, head.* FROM unnest(%s::text[]) AS taken (lane), LATERAL (
                      SELECT position, owed_at, replay FROM {T}.owed
                      WHERE destination = %s AND owed.lane = taken.lane ORDER BY position LIMIT 1) AS head""",
                [lane for lane, _, _ in lanes],
                key,
            )
        first = {lane: (position, owed_at, replay) for lane, position, owed_at, replay in heads}
        return [Claim(name, lane, *first[lane], tries, tried, token) for lane, tries, tried in lanes if lane in first]

    def settle(self, settlements: Sequence[Settlement]) -> Sequence[Claim]:
        """Write down how claims ended; see `Claims`."""
        if not settlements:
            return []
        with self._store.transaction() as db:
            held = {
                tuple(row)
                for row in rows(
                    db,
                    f"""SELECT destination, lane, token FROM {T}.lane WHERE (destination, lane) IN (
                          SELECT * FROM unnest(%s::int[], %s::text[])) {ORDER}""",
                    *columns([self._lane(each) for each in settlements], 2),
                )
            }
            ours = [each for each in settlements if (*self._lane(each), each.claim.token) in held]
            self._free(db, ours)
            over = [each for each in ours if each.ruling.verdict is not Verdict.AGAIN]
            self._end(db, over)
            self._note_failures(db, ours)
            for each in ours:
                if each.disables:
                    change = f"UPDATE {T}.destination SET disabled = %s WHERE id = %s AND disabled IS NULL"
                    db.execute(change, (each.disables, self._keys[each.claim.destination]))
        return [each.claim for each in settlements if (*self._lane(each), each.claim.token) not in held]

    def _lane(self, settlement: Settlement) -> tuple[int, str]:
        return self._keys[settlement.claim.destination], settlement.claim.lane

    def _free(self, db: Connection, ours: Sequence[Settlement]) -> None:
        """Have lanes be free again, and tell of the tries."""
        db.execute(
            f"""UPDATE {T}.lane SET due = new.due, tries = new.tries, first_tried = new.first_tried, token = NULL
                FROM unnest(%s::int[], %s::text[], %s::bigint[], %s::int[], %s::bigint[])
                  AS new (destination, lane, due, tries, first_tried)
                WHERE lane.destination = new.destination AND lane.lane = new.lane""",
            columns([(*self._lane(each), *freed(each)) for each in ours], 5),
        )
        tried = [(each.claim.position, self._keys[each.claim.destination], *each.tried) for each in ours]
        db.execute(
            f"""INSERT INTO {T}.tried
                SELECT * FROM unnest(%s::bigint[], %s::int[], %s::bigint[], %s::float8[], %s::int[], %s::text[])
                ON CONFLICT DO NOTHING""",
            columns(tried, 6),
        )

    def _end(self, db: Connection, over: Sequence[Settlement]) -> None:
        """Owe what was delivered, or given up, no longer."""
        dead = [
            (self._keys[claim.destination], claim.position, ruling.reason, claim.tries + 1, tried.at)
            for claim, tried, ruling, _ in over
            if ruling.verdict is Verdict.DEAD
        ]
        if dead:
            db.execute(
                f"""INSERT INTO {T}.dead (destination, position, reason, tries, at)
                    SELECT * FROM unnest(%s::int[], %s::bigint[], %s::text[], %s::int[], %s::bigint[])
                    ON CONFLICT (destination, position)
                    DO UPDATE SET reason = excluded.reason, tries = excluded.tries, at = excluded.at""",
                columns(dead, 5),
            )
        db.execute(
            f"DELETE FROM {T}.owed WHERE (destination, position) IN (SELECT * FROM unnest(%s::int[], %s::bigint[]))",
            columns([(self._keys[each.claim.destination], each.claim.position) for each in over], 2),
        )
        let_go(db, [self._lane(each) for each in over])

    def _note_failures(self, db: Connection, ours: Sequence[Settlement]) -> None:
        """Note since when, and how often, each destination took nothing."""
        for name in sorted({each.claim.destination for each in ours}):
            own = [each for each in ours if each.claim.destination == name]
            if any(each.ruling.verdict is Verdict.DELIVERED for each in own):
                well = f"UPDATE {T}.destination SET failing_since = NULL, failures = 0 WHERE id = %s AND failures > 0"
                db.execute(well, (self._keys[name],))
            else:
                ill = f"""UPDATE {T}.destination
                          SET failing_since = coalesce(failing_since, %s), failures = failures + %s WHERE id = %s"""
                db.execute(ill, (own[0].tried.at, len(own), self._keys[name]))
