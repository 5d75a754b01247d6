"""The pairs of number and user id in the relay's state, and the order of deliveries over a person's queues."""

import json
from collections.abc import Collection, Iterable, Sequence
from typing import Final

import apsw

from service.storage.deliveries import Delivery
from service.storage.identities import Identifier, Pair
from service.storage.sqlite.delivery_database import SqliteDeliveryDatabase

_COLUMNS: Final = "phone, waid, userid, since, until, person, used_at"
# Every pair of the people who have one of the identifiers.
_PAIRS: Final = f"""
    WITH wanted AS MATERIALIZED (SELECT value ->> 0 AS phone, value ->> 1 AS name FROM json_each(?)),
    found AS MATERIALIZED (
        SELECT person FROM identity JOIN wanted ON identity.phone = wanted.phone AND waid = name AND name <> ''
        UNION SELECT person FROM identity JOIN wanted ON identity.phone = wanted.phone AND userid = name AND name <> ''
    )
    SELECT {_COLUMNS} FROM identity WHERE person IN found
"""  # noqa: S608  constants
# For each other queue of the person, the newest delivery that comes first.
_BEFORE: Final = """
    SELECT json_group_array(position) FROM (
        SELECT (
            SELECT position FROM delivery WHERE destination = ? AND queue = other.value ->> 0
                AND position >= other.value ->> 1 AND position < other.value ->> 2 ORDER BY position DESC LIMIT 1
        ) AS position FROM json_each(?) AS other
    ) WHERE position IS NOT NULL
"""


class SqliteIdentities:
    """Implements `DeliveryIdentities`."""

    def __init__(self, store: SqliteDeliveryDatabase) -> None:
        self._store = store

    def learned(self) -> int:
        """Return the position up to which pairs were learned; see `DeliveryIdentities`."""
        ((position,),) = self._store.rows("SELECT learned FROM heartbeat")
        return int(position)

    def pairs(self, identifiers: Collection[Identifier]) -> Sequence[Pair]:
        """Return all pairs of some people; see `DeliveryIdentities`."""
        if not identifiers:
            return []
        return [Pair(*row) for row in self._store.rows(_PAIRS, (json.dumps(list(identifiers)),))]

    def learn(self, since: int, until: int, pairs: Sequence[Pair]) -> bool:
        """Store pairs; see `DeliveryIdentities`."""
        with self._store.transaction() as db:
            advance = "UPDATE heartbeat SET learned = ? WHERE learned = ? RETURNING 1"
            if not db.execute(advance, (until, since)).fetchall():
                return False
            db.executemany(f"INSERT OR REPLACE INTO identity ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)", pairs)  # noqa: S608  constants
            return True


def put_in_order(db: apsw.Connection, destination: int, deliveries: Iterable[Delivery]) -> None:
    """Store for each delivery which pending ones, in other queues of its person, come first."""
    for delivery in deliveries:
        if not delivery.siblings:
            continue
        ((before,),) = db.execute(_BEFORE, (destination, json.dumps(delivery.siblings)))
        if before != "[]":
            update = "UPDATE delivery SET after = ? WHERE destination = ? AND position = ?"
            db.execute(update, (before, destination, delivery.position))


def adopt(db: apsw.Connection, last: int) -> None:
    """Forget what was learned after position *last*: the log was restored from a backup."""
    db.execute("DELETE FROM identity WHERE since > ?", (last,))
    db.execute("UPDATE identity SET until = NULL WHERE until > ?", (last,))
    db.execute("UPDATE heartbeat SET learned = min(learned, ?)", (last,))


def prune(db: apsw.Connection, before: int) -> None:
    """Delete pairs that no event has used since a time."""
    db.execute("DELETE FROM identity WHERE used_at < ?", (before,))


def erase(db: apsw.Connection, identifiers: Collection[str]) -> None:
    """Delete the pairs that have one of these numbers or user ids."""
    names = json.dumps(list(identifiers))
    db.execute("DELETE FROM identity WHERE waid IN (SELECT value FROM json_each(?))", (names,))
    db.execute("DELETE FROM identity WHERE userid IN (SELECT value FROM json_each(?))", (names,))
