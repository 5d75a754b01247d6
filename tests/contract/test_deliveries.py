"""The relay's memory: what is owed, who has it, and what a try comes to. A clock that moves; nobody waits.

Run once for each store.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import msgspec
import pytest

from service.config import InboxUrl, inbox_url
from service.storage import engines
from service.storage.deliveries import (
    Attempt,
    Claim,
    Delivery,
    DeliveryAdmin,
    DeliveryHistory,
    QueueKind,
    Ruling,
    Settlement,
    Verdict,
)
from service.storage.deliveries import DeliveryState as Work
from service.storage.delivery_policy import DELIVERY_POLICY, DeliveryPolicy
from service.storage.postgresql import PostgresqlDeliveries
from service.storage.postgresql import delivery_database as postgresql_database
from service.storage.postgresql.delivery_admin import PostgresqlDeliveryAdmin
from service.storage.protocols import Record
from service.storage.sqlite import delivery_database as sqlite_database
from service.storage.sqlite.delivery_admin import SqliteDeliveryAdmin
from service.storage.sqlite.delivery_queue import SqliteDeliveries
from tests.support.engines import Servers
from tests.support.events import event

NOW = 1_795_000_000_000
LEASE = 60_000
DAY = 86_400_000
OK = Attempt(NOW, 0.1, 200, "delivered")
BAD = Attempt(NOW + 1, 0.1, 500, "5xx")
DELIVERED = Ruling(Verdict.DELIVERED)
EXPIRED = Ruling(Verdict.DEAD_LETTER, reason="expired")


class State(Work, DeliveryAdmin, Protocol):
    """Both halves."""

    def close(self) -> None: ...


class SqliteState(SqliteDeliveries, SqliteDeliveryAdmin):
    """In a file."""

    def close(self) -> None:
        self._store.close()


class PostgresqlState(PostgresqlDeliveries, PostgresqlDeliveryAdmin):
    """In tables."""

    def close(self) -> None:
        self._store.close()


def opened(url: InboxUrl) -> State:
    if url.engine == "postgresql":
        return PostgresqlState(postgresql_database.PostgresqlDeliveryDatabase(url))
    return SqliteState(sqlite_database.SqliteDeliveryDatabase(url.path))


def needed(url: InboxUrl, *, now: int) -> int | None:
    return engines.deliveries(url).low_watermark(url, now, DELIVERY_POLICY)


STORES: dict[str, Callable[[Path, Servers], str]] = {
    "sqlite": lambda directory, _: f"sqlite://{directory}/relay.db",
    "postgresql": lambda _, servers: servers.postgresql().new_database(),
}


@pytest.fixture(params=[pytest.param(name, marks=pytest.mark.needs(name)) for name in STORES])
def url(request: pytest.FixtureRequest, tmp_path: Path, servers: Servers) -> InboxUrl:
    return inbox_url(STORES[request.param](tmp_path, servers))


@pytest.fixture
def state(url: InboxUrl) -> Iterator[State]:
    made = opened(url)
    made.join({"bot": 0}, now=NOW)
    yield made
    made.close()


def owe(state: State, *queues: str, since: int = 0, name: str = "bot") -> None:
    owed = [Delivery(since + number, queue, NOW + number) for number, queue in enumerate(queues, start=1)]
    assert state.plan(name, since, since + len(queues), owed, now=NOW)


def take(state: State, now: int = NOW + 1000, name: str = "bot", most: int = 1) -> list[Claim]:
    """Take what waited longest, of either kind."""
    claims: list[Claim] = []
    while len(claims) < most:
        dues = {queues: state.next_due(name, queues) or NOW * 9 for queues in (QueueKind.HEALTHY, QueueKind.FAILED)}
        found = state.claim(name, 1, min(dues, key=lambda queues: dues[queues]), now=now, lease=LEASE)
        if not found:
            break
        claims += found
    return sorted(claims)


def next_due(state: State, name: str = "bot") -> int | None:
    dues = [due for queues in QueueKind if (due := state.next_due(name, queues)) is not None]
    return min(dues, default=None)


def taken(state: State, now: int = NOW + 1000, name: str = "bot") -> Claim:
    (claim,) = take(state, now, name)
    return claim


def settle(state: State, claim: Claim, attempt: Attempt = OK, ruling: Ruling = DELIVERED) -> bool:
    late = state.settle([Settlement(claim, attempt, ruling)])
    assert list(late) in ([], [claim])
    return not late


def later(due: int) -> Ruling:
    return Ruling(Verdict.RETRY, due)


def test_a_lane_goes_in_order(state: State) -> None:
    """Its next event is to be had once the one before is delivered, not sooner."""
    owe(state, "a", "a", "a")
    for position in (1, 2, 3):
        claim = taken(state)
        assert (claim.position, claim.attempts, claim.replay) == (position, 0, False)
        assert take(state) == []
        assert settle(state, claim)
    assert take(state) == []
    assert next_due(state) is None


def test_lanes_go_side_by_side_the_longest_waiting_first(state: State) -> None:
    """A queue that waits for another try keeps nobody else waiting."""
    owe(state, "a", "b", "a", "c")
    first, second = taken(state), taken(state)
    assert (first.queue, second.queue) == ("a", "b")
    assert settle(state, first, BAD, later(NOW + 90_000))
    assert settle(state, second)
    third = taken(state)
    assert third.queue == "c"
    assert take(state) == []
    assert settle(state, third)
    again = taken(state, NOW + 90_000)
    assert (again.queue, again.position, again.attempts, again.first_attempt_at) == ("a", 1, 1, BAD.at)


def test_what_comes_next_in_a_lane_waits_its_turn(state: State) -> None:
    """Behind the queues that waited while the one before was tried, and with a history of its own."""
    owe(state, "a", "b", "a")
    assert settle(state, taken(state), BAD, later(NOW - 1))
    assert settle(state, taken(state), OK._replace(at=NOW + 500))
    assert [taken(state).queue for _ in range(2)] == ["b", "a"]
    again = taken(state, NOW + 1000 + 2 * LEASE)
    assert (again.attempts, again.first_attempt_at) == (0, 0) if again.queue == "a" else again.queue == "b"


def test_a_lane_is_due_since_its_first_event(state: State) -> None:
    """Not since its last."""
    assert state.plan("bot", 0, 2, [Delivery(1, "a", NOW - 50), Delivery(2, "a", NOW - 10)], now=NOW) is True
    assert next_due(state) == NOW - 50
    assert state.plan("bot", 0, 2, [], now=NOW) is False


def test_one_that_fails_is_not_helped_by_another(state: State) -> None:
    """Settled together, each destination has its own history."""
    state.join({"bot": 0, "other": 0}, now=NOW)
    for name in ("bot", "other"):
        owe(state, *(f"key {number}" for number in range(12)), name=name)
    for bad, good in zip(take(state, most=12), take(state, name="other", most=12), strict=True):
        state.settle([Settlement(bad, BAD, later(NOW)), Settlement(good, OK, DELIVERED)])
    assert state.expire(0, now=NOW + DAY * 2, policy=DeliveryPolicy(max_age_ms=DAY), dead_letter_age_ms=DAY) == {
        ("bot", "expired"): 12
    }


def test_what_is_given_up_lets_the_next_one_go(state: State) -> None:
    """And is a dead letter, with the reason and the number of attempts."""
    owe(state, "a", "a")
    assert settle(state, taken(state), BAD, later(NOW))
    assert settle(state, taken(state), BAD, EXPIRED)
    (dead,) = state.dead_letters(limit=9)
    assert (dead.destination, dead.position, dead.reason, dead.attempts) == ("bot", 1, "expired", 2)
    claim = taken(state)
    assert (claim.position, claim.attempts, claim.first_attempt_at) == (2, 2, BAD.at)


def test_a_claim_that_ran_out_can_settle_nothing(state: State) -> None:
    """A relay that woke up late must not settle what another one now holds."""
    owe(state, "a", "a")
    stale = taken(state)
    assert take(state, NOW + 1000 + LEASE - 1) == []
    fresh = taken(state, NOW + 1000 + LEASE)
    assert fresh.position == stale.position
    assert not settle(state, stale)
    assert state.history(1) == [DeliveryHistory("bot", "waiting", [])]
    assert settle(state, fresh)
    assert not settle(state, fresh)
    assert taken(state).position == 2


def test_a_claim_that_ran_out_beside_the_one_that_holds(state: State) -> None:
    """Told together, each is judged by itself."""
    owe(state, "a", "b")
    stale = taken(state)
    other = taken(state)
    fresh = taken(state, NOW + 1000 + LEASE)
    assert fresh.queue == stale.queue
    late = state.settle([Settlement(each, OK, DELIVERED) for each in (stale, other, fresh)])
    assert late == [stale]
    assert state.statuses()[0].backlog == 0


def test_many_are_taken_at_once(state: State) -> None:
    """Those that waited longest, at most so many, one of each queue."""
    owe(state, "a", "a", "b", "c")
    assert [claim.queue for claim in take(state, most=2)] == ["a", "b"]
    assert [claim.queue for claim in take(state, most=9)] == ["c"]
    assert take(state, most=9) == []


def test_queues_that_failed_are_asked_for_apart(state: State) -> None:
    """Each kind by its own due times."""
    owe(state, "a", "b", "c", "d")
    failed = take(state, most=2)
    for claim in failed:
        assert settle(state, claim, BAD, later(NOW + 2000))
    assert [state.next_due("bot", queues) for queues in QueueKind] == [NOW, NOW + 2000]
    assert {each.queue for each in state.claim("bot", 9, QueueKind.HEALTHY, now=NOW + 9000, lease=LEASE)} == {"c", "d"}
    assert {each.queue for each in state.claim("bot", 1, QueueKind.FAILED, now=NOW + 9000, lease=LEASE)} == {"a"}
    assert {each.queue for each in state.claim("bot", 9, QueueKind.FAILED, now=NOW + 9000, lease=LEASE)} == {"b"}
    assert all(not state.claim("bot", 9, queues, now=NOW + 9000, lease=LEASE) for queues in QueueKind)


def test_a_queue_at_random(state: State) -> None:
    """Else each probe of a destination would be of the queue whose first event it does not take."""
    owe(state, *map(str, range(40)))
    first = [
        state.claim("bot", 1, QueueKind.HEALTHY, now=NOW + 1000, lease=0, at_random=True)[0].queue for _ in range(12)
    ]
    assert len(set(first)) > 3


def test_nothing_is_due_before_its_time(state: State) -> None:
    """Exactly then it is."""
    owe(state, "a")
    assert settle(state, taken(state), BAD, later(NOW + 5000))
    assert next_due(state) == NOW + 5000
    assert take(state, NOW + 4999) == []
    assert taken(state, NOW + 5000).attempts == 1


def test_two_relays_never_hold_the_same(state: State, url: InboxUrl) -> None:
    """Nor plan the same part of the log twice."""
    other = opened(url)
    owe(state, "a", "b")
    assert not other.plan("bot", 0, 2, [Delivery(1, "a", NOW), Delivery(2, "b", NOW)], now=NOW)
    queues = {taken(state).queue, taken(other).queue}
    assert queues == {"a", "b"}
    assert take(state) == take(other) == []
    other.close()


def test_a_position_is_read_once(state: State) -> None:
    """Also where nothing was owed from it; a destination that is known keeps its position."""
    assert state.plan("bot", 0, 10, [], now=NOW)
    assert not state.plan("bot", 0, 20, [Delivery(11, "a", NOW)], now=NOW)
    state.join({"bot": 99}, now=NOW)
    assert state.positions() == {"bot": 10}
    assert take(state) == []


def test_a_lane_that_waits_is_not_hurried_by_what_comes(state: State) -> None:
    """What is planned behind an event that is to be tried later waits with it."""
    owe(state, "a")
    assert settle(state, taken(state), BAD, later(NOW + 5000))
    owe(state, "a", since=1)
    assert next_due(state) == NOW + 5000
    assert taken(state, NOW + 5000).position == 1


def test_destinations_do_not_know_each_other(state: State) -> None:
    """Each has its own positions, queues and dead letters."""
    state.join({"bot": 0, "other": 0}, now=NOW)
    owe(state, "a")
    owe(state, "a", name="other")
    mine, theirs = taken(state), taken(state, name="other")
    assert settle(state, mine, BAD, EXPIRED)
    assert settle(state, theirs)
    status = {each.name: (each.backlog, each.dead_letters, each.position) for each in state.statuses()}
    assert status == {"bot": (0, 1, 1), "other": (0, 0, 1)}


def test_a_disabled_destination_gets_nothing(state: State, url: InboxUrl) -> None:
    """Until it is enabled; what is owed stays owed, and is still noted."""
    owe(state, "a")
    assert state.disable("bot", "answered 410")
    assert take(state) == []
    assert next_due(state) is None
    assert needed(url, now=NOW) is None
    owe(state, "b", since=1)
    (status,) = state.statuses()
    assert (status.disabled, status.backlog, status.oldest) == ("answered 410", 2, NOW + 1)
    assert state.disable("bot", None)
    assert taken(state).position == 1
    assert not state.disable("nobody", "x")


def test_a_destination_that_left_the_file(state: State, url: InboxUrl) -> None:
    """Is not read for; it holds the log back for a day, and is where it was when it comes again."""
    owe(state, "a")
    state.join({"other": 5}, now=NOW)
    state.join({"other": 5}, now=NOW + DAY)
    assert state.positions() == {"other": 5}
    assert {each.name: each.gone_since for each in state.statuses()} == {"bot": NOW, "other": None}
    assert needed(url, now=NOW + DELIVERY_POLICY.max_absence_ms - 1) == 1
    assert needed(url, now=NOW + DELIVERY_POLICY.max_absence_ms) == 6
    state.join({"bot": 7, "other": 5}, now=NOW + DAY)
    assert state.positions() == {"bot": 1, "other": 5}
    assert taken(state).position == 1


def test_the_story_of_an_event(state: State) -> None:
    """Every try, in order, with when, how long, what status, and a word; as long as the log holds it."""
    owe(state, "a")
    good = OK._replace(at=NOW + 9)
    assert settle(state, taken(state), BAD, later(NOW))
    assert state.history(1) == [DeliveryHistory("bot", "waiting", [BAD])]
    assert settle(state, taken(state), good)
    story = [DeliveryHistory("bot", "delivered", [BAD, good])]
    assert state.history(1) == story
    state.prune_attempts(1)
    assert state.history(1) == story
    state.prune_attempts(2)
    assert state.history(1) == []


def test_the_story_of_what_is_dead(state: State) -> None:
    """Of each destination by itself."""
    state.join({"bot": 0, "a": 0}, now=NOW)
    owe(state, "a")
    owe(state, "a", name="a")
    assert settle(state, taken(state), BAD, EXPIRED)
    assert state.history(1) == [DeliveryHistory("a", "waiting", []), DeliveryHistory("bot", "dead: expired", [BAD])]


def test_what_is_forgotten(state: State) -> None:
    """Is owed to nobody, and no queue tells of whom it was; a try under way settles nothing."""
    owe(state, "person", "person", "other")
    claim, other = take(state, most=2)
    if claim.queue == "other":
        claim, other = other, claim
    state.erase([1, 2])
    schema = "whatsapp_webhook." if isinstance(state, PostgresqlState) else ""
    assert state._store.rows(f"SELECT queue FROM {schema}delivery_queue") == [("other",)]
    assert not settle(state, claim, BAD, EXPIRED)
    assert settle(state, other)
    assert (state.dead_letters(limit=9), state.history(1), state.statuses()[0].backlog) == ([], [], 0)


def test_what_the_log_no_longer_holds(state: State) -> None:
    """Is dead where its destination is disabled, for as long as that is told; else its next try finds out."""
    state.join({"bot": 0, "other": 0}, now=NOW)
    owe(state, "a", "a", "b")
    owe(state, "a", "a", "b", name="other")
    state.disable("bot", "by hand")
    assert state.expire(3, now=NOW, policy=DeliveryPolicy(max_age_ms=DAY), dead_letter_age_ms=DAY) == {
        ("bot", "retention"): 2
    }
    assert [(dead.destination, dead.position, dead.reason, dead.attempts) for dead in state.dead_letters(limit=9)] == [
        ("bot", 1, "retention", 0),
        ("bot", 2, "retention", 0),
    ]
    assert {each.name: each.backlog for each in state.statuses()} == {"bot": 1, "other": 3}
    state.disable("bot", None)
    assert [claim.position for claim in take(state, most=9)] == [3]
    state.expire(3, now=NOW + DAY, policy=DeliveryPolicy(max_age_ms=9 * DAY), dead_letter_age_ms=DAY)
    assert len(state.dead_letters(limit=9)) == 2
    state.expire(3, now=NOW + DAY + 1, policy=DeliveryPolicy(max_age_ms=9 * DAY), dead_letter_age_ms=DAY)
    assert state.dead_letters(limit=9) == []


def test_one_that_took_nothing_for_too_long(state: State) -> None:
    """What has been owed to it for as long is given up at once, and not a try each; what came later is not."""
    owe(state, *(f"key {number}" for number in range(20)))
    for number in range(9):
        assert settle(state, taken(state), BAD, later(NOW + DAY * 9 + number))
    assert state.expire(0, now=NOW + DAY + 1, policy=DeliveryPolicy(max_age_ms=DAY), dead_letter_age_ms=DAY) == {}
    assert settle(state, taken(state), BAD, later(NOW + DAY * 9))
    assert state.expire(0, now=NOW + DAY, policy=DeliveryPolicy(max_age_ms=DAY), dead_letter_age_ms=DAY) == {}
    assert state.plan("bot", 20, 21, [Delivery(21, "new", NOW)], now=NOW + DAY // 2)
    assert taken(state, NOW + DAY).position < 21  # what is under way is judged by its own try
    assert state.expire(0, now=NOW + DAY + 1, policy=DeliveryPolicy(max_age_ms=DAY), dead_letter_age_ms=DAY) == {
        ("bot", "expired"): 19
    }
    assert 21 in [claim.position for claim in take(state, NOW + DAY * 9, most=99)]
    assert {dead.reason for dead in state.dead_letters(limit=99)} == {"expired"}


def test_one_that_takes_something_keeps_the_rest(state: State) -> None:
    """However long that waits: its backlog is long, not lost. Enabled anew, it has as long again."""
    owe(state, *(f"key {number}" for number in range(20)))
    for _ in range(12):
        assert settle(state, taken(state), BAD, later(NOW + DAY * 9))
    assert settle(state, taken(state), OK)
    assert state.expire(0, now=NOW + DAY * 2, policy=DeliveryPolicy(max_age_ms=DAY), dead_letter_age_ms=DAY) == {}
    for _ in range(5):
        assert settle(state, taken(state), BAD, later(NOW + DAY * 9))
    assert state.disable("bot", "by hand")
    assert state.disable("bot", None)
    assert state.expire(0, now=NOW + DAY * 4, policy=DeliveryPolicy(max_age_ms=DAY), dead_letter_age_ms=DAY) == {}


def test_a_clock_that_ran_ahead(state: State) -> None:
    """Nothing waits for longer than anything may; an event from the future is due now."""
    assert state.plan("bot", 0, 1, [Delivery(1, "a", NOW + DAY)], now=NOW)
    assert next_due(state) == NOW
    assert settle(state, taken(state), BAD, later(NOW + DAY * 30))
    state.expire(0, now=NOW, policy=DeliveryPolicy(max_age_ms=DAY), dead_letter_age_ms=DAY)
    assert next_due(state) == NOW


def test_a_destination_that_says_no_more(state: State) -> None:
    """Is disabled with the settlement that says so, and why."""
    owe(state, "a")
    late = state.settle([Settlement(taken(state), BAD, later(NOW), "it answered 410")])
    assert (late, state.statuses()[0].disabled, next_due(state)) == ([], "it answered 410", None)


def test_another_log(state: State) -> None:
    """Nothing of the old one is owed or told, and every destination begins at its start."""
    assert state.adopt(7, 0) == 0
    owe(state, "a", "b", "c")
    assert settle(state, taken(state), BAD, EXPIRED)
    assert state.adopt(7, 3) == 0
    assert state.positions() == {"bot": 3}
    assert state.adopt(8, 50) == 2
    assert (state.positions(), take(state), state.dead_letters(limit=9), state.history(1)) == ({"bot": 0}, [], [], [])
    assert (state.statuses()[0].backlog, state.statuses()[0].oldest) == (0, None)
    assert state.adopt(8, 50) == 0
    assert state.positions() == {"bot": 0}
    owe(state, "a")
    assert taken(state).position == 1


def test_dead_letters_are_told_by_the_newest(state: State) -> None:
    """In the order in which they were given up."""
    owe(state, "a", "b", "c")
    for claim in take(state, most=9):
        assert settle(state, claim, BAD._replace(at=NOW + claim.position), EXPIRED)
    assert [dead.position for dead in state.dead_letters(limit=2)] == [2, 3]


def test_a_replay_is_marked_and_owed_once(state: State) -> None:
    """Of what was delivered or is dead; what is owed already is not owed twice."""
    owe(state, "a", "a")
    assert settle(state, taken(state), BAD, EXPIRED)
    events = [Delivery(1, "a", NOW + 1), Delivery(2, "a", NOW + 2)]
    assert state.replay("bot", events, now=NOW) == 1
    assert state.dead_letters(limit=9) == []
    claim = taken(state)
    assert (claim.position, claim.replay) == (1, True)
    assert settle(state, claim)
    claim = taken(state)
    assert (claim.position, claim.replay) == (2, False)
    (status,) = state.statuses()
    assert status.backlog == 1


def test_a_replay_of_what_was_not_read_yet(state: State) -> None:
    """Is nothing: it will be owed anyway, once."""
    owe(state, "a")
    assert state.replay("bot", [Delivery(2, "b", NOW)], now=NOW) == 0
    owe(state, "b", since=1)
    assert len(take(state, most=9)) == 2


def test_a_replay_of_a_lane_that_is_empty_is_due(state: State) -> None:
    """Now."""
    assert state.plan("bot", 0, 1, [], now=NOW)
    assert state.replay("bot", [Delivery(1, "a", NOW - DAY)], now=NOW) == 1
    assert next_due(state) == NOW


def test_what_is_still_needed(state: State, url: InboxUrl) -> None:
    """The oldest event that is owed, else the first that was not read yet; without a file, nothing."""
    assert needed(url, now=NOW) == 1
    owe(state, "a", "b")
    assert needed(url, now=NOW) == 1
    assert settle(state, taken(state))
    assert needed(url, now=NOW) == 2
    assert settle(state, taken(state))
    assert needed(url, now=NOW) == 3


def test_everything_stays(url: InboxUrl) -> None:
    """The schedule is in the file: another process goes on with it."""
    first = opened(url)
    first.join({"bot": 0}, now=NOW)
    owe(first, "a")
    assert settle(first, taken(first), BAD, later(NOW + 5000))
    first.close()
    second = opened(url)
    assert next_due(second) == NOW + 5000
    claim = taken(second, NOW + 5000)
    assert (claim.attempts, claim.first_attempt_at) == (1, BAD.at)
    assert settle(second, claim, BAD._replace(at=NOW + 5000), later(NOW + 6000))
    claim = taken(second, NOW + 6000)
    assert (claim.attempts, claim.first_attempt_at) == (2, BAD.at)
    second.close()


def record(position: int, size: int = 10) -> Record:
    found = event(position, data=b"x" * size)
    return Record(position, msgspec.structs.replace(found, subject="16505551234" if position % 2 else None))


def kill(state: State, position: int) -> None:
    owe(state, "a", since=position - 1)
    assert settle(state, taken(state), BAD, EXPIRED)


def test_the_event_of_a_dead_letter_is_saved_beside_it(state: State, url: InboxUrl) -> None:
    """The log must keep it until then; afterwards it can be had whatever the log holds."""
    kill(state, 1)
    owe(state, "a", since=1)
    assert needed(url, now=NOW) == 1
    assert list(state.unsaved(10)) == [1]
    state.save([1], [record(1)], now=NOW, max_bytes=1000)
    assert list(state.unsaved(10)) == []
    assert needed(url, now=NOW) == 2
    assert state.saved([1, 2]) == {1: record(1).event}
    assert list(state.positions_of("16505551234")) == [1]
    owe(state, "106:16505559999", "106:1650555999", since=2)
    assert list(state.positions_of("16505559999")) == [3], "owed, though the log may hold it no longer"
    assert list(state.positions_of("1")) == []


def test_an_event_that_is_gone_is_not_waited_for(state: State, url: InboxUrl) -> None:
    """The log's retention was faster: the dead letter stays, and holds nothing back."""
    kill(state, 1)
    state.save([1], [], now=NOW, max_bytes=1000)
    assert list(state.unsaved(10)) == []
    assert state.saved([1]) == {}
    assert [each.position for each in state.dead_letters(limit=None)] == [1]
    assert needed(url, now=NOW) == 2


def test_the_oldest_saved_events_go_first(state: State) -> None:
    """Above the bytes that they may take in all; the dead letters stay."""
    for position in (1, 2, 3):
        kill(state, position)
        state.save([position], [record(position, 1000)], now=NOW + position, max_bytes=2600)
    assert set(state.saved([1, 2, 3])) == {2, 3}
    assert [each.position for each in state.dead_letters(limit=None)] == [1, 2, 3]


def test_a_saved_event_goes_with_its_dead_letter(state: State) -> None:
    """Once that is too old; but not while it is owed again."""
    for position in (1, 2):
        kill(state, position)
    state.save([1, 2], [record(1), record(2)], now=NOW, max_bytes=10_000)
    assert state.replay("bot", [Delivery(2, "a", NOW)], now=NOW) == 1
    state.expire(0, now=NOW + 9 * DAY, policy=DeliveryPolicy(max_age_ms=99 * DAY), dead_letter_age_ms=8 * DAY)
    assert set(state.saved([1, 2])) == {2}
    assert state.dead_letters(limit=None) == []
    assert settle(state, taken(state))
    state.expire(0, now=NOW + 9 * DAY, policy=DeliveryPolicy(max_age_ms=99 * DAY), dead_letter_age_ms=8 * DAY)
    assert state.saved([1, 2]) == {}


def test_a_person_is_in_no_saved_event_any_more(state: State) -> None:
    """Erased with all the rest."""
    kill(state, 1)
    state.save([1], [record(1)], now=NOW, max_bytes=1000)
    assert state.erase(state.positions_of("16505551234"))
    assert state.saved([1]) == {}
    assert state.dead_letters(limit=None) == []


def test_everything_can_be_forgotten(state: State, url: InboxUrl) -> None:
    """Then nothing is needed, and a relay that comes later starts over."""
    kill(state, 1)
    owe(state, "b", since=1)
    assert state.heartbeat() == NOW
    state.clear()
    assert needed(url, now=NOW) is None
    assert state.statuses() == []
    assert state.heartbeat() == 0
