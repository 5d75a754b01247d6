"""The relay's state in SQLite: the file itself."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import apsw
import pytest

from service.errors import InboxUnavailable
from service.outcomes import StorageFailure
from service.storage.deliveries import Delivery
from service.storage.delivery_policy import DELIVERY_POLICY
from service.storage.sqlite.delivery_admin import low_watermark
from service.storage.sqlite.delivery_database import OLDER_APPLICATION_ID, SqliteDeliveryDatabase
from tests.contract.test_deliveries import NOW, SqliteState, next_due, owe, settle, take, taken


def opened(path: Path) -> SqliteState:
    return SqliteState(SqliteDeliveryDatabase(path))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "relay.db"


@pytest.fixture
def state(path: Path) -> Iterator[SqliteState]:
    made = opened(path)
    made.join({"bot": 0}, now=NOW)
    yield made
    made.close()


def test_a_file_that_vanishes_is_noticed(state: SqliteState, path: Path) -> None:
    """What is written to it would be gone with the process."""
    state.require_file()
    path.rename(path.with_name("other"))
    with pytest.raises(InboxUnavailable, match="moved or deleted"):
        state.require_file()
    path.touch()
    with pytest.raises(InboxUnavailable, match="moved or deleted"):
        state.require_file()


def test_a_file_from_before_the_first_release(path: Path) -> None:
    """Is refused with what to do, and stays as it was, byte for byte."""
    with closing(apsw.Connection(str(path))) as db:
        db.execute("CREATE TABLE owed (position)").fetchall()
        db.pragma("application_id", OLDER_APPLICATION_ID)
    before = path.read_bytes()
    for open_it in (SqliteDeliveryDatabase, lambda path: low_watermark(path, now=NOW, policy=DELIVERY_POLICY)):
        with pytest.raises(InboxUnavailable, match="before the first release: move it away") as refused:
            open_it(path)
        assert refused.value.reason is StorageFailure.OLDER
    assert path.read_bytes() == before


def test_nobody_else_reads_the_file(state: SqliteState, path: Path) -> None:
    """Numbers of people are in it."""
    owe(state, "16505551234")
    assert {file.stat().st_mode & 0o777 for file in path.parent.glob("relay.db*")} == {0o600}


@pytest.mark.parametrize(("pragma", "value", "said"), [("application_id", 7, "another"), ("user_version", 99, "later")])
def test_a_file_that_is_not_ours_is_refused(path: Path, pragma: str, value: int, said: str) -> None:
    """It is not written."""
    if pragma == "user_version":
        SqliteDeliveryDatabase(path).close()
    db = apsw.Connection(str(path))
    db.pragma(pragma, value)
    db.close()
    with pytest.raises(InboxUnavailable, match=said):
        SqliteDeliveryDatabase(path)


def test_a_failure_leaves_nothing_half_done(state: SqliteState) -> None:
    """What can't be written is not written in part, and the next one can be."""
    with pytest.raises(InboxUnavailable, match="can't be used"):
        state.plan("bot", 0, 2, [Delivery(1, "a", NOW), Delivery(1, "b", NOW)], now=NOW)
    assert state.positions() == {"bot": 0}
    owe(state, "a")


def test_claims_stay_flat(tmp_path: Path) -> None:
    """A claim reads as little of a hundred thousand owed as of a hundred: by the steps of SQLite's machine."""
    steps = []
    for number in (100, 100_000):
        state = opened(tmp_path / f"{number}.db")
        state.join({"bot": 0}, now=NOW)
        for start in range(0, number, 10_000):
            owe(state, *(f"queue {index}" for index in range(start, min(start + 10_000, number))), since=start)
        counted = [0]

        def count(counted: list[int] = counted) -> bool:
            counted[0] += 1
            return False

        state._store._db.set_progress_handler(count, 1)
        assert next_due(state)
        assert settle(state, taken(state, NOW * 2))
        steps.append(counted[0])
        state.close()
    assert steps[1] < steps[0] * 1.5


def test_what_is_needed_of_a_file_that_is_none(path: Path) -> None:
    """Without a file nothing is; of one that can't be read, nobody knows."""
    assert low_watermark(path.with_name("none.db"), now=NOW, policy=DELIVERY_POLICY) is None
    path.with_name("none.db").write_bytes(b"no database" * 1000)
    with pytest.raises(InboxUnavailable):
        low_watermark(path.with_name("none.db"), now=NOW, policy=DELIVERY_POLICY)


def test_a_log_that_was_set_back(state: SqliteState) -> None:
    """What it no longer has is not owed, and what it will have at the same positions is read."""
    state.adopt(7, 0)
    owe(state, "a", "b", "c")
    assert state.adopt(7, 2) == 1
    assert state.positions() == {"bot": 2}
    assert [claim.position for claim in take(state, most=9)] == [1, 2]
