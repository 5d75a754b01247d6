"""Events as rows of the table."""

import hashlib
from collections.abc import Sequence
from itertools import chain
from typing import Any, Final, TypeAlias

import apsw

from service.events import Event
from service.inbox.base import Record

Value: TypeAlias = int | bytes | str | None

COLUMNS: Final = "id, type, source, subject, partitionkey, time, received_at, field, test, traceparent, data"
ROW: Final = f"({','.join('?' * 12)})"
ROWS_AT_ONCE: Final = 64  # rows of one statement: each statement gives up the interpreter once, whatever its rows


def digest(event_id: str) -> bytes:
    """Give what the unique index holds for an id."""
    # The unique index is over 16 bytes of a hash: over the long ids themselves it costs twice the CPU.
    return hashlib.sha256(event_id.encode()).digest()[:16]


def row(digest: bytes, event: Event) -> tuple[Value, ...]:
    """Write an event as a row."""
    return (
        digest,
        event.id,
        event.type,
        event.source,
        event.subject,
        event.partitionkey,
        event.time,
        event.received_at,
        event.field,
        event.test,
        event.traceparent,
        event.data,
    )


def record(found: tuple[Any, ...]) -> Record:
    """Read an event back from its position and `COLUMNS`."""
    names = COLUMNS.split(", ")
    attributes = dict(zip(names, found[1:], strict=True))
    return Record(found[0], Event(**{**attributes, "test": bool(attributes["test"])}))


def insert(db: apsw.Connection, rows: Sequence[tuple[Value, ...]]) -> None:
    """Insert at most `ROWS_AT_ONCE` rows in one statement; apsw.ConstraintError where an id is there already."""
    places = ",".join([ROW] * len(rows))
    statement = f"INSERT INTO event (digest, {COLUMNS}) VALUES {places}"  # noqa: S608  no value is in the text
    db.execute(statement, tuple(chain.from_iterable(rows)))
