"""Erased data is in no file any more: neither in the database nor in its WAL."""

from collections.abc import Sequence
from contextlib import ExitStack, closing
from pathlib import Path

import apsw
import msgspec
import pytest

from service.events import Event
from service.storage.protocols import Terms
from service.storage.sqlite import SqliteErasure, SqliteInbox
from tests.support.events import HOUR, event

PERSON = "16505559999"
TEXT = "a-text-that-nobody-else-wrote"
ORDERS = ("first", "last", "interleaved", "alone")
SIZES = (1, 2, 3, 8, 20, 60, 120, 300)


def of_person(number: int, size: int) -> Event:
    data = f'{{"from":"{PERSON}","text":"{TEXT}{"x" * size}"}}'.encode()
    return msgspec.structs.replace(
        event(number), id=f"106:wamid.{PERSON}.{number}:0", subject=PERSON, partitionkey=f"106:{PERSON}", data=data
    )


def of_others(number: int, size: int) -> Event:
    return event(number, data=b'{"text":"' + b"y" * size + b'"}')


def arranged(order: str, count: int, size: int) -> Sequence[Event]:
    theirs = [of_person(number, size) for number in range(count)]
    others = [of_others(1000 + number, size) for number in range(2 * count + 5)]
    if order == "alone":
        return theirs
    if order == "interleaved":
        return [each for number, other in enumerate(others) for each in (other, *theirs[number : number + 1])]
    return [*theirs, *others] if order == "first" else [*others, *theirs]


def found(directory: Path) -> set[str]:
    """Return the files that still contain the person's data."""
    words = (PERSON.encode(), TEXT.encode())
    return {file.name for file in directory.iterdir() if any(word in file.read_bytes() for word in words)}


@pytest.mark.parametrize("running", [True, False], ids=["running", "stopped"])
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("count", SIZES)
def test_an_erased_person_is_in_no_file(count: int, order: str, running: bool, tmp_path: Path) -> None:  # noqa: FBT001
    """For any number, order and size of events, and any number of events per put."""
    for batch, size in ((1, 300), (50, 30), (7, 6000)):
        directory = tmp_path / f"{batch}-{size}"
        directory.mkdir()
        path = directory / "inbox.db"
        with ExitStack() as stack:
            inbox = stack.enter_context(closing(SqliteInbox(path, Terms(HOUR, HOUR))))
            events = arranged(order, count, size)
            for start in range(0, len(events), batch):
                inbox.put(events[start : start + batch])
            assert found(directory)
            if not running:
                stack.close()
            with SqliteErasure(path) as erasure:
                positions = [each.position for each in erasure.appearances([PERSON])]
                assert len(positions) == count
                assert erasure.erase(positions)
            assert found(directory) == set()
            if running:
                inbox.put([of_others(9999, size)])
        with closing(SqliteInbox(path, Terms(HOUR, HOUR))) as inbox:
            assert found(directory) == set()
            assert inbox.put([of_person(0, size)]) == ["duplicate"]


def test_a_reader_that_prevents_the_erasure_is_reported(tmp_path: Path) -> None:
    """While a reader is active, the WAL still contains the text and `erase` returns False; a retry then succeeds."""
    path = tmp_path / "inbox.db"
    with closing(SqliteInbox(path, Terms(HOUR, HOUR))) as inbox, closing(apsw.Connection(str(path))) as reader:
        inbox.put(arranged("first", 5, 300))
        reader.execute("BEGIN; SELECT count(*) FROM event").fetchall()
        with SqliteErasure(path, lock_timeout_ms=200) as erasure:
            positions = [each.position for each in erasure.appearances([PERSON])]
            assert not erasure.erase(positions)
            reader.execute("ROLLBACK")
            assert erasure.erase(positions)
        assert found(tmp_path) == set()
