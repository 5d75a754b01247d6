"""What the relay itself does: plan what is owed, take it, write down how it ended."""

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
from service.storage.deliveries import (
    LEAST_TRIES,
    LONGEST_WAIT,
    Claim,
    Owed,
    Queues,
    Settlement,
    Verdict,
    freed,
)
from service.storage.protocols import Record
from service.storage.sqlite.delivery_database import TABLES, Rows, Store

FORGOTTEN_AT_ONCE: Final = 4000
# As the index has it.
_WHICH: Final = {
    Queues.HEALTHY: "(tries > 0) = 0",
    Queues.FAILED: "(tries > 0) = 1",
}


class SqliteWork:
    """`Plans` and `Claims`, see there."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._tokens = itertools.count(secrets.randbits(48) << 14)  # no two processes have one in common
        self._keys: dict[str, int] = {}

    def require_file(self) -> None:
        """See that the file is the one that was opened; raises InboxUnavailable."""
        self._store.require_file()

    def adopt(self, identity: int, last: int) -> int:
        """Belong to the log of this identity; see `Plans`."""
        with self._store.transaction() as db:
            found = _rows(db, "SELECT identity FROM origin")
            if not found:
                _rows(db, "INSERT INTO origin (identity) VALUES (?)", identity)
            if found in ([], [(identity,)]):
                gone = _rows(db, "DELETE FROM owed WHERE position > ? RETURNING destination, lane", last)
                let_go(db, gone)
                _rows(db, "UPDATE destination SET position = ? WHERE position > ?", last, last)
                return len(gone)
            ((owed,),) = _rows(db, "SELECT count(*) FROM owed")
            for table in TABLES:
                _rows(db, f"DELETE FROM {table}")  # noqa: S608  one of these
            _rows(db, "UPDATE destination SET position = 0, owed = 0")
            _rows(db, "UPDATE origin SET identity = ?", identity)
            return int(owed)

    def join(self, names: Mapping[str, int], *, now: int) -> None:
        """Have exactly *names* be in the file; see `Plans`."""
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
        """Say how far the log was read; see `Plans`."""
        return dict(self._store.rows("SELECT name, position FROM destination WHERE gone_since IS NULL"))

    def plan(self, name: str, since: int, until: int, owed: Sequence[Owed], *, now: int) -> bool:
        """Note what is owed; see `Plans`."""
        key = self._key(name)
        with self._store.transaction() as db:
            moved = "UPDATE destination SET position = ?, owed = owed + ? WHERE id = ? AND position = ? RETURNING 1"
            if not _rows(db, moved, until, len(owed), key, since):
                return False
            lanes = {each.lane: min(each.received_at, now) for each in reversed(owed)}
            db.executemany("INSERT INTO owed VALUES (?, ?, ?, ?, ?, 0)", [(key, *each, now) for each in owed])
            db.executemany(
                "INSERT OR IGNORE INTO lane (destination, lane, due) VALUES (?, ?, ?)",
                [(key, lane, due) for lane, due in lanes.items()],
            )
            return True

    def expire(self, first: int, *, now: int, patience: int, keep: int) -> Mapping[tuple[str, DeadLetterReason], int]:
        """Give up what is no use to wait for; see `Plans`."""
        away = "SELECT id FROM destination WHERE disabled IS NOT NULL OR gone_since IS NOT NULL"
        down = "SELECT id FROM destination WHERE disabled IS NULL AND failing_since <= ? AND failures >= ?"
        free = "(destination, lane) NOT IN (SELECT destination, lane FROM lane WHERE token IS NOT NULL AND due > ?)"
        long = now - patience
        with self._store.transaction() as db:
            db.execute("UPDATE heartbeat SET seen = ?", (now,))
            db.execute("DELETE FROM dead WHERE at < ?", (now - keep,))
            db.execute(
                """DELETE FROM saved_event WHERE position NOT IN (SELECT position FROM dead)
                     AND position NOT IN (SELECT position FROM owed)"""
            )
            # What waits for longer than anything may was written by a clock that ran ahead.
            db.execute("UPDATE lane SET due = ? WHERE due > ?", (now, now + LONGEST_WAIT))
            names: dict[int, str] = dict(_rows(db, "SELECT id, name FROM destination"))
            found: Counter[tuple[str, DeadLetterReason]] = Counter()
            for reason, over, values in (
                (DeadLetterReason.RETENTION, f"position < ? AND destination IN ({away})", (first,)),
                (DeadLetterReason.EXPIRED, f"owed_at <= ? AND destination IN ({down})", (long, long, LEAST_TRIES)),
            ):
                gone = _rows(
                    db,
                    f"DELETE FROM owed WHERE {over} AND {free} RETURNING destination, lane, position",  # noqa: S608  constants
                    *values,
                    now,
                )
                let_go(db, [(key, lane) for key, lane, _ in gone])
                db.executemany(
                    "INSERT OR REPLACE INTO dead (destination, position, reason, tries, at) VALUES (?, ?, ?, 0, ?)",
                    [(key, position, reason, now) for key, _, position in gone],
                )
                found.update((names[key], reason) for key, _, _ in gone)
        return found

    def forget_tries(self, first: int) -> None:
        """Drop some of what is told of events before *first*; see `Plans`."""
        old = "SELECT position, destination, at FROM tried WHERE position < ? ORDER BY position LIMIT ?"
        if not self._store.rows(old, (first, 1)):
            return
        forgotten = f"DELETE FROM tried WHERE (position, destination, at) IN ({old})"  # noqa: S608  constants
        with self._store.transaction() as db:
            db.execute(forgotten, (first, FORGOTTEN_AT_ONCE))

    def unsaved(self, limit: int) -> Sequence[int]:
        """Return dead letters whose event was not saved yet; see `DeadLetterEvents`."""
        query = "SELECT DISTINCT position FROM dead WHERE saved = 0 ORDER BY position LIMIT ?"
        return [position for (position,) in self._store.rows(query, (limit,))]

    def save(self, positions: Sequence[int], events: Sequence[Record], *, now: int, max_bytes: int) -> None:
        """Save the events of dead letters; see `DeadLetterEvents`."""
        encoded = [(record, msgspec.msgpack.encode(record.event)) for record in events]
        with self._store.transaction() as db:
            db.executemany(
                "INSERT OR REPLACE INTO saved_event VALUES (?, ?, ?, ?, ?)",
                [(record.position, now, len(text), record.event.subject, text) for record, text in encoded],
            )
            db.executemany("UPDATE dead SET saved = 1 WHERE position = ?", [(position,) for position in positions])
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
        """Make one transaction of what is within; see `Claims`."""
        with self._store.transaction():
            yield

    def next_due(self, name: str, queues: Queues) -> int | None:
        """Return when the next queue is due; see `Claims`."""
        dues = self._store.rows(
            f"""SELECT due FROM lane WHERE destination =
                  (SELECT id FROM destination WHERE name = ? AND disabled IS NULL) AND {_WHICH[queues]}
                ORDER BY due LIMIT 1""",  # noqa: S608  constants
            (name,),
        )
        return int(dues[0][0]) if dues else None

    def take(
        self, name: str, most: int, queues: Queues, *, now: int, lease: int, at_random: bool = False
    ) -> Sequence[Claim]:
        """Take what is due; see `Claims`."""
        key, token = self._key(name), next(self._tokens)
        with self._store.transaction() as db:
            lanes = _rows(
                db,
                f"""UPDATE lane SET due = ?, token = ? WHERE destination = ? AND lane IN (
                      SELECT lane FROM lane WHERE destination = ? AND {_WHICH[queues]} AND due <= ?
                        AND (SELECT disabled FROM destination WHERE id = ?) IS NULL
                      ORDER BY {"random()" if at_random else "due"} LIMIT ?)
                    RETURNING lane, tries, first_tried""",  # noqa: S608  constants
                *(now + lease, token, key),
                *(key, now, key, most),
            )
            return [Claim(name, lane, *self._head(db, key, lane), tries, first, token) for lane, tries, first in lanes]

    def _head(self, db: apsw.Connection, key: int, lane: str) -> tuple[int, int, bool]:
        """Give the first event of a lane: its position, since when it is owed, whether it is a replay."""
        first = """SELECT position, owed_at, replay FROM owed INDEXED BY owed_in_lane
                   WHERE destination = ? AND lane = ? ORDER BY position LIMIT 1"""
        ((position, owed_at, replay),) = _rows(db, first, key, lane)
        return position, owed_at, bool(replay)

    def settle(self, settlements: Sequence[Settlement]) -> Sequence[Claim]:
        """Write down how claims ended; see `Claims`."""
        with self._store.transaction() as db:
            fates = [self._went_on(db, settlement) for settlement in settlements]
            ours = list(compress(settlements, fates))
            tried = [(each.claim.position, self._key(each.claim.destination), *each.tried) for each in ours]
            db.executemany("INSERT OR REPLACE INTO tried VALUES (?, ?, ?, ?, ?, ?)", tried)
            over = [each for each in ours if each.ruling.verdict is not Verdict.AGAIN]
            dead = "INSERT OR REPLACE INTO dead (destination, position, reason, tries, at) VALUES (?, ?, ?, ?, ?)"
            db.executemany(dead, self._dead(over))
            gone: Rows = db.executemany(
                "DELETE FROM owed WHERE destination = ? AND position = ? RETURNING destination, lane",
                [(self._key(each.claim.destination), each.claim.position) for each in over],
            ).fetchall()
            let_go(db, gone)
            self._note_failures(db, ours)
            disabled = [(each.disables, self._key(each.claim.destination)) for each in ours if each.disables]
            db.executemany("UPDATE destination SET disabled = ? WHERE id = ? AND disabled IS NULL", disabled)
        return [settlement.claim for settlement, fate in zip(settlements, fates, strict=True) if not fate]

    def _went_on(self, db: apsw.Connection, settlement: Settlement) -> bool:
        """Have the lane be free again, unless it is another's by now."""
        claim = settlement.claim
        lane = (self._key(claim.destination), claim.lane, claim.token)
        return bool(
            _rows(
                db,
                """UPDATE lane SET due = ?, tries = ?, first_tried = ?, token = NULL
                   WHERE destination = ? AND lane = ? AND token = ? RETURNING 1""",
                *freed(settlement),
                *lane,
            )
        )

    def _note_failures(self, db: apsw.Connection, ours: Sequence[Settlement]) -> None:
        """Note since when, and how often, each destination took nothing."""
        for name in {each.claim.destination for each in ours}:
            own = [each for each in ours if each.claim.destination == name]
            if any(each.ruling.verdict is Verdict.DELIVERED for each in own):
                well = "UPDATE destination SET failing_since = NULL, failures = 0 WHERE id = ? AND failures > 0"
                _rows(db, well, self._key(name))
            else:
                ill = """UPDATE destination SET failing_since = coalesce(failing_since, ?), failures = failures + ?
                         WHERE id = ?"""
                _rows(db, ill, own[0].tried.at, len(own), self._key(name))

    def _dead(self, over: Sequence[Settlement]) -> list[tuple[int, int, str, int, int]]:
        return [
            (self._key(claim.destination), claim.position, ruling.reason, claim.tries + 1, tried.at)
            for claim, tried, ruling, _ in over
            if ruling.reason
        ]

    def _key(self, name: str) -> int:
        if name not in self._keys:
            ((self._keys[name],),) = self._store.rows("SELECT id FROM destination WHERE name = ?", (name,))
        return self._keys[name]


def saved_events(store: Store, positions: Sequence[int]) -> Mapping[int, Event]:
    """Return the saved events of these positions, by position."""
    query = f"SELECT position, event FROM saved_event WHERE position IN ({_marks(positions)})"  # noqa: S608  marks only
    return {at: msgspec.msgpack.decode(text, type=Event) for at, text in store.rows(query, tuple(positions))}


def let_go(db: apsw.Connection, gone: Sequence[tuple[Any, ...]]) -> None:
    """Count what is no longer owed, by destination and lane, and drop lanes in which nothing is."""
    for key, number in Counter(key for key, _ in gone).items():
        db.execute("UPDATE destination SET owed = owed - ? WHERE id = ?", (number, key))
    db.executemany(
        """DELETE FROM lane WHERE destination = ? AND lane = ? AND NOT EXISTS (
             SELECT 1 FROM owed WHERE owed.destination = lane.destination AND owed.lane = lane.lane)""",
        gone,
    )


def _rows(db: apsw.Connection, query: str, *values: int | str | None) -> Rows:
    return db.execute(query, values).fetchall()


def _marks(values: Collection[object]) -> str:
    return ",".join("?" * len(values))
