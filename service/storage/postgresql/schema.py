"""The tables, and their migration from one version to the next while old and new pods write."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from service.errors import InboxUnavailable
from service.outcomes import StorageFailure
from service.storage.migration import Migration
from service.storage.postgresql.connection import PostgresqlConnection

SCHEMA: Final = "whatsapp_webhook"
# Keys of advisory locks in this database: for migrations, for appending events, for purging.
LOCKS: Final = 0x57484B31  # "WHK1"
MIGRATING, APPENDING, PURGING = 1, 2, 3
MIGRATION_TIMEOUT_SECONDS: Final = 600.0
TIMELESS: Final = 0  # the day of events without a day of their own


# Step N migrates the tables from version N to N + 1.
MIGRATIONS: Final = (
    Migration(
        """
        CREATE SEQUENCE whatsapp_webhook.position;
        CREATE TABLE whatsapp_webhook.event (
            position bigint NOT NULL DEFAULT nextval('whatsapp_webhook.position'),
            day integer NOT NULL,
            digest bytea NOT NULL,
            id text NOT NULL,
            type text NOT NULL,
            source text NOT NULL,
            subject text,
            partitionkey text NOT NULL,
            time bigint NOT NULL,
            own_time bigint NOT NULL,
            received_at bigint NOT NULL,
            field text NOT NULL,
            test boolean NOT NULL,
            traceparent text,
            data bytea,
            UNIQUE (digest, day)
        ) PARTITION BY LIST (day);
        CREATE INDEX event_position ON whatsapp_webhook.event (position);
        CREATE TABLE whatsapp_webhook.event_timeless PARTITION OF whatsapp_webhook.event FOR VALUES IN (0);
        CREATE TABLE whatsapp_webhook.progress (name text PRIMARY KEY, position bigint NOT NULL);
        INSERT INTO whatsapp_webhook.progress VALUES
            ('bodies_dropped', 0),
            ('dropped', 0),
            ('identity', ('x' || left(md5(gen_random_uuid()::text), 15))::bit(60)::bigint);
        """,
        works_with=1,
    ),
    Migration("ALTER TABLE whatsapp_webhook.event ADD COLUMN businessid text", works_with=1),
    Migration(
        """
        ALTER TABLE whatsapp_webhook.event
            ADD COLUMN userid text, ADD COLUMN waid text, ADD COLUMN parentuserid text, ADD COLUMN previoususerid text,
            ADD COLUMN previouswaid text, ADD COLUMN previousparentuserid text, ADD COLUMN groupid text,
            ADD COLUMN direction text;
        -- In the order of arrival, so that one commit changes few pages. A look-up of a person reads all: `subject`
        -- is the user id, if there is one.
        CREATE INDEX event_person ON whatsapp_webhook.event (received_at, subject, waid);
        CREATE INDEX event_identity_change ON whatsapp_webhook.event (previoususerid, previouswaid)
            WHERE previoususerid IS NOT NULL OR previouswaid IS NOT NULL;
        """,
        works_with=1,
    ),
)


def migrate(db: PostgresqlConnection, part: str, steps: Sequence[Migration]) -> None:
    """Migrate the tables of *part* to the current version; raises InboxUnavailable if they need a later one."""
    version, _ = _version(db, part)
    if version < len(steps):
        with db.with_timeout(MIGRATION_TIMEOUT_SECONDS), transaction(db):
            db.execute("SET LOCAL statement_timeout = 0")
            db.execute("SET LOCAL lock_timeout = 0")
            lock(db, MIGRATING)
            if not exists(db, None):
                db.execute(f"CREATE SCHEMA {SCHEMA}")
            db.execute(
                f"""CREATE TABLE IF NOT EXISTS {SCHEMA}.version
                    (part text PRIMARY KEY, version integer NOT NULL, works_with integer NOT NULL)"""
            )
            version, _ = _version(db, part)
            for number, step in enumerate(steps[version:], start=version + 1):
                db.execute(step.statements)
                db.execute(
                    f"""INSERT INTO {SCHEMA}.version VALUES (%s, %s, %s) ON CONFLICT (part)
                        DO UPDATE SET version = excluded.version, works_with = excluded.works_with""",
                    (part, number, step.works_with),
                )
    require_version(db, part, steps)


def require_version(db: PostgresqlConnection, part: str, steps: Sequence[Migration]) -> None:
    """Raise InboxUnavailable if there are no tables of *part*, or they need a later version of this program."""
    version, works_with = _version(db, part)
    if not version:
        raise InboxUnavailable(
            StorageFailure.CANNOT_OPEN,
            f"the database contains no {part} yet: is this the database of the server's WEBHOOK_INBOX?",
        )
    if works_with > len(steps):
        raise InboxUnavailable(
            StorageFailure.NEWER, "the tables were written by a later version of this program: run that version"
        )


def has(db: PostgresqlConnection, part: str) -> bool:
    """Return whether there are tables of *part*."""
    return _version(db, part) != (0, 0)


def _version(db: PostgresqlConnection, part: str) -> tuple[int, int]:
    if not exists(db, "version"):
        return 0, 0
    row = db.execute(f"SELECT version, works_with FROM {SCHEMA}.version WHERE part = %s", (part,)).fetchone()
    return row or (0, 0)


def exists(db: PostgresqlConnection, table: str | None) -> bool:
    """Return whether *table* exists in the schema; with None, whether the schema exists.

    Queries the catalogs, as to_regclass may return a result that was cached before a lock was acquired.
    """
    if table is None:
        return number(db, "SELECT count(*) FROM pg_namespace WHERE nspname = %s", SCHEMA) == 1
    query = "SELECT count(*) FROM pg_tables WHERE schemaname = %s AND tablename = %s"
    return number(db, query, SCHEMA, table) == 1


@contextmanager
def transaction(db: PostgresqlConnection) -> Iterator[None]:
    """Run the block in one transaction: commit it, or roll back if it raises."""
    with db.transaction():
        yield


def lock(db: PostgresqlConnection, key: int) -> None:
    """Wait for an advisory lock, and hold it until the end of the transaction."""
    db.execute("SELECT pg_advisory_xact_lock(%s, %s)", (LOCKS, key))


def try_lock(db: PostgresqlConnection, key: int) -> bool:
    """Acquire an advisory lock until the end of the transaction; return False if another session holds it."""
    return number(db, "SELECT pg_try_advisory_xact_lock(%s, %s)::int", LOCKS, key) == 1


def number(db: PostgresqlConnection, query: str, *values: object) -> int:
    """Return the one number that *query* selects, 0 for NULL."""
    row = db.execute(query, values).fetchone()
    return int(row[0] or 0) if row else 0
