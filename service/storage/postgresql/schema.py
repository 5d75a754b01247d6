"""The tables, and how an installation gets from one version of them to the next while old and new pods write."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final, NamedTuple

from service.errors import InboxUnavailable
from service.outcomes import StorageFailure
from service.storage.postgresql.connection import PostgresqlConnection

SCHEMA: Final = "whatsapp_webhook"
# Keys of advisory locks, of this database: who migrates, who appends, who tends what is too old.
LOCKS: Final = 0x57484B31  # "WHK1"
MIGRATING, APPENDING, TENDING = 1, 2, 3
MIGRATION_TIMEOUT_SECONDS: Final = 600.0  # seconds that a migration may take
TIMELESS: Final = 0  # the day of what has none of its own


class Migration(NamedTuple):
    """What takes the tables from the version that is its index to the next one.

    A pod of version *works_with* or later still works with them: so a rolling update needs no pause, and a step
    that takes something away comes a release after the one that no longer needs it.
    """

    statements: str
    works_with: int


# Never change one that was released.
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
)


def migrate(db: PostgresqlConnection, part: str, steps: Sequence[Migration]) -> None:
    """Have the tables of *part* be of the present version; raises InboxUnavailable where a later one can't be used."""
    version, _ = _version(db, part)
    if version < len(steps):
        with db.patient(MIGRATION_TIMEOUT_SECONDS), transaction(db):
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
    """Raise InboxUnavailable where there are no tables of *part*, or such as need a later version."""
    version, works_with = _version(db, part)
    if not version:
        raise InboxUnavailable(
            StorageFailure.CANNOT_OPEN, f"the database holds no {part} yet: is this what the server's inbox is?"
        )
    if works_with > len(steps):
        raise InboxUnavailable(
            StorageFailure.NEWER, "the tables were made by a later version of this program: run that version"
        )


def has(db: PostgresqlConnection, part: str) -> bool:
    """Return whether there are tables of *part*."""
    return _version(db, part) != (0, 0)


def _version(db: PostgresqlConnection, part: str) -> tuple[int, int]:
    if not exists(db, "version"):
        return 0, 0
    found = db.execute(f"SELECT version, works_with FROM {SCHEMA}.version WHERE part = %s", (part,)).fetchone()
    return found or (0, 0)


def exists(db: PostgresqlConnection, table: str | None) -> bool:
    """Say whether a table of ours is there; with None, whether the schema is.

    Asked of the catalogs themselves: to_regclass may give what was cached before a lock was waited for.
    """
    if table is None:
        return number(db, "SELECT count(*) FROM pg_namespace WHERE nspname = %s", SCHEMA) == 1
    query = "SELECT count(*) FROM pg_tables WHERE schemaname = %s AND tablename = %s"
    return number(db, query, SCHEMA, table) == 1


@contextmanager
def transaction(db: PostgresqlConnection) -> Iterator[None]:
    """Make one transaction of what is within: all of it or nothing."""
    with db.transaction():
        yield


def lock(db: PostgresqlConnection, which: int) -> None:
    """Wait for an advisory lock, held to the end of the transaction."""
    db.execute("SELECT pg_advisory_xact_lock(%s, %s)", (LOCKS, which))


def try_lock(db: PostgresqlConnection, which: int) -> bool:
    """Take an advisory lock to the end of the transaction, unless somebody has it."""
    return number(db, "SELECT pg_try_advisory_xact_lock(%s, %s)::int", LOCKS, which) == 1


def number(db: PostgresqlConnection, query: str, *values: object) -> int:
    """Give the one number that *query* finds, 0 for NULL."""
    found = db.execute(query, values).fetchone()
    return int(found[0] or 0) if found else 0
