"""What the relays do: plan what is owed, take it, write down how it ended."""

import secrets
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

from service.inbox.postgresql import schema
from service.inbox.postgresql.connection import Connection
from service.relay.postgresql.store import TENDING, Rows, Store
from service.relay.state import EXPIRED, LEAST_TRIES, LONGEST_WAIT, RETENTION, Claim, Owed, Settlement, Verdict, freed

FORGOTTEN_AT_ONCE: Final = 4000
_T: Final = "whatsapp_webhook"
_LOCK: Final = f"SELECT 1 FROM {_T}.lane WHERE (destination, lane) IN (SELECT * FROM unnest(%s::int[], %s::text[]))"
_ORDER: Final = "ORDER BY destination, lane FOR UPDATE"


class PostgresqlWork:
    """`Plans` and `Claims`, see there."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._keys: dict[str, int] = {}

    def require_file(self) -> None:
        """Do nothing: a server's tables can't be moved away from under a connection."""

    def adopt(self, identity: int, last: int) -> int:
        """Belong to the log of this identity; see `Plans`."""
        with self._store.transaction() as db:
            (found,) = _row(db, f"SELECT identity FROM {_T}.relay FOR UPDATE")
            if found in (None, identity):
                gone = _rows(db, f"DELETE FROM {_T}.owed WHERE position > %s RETURNING destination, lane", last)
                let_go(db, gone)
                db.execute(f"UPDATE {_T}.destination SET position = %s WHERE position > %s", (last, last))
                db.execute(f"UPDATE {_T}.relay SET identity = %s WHERE identity IS NULL", (identity,))
                return len(gone)
            owed = schema.number(db, f"SELECT count(*) FROM {_T}.owed")
            for table in ("owed", "lane", "dead", "tried"):
                db.execute(f"DELETE FROM {_T}.{table}")
            db.execute(f"UPDATE {_T}.destination SET position = 0")
            db.execute(f"UPDATE {_T}.relay SET identity = %s", (identity,))
            return owed

    def join(self, names: Mapping[str, int], *, now: int) -> None:
        """Have exactly *names* be in the file; see `Plans`."""
        with self._store.transaction() as db:
            db.execute(
                f"UPDATE {_T}.destination SET gone_since = %s WHERE gone_since IS NULL AND name <> ALL(%s)",
                (now, list(names)),
            )
            db.execute(
                f"""INSERT INTO {_T}.destination (name, position)
                    SELECT * FROM unnest(%s::text[], %s::bigint[]) ORDER BY 1
                    ON CONFLICT (name) DO UPDATE SET gone_since = NULL""",
                (list(names), list(names.values())),
            )
            db.execute(f"UPDATE {_T}.relay SET seen = %s", (now,))

    def positions(self) -> Mapping[str, int]:
        """Say how far the log was read; see `Plans`."""
        return dict(self._store.rows(f"SELECT name, position FROM {_T}.destination WHERE gone_since IS NULL"))

    def plan(self, name: str, since: int, until: int, owed: Sequence[Owed], *, now: int) -> bool:
        """Note what is owed; see `Plans`."""
        key = self._key(name)
        with self._store.transaction() as db:
            dues = {each.lane: min(each.received_at, now) for each in reversed(owed)}
            # Whoever settles a lane of these waits, or is waited for: else it could find nothing owed, and drop it.
            db.execute(
                f"""INSERT INTO {_T}.lane (destination, lane, due)
                    SELECT %s, * FROM unnest(%s::text[], %s::bigint[]) AS new (lane, due) ORDER BY lane COLLATE "C"
                    ON CONFLICT (destination, lane) DO UPDATE SET due = lane.due""",
                (key, list(dues), list(dues.values())),
            )
            moved = f"UPDATE {_T}.destination SET position = %s WHERE id = %s AND position = %s RETURNING 1"
            if not _rows(db, moved, until, key, since):
                let_go(db, [(key, lane) for lane in dues])
                return False
            db.execute(
                f"""INSERT INTO {_T}.owed
                    SELECT %s, *, %s, false FROM unnest(%s::bigint[], %s::text[], %s::bigint[])""",
                (key, now, *_columns(owed, 3)),
            )
            return True

    def expire(self, first: int, *, now: int, patience: int, keep: int) -> Mapping[tuple[str, str], int]:
        """Give up what is no use to wait for; see `Plans`. One relay at a time does."""
        away = f"SELECT id FROM {_T}.destination WHERE disabled IS NOT NULL OR gone_since IS NOT NULL"
        down = f"SELECT id FROM {_T}.destination WHERE disabled IS NULL AND failing_since <= %s AND failures >= %s"
        found: Counter[tuple[str, str]] = Counter()
        with self._store.transaction() as db:
            if not schema.try_lock(db, TENDING):
                return found
            db.execute(f"UPDATE {_T}.relay SET seen = %s", (now,))
            db.execute(f"DELETE FROM {_T}.dead WHERE at < %s", (now - keep,))
            # What waits for longer than anything may was written by a clock that ran ahead.
            db.execute(
                f"UPDATE {_T}.lane SET due = %s WHERE due > %s",
                (now, now + LONGEST_WAIT),
            )
            names: dict[int, str] = dict(_rows(db, f"SELECT id, name FROM {_T}.destination"))
            long = now - patience
            for reason, over, values in (
                (RETENTION, f"position < %s AND destination IN ({away})", (first,)),
                (EXPIRED, f"owed_at <= %s AND destination IN ({down})", (long, long, LEAST_TRIES)),
            ):
                gone = self._give_up(db, over, values, now)
                db.execute(
                    f"""INSERT INTO {_T}.dead SELECT *, %s, 0, %s FROM unnest(%s::int[], %s::bigint[])
                        ON CONFLICT (destination, position) DO UPDATE SET reason = excluded.reason, at = excluded.at""",
                    (reason, now, [key for key, _, _ in gone], [position for _, _, position in gone]),
                )
                found.update((names[key], reason) for key, _, _ in gone)
        return found

    def _give_up(self, db: Connection, over: str, values: tuple[int, ...], now: int) -> Rows:
        """Owe no longer what is *over*, but what somebody is just trying."""
        lanes = _rows(db, f"SELECT DISTINCT destination, lane FROM {_T}.owed WHERE {over}", *values)
        free = _rows(
            db,
            f"""SELECT destination, lane FROM {_T}.lane WHERE (destination, lane) IN (
                  SELECT * FROM unnest(%s::int[], %s::text[])) AND (token IS NULL OR due <= %s) {_ORDER}""",
            *_columns(lanes, 2),
            now,
        )
        gone = _rows(
            db,
            f"""DELETE FROM {_T}.owed WHERE {over} AND (destination, lane) IN (
                  SELECT * FROM unnest(%s::int[], %s::text[])) RETURNING destination, lane, position""",
            *values,
            *_columns(free, 2),
        )
        let_go(db, [(key, lane) for key, lane, _ in gone])
        return gone

    def forget_tries(self, first: int) -> None:
        """Drop some of what is told of events before *first*; see `Plans`."""
        old = f"SELECT position, destination, at FROM {_T}.tried WHERE position < %s ORDER BY position LIMIT %s"
        if not self._store.rows(old, (first, 1)):
            return
        with self._store.transaction() as db:
            if schema.try_lock(db, TENDING):
                forgotten = f"DELETE FROM {_T}.tried WHERE (position, destination, at) IN ({old})"
                db.execute(forgotten, (first, FORGOTTEN_AT_ONCE))

    @contextmanager
    def together(self) -> Iterator[None]:
        """Make one transaction of what is within; see `Claims`."""
        with self._store.transaction():
            yield

    def next_due(self, name: str) -> int | None:
        """Say when the next lane is due; see `Claims`."""
        ((due,),) = self._store.rows(
            f"""SELECT min(due) FROM {_T}.lane WHERE destination =
                  (SELECT id FROM {_T}.destination WHERE name = %s AND disabled IS NULL)""",
            (name,),
        )
        return None if due is None else int(due)

    def take(self, name: str, most: int, *, now: int, lease: int) -> Sequence[Claim]:
        """Take what is due and nobody else is just taking; see `Claims`."""
        key, token = self._key(name), secrets.randbits(62)
        with self._store.transaction() as db:
            lanes = _rows(
                db,
                f"""UPDATE {_T}.lane SET due = %s, token = %s WHERE destination = %s AND lane = ANY(ARRAY(
                      SELECT lane FROM {_T}.lane WHERE destination = %s AND due <= %s
                        AND (SELECT disabled FROM {_T}.destination WHERE id = %s) IS NULL
                      ORDER BY due, lane LIMIT %s FOR UPDATE SKIP LOCKED))
                    RETURNING lane, tries, first_tried""",
                *(now + lease, token, key),
                *(key, now, key, most),
            )
            # A statement of its own: it sees what those had settled whose lanes these were.
            heads = _rows(
                db,
                f"""SELECT taken.lane, head.* FROM unnest(%s::text[]) AS taken (lane), LATERAL (
                      SELECT position, owed_at, replay FROM {_T}.owed
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
                for row in _rows(
                    db,
                    f"""SELECT destination, lane, token FROM {_T}.lane WHERE (destination, lane) IN (
                          SELECT * FROM unnest(%s::int[], %s::text[])) {_ORDER}""",
                    *_columns([self._lane(each) for each in settlements], 2),
                )
            }
            ours = [each for each in settlements if (*self._lane(each), each.claim.token) in held]
            self._free(db, ours)
            over = [each for each in ours if each.ruling.verdict is not Verdict.AGAIN]
            self._end(db, over)
            self._note_failures(db, ours)
            for each in ours:
                if each.disables:
                    change = f"UPDATE {_T}.destination SET disabled = %s WHERE id = %s AND disabled IS NULL"
                    db.execute(change, (each.disables, self._key(each.claim.destination)))
        return [each.claim for each in settlements if (*self._lane(each), each.claim.token) not in held]

    def _lane(self, settlement: Settlement) -> tuple[int, str]:
        return self._key(settlement.claim.destination), settlement.claim.lane

    def _free(self, db: Connection, ours: Sequence[Settlement]) -> None:
        """Have lanes be free again, and tell of the tries."""
        db.execute(
            f"""UPDATE {_T}.lane SET due = new.due, tries = new.tries, first_tried = new.first_tried, token = NULL
                FROM unnest(%s::int[], %s::text[], %s::bigint[], %s::int[], %s::bigint[])
                  AS new (destination, lane, due, tries, first_tried)
                WHERE lane.destination = new.destination AND lane.lane = new.lane""",
            _columns([(*self._lane(each), *freed(each)) for each in ours], 5),
        )
        tried = [(each.claim.position, self._key(each.claim.destination), *each.tried) for each in ours]
        db.execute(
            f"""INSERT INTO {_T}.tried
                SELECT * FROM unnest(%s::bigint[], %s::int[], %s::bigint[], %s::float8[], %s::int[], %s::text[])
                ON CONFLICT DO NOTHING""",
            _columns(tried, 6),
        )

    def _end(self, db: Connection, over: Sequence[Settlement]) -> None:
        """Owe what was delivered, or given up, no longer."""
        dead = [
            (self._key(claim.destination), claim.position, ruling.reason, claim.tries + 1, tried.at)
            for claim, tried, ruling, _ in over
            if ruling.verdict is Verdict.DEAD
        ]
        if dead:
            db.execute(
                f"""INSERT INTO {_T}.dead
                    SELECT * FROM unnest(%s::int[], %s::bigint[], %s::text[], %s::int[], %s::bigint[])
                    ON CONFLICT (destination, position)
                    DO UPDATE SET reason = excluded.reason, tries = excluded.tries, at = excluded.at""",
                _columns(dead, 5),
            )
        db.execute(
            f"DELETE FROM {_T}.owed WHERE (destination, position) IN (SELECT * FROM unnest(%s::int[], %s::bigint[]))",
            _columns([(self._key(each.claim.destination), each.claim.position) for each in over], 2),
        )
        let_go(db, [self._lane(each) for each in over])

    def _note_failures(self, db: Connection, ours: Sequence[Settlement]) -> None:
        """Note since when, and how often, each destination took nothing."""
        for name in sorted({each.claim.destination for each in ours}):
            own = [each for each in ours if each.claim.destination == name]
            if any(each.ruling.verdict is Verdict.DELIVERED for each in own):
                well = f"UPDATE {_T}.destination SET failing_since = NULL, failures = 0 WHERE id = %s AND failures > 0"
                db.execute(well, (self._key(name),))
            else:
                ill = f"""UPDATE {_T}.destination
                          SET failing_since = coalesce(failing_since, %s), failures = failures + %s WHERE id = %s"""
                db.execute(ill, (own[0].tried.at, len(own), self._key(name)))

    def _key(self, name: str) -> int:
        if name not in self._keys:
            found = self._store.rows(f"SELECT id FROM {_T}.destination WHERE name = %s", (name,))
            ((self._keys[name],),) = found
        return self._keys[name]


def lock(db: Connection, lanes: Iterable[tuple[Any, ...]]) -> None:
    """Wait for whoever has these lanes, in the order in which everybody does."""
    db.execute(f"{_LOCK} {_ORDER}", _columns(list(lanes), 2))


def let_go(db: Connection, lanes: Iterable[tuple[Any, ...]]) -> None:
    """Drop the lanes, of those that are locked, in which nothing is owed."""
    db.execute(
        f"""DELETE FROM {_T}.lane WHERE (destination, lane) IN (SELECT * FROM unnest(%s::int[], %s::text[]))
              AND NOT EXISTS (
                SELECT 1 FROM {_T}.owed WHERE owed.destination = lane.destination AND owed.lane = lane.lane)""",
        _columns(list(lanes), 2),
    )


def _columns(rows: Sequence[tuple[Any, ...]], number: int) -> list[list[Any]]:
    """Give rows as arrays, one a column."""
    return [[row[at] for row in rows] for at in range(number)]


def _rows(db: Connection, query: str, *values: object) -> Rows:
    return db.execute(query, values).fetchall()


def _row(db: Connection, query: str) -> tuple[Any, ...]:
    (found,) = _rows(db, query)
    return found
