"""The relay's memory: what is owed, who has it, and what a try comes to. A clock that moves; nobody waits."""

from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest

from service.errors import InboxUnavailable
from service.relay.sqlite import SqliteState
from service.relay.state import Claim, Owed, Try, Verdict

NOW = 1_795_000_000_000
LEASE = 60_000
OK = Try(NOW, 0.1, 200, "delivered")
BAD = Try(NOW, 0.1, 500, "5xx")


@pytest.fixture
def state(tmp_path: Path) -> Iterator[SqliteState]:
    made = SqliteState(tmp_path / "relay.db")
    made.join("bot", 0)
    yield made
    made.close()


def owe(state: SqliteState, *lanes: str, since: int = 0, name: str = "bot") -> None:
    owed = [Owed(since + number, lane, NOW + number) for number, lane in enumerate(lanes, start=1)]
    assert state.plan(name, since, since + len(lanes), owed)


def take(state: SqliteState, now: int = NOW + 1000, name: str = "bot") -> Claim | None:
    return state.take(name, now=now, lease=LEASE)


def taken(state: SqliteState, now: int = NOW + 1000) -> Claim:
    claim = take(state, now)
    assert claim is not None
    return claim


def test_a_lane_goes_in_order(state: SqliteState) -> None:
    """Its next event is to be had once the one before is delivered, not sooner."""
    owe(state, "a", "a", "a")
    for position in (1, 2, 3):
        claim = taken(state)
        assert (claim.position, claim.tries, claim.replay) == (position, 0, False)
        assert take(state) is None
        assert state.settle(claim, OK, Verdict.DELIVERED)
    assert take(state) is None
    assert state.next_due("bot") is None


def test_lanes_go_side_by_side_the_longest_waiting_first(state: SqliteState) -> None:
    """A lane that waits for another try keeps nobody else waiting."""
    owe(state, "a", "b", "a", "c")
    first, second = taken(state), taken(state)
    assert (first.lane, second.lane) == ("a", "b")
    assert state.settle(first, BAD, Verdict.AGAIN, due=NOW + 90_000)
    assert state.settle(second, OK, Verdict.DELIVERED)
    third = taken(state)
    assert third.lane == "c"
    assert take(state) is None
    assert state.settle(third, OK, Verdict.DELIVERED)
    again = taken(state, NOW + 90_000)
    assert (again.lane, again.position, again.tries, again.first_tried) == ("a", 1, 1, NOW)


def test_what_is_given_up_lets_the_next_one_go(state: SqliteState) -> None:
    """And is a dead letter, with the reason and the number of tries."""
    owe(state, "a", "a")
    assert state.settle(taken(state), BAD, Verdict.AGAIN, due=NOW)
    assert state.settle(taken(state), BAD, Verdict.DEAD, reason="expired")
    (dead,) = state.dead()
    assert (dead.destination, dead.position, dead.reason, dead.tries) == ("bot", 1, "expired", 2)
    claim = taken(state)
    assert (claim.position, claim.tries, claim.first_tried) == (2, 0, 0)


def test_a_claim_that_ran_out_can_settle_nothing(state: SqliteState) -> None:
    """A relay that woke up late must not settle what another one now holds."""
    owe(state, "a", "a")
    stale = taken(state)
    assert take(state, NOW + 1000 + LEASE - 1) is None
    fresh = taken(state, NOW + 1000 + LEASE)
    assert fresh.position == stale.position
    assert not state.settle(stale, OK, Verdict.DELIVERED)
    assert state.tries(1) == []
    assert state.settle(fresh, OK, Verdict.DELIVERED)
    assert not state.settle(fresh, OK, Verdict.DELIVERED)
    assert taken(state).position == 2


def test_two_relays_never_hold_the_same(state: SqliteState, tmp_path: Path) -> None:
    """Nor plan the same part of the log twice."""
    other = SqliteState(tmp_path / "relay.db")
    owe(state, "a", "b")
    assert not other.plan("bot", 0, 2, [Owed(1, "a", NOW), Owed(2, "b", NOW)])
    lanes = {taken(state).lane, taken(other).lane}
    assert lanes == {"a", "b"}
    assert take(state) is take(other) is None
    other.close()


def test_a_position_is_read_once(state: SqliteState) -> None:
    """Also where nothing was owed from it; a destination that is known keeps its position."""
    assert state.plan("bot", 0, 10, [])
    assert not state.plan("bot", 0, 20, [Owed(11, "a", NOW)])
    state.join("bot", 99)
    assert state.positions() == [("bot", 10)]
    assert take(state) is None


def test_destinations_do_not_know_each_other(state: SqliteState) -> None:
    """Each has its own positions, lanes and dead letters."""
    state.join("other", 0)
    owe(state, "a")
    owe(state, "a", name="other")
    mine, theirs = taken(state), take(state, name="other")
    assert theirs is not None
    assert state.settle(mine, BAD, Verdict.DEAD, reason="expired")
    assert state.settle(theirs, OK, Verdict.DELIVERED)
    standing = {each.name: (each.owed, each.dead, each.position) for each in state.standings()}
    assert standing == {"bot": (0, 1, 1), "other": (0, 0, 1)}


def test_a_disabled_destination_gets_nothing(state: SqliteState) -> None:
    """Until it is enabled; what is owed stays owed."""
    owe(state, "a")
    assert state.disable("bot", "answered 410")
    assert take(state) is None
    assert state.next_due("bot") is None
    assert state.positions() == []
    assert state.needed() is None
    (standing,) = state.standings()
    assert (standing.disabled, standing.owed, standing.oldest) == ("answered 410", 1, NOW + 1)
    assert state.disable("bot", None)
    assert taken(state).position == 1
    assert not state.disable("nobody", "x")


def test_the_story_of_an_event(state: SqliteState) -> None:
    """Every try, in order, with when, how long, what status, and a word."""
    owe(state, "a")
    assert state.settle(taken(state), BAD, Verdict.AGAIN, due=NOW)
    assert state.settle(taken(state), OK, Verdict.DELIVERED)
    assert state.tries(1) == [("bot", BAD), ("bot", OK)]
    state.forget(NOW + 1)
    assert state.tries(1) == []


def test_a_replay_is_marked_and_owed_once(state: SqliteState) -> None:
    """Of what was delivered or is dead; what is owed already is not owed twice."""
    owe(state, "a", "a")
    assert state.settle(taken(state), BAD, Verdict.DEAD, reason="expired")
    events = [Owed(1, "a", NOW + 1), Owed(2, "a", NOW + 2)]
    assert state.replay("bot", events, now=NOW) == 1
    assert state.dead() == []
    claim = taken(state)
    assert (claim.position, claim.replay) == (1, True)
    assert state.settle(claim, OK, Verdict.DELIVERED)
    claim = taken(state)
    assert (claim.position, claim.replay) == (2, False)
    (standing,) = state.standings()
    assert standing.owed == 1


def test_what_is_still_needed(state: SqliteState) -> None:
    """The oldest event that is owed, else the first that was not read yet."""
    assert state.needed() == 1
    owe(state, "a", "b")
    assert state.needed() == 1
    assert state.settle(taken(state), OK, Verdict.DELIVERED)
    assert state.needed() == 2
    assert state.settle(taken(state), OK, Verdict.DELIVERED)
    assert state.needed() == 3


def test_everything_stays(tmp_path: Path) -> None:
    """The schedule is in the file: another process goes on with it."""
    first = SqliteState(tmp_path / "relay.db")
    first.join("bot", 0)
    owe(first, "a")
    assert first.settle(taken(first), BAD, Verdict.AGAIN, due=NOW + 5000)
    first.close()
    second = SqliteState(tmp_path / "relay.db")
    assert second.next_due("bot") == NOW + 5000
    assert taken(second, NOW + 5000).tries == 1
    second.close()


def test_another_programs_file_is_refused(tmp_path: Path) -> None:
    """It is not written."""
    db = apsw.Connection(str(tmp_path / "relay.db"))
    db.pragma("application_id", 7)
    db.close()
    with pytest.raises(InboxUnavailable, match="another program's"):
        SqliteState(tmp_path / "relay.db")


def test_claims_stay_flat(tmp_path: Path) -> None:
    """A claim reads as little of a hundred thousand owed as of a hundred: by the steps of SQLite's machine."""
    steps = []
    for number in (100, 100_000):
        state = SqliteState(tmp_path / f"{number}.db")
        state.join("bot", 0)
        for start in range(0, number, 10_000):
            owe(state, *(f"lane {index}" for index in range(start, min(start + 10_000, number))), since=start)
        counted = [0]

        def count(counted: list[int] = counted) -> bool:
            counted[0] += 1
            return False

        state._db.set_progress_handler(count, 1)
        assert state.settle(taken(state, NOW * 2), OK, Verdict.DELIVERED)
        steps.append(counted[0])
        state.close()
    assert steps[1] < steps[0] * 1.5
