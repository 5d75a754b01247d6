"""Convert events to rows of the table, and back."""

from collections.abc import Collection, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec

from service.clock import DAY_MS
from service.errors import InboxUnavailable
from service.events import Event
from service.outcomes import StorageFailure
from service.storage import people
from service.storage.people import Appearance
from service.storage.postgresql.connection import PostgresqlConnection
from service.storage.postgresql.schema import APPENDING, LOCKS, TIMELESS
from service.storage.protocols import Record

NAMES: Final = Event.__struct_fields__  # each is a column; `data` is the last
COLUMNS: Final = ", ".join(NAMES)
_TYPES: Final = {"time": "bigint", "own_time": "bigint", "received_at": "bigint", "test": "boolean"}
_RECORD: Final = ", ".join(f"{name} {_TYPES.get(name, 'text')}" for name in NAMES)
# A time outside this range (a wrong clock, another unit) must not create a partition: such an event has no day.
_FIRST_MS, _LAST_MS = 1_230_768_000_000, 4_102_444_800_000  # 2009, 2100
# The events of a chat history arrive together and span many days: each day would create a partition.
_HISTORY_FIELD: Final = "history"
_NUL: Final = b"\\u0000"

# One statement. It waits for all other commits, so that positions become visible in order, and no reader skips one that
# is committed late. It returns the numbers (from 1) of the duplicates.
APPEND: Final = f"""
    WITH turn AS MATERIALIZED (SELECT pg_advisory_xact_lock({LOCKS}, {APPENDING})),
    given AS MATERIALIZED (
        SELECT g.*, substring(sha256(convert_to(g.id, 'UTF8')) FOR 16) AS digest, decode(g.coded, 'base64') AS data,
            CASE WHEN g.field <> '{_HISTORY_FIELD}' AND g.own_time BETWEEN {_FIRST_MS} AND {_LAST_MS}
                THEN (g.own_time / {DAY_MS})::integer ELSE {TIMELESS} END AS day
        FROM turn, ROWS FROM (json_to_recordset(%s::json) AS ({_RECORD}))
            WITH ORDINALITY AS g ({COLUMNS.removesuffix("data")}coded, number)
    ),
    added AS (
        INSERT INTO whatsapp_webhook.event (day, digest, {COLUMNS})
        SELECT day, digest, {COLUMNS} FROM given ORDER BY number
        ON CONFLICT (digest, day) DO NOTHING RETURNING digest
    ),
    -- A write, so that the commit waits for the standbys: only then may a duplicate be answered.
    waited AS (
        UPDATE whatsapp_webhook.progress SET position = position WHERE name = 'identity'
            AND (SELECT count(*) FROM given) > (SELECT count(*) FROM added)
    )
    SELECT number FROM given WHERE digest NOT IN (SELECT digest FROM added)
"""


# Reads the index `event_person`.
_APPEARANCES: Final = f"""
    SELECT {people.COLUMNS} FROM whatsapp_webhook.event WHERE subject = ANY(%(wanted)s) OR waid = ANY(%(wanted)s)
    UNION SELECT {people.COLUMNS} FROM whatsapp_webhook.event
    WHERE (previoususerid IS NOT NULL OR previouswaid IS NOT NULL)
        AND (previoususerid = ANY(%(wanted)s) OR previouswaid = ANY(%(wanted)s))
"""


def appearances(db: PostgresqlConnection, identifiers: Collection[str]) -> list[Appearance]:
    """Return the events in which one of these numbers or user ids appears."""
    return [Appearance(*row) for row in db.execute(_APPEARANCES, {"wanted": list(identifiers)}).fetchall()]


def day(event: Event) -> int:
    """Return the day, since the epoch, of an event's partition; events with the same id have the same day."""
    if event.field == _HISTORY_FIELD or not _FIRST_MS <= event.own_time <= _LAST_MS:
        return TIMELESS
    return event.own_time // DAY_MS


def date(number: int) -> str:
    """Return a day as in the name of its partition: 20261123."""
    return (datetime.fromtimestamp(0, UTC) + timedelta(days=number)).strftime("%Y%m%d")


def encode(events: Sequence[Event]) -> str:
    """Encode events as the one parameter of `APPEND`.

    PostgreSQL's text can't contain a NUL: in an attribute it becomes U+FFFD. Data is not changed.
    """
    try:
        text = msgspec.json.encode(events)
    except UnicodeEncodeError as ex:
        raise InboxUnavailable(StorageFailure.ERROR, "an event contains an unpaired surrogate", alone=True) from ex
    if _NUL in text:
        clean = [
            msgspec.structs.replace(
                event,
                **{
                    name: value.replace("\0", "\ufffd")
                    for name, value in msgspec.structs.asdict(event).items()
                    if isinstance(value, str)
                },
            )
            for event in events
        ]
        text = msgspec.json.encode(clean)
    return text.decode()


def record(row: tuple[Any, ...]) -> Record:
    """Return the event of a row, which is its position and `COLUMNS`."""
    return Record(row[0], Event(**dict(zip(NAMES, row[1:], strict=True))))
