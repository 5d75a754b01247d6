"""The tables, how they came to be, and transactions on them.

What is locked is locked in one order, so that relays wait for each other for moments and never in a circle: queues
first, by their names; then destinations.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeAlias

from service.config import InboxUrl
from service.errors import InboxUnavailable
from service.outcomes import StorageFailure
from service.storage import url_reload
from service.storage.postgresql import schema
from service.storage.postgresql.connection import PostgresqlConnection, ServerAddress, connect
from service.storage.postgresql.errors import map_errors
from service.storage.postgresql.schema import Migration

PART: Final = "deliveries"
OLDER_PART: Final = "relay"  # of tables that no release made
_OLDER_REMEDY: Final = (
    "the relay's tables are of a version before the first release: drop relay, destination, owed, lane, dead, tried "
    "and saved_event of the schema whatsapp_webhook, and the row 'relay' of its table version"
)
DELIVERIES_TIMEOUT_SECONDS: Final = 5.0
TENDING_DELIVERIES: Final = 16  # who tends what is too old; beside the inbox's own locks
# Rows that change at each try: what they leave behind is to be cleaned at a hundredth, not at a fifth, of the table.
_BUSY: Final = (
    "WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_insert_scale_factor = 0.05)"
)
# Never change one that was released.
DELIVERIES_MIGRATIONS: Final = (
    Migration(
        f"""
        CREATE TABLE whatsapp_webhook.relay_state (
            one boolean PRIMARY KEY DEFAULT true CHECK (one), identity bigint, seen bigint NOT NULL
        );
        INSERT INTO whatsapp_webhook.relay_state (seen) VALUES (0);
        CREATE TABLE whatsapp_webhook.destination (
            id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            name text NOT NULL UNIQUE,
            position bigint NOT NULL,
            disabled text,
            gone_since bigint,
            failing_since bigint,
            failures integer NOT NULL DEFAULT 0
        );
        CREATE TABLE whatsapp_webhook.delivery (
            destination integer NOT NULL,
            position bigint NOT NULL,
            queue text COLLATE "C" NOT NULL,
            received_at bigint NOT NULL,
            planned_at bigint NOT NULL,
            replay boolean NOT NULL,
            PRIMARY KEY (destination, position)
        ) {_BUSY};
        CREATE INDEX delivery_in_queue ON whatsapp_webhook.delivery (destination, queue, position);
        CREATE TABLE whatsapp_webhook.delivery_queue (
            destination integer NOT NULL,
            queue text COLLATE "C" NOT NULL,
            due bigint NOT NULL,
            attempts integer NOT NULL DEFAULT 0,
            first_attempt_at bigint NOT NULL DEFAULT 0,
            token bigint,
            PRIMARY KEY (destination, queue)
        ) {_BUSY};
        CREATE INDEX delivery_queue_due
            ON whatsapp_webhook.delivery_queue (destination, least(attempts, 1), due, queue);
        CREATE TABLE whatsapp_webhook.dead_letter (
            destination integer NOT NULL,
            position bigint NOT NULL,
            reason text NOT NULL,
            attempts integer NOT NULL,
            at bigint NOT NULL,
            saved boolean NOT NULL DEFAULT false,
            PRIMARY KEY (destination, position)
        );
        CREATE INDEX dead_letter_unsaved ON whatsapp_webhook.dead_letter (position) WHERE NOT saved;
        CREATE TABLE whatsapp_webhook.saved_event (
            position bigint PRIMARY KEY,
            saved_at bigint NOT NULL,
            bytes bigint NOT NULL,
            subject text,
            event bytea NOT NULL
        );
        CREATE INDEX saved_event_of_subject ON whatsapp_webhook.saved_event (subject);
        CREATE TABLE whatsapp_webhook.attempt (
            position bigint NOT NULL,
            destination integer NOT NULL,
            at bigint NOT NULL,
            seconds double precision NOT NULL,
            status integer NOT NULL,
            outcome text NOT NULL,
            PRIMARY KEY (position, destination, at)
        );
        """,
        works_with=1,
    ),
)
TABLES: Final = ("delivery", "delivery_queue", "dead_letter", "attempt", "saved_event")

Rows: TypeAlias = list[tuple[Any, ...]]


class PostgresqlDeliveryDatabase:
    """One connection, for any number of threads; made anew where it broke."""

    def __init__(self, url: InboxUrl) -> None:
        """Connect, and make the tables where there are none; raises InboxUnavailable."""
        self.url = url
        self.connections = 0  # so far
        self._lock = threading.RLock()
        self._db: PostgresqlConnection | None = None
        with self._connected():
            pass

    @contextmanager
    def _connected(self) -> Iterator[PostgresqlConnection]:
        with self._lock:
            if self._db is None or self._db.closed:
                self._db = self._connect()
                self.connections += 1
            with map_errors(self._db):
                yield self._db

    def _connect(self) -> PostgresqlConnection:
        db = connect(ServerAddress.of(self.url, timeout=DELIVERIES_TIMEOUT_SECONDS))
        try:
            with map_errors(db):
                require_none_older(db)
                schema.migrate(db, PART, DELIVERIES_MIGRATIONS)
        except BaseException:
            db.close()
            raise
        return db

    @contextmanager
    def transaction(self) -> Iterator[PostgresqlConnection]:
        """Write: all of it or nothing; within another one, that one's. Raises InboxUnavailable."""
        with self._connected() as db:
            if db.info.transaction_status:
                yield db
                return
            with db.transaction():
                yield db

    def rows(self, query: str, values: tuple[Any, ...] = ()) -> Rows:
        """Read; raises InboxUnavailable."""
        with self._connected() as db:
            return db.execute(query, values).fetchall()

    def require_url(self) -> None:
        """Raise InboxUnavailable where the URL in force is another one by now; from then on that is used."""
        found = url_reload.current(self.url)
        if found != self.url:
            self.close()
            self.url = found
            raise InboxUnavailable(StorageFailure.MOVED, "the inbox's URL was changed: connecting anew", reopen=True)

    def close(self) -> None:
        """Let go of the connection."""
        with self._lock:
            if self._db is not None:
                self._db.close()


def require_none_older(db: PostgresqlConnection) -> None:
    """Raise InboxUnavailable if the tables are of a version before the first release."""
    if schema.has(db, OLDER_PART):
        raise InboxUnavailable(StorageFailure.OLDER, _OLDER_REMEDY, reopen=True)


def exists(url: InboxUrl) -> bool:
    """Say whether a relay ever made its tables; raises InboxUnavailable."""
    db = connect(ServerAddress.of(url, timeout=DELIVERIES_TIMEOUT_SECONDS))
    try:
        with map_errors():
            require_none_older(db)
            return schema.exists(db, "relay_state")
    finally:
        db.close()
