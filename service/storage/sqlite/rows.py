"""Convert events to rows of the table, and back."""

import hashlib
import json
import zlib
from collections.abc import Callable, Collection, Sequence
from itertools import chain
from operator import attrgetter
from typing import Any, Final, TypeAlias

import apsw

from service.events import Event
from service.storage import people
from service.storage.people import Appearance
from service.storage.protocols import Record

Value: TypeAlias = int | bytes | str | None

NAMES: Final = Event.__struct_fields__  # each is a column; `data` is the last
COLUMNS: Final = ", ".join(NAMES)
ROW: Final = f"({','.join('?' * (2 + len(NAMES)))})"
_values: Final[Callable[[Event], tuple[Value, ...]]] = attrgetter(*NAMES)
SECOND_BYTES: Final = 5
HASH_BITS: Final = 24  # few enough that a hash fits hundreds of phone numbers
ROWS_PER_STATEMENT: Final = 64  # each statement releases the GIL once, however many rows it inserts


def digest(event: Event) -> bytes:
    """Return the value of the unique index for an event: 16 bytes, equal for equal ids.

    The first bytes are the second of the event's own time, so that events that arrive together are close in the index:
    otherwise each event of a commit reads, writes and syncs a separate page. The rest is a hash of the id: an index of
    the long ids themselves costs twice the CPU.
    """
    second = (event.own_time // 1000).to_bytes(SECOND_BYTES, "big")
    return second + hash_id(event.id)


def hash_id(event_id: str) -> bytes:
    """Return the part of the digest that depends only on the id."""
    return hashlib.sha256(event_id.encode()).digest()[: 16 - SECOND_BYTES]


def row(digest: bytes, event: Event) -> tuple[Value, ...]:
    """Return an event as a row."""
    return digest, people_of(event), *_values(event)


def record(row: tuple[Any, ...]) -> Record:
    """Return the event of a row, which is its position and `COLUMNS`."""
    attributes = dict(zip(NAMES, row[1:], strict=True))
    return Record(row[0], Event(**{**attributes, "test": bool(attributes["test"])}))


def people_of(event: Event) -> int | None:
    """Return short hashes of an event's identifiers, for the index: of the subject, of the number, and of old ones.

    The subject is the user id, if there is one. With old identifiers, the hash has its own bit and no value, since such
    events are rare.
    """
    if not event.subject:
        return None
    has_old = bool(event.previoususerid or event.previouswaid)
    return has_old << 2 * HASH_BITS | _hash(event.subject) << HASH_BITS | (_hash(event.waid) if event.waid else 0)


def _hash(identifier: str) -> int:
    return zlib.crc32(identifier.encode()) % (1 << HASH_BITS)


def appearances(db: apsw.Connection, identifiers: Collection[str]) -> list[Appearance]:
    """Return the events in which one of these numbers or user ids appears; reads the index `event_people`."""
    query = f"""WITH hash AS MATERIALIZED (SELECT value FROM json_each(?)),
                wanted AS MATERIALIZED (SELECT value FROM json_each(?))
                SELECT {people.COLUMNS} FROM event WHERE position IN (
                  SELECT position FROM event INDEXED BY event_people WHERE people >> {HASH_BITS} IN hash
                    OR people & {(1 << HASH_BITS) - 1} IN hash OR people >> {2 * HASH_BITS} = 1)
                  AND (subject IN wanted OR waid IN wanted OR previoususerid IN wanted OR previouswaid IN wanted)"""  # noqa: S608  no value is in the text
    values = json.dumps([_hash(each) for each in identifiers]), json.dumps(list(identifiers))
    return [Appearance(*row) for row in db.execute(query, values)]


def insert(db: apsw.Connection, rows: Sequence[tuple[Value, ...]]) -> None:
    """Insert at most `ROWS_PER_STATEMENT` rows in one statement; raises apsw.ConstraintError if one is a duplicate."""
    placeholders = ",".join([ROW] * len(rows))
    statement = f"INSERT INTO event (digest, people, {COLUMNS}) VALUES {placeholders}"  # noqa: S608  no value is in the text
    db.execute(statement, tuple(chain.from_iterable(rows)))
