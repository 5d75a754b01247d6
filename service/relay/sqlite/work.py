"""What the relay itself does: plan what is owed, take it, write down how it ended."""

import itertools
import secrets
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from itertools import compress
from typing import Any, Final

import apsw

from service.relay.sqlite.store import Rows, Store
from service.relay.state import Claim, Owed, Settlement, Verdict

RETENTION: Final = "retention"
FORGOTTEN_AT_ONCE: Final = 4000


class SqliteWork:
    """`Plans` and `Claims`, see there."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._tokens = itertools.count(secrets.randbits(48) << 14)  # no two processes have one in common
        self._keys: dict[str, int] = {}

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

    def positions(self) -> Mapping[str, int]:
        """Say how far the log was read; see `Plans`."""
        return dict(self._store.rows("SELECT name, position FROM destination WHERE gone_since IS NULL"))

    def plan(self, name: str, since: int, until: int, owed: Sequence[Owed]) -> bool:
        """Note what is owed; see `Plans`."""
        key = self._key(name)
        with self._store.transaction() as db:
            moved = "UPDATE destination SET position = ?, owed = owed + ? WHERE id = ? AND position = ? RETURNING 1"
            if not _rows(db, moved, until, len(owed), key, since):
                return False
            lanes = {each.lane: each.received_at for each in reversed(owed)}
            db.executemany("INSERT INTO owed VALUES (?, ?, ?, ?, 0)", [(key, *each) for each in owed])
            db.executemany(
                "INSERT OR IGNORE INTO lane (destination, lane, due) VALUES (?, ?, ?)",
                [(key, lane, received_at) for lane, received_at in lanes.items()],
            )
            return True

    def expire(self, first: int, *, now: int, keep: int) -> Mapping[str, int]:
        """Give up what the log no longer holds; see `Plans`."""
        away = "SELECT id FROM destination WHERE disabled IS NOT NULL OR gone_since IS NOT NULL"
        over = f"position < ? AND destination IN ({away})"
        with self._store.transaction() as db:
            db.execute("DELETE FROM dead WHERE at < ?", (now - keep,))
            db.execute(
                f"INSERT OR IGNORE INTO dead SELECT destination, position, ?, 0, ? FROM owed WHERE {over}",  # noqa: S608  constants
                (RETENTION, now, first),
            )
            gone = _rows(db, f"DELETE FROM owed WHERE {over} RETURNING destination, lane", first)  # noqa: S608  constants
            let_go(db, gone)
            names: dict[int, str] = dict(_rows(db, "SELECT id, name FROM destination"))
        return Counter(names[key] for key, _ in gone)

    def forget_tries(self, first: int) -> None:
        """Drop some of what is told of events before *first*; see `Plans`."""
        old = "SELECT position, destination, at FROM tried WHERE position < ? ORDER BY position LIMIT ?"
        if not self._store.rows(old, (first, 1)):
            return
        forgotten = f"DELETE FROM tried WHERE (position, destination, at) IN ({old})"  # noqa: S608  constants
        with self._store.transaction() as db:
            db.execute(forgotten, (first, FORGOTTEN_AT_ONCE))

    def next_due(self, name: str) -> int | None:
        """Say when the next lane is due; see `Claims`."""
        ((due,),) = self._store.rows(
            """SELECT min(due) FROM lane WHERE destination =
                 (SELECT id FROM destination WHERE name = ? AND disabled IS NULL)""",
            (name,),
        )
        return None if due is None else int(due)

    def take(self, name: str, most: int, *, now: int, lease: int) -> Sequence[Claim]:
        """Take what is due; see `Claims`."""
        token = next(self._tokens)
        head = "FROM owed WHERE owed.destination = lane.destination AND owed.lane = lane.lane ORDER BY position LIMIT 1"
        with self._store.transaction() as db:
            found = _rows(
                db,
                f"""UPDATE lane SET due = ?, token = ? WHERE (destination, lane) IN (
                      SELECT destination, lane FROM lane JOIN destination ON destination.id = lane.destination
                      WHERE destination.name = ? AND disabled IS NULL AND due <= ? ORDER BY due LIMIT ?)
                    RETURNING lane, (SELECT position {head}), tries, first_tried, (SELECT replay {head})""",  # noqa: S608  constants
                now + lease,
                token,
                name,
                now,
                most,
            )
        return [
            Claim(name, lane, position, tries, first_tried, bool(replay), token)
            for lane, position, tries, first_tried, replay in found
        ]

    def settle(self, settlements: Sequence[Settlement]) -> Sequence[Claim]:
        """Write down how claims ended; see `Claims`."""
        with self._store.transaction() as db:
            fates = [self._went_on(db, settlement) for settlement in settlements]
            ours = list(compress(settlements, fates))
            tried = [(each.claim.position, self._key(each.claim.destination), *each.tried) for each in ours]
            db.executemany("INSERT OR REPLACE INTO tried VALUES (?, ?, ?, ?, ?, ?)", tried)
            over = [each for each in ours if each.ruling.verdict is not Verdict.AGAIN]
            db.executemany("INSERT OR REPLACE INTO dead VALUES (?, ?, ?, ?, ?)", self._dead(over))
            gone = [(self._key(each.claim.destination), each.claim.position) for each in over]
            db.executemany("DELETE FROM owed WHERE destination = ? AND position = ?", gone)
            let_go(db, [(self._key(each.claim.destination), each.claim.lane) for each in over])
        return [settlement.claim for settlement, fate in zip(settlements, fates, strict=True) if not fate]

    def disable(self, name: str, reason: str | None) -> bool:
        """Deliver nothing more to a destination, or go on; see `Claims`."""
        change = "UPDATE destination SET disabled = ? WHERE name = ? AND (disabled IS NULL) <> (? IS NULL) RETURNING 1"
        with self._store.transaction() as db:
            return bool(_rows(db, change, reason, name, reason))

    def _went_on(self, db: apsw.Connection, settlement: Settlement) -> bool:
        """Have the lane be free again, unless it is another's by now."""
        claim, tried, ruling = settlement
        if ruling.verdict is Verdict.AGAIN:
            free = (ruling.due, claim.tries + 1, claim.first_tried or tried.at)
        else:
            free = (tried.at, 0, 0)
        lane = (self._key(claim.destination), claim.lane, claim.token)
        return bool(
            _rows(
                db,
                """UPDATE lane SET due = ?, tries = ?, first_tried = ?, token = NULL
                   WHERE destination = ? AND lane = ? AND token = ? RETURNING 1""",
                *free,
                *lane,
            )
        )

    def _dead(self, over: Sequence[Settlement]) -> list[tuple[int, int, str, int, int]]:
        return [
            (self._key(claim.destination), claim.position, ruling.reason, claim.tries + 1, tried.at)
            for claim, tried, ruling in over
            if ruling.verdict is Verdict.DEAD
        ]

    def _key(self, name: str) -> int:
        if name not in self._keys:
            ((self._keys[name],),) = self._store.rows("SELECT id FROM destination WHERE name = ?", (name,))
        return self._keys[name]


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
