"""Events as rows of the table, and back."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec

from service.clock import DAY_MS
from service.errors import InboxUnavailable
from service.events import Event
from service.outcomes import StorageFailure
from service.storage.postgresql.schema import APPENDING, LOCKS, TIMELESS
from service.storage.protocols import Record

COLUMNS: Final = "id, type, source, subject, partitionkey, time, own_time, received_at, field, test, traceparent, data"
# What lies outside has no day of its own: somebody's clock, or another unit, must not make a partition.
_FIRST, _LAST = 1_230_768_000_000, 4_102_444_800_000  # 2009, 2100
# A history comes at once and is of all days: with a day of its own each, it would make a partition for each.
_BACKWARD: Final = "history"
_NUL: Final = b"\\u0000"

# One statement: who else appends is waited for, so that positions become visible in their order and no reader passes
# one that commits late. It gives the numbers of those that were there already.
APPEND: Final = f"""
    WITH turn AS MATERIALIZED (SELECT pg_advisory_xact_lock({LOCKS}, {APPENDING})),
    given AS MATERIALIZED (
        SELECT g.*, substring(sha256(convert_to(g.id, 'UTF8')) FOR 16) AS digest, decode(g.coded, 'base64') AS data,
            CASE WHEN g.field <> '{_BACKWARD}' AND g.own_time BETWEEN {_FIRST} AND {_LAST}
                THEN (g.own_time / {DAY_MS})::integer ELSE {TIMELESS} END AS day
        FROM turn, ROWS FROM (json_to_recordset(%s::json) AS (
            id text, type text, source text, subject text, partitionkey text, time bigint, own_time bigint,
            received_at bigint, field text, test boolean, traceparent text, data text
        )) WITH ORDINALITY AS g (
            id, type, source, subject, partitionkey, time, own_time, received_at, field, test, traceparent, coded,
            number
        )
    ),
    added AS (
        INSERT INTO whatsapp_webhook.event (day, digest, {COLUMNS})
        SELECT day, digest, {COLUMNS} FROM given ORDER BY number
        ON CONFLICT (digest, day) DO NOTHING RETURNING digest
    ),
    -- A repeat is told only once what it repeats is where it must be: a commit that wrote nothing waits for no standby.
    waited AS (
        UPDATE whatsapp_webhook.progress SET position = position WHERE name = 'identity'
            AND (SELECT count(*) FROM given) > (SELECT count(*) FROM added)
    )
    SELECT number FROM given WHERE digest NOT IN (SELECT digest FROM added)
"""


def day(event: Event) -> int:
    """Give the day, since the epoch, of the partition that an event belongs to: the same whenever its id is."""
    if event.field == _BACKWARD or not _FIRST <= event.own_time <= _LAST:
        return TIMELESS
    return event.own_time // DAY_MS


def date(number: int) -> str:
    """Write a day as partitions are called: 20261123."""
    return (datetime.fromtimestamp(0, UTC) + timedelta(days=number)).strftime("%Y%m%d")


def encoded(events: Sequence[Event]) -> str:
    """Write events as the one parameter of `APPEND`.

    PostgreSQL's text can't hold a NUL: in an attribute it becomes U+FFFD. Data is kept as it is.
    """
    try:
        text = msgspec.json.encode(events)
    except UnicodeEncodeError as ex:
        raise InboxUnavailable(StorageFailure.ERROR, "an event holds half a character", alone=True) from ex
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


def record(found: tuple[Any, ...]) -> Record:
    """Read an event back from its position and `COLUMNS`."""
    return Record(found[0], Event(**dict(zip(COLUMNS.split(", "), found[1:], strict=True))))
