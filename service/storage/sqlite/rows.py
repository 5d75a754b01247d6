"""Events as rows of the table."""

import hashlib
from collections.abc import Sequence
from itertools import chain
from typing import Any, Final, TypeAlias

import apsw

from service.events import Event
from service.storage.protocols import Record

Value: TypeAlias = int | bytes | str | None

COLUMNS: Final = "id, type, source, subject, partitionkey, time, own_time, received_at, field, test, traceparent, data"
ROW: Final = f"({','.join('?' * 13)})"
SECOND_BYTES: Final = 5
ROWS_AT_ONCE: Final = 64  # rows of one statement: each statement gives up the interpreter once, whatever its rows


def digest(event: Event) -> bytes:
    """Give what the unique index holds for an event: 16 bytes that are the same whenever its id is.

    They begin with the event's own second, so that what comes together stands together: each of a commit's events
    else has a page of its own to be read, written and synced. The rest is of a hash: the long ids themselves cost
    twice the CPU.
    """
    second = (event.own_time // 1000).to_bytes(SECOND_BYTES, "big")
    return second + hashed(event.id)


def hashed(event_id: str) -> bytes:
    """Give the part of the digest that the id alone says."""
    return hashlib.sha256(event_id.encode()).digest()[: 16 - SECOND_BYTES]


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
        event.own_time,
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
