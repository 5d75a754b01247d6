"""The pairs of number and user id in the relay's state, and the order of deliveries over a person's queues."""

from collections.abc import Collection, Sequence
from typing import Final

from service.storage.deliveries import Delivery
from service.storage.identities import Identifier, Pair
from service.storage.postgresql.connection import PostgresqlConnection
from service.storage.postgresql.delivery_database import PostgresqlDeliveryDatabase
from service.storage.postgresql.delivery_queues import columns, rows
from service.storage.postgresql.schema import SCHEMA as T

_COLUMNS: Final = "phone, waid, userid, since, until, person, used_at"
# Every pair of the people who have one of the identifiers.
_PAIRS: Final = f"""
    WITH wanted AS (SELECT * FROM unnest(%s::text[], %s::text[]) AS wanted (phone, name)),
    found AS (
        SELECT person FROM {T}.identity JOIN wanted ON identity.phone = wanted.phone AND waid = name
        UNION SELECT person FROM {T}.identity JOIN wanted ON identity.phone = wanted.phone AND userid = name
    )
    SELECT {_COLUMNS} FROM {T}.identity WHERE person IN (SELECT person FROM found)
"""
_LEARN: Final = f"""
    INSERT INTO {T}.identity ({_COLUMNS})
    SELECT * FROM unnest(%s::text[], %s::text[], %s::text[], %s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[])
    ON CONFLICT (phone, waid, userid, since) DO UPDATE SET until = excluded.until, used_at = excluded.used_at
"""
# For each other queue of the person, the newest delivery that comes first.
_ORDER: Final = f"""
    UPDATE {T}.delivery SET after = found.before FROM (
        SELECT sibling.position, array_agg(earlier.position) AS before
        FROM unnest(%(positions)s::bigint[], %(queues)s::text[], %(since)s::bigint[], %(below)s::bigint[])
            AS sibling (position, queue, since, below),
        LATERAL (
            SELECT position FROM {T}.delivery
            WHERE destination = %(destination)s AND delivery.queue = sibling.queue
                AND delivery.position >= sibling.since AND delivery.position < sibling.below
            ORDER BY position DESC LIMIT 1
        ) AS earlier GROUP BY 1
    ) AS found WHERE destination = %(destination)s AND delivery.position = found.position
"""


class PostgresqlIdentities:
    """Implements `DeliveryIdentities`."""

    def __init__(self, store: PostgresqlDeliveryDatabase) -> None:
        self._store = store

    def learned(self) -> int:
        """Return the position up to which pairs were learned; see `DeliveryIdentities`."""
        ((position,),) = self._store.rows(f"SELECT learned FROM {T}.relay_state")
        return int(position)

    def pairs(self, identifiers: Collection[Identifier]) -> Sequence[Pair]:
        """Return all pairs of some people; see `DeliveryIdentities`."""
        if not identifiers:
            return []
        return [Pair(*row) for row in self._store.rows(_PAIRS, tuple(columns(list(identifiers), 2)))]

    def learn(self, since: int, until: int, pairs: Sequence[Pair]) -> bool:
        """Store pairs; see `DeliveryIdentities`."""
        with self._store.transaction() as db:
            if not rows(db, f"UPDATE {T}.relay_state SET learned = %s WHERE learned = %s RETURNING 1", until, since):
                return False
            if pairs:
                db.execute(_LEARN, columns(pairs, len(Pair._fields)))
            return True


def put_in_order(db: PostgresqlConnection, destination: int, deliveries: Sequence[Delivery]) -> None:
    """Store for each delivery which pending ones, in other queues of its person, come first."""
    siblings = [(each.position, *sibling) for each in deliveries for sibling in each.siblings]
    if siblings:
        names = ("positions", "queues", "since", "below")
        db.execute(_ORDER, {"destination": destination, **dict(zip(names, columns(siblings, 4), strict=True))})


def prune(db: PostgresqlConnection, before: int) -> None:
    """Delete pairs that no event has used since a time."""
    db.execute(f"DELETE FROM {T}.identity WHERE used_at < %s", (before,))


def erase(db: PostgresqlConnection, identifiers: Collection[str]) -> None:
    """Delete the pairs that have one of these numbers or user ids."""
    names = list(identifiers)
    db.execute(f"DELETE FROM {T}.identity WHERE waid = ANY(%s) OR userid = ANY(%s)", (names, names))
