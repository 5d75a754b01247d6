"""The tables of the relay's deliveries: their migrations, and transactions on them.

Every transaction locks rows in one order, so that relays never deadlock: first delivery queues, by destination and
name; then destinations.
"""

import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeAlias

from service.config import InboxUrl
from service.errors import InboxUnavailable
from service.outcomes import StorageFailure
from service.storage import url_reload
from service.storage.migration import Migration
from service.storage.postgresql import schema
from service.storage.postgresql.connection import PostgresqlConnection, ServerAddress, connect
from service.storage.postgresql.errors import map_errors

PART: Final = "deliveries"
PRE_RELEASE_PART: Final = "relay"  # tables that a version before the first release made
_PRE_RELEASE_REMEDY: Final = (
    "the relay's tables were made by a version before the first release: in the schema whatsapp_webhook, drop the "
    "tables relay, destination, owed, lane, dead, tried and saved_event, and delete the row 'relay' of table version"
)
DELIVERIES_TIMEOUT_SECONDS: Final = 5.0
CLEANING_DELIVERIES: Final = 16  # key of an advisory lock, as the inbox's in `schema`
# For tables whose rows change at each attempt: vacuum after changes of 1%, not the default 20%, of the rows.
_OFTEN_UPDATED: Final = (
    "WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_insert_scale_factor = 0.05)"
)
# Step N migrates the tables from version N to N + 1.
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
        ) {_OFTEN_UPDATED};
        CREATE INDEX delivery_in_queue ON whatsapp_webhook.delivery (destination, queue, position);
        CREATE TABLE whatsapp_webhook.delivery_queue (
            destination integer NOT NULL,
            queue text COLLATE "C" NOT NULL,
            due bigint NOT NULL,
            attempts integer NOT NULL DEFAULT 0,
            first_attempt_at bigint NOT NULL DEFAULT 0,
            token bigint,
            PRIMARY KEY (destination, queue)
        ) {_OFTEN_UPDATED};
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
    Migration(
        """
        ALTER TABLE whatsapp_webhook.relay_state ADD COLUMN learned bigint NOT NULL DEFAULT 0;
        CREATE TABLE whatsapp_webhook.identity (
            phone text NOT NULL,
            waid text NOT NULL,
            userid text NOT NULL,
            since bigint NOT NULL,
            until bigint,
            person bigint NOT NULL,
            used_at bigint NOT NULL,
            PRIMARY KEY (phone, waid, userid, since)
        );
        CREATE INDEX identity_of_userid ON whatsapp_webhook.identity (phone, userid);
        CREATE INDEX identity_of_person ON whatsapp_webhook.identity (person);
        ALTER TABLE whatsapp_webhook.delivery ADD COLUMN after bigint[];
        ALTER TABLE whatsapp_webhook.saved_event ADD COLUMN userid text, ADD COLUMN waid text,
            ADD COLUMN previoususerid text, ADD COLUMN previouswaid text;
        DROP INDEX whatsapp_webhook.saved_event_of_subject;
        CREATE INDEX saved_event_person
            ON whatsapp_webhook.saved_event (subject, userid, waid, previoususerid, previouswaid);
        """,
        works_with=1,
    ),
    Migration(
        """
        ALTER TABLE whatsapp_webhook.destination ADD COLUMN retried_at bigint NOT NULL DEFAULT 0;
        ALTER TABLE whatsapp_webhook.delivery ADD COLUMN attempts integer NOT NULL DEFAULT 0,
            ADD COLUMN rejections integer NOT NULL DEFAULT 0, ADD COLUMN first_attempt_at bigint NOT NULL DEFAULT 0,
            ADD COLUMN skipped boolean NOT NULL DEFAULT false;
        ALTER TABLE whatsapp_webhook.dead_letter ADD COLUMN status integer NOT NULL DEFAULT 0;
        ALTER TABLE whatsapp_webhook.attempt ADD COLUMN evidence text;
        CREATE TABLE whatsapp_webhook.worker_report (
            destination integer NOT NULL,
            relay bigint NOT NULL,
            at bigint NOT NULL,
            health text NOT NULL,
            status integer,
            next_probe_at bigint NOT NULL,
            PRIMARY KEY (destination, relay)
        );
        """,
        works_with=1,
    ),
)
TABLES: Final = ("delivery", "delivery_queue", "dead_letter", "attempt", "saved_event", "identity", "worker_report")

Rows: TypeAlias = list[tuple[Any, ...]]


class PostgresqlDeliveryDatabase:
    """One connection, shared by all threads of a process; a broken one is replaced at the next use."""

    def __init__(self, url: InboxUrl) -> None:
        """Connect, and create the tables if there are none; raises InboxUnavailable."""
        self.url = url
        self.connections = 0  # how many were opened
        self.relay = secrets.randbits(62)  # identifies this process in the reports of relays
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
                require_no_pre_release(db)
                schema.migrate(db, PART, DELIVERIES_MIGRATIONS)
        except BaseException:
            db.close()
            raise
        return db

    @contextmanager
    def transaction(self) -> Iterator[PostgresqlConnection]:
        """Run the block in a transaction, or in the enclosing one if there is one. Raises InboxUnavailable."""
        with self._connected() as db:
            if db.info.transaction_status:
                yield db
                return
            with db.transaction():
                yield db

    def rows(self, query: str, values: tuple[Any, ...] = ()) -> Rows:
        """Return the rows of *query*; raises InboxUnavailable."""
        with self._connected() as db:
            return db.execute(query, values).fetchall()

    def require_url(self) -> None:
        """Raise InboxUnavailable once if the configured URL has changed; the new URL is used from then on."""
        current = url_reload.current(self.url)
        if current != self.url:
            self.close()
            self.url = current
            raise InboxUnavailable(StorageFailure.MOVED, "the inbox's URL has changed: reconnecting", reopen=True)

    def close(self) -> None:
        """Close the connection."""
        with self._lock:
            if self._db is not None:
                self._db.close()


def require_no_pre_release(db: PostgresqlConnection) -> None:
    """Raise InboxUnavailable if a version before the first release made the tables."""
    if schema.has(db, PRE_RELEASE_PART):
        raise InboxUnavailable(StorageFailure.OLDER, _PRE_RELEASE_REMEDY, reopen=True)


def exists(url: InboxUrl) -> bool:
    """Return whether a relay has ever created its tables; raises InboxUnavailable."""
    db = connect(ServerAddress.of(url, timeout=DELIVERIES_TIMEOUT_SECONDS))
    try:
        with map_errors():
            require_no_pre_release(db)
            return schema.exists(db, "relay_state")
    finally:
        db.close()
