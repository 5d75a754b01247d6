"""The relay's state in SQLite beyond the contract: the file."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import apsw
import pytest

from service.errors import InboxUnavailable
from service.outcomes import StorageFailure
from service.storage.deliveries import Delivery
from service.storage.delivery_policy import DELIVERY_POLICY
from service.storage.protocols import Record
from service.storage.sqlite.delivery_admin import low_watermark
from service.storage.sqlite.delivery_database import (
    DELIVERIES_APPLICATION_ID,
    DELIVERIES_MIGRATIONS,
    PRE_RELEASE_APPLICATION_ID,
    SqliteDeliveryDatabase,
)
from service.storage.timelines import Timeline
from tests.contract.test_deliveries import (
    BAD,
    EXPIRED,
    NOW,
    SqliteState,
    claim_one,
    claim_some,
    next_due,
    plan_deliveries,
    settle,
)
from tests.support.events import event


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
    """Data written to it would be lost when the process exits."""
    state.require_file()
    path.rename(path.with_name("other"))
    with pytest.raises(InboxUnavailable, match="moved or deleted"):
        state.require_file()
    path.touch()
    with pytest.raises(InboxUnavailable, match="moved or deleted"):
        state.require_file()


def test_a_pre_release_file_is_rejected(path: Path) -> None:
    """The error has a remedy, and the file is not changed by a byte."""
    with closing(apsw.Connection(str(path))) as db:
        db.execute("CREATE TABLE old (position)").fetchall()
        db.pragma("application_id", PRE_RELEASE_APPLICATION_ID)
    before = path.read_bytes()
    for open_it in (SqliteDeliveryDatabase, lambda path: low_watermark(path, now=NOW, policy=DELIVERY_POLICY)):
        with pytest.raises(InboxUnavailable, match="before the first release: move it away") as raised:
            open_it(path)
        assert raised.value.reason is StorageFailure.OLDER
    assert path.read_bytes() == before


def test_only_the_owner_can_read_the_file(state: SqliteState, path: Path) -> None:
    """It contains phone numbers."""
    plan_deliveries(state, "16505551234")
    assert {file.stat().st_mode & 0o777 for file in path.parent.glob("relay.db*")} == {0o600}


@pytest.mark.parametrize(
    ("pragma", "value", "message"), [("application_id", 7, "another"), ("user_version", 99, "later")]
)
def test_a_file_of_another_program_or_version_is_rejected(path: Path, pragma: str, value: int, message: str) -> None:
    """The application id and the version are checked."""
    if pragma == "user_version":
        SqliteDeliveryDatabase(path).close()
    db = apsw.Connection(str(path))
    db.pragma(pragma, value)
    db.close()
    with pytest.raises(InboxUnavailable, match=message):
        SqliteDeliveryDatabase(path)


def test_a_failed_transaction_is_rolled_back(state: SqliteState) -> None:
    """No part of it is stored, and the next one succeeds."""
    with pytest.raises(InboxUnavailable, match="can't be used"):
        state.plan("bot", 0, 2, [Delivery(1, "a", NOW), Delivery(1, "b", NOW)], now=NOW)
    assert state.positions() == {"bot": 0}
    plan_deliveries(state, "a")


def test_a_claim_costs_the_same_for_any_backlog(tmp_path: Path) -> None:
    """A claim takes as many SQLite VM steps with a hundred thousand pending deliveries as with a hundred."""
    steps = []
    for number in (100, 100_000):
        state = opened(tmp_path / f"{number}.db")
        state.join({"bot": 0}, now=NOW)
        for start in range(0, number, 10_000):
            plan_deliveries(
                state, *(f"queue {index}" for index in range(start, min(start + 10_000, number))), since=start
            )
        counted = [0]

        def count(counted: list[int] = counted) -> bool:
            counted[0] += 1
            return False

        state._store._db.set_progress_handler(count, 1)
        assert next_due(state)
        assert settle(state, claim_one(state, NOW * 2))
        steps.append(counted[0])
        state.close()
    assert steps[1] < steps[0] * 1.5


def test_the_low_watermark_of_a_missing_and_of_an_unreadable_file(path: Path) -> None:
    """Without a file no event is needed; an unreadable file is an error."""
    assert low_watermark(path.with_name("none.db"), now=NOW, policy=DELIVERY_POLICY) is None
    path.with_name("none.db").write_bytes(b"no database" * 1000)
    with pytest.raises(InboxUnavailable):
        low_watermark(path.with_name("none.db"), now=NOW, policy=DELIVERY_POLICY)


def test_a_log_with_other_events_at_the_same_positions(state: SqliteState) -> None:
    """Deliveries, dead letters, attempts and saved events of the others are dropped, and the new events planned."""
    state.adopt([Timeline(7, 0), Timeline(1, 0)])
    plan_deliveries(state, "a", "b", "c", "d")
    assert settle(state, claim_one(state), BAD, EXPIRED)
    (claim,) = claim_some(state)
    assert settle(state, claim, BAD, EXPIRED)
    state.save([1, 2], [Record(1, event(1)), Record(2, event(2))], now=NOW, max_bytes=1000)
    assert state.adopt([Timeline(7, 0), Timeline(1, 0), Timeline(2, 1)]) == 3
    assert state.positions() == {"bot": 1}
    assert state.statuses()[0].backlog == 0
    assert [each.position for each in state.dead_letters(limit=9)] == [1]
    assert set(state.saved([1, 2])) == {1}
    assert state.history(2) == []


def test_an_attempt_that_runs_while_the_log_is_replaced(state: SqliteState) -> None:
    """Its result does not count for the event that has its position now."""
    state.adopt([Timeline(7, 0), Timeline(1, 0)])
    plan_deliveries(state, "a", "a")
    running = claim_one(state)
    assert settle(state, running)
    running = claim_one(state)
    state.replay("bot", [Delivery(1, "a", NOW)], now=NOW)
    assert state.adopt([Timeline(7, 0), Timeline(1, 0), Timeline(2, 1)]) == 1
    plan_deliveries(state, "a", since=1)
    assert not settle(state, running)
    assert [each.position for each in state.pending("bot", after=0, limit=9, now=NOW)] == [1, 2]


def test_a_file_of_a_version_without_timelines_is_migrated(path: Path) -> None:
    """It still belongs to the same log, so its deliveries stay."""
    with closing(apsw.Connection(str(path))) as db:
        for step in DELIVERIES_MIGRATIONS[:3]:
            db.execute(step.statements).fetchall()
        db.execute("INSERT INTO origin VALUES (7)").fetchall()
        db.execute("INSERT INTO destination (name, position) VALUES ('bot', 5)").fetchall()
        db.pragma("user_version", 3)
        db.pragma("application_id", DELIVERIES_APPLICATION_ID)
    with closing(opened(path)) as state:
        state.adopt([Timeline(7, 0), Timeline(1, 3)])
        assert state.positions() == {"bot": 5}, "the earlier version may have read more than it knows timelines"
