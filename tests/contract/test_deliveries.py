"""The contract of the relay's state, run once for each store: pending deliveries, leases, results of attempts.

The time is an argument, so no test waits.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import msgspec
import pytest

from service.config import InboxUrl, inbox_url
from service.storage import engines
from service.storage.deliveries import (
    REPORT_AGE_MS,
    Attempt,
    AttemptEvidence,
    Claim,
    Delivery,
    DeliveryAdmin,
    DeliveryHealth,
    DeliveryHistory,
    ExpiryLimits,
    QueueKind,
    Ruling,
    Settlement,
    Verdict,
    WorkerReport,
)
from service.storage.deliveries import DeliveryState as Work
from service.storage.delivery_policy import DELIVERY_POLICY
from service.storage.postgresql import PostgresqlDeliveries
from service.storage.postgresql import delivery_database as postgresql_database
from service.storage.postgresql.delivery_admin import PostgresqlDeliveryAdmin
from service.storage.protocols import Record
from service.storage.sqlite import delivery_database as sqlite_database
from service.storage.sqlite.delivery_admin import SqliteDeliveryAdmin
from service.storage.sqlite.delivery_queue import SqliteDeliveries
from service.storage.timelines import Timeline
from tests.support.engines import Servers
from tests.support.events import event

NOW = 1_795_000_000_000
LEASE = 60_000
DAY = 86_400_000
OK = Attempt(NOW, 0.1, 200, "delivered")
BAD = Attempt(NOW + 1, 0.1, 500, "5xx")
DELIVERED = Ruling(Verdict.DELIVERED)
EXPIRED = Ruling(Verdict.DEAD_LETTER, reason="expired")
LIMITS = ExpiryLimits(DELIVERY_POLICY, dead_letter_age_ms=DAY, retention_ms=9 * DAY)


class State(Work, DeliveryAdmin, Protocol):
    """The protocols for the relay and for commands."""

    def close(self) -> None: ...


class SqliteState(SqliteDeliveries, SqliteDeliveryAdmin):
    """The state in a file."""

    def close(self) -> None:
        self._store.close()


class PostgresqlState(PostgresqlDeliveries, PostgresqlDeliveryAdmin):
    """The state in tables."""

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


def plan_deliveries(state: State, *queues: str, since: int = 0, name: str = "bot") -> None:
    deliveries = [Delivery(since + number, queue, NOW + number) for number, queue in enumerate(queues, start=1)]
    assert state.plan(name, since, since + len(queues), deliveries, now=NOW)


def claim_some(state: State, now: int = NOW + 1000, name: str = "bot", most: int = 1) -> list[Claim]:
    """Claim the queues that have waited longest, of either kind."""
    claims: list[Claim] = []
    while len(claims) < most:
        dues = {queues: state.next_due(name, queues) or NOW * 9 for queues in (QueueKind.HEALTHY, QueueKind.FAILED)}
        claimed = state.claim(name, 1, min(dues, key=lambda queues: dues[queues]), now=now, lease=LEASE)
        if not claimed:
            break
        claims += claimed
    return sorted(claims)


def next_due(state: State, name: str = "bot") -> int | None:
    dues = [due for queues in QueueKind if (due := state.next_due(name, queues)) is not None]
    return min(dues, default=None)


def claim_one(state: State, now: int = NOW + 1000, name: str = "bot") -> Claim:
    (claim,) = claim_some(state, now, name)
    return claim


def settle(state: State, claim: Claim, attempt: Attempt = OK, ruling: Ruling = DELIVERED) -> bool:
    expired = state.settle([Settlement(claim, attempt, ruling)])
    assert list(expired) in ([], [claim])
    return not expired


def ages(max_age: int) -> dict[str, int]:
    return dict.fromkeys(("bot", "other"), max_age)


def retry_at(due: int) -> Ruling:
    return Ruling(Verdict.RETRY, due)


def test_a_queue_is_delivered_in_order(state: State) -> None:
    """Its next event can be claimed only after the previous one was delivered."""
    plan_deliveries(state, "a", "a", "a")
    for position in (1, 2, 3):
        claim = claim_one(state)
        assert (claim.position, claim.attempts, claim.replay) == (position, 0, False)
        assert claim_some(state) == []
        assert settle(state, claim)
    assert claim_some(state) == []
    assert next_due(state) is None


def test_queues_are_independent_and_the_longest_waiting_is_first(state: State) -> None:
    """A queue that waits for a retry does not block others."""
    plan_deliveries(state, "a", "b", "a", "c")
    first, second = claim_one(state), claim_one(state)
    assert (first.queue, second.queue) == ("a", "b")
    assert settle(state, first, BAD, retry_at(NOW + 90_000))
    assert settle(state, second)
    third = claim_one(state)
    assert third.queue == "c"
    assert claim_some(state) == []
    assert settle(state, third)
    again = claim_one(state, NOW + 90_000)
    assert (again.queue, again.position, again.attempts, again.first_attempt_at) == ("a", 1, 1, BAD.at)


def test_the_next_event_of_a_queue_waits_behind_other_queues(state: State) -> None:
    """After a delivery, the queue is due again behind the queues that waited meanwhile, with no attempts."""
    plan_deliveries(state, "a", "b", "a")
    assert settle(state, claim_one(state), BAD, retry_at(NOW - 1))
    assert settle(state, claim_one(state), OK._replace(at=NOW + 500))
    assert [claim_one(state).queue for _ in range(2)] == ["b", "a"]
    again = claim_one(state, NOW + 1000 + 2 * LEASE)
    assert (again.attempts, again.first_attempt_at) == (0, 0) if again.queue == "a" else again.queue == "b"


def test_a_queue_is_due_since_its_first_event(state: State) -> None:
    """Its due time is when its first event was received."""
    assert state.plan("bot", 0, 2, [Delivery(1, "a", NOW - 50), Delivery(2, "a", NOW - 10)], now=NOW) is True
    assert next_due(state) == NOW - 50
    assert state.plan("bot", 0, 2, [], now=NOW) is False


def test_failures_are_counted_per_destination(state: State) -> None:
    """A success of one destination does not reset the failures of another that is settled with it."""
    state.join({"bot": 0, "other": 0}, now=NOW)
    for name in ("bot", "other"):
        plan_deliveries(state, *(f"key {number}" for number in range(12)), name=name)
    for bad, good in zip(claim_some(state, most=12), claim_some(state, name="other", most=12), strict=True):
        state.settle([Settlement(bad, BAD, retry_at(NOW)), Settlement(good, OK, DELIVERED)])
    assert state.expire(0, LIMITS, now=NOW + DAY * 2, max_ages_ms=ages(DAY)) == {("bot", "expired"): 12}


def test_a_dead_letter_unblocks_its_queue(state: State) -> None:
    """It has the reason and the number of attempts; the next event keeps the queue's attempt count."""
    plan_deliveries(state, "a", "a")
    assert settle(state, claim_one(state), BAD, retry_at(NOW))
    assert settle(state, claim_one(state), BAD, EXPIRED)
    (dead,) = state.dead_letters(limit=9)
    assert (dead.destination, dead.position, dead.reason, dead.attempts) == ("bot", 1, "expired", 2)
    claim = claim_one(state)
    assert (claim.position, claim.attempts, claim.queue_attempts, claim.queue_failing_since) == (2, 0, 2, BAD.at)


def test_a_skipped_delivery_does_not_block_its_queue(state: State) -> None:
    """It waits in a queue of its own, with its own attempts, and the next event of its queue is due."""
    plan_deliveries(state, "a", "a")
    assert settle(state, claim_one(state), BAD, Ruling(Verdict.SKIP, NOW + 90_000, is_permanent=True))
    (second,) = claim_some(state, most=9)
    assert (second.position, second.attempts, second.queue_attempts) == (2, 0, 0)
    assert settle(state, second)
    skipped = claim_one(state, NOW + 90_000)
    assert (skipped.position, skipped.queue, skipped.skipped) == (1, "a#1", True)
    assert (skipped.attempts, skipped.rejections, skipped.first_attempt_at) == (1, 1, BAD.at)
    assert state.statuses()[0].backlog == 1
    assert settle(state, skipped)
    assert (state.statuses()[0].backlog, next_due(state)) == (0, None)


def test_the_evidence_of_an_attempt(state: State) -> None:
    """The reason, headers and text are in the history, also of a POST that was sent again at once."""
    plan_deliveries(state, "a")
    evidence = AttemptEvidence("responded with 500", {"Server": "x"}, "stack trace")
    stale = BAD._replace(at=NOW, status=0, outcome="stale", evidence=AttemptEvidence("closed"))
    bad = BAD._replace(evidence=evidence)
    state.settle([Settlement(claim_one(state), bad, retry_at(NOW), None, [stale])])
    (history,) = state.history(1)
    assert list(history.attempts) == [stale, bad]


def test_an_expired_claim_cannot_settle(state: State) -> None:
    """A relay that resumes late must not settle a queue that another relay has claimed."""
    plan_deliveries(state, "a", "a")
    stale = claim_one(state)
    assert claim_some(state, NOW + 1000 + LEASE - 1) == []
    fresh = claim_one(state, NOW + 1000 + LEASE)
    assert fresh.position == stale.position
    assert not settle(state, stale)
    assert state.history(1) == [DeliveryHistory("bot", "waiting", [])]
    assert settle(state, fresh)
    assert not settle(state, fresh)
    assert claim_one(state).position == 2


def test_expired_and_current_claims_are_settled_separately(state: State) -> None:
    """If they are settled together, only the expired one is returned."""
    plan_deliveries(state, "a", "b")
    stale = claim_one(state)
    other = claim_one(state)
    fresh = claim_one(state, NOW + 1000 + LEASE)
    assert fresh.queue == stale.queue
    expired = state.settle([Settlement(each, OK, DELIVERED) for each in (stale, other, fresh)])
    assert expired == [stale]
    assert state.statuses()[0].backlog == 0


def test_several_queues_are_claimed_together(state: State) -> None:
    """A claim returns at most the given number of queues, those that have waited longest, with one event each."""
    plan_deliveries(state, "a", "a", "b", "c")
    assert [claim.queue for claim in claim_some(state, most=2)] == ["a", "b"]
    assert [claim.queue for claim in claim_some(state, most=9)] == ["c"]
    assert claim_some(state, most=9) == []


def test_failed_queues_are_claimed_separately(state: State) -> None:
    """Healthy and failed queues each have their own due times."""
    plan_deliveries(state, "a", "b", "c", "d")
    failed = claim_some(state, most=2)
    for claim in failed:
        assert settle(state, claim, BAD, retry_at(NOW + 2000))
    assert [state.next_due("bot", queues) for queues in QueueKind] == [NOW, NOW + 2000]
    assert {each.queue for each in state.claim("bot", 9, QueueKind.HEALTHY, now=NOW + 9000, lease=LEASE)} == {"c", "d"}
    assert {each.queue for each in state.claim("bot", 1, QueueKind.FAILED, now=NOW + 9000, lease=LEASE)} == {"a"}
    assert {each.queue for each in state.claim("bot", 9, QueueKind.FAILED, now=NOW + 9000, lease=LEASE)} == {"b"}
    assert all(not state.claim("bot", 9, queues, now=NOW + 9000, lease=LEASE) for queues in QueueKind)


def test_a_random_queue_can_be_claimed(state: State) -> None:
    """Otherwise each probe of a failing destination would use the same queue, whose event it may always reject."""
    plan_deliveries(state, *map(str, range(40)))
    first = [
        state.claim("bot", 1, QueueKind.HEALTHY, now=NOW + 1000, lease=0, at_random=True)[0].queue for _ in range(12)
    ]
    assert len(set(first)) > 3


def test_a_queue_is_not_due_before_its_time(state: State) -> None:
    """It can be claimed from exactly its due time on."""
    plan_deliveries(state, "a")
    assert settle(state, claim_one(state), BAD, retry_at(NOW + 5000))
    assert next_due(state) == NOW + 5000
    assert claim_some(state, NOW + 4999) == []
    assert claim_one(state, NOW + 5000).attempts == 1


def test_two_relays_never_claim_the_same_queue(state: State, url: InboxUrl) -> None:
    """Nor do they plan the same part of the log twice."""
    other = opened(url)
    plan_deliveries(state, "a", "b")
    assert not other.plan("bot", 0, 2, [Delivery(1, "a", NOW), Delivery(2, "b", NOW)], now=NOW)
    queues = {claim_one(state).queue, claim_one(other).queue}
    assert queues == {"a", "b"}
    assert claim_some(state) == claim_some(other) == []
    other.close()


def test_a_position_is_planned_once(state: State) -> None:
    """Also if it had no deliveries. A known destination keeps its position."""
    assert state.plan("bot", 0, 10, [], now=NOW)
    assert not state.plan("bot", 0, 20, [Delivery(11, "a", NOW)], now=NOW)
    state.join({"bot": 99}, now=NOW)
    assert state.positions() == {"bot": 10}
    assert claim_some(state) == []


def test_a_new_event_does_not_change_when_its_queue_is_due(state: State) -> None:
    """An event that is planned behind one that waits for a retry waits with it."""
    plan_deliveries(state, "a")
    assert settle(state, claim_one(state), BAD, retry_at(NOW + 5000))
    plan_deliveries(state, "a", since=1)
    assert next_due(state) == NOW + 5000
    assert claim_one(state, NOW + 5000).position == 1


def test_destinations_are_independent(state: State) -> None:
    """Each has its own position, queues and dead letters."""
    state.join({"bot": 0, "other": 0}, now=NOW)
    plan_deliveries(state, "a")
    plan_deliveries(state, "a", name="other")
    mine, theirs = claim_one(state), claim_one(state, name="other")
    assert settle(state, mine, BAD, EXPIRED)
    assert settle(state, theirs)
    status = {each.name: (each.backlog, each.dead_letters, each.position) for each in state.statuses()}
    assert status == {"bot": (0, 1, 1), "other": (0, 0, 1)}


def test_a_disabled_destination_gets_no_deliveries(state: State, url: InboxUrl) -> None:
    """Its deliveries stay pending, and new ones are stored, until it is enabled."""
    plan_deliveries(state, "a")
    assert state.disable("bot", "answered 410")
    assert claim_some(state) == []
    assert next_due(state) is None
    assert needed(url, now=NOW) is None
    plan_deliveries(state, "b", since=1)
    (status,) = state.statuses()
    assert (status.disabled, status.backlog, status.oldest) == ("answered 410", 2, NOW + 1)
    assert state.disable("bot", None)
    assert claim_one(state).position == 1
    assert not state.disable("nobody", "x")


def test_a_destination_that_was_removed_from_the_file(state: State, url: InboxUrl) -> None:
    """It gets no deliveries, stops the purge for a day, and continues at its position if it is added again."""
    plan_deliveries(state, "a")
    state.join({"other": 5}, now=NOW)
    state.join({"other": 5}, now=NOW + DAY)
    assert state.positions() == {"other": 5}
    assert {each.name: each.gone_since for each in state.statuses()} == {"bot": NOW, "other": None}
    assert needed(url, now=NOW + DELIVERY_POLICY.max_absence_ms - 1) == 1
    assert needed(url, now=NOW + DELIVERY_POLICY.max_absence_ms) == 6
    state.join({"bot": 7, "other": 5}, now=NOW + DAY)
    assert state.positions() == {"bot": 1, "other": 5}
    assert claim_one(state).position == 1


def test_the_history_of_an_event(state: State) -> None:
    """It has every attempt in order, with start, duration, status and outcome, until the attempts are pruned."""
    plan_deliveries(state, "a")
    good = OK._replace(at=NOW + 9)
    assert settle(state, claim_one(state), BAD, retry_at(NOW))
    assert state.history(1) == [DeliveryHistory("bot", "waiting", [BAD])]
    assert settle(state, claim_one(state), good)
    history = [DeliveryHistory("bot", "delivered", [BAD, good])]
    assert state.history(1) == history
    state.prune_attempts(1)
    assert state.history(1) == history
    state.prune_attempts(2)
    assert state.history(1) == []


def test_the_history_of_a_dead_letter(state: State) -> None:
    """Each destination has its own state of the event."""
    state.join({"bot": 0, "a": 0}, now=NOW)
    plan_deliveries(state, "a")
    plan_deliveries(state, "a", name="a")
    assert settle(state, claim_one(state), BAD, EXPIRED)
    assert state.history(1) == [DeliveryHistory("a", "waiting", []), DeliveryHistory("bot", "dead: expired", [BAD])]


def test_an_erased_event_is_not_delivered(state: State) -> None:
    """Its deliveries and its queue, which names the person, are deleted; a running attempt settles nothing."""
    plan_deliveries(state, "person", "person", "other")
    claim, other = claim_some(state, most=2)
    if claim.queue == "other":
        claim, other = other, claim
    state.erase([1, 2], ())
    schema = "whatsapp_webhook." if isinstance(state, PostgresqlState) else ""
    assert state._store.rows(f"SELECT queue FROM {schema}delivery_queue") == [("other",)]
    assert not settle(state, claim, BAD, EXPIRED)
    assert settle(state, other)
    assert (state.dead_letters(limit=9), state.history(1), state.statuses()[0].backlog) == ([], [], 0)


def test_events_past_the_retention_of_a_disabled_destination_become_dead_letters(state: State) -> None:
    """An enabled destination keeps them: its next attempt finds out. Dead letters are deleted at their maximum age."""
    state.join({"bot": 0, "other": 0}, now=NOW)
    plan_deliveries(state, "a", "a", "b")
    plan_deliveries(state, "a", "a", "b", name="other")
    state.disable("bot", "by hand")
    assert state.expire(3, LIMITS, now=NOW, max_ages_ms=ages(DAY)) == {("bot", "retention"): 2}
    assert [(dead.destination, dead.position, dead.reason, dead.attempts) for dead in state.dead_letters(limit=9)] == [
        ("bot", 1, "retention", 0),
        ("bot", 2, "retention", 0),
    ]
    assert {each.name: each.backlog for each in state.statuses()} == {"bot": 1, "other": 3}
    state.disable("bot", None)
    assert [claim.position for claim in claim_some(state, most=9)] == [3]
    state.expire(3, LIMITS, now=NOW + DAY, max_ages_ms=ages(9 * DAY))
    assert len(state.dead_letters(limit=9)) == 2
    state.expire(3, LIMITS, now=NOW + DAY + 1, max_ages_ms=ages(9 * DAY))
    assert state.dead_letters(limit=9) == []


def test_events_of_a_destination_that_fails_for_too_long_become_dead_letters(state: State) -> None:
    """All that have been pending that long are given up together, without an attempt for each; newer ones are not."""
    plan_deliveries(state, *(f"key {number}" for number in range(20)))
    for number in range(9):
        assert settle(state, claim_one(state), BAD, retry_at(NOW + DAY * 9 + number))
    assert state.expire(0, LIMITS, now=NOW + DAY + 1, max_ages_ms=ages(DAY)) == {}
    assert settle(state, claim_one(state), BAD, retry_at(NOW + DAY * 9))
    assert state.expire(0, LIMITS, now=NOW + DAY, max_ages_ms=ages(DAY)) == {}
    assert state.plan("bot", 20, 21, [Delivery(21, "new", NOW)], now=NOW + DAY // 2)
    assert claim_one(state, NOW + DAY).position < 21  # a claimed event is decided by its own attempt
    assert state.expire(0, LIMITS, now=NOW + DAY + 1, max_ages_ms=ages(DAY)) == {("bot", "expired"): 19}
    assert 21 in [claim.position for claim in claim_some(state, NOW + DAY * 9, most=99)]
    assert {dead.reason for dead in state.dead_letters(limit=99)} == {"expired"}


def test_events_of_a_destination_that_accepts_some_are_kept(state: State) -> None:
    """However old its backlog is. After it was disabled and enabled, its failures are counted from zero."""
    plan_deliveries(state, *(f"key {number}" for number in range(20)))
    for _ in range(12):
        assert settle(state, claim_one(state), BAD, retry_at(NOW + DAY * 9))
    assert settle(state, claim_one(state), OK)
    assert state.expire(0, LIMITS, now=NOW + DAY * 2, max_ages_ms=ages(DAY)) == {}
    for _ in range(5):
        assert settle(state, claim_one(state), BAD, retry_at(NOW + DAY * 9))
    assert state.disable("bot", "by hand")
    assert state.disable("bot", None)
    assert state.expire(0, LIMITS, now=NOW + DAY * 4, max_ages_ms=ages(DAY)) == {}


def test_a_clock_that_was_ahead(state: State) -> None:
    """No queue waits longer than the maximum wait; an event from the future is due now."""
    assert state.plan("bot", 0, 1, [Delivery(1, "a", NOW + DAY)], now=NOW)
    assert next_due(state) == NOW
    assert settle(state, claim_one(state), BAD, retry_at(NOW + DAY * 30))
    state.expire(0, LIMITS, now=NOW, max_ages_ms=ages(DAY))
    assert next_due(state) == NOW


def test_a_settlement_can_disable_its_destination(state: State) -> None:
    """The destination is disabled in the same transaction, with the reason."""
    plan_deliveries(state, "a")
    expired = state.settle([Settlement(claim_one(state), BAD, retry_at(NOW), "it answered 410")])
    assert (expired, state.statuses()[0].disabled, next_due(state)) == ([], "it answered 410", None)


def test_adopting_another_log_drops_the_state(state: State) -> None:
    """Deliveries, dead letters and attempts are deleted, and every destination starts at the first position."""
    assert state.adopt([Timeline(7, 0)]) == 0
    plan_deliveries(state, "a", "b", "c")
    assert settle(state, claim_one(state), BAD, EXPIRED)
    assert state.adopt([Timeline(7, 0)]) == 0
    assert state.positions() == {"bot": 3}
    assert state.adopt([Timeline(8, 0)]) == 3
    assert (state.positions(), claim_some(state), state.dead_letters(limit=9), state.history(1)) == (
        {"bot": 0},
        [],
        [],
        [],
    )
    assert (state.statuses()[0].backlog, state.statuses()[0].oldest) == (0, None)
    assert state.adopt([Timeline(8, 0)]) == 0
    assert state.positions() == {"bot": 0}
    plan_deliveries(state, "a")
    assert claim_one(state).position == 1


def test_the_newest_dead_letters_are_returned(state: State) -> None:
    """They are in the order in which they were given up."""
    plan_deliveries(state, "a", "b", "c")
    for claim in claim_some(state, most=9):
        assert settle(state, claim, BAD._replace(at=NOW + claim.position), EXPIRED)
    assert [dead.position for dead in state.dead_letters(limit=2)] == [2, 3]


def test_a_replay_is_marked_and_pending_once(state: State) -> None:
    """Delivered events and dead letters can be replayed; an event that is pending already is not added twice."""
    plan_deliveries(state, "a", "a")
    assert settle(state, claim_one(state), BAD, EXPIRED)
    events = [Delivery(1, "a", NOW + 1), Delivery(2, "a", NOW + 2)]
    assert state.replay("bot", events, now=NOW) == 1
    assert state.dead_letters(limit=9) == []
    claim = claim_one(state)
    assert (claim.position, claim.replay) == (1, True)
    assert settle(state, claim)
    claim = claim_one(state)
    assert (claim.position, claim.replay) == (2, False)
    (status,) = state.statuses()
    assert status.backlog == 1


def test_a_replay_of_an_event_that_is_not_planned_yet(state: State) -> None:
    """It is ignored, as the event will be planned, and is delivered once."""
    plan_deliveries(state, "a")
    assert state.replay("bot", [Delivery(2, "b", NOW)], now=NOW) == 0
    plan_deliveries(state, "b", since=1)
    assert len(claim_some(state, most=9)) == 2


def test_a_replay_into_an_empty_queue_is_due_now(state: State) -> None:
    """The age of the event does not matter."""
    assert state.plan("bot", 0, 1, [], now=NOW)
    assert state.replay("bot", [Delivery(1, "a", NOW - DAY)], now=NOW) == 1
    assert next_due(state) == NOW


def test_the_low_watermark(state: State, url: InboxUrl) -> None:
    """It is the position of the oldest pending event, or else the first position that is not planned yet."""
    assert needed(url, now=NOW) == 1
    plan_deliveries(state, "a", "b")
    assert needed(url, now=NOW) == 1
    assert settle(state, claim_one(state))
    assert needed(url, now=NOW) == 2
    assert settle(state, claim_one(state))
    assert needed(url, now=NOW) == 3


def test_the_state_survives_a_restart(url: InboxUrl) -> None:
    """Another process continues with the same due times and attempt counts."""
    first = opened(url)
    first.join({"bot": 0}, now=NOW)
    plan_deliveries(first, "a")
    assert settle(first, claim_one(first), BAD, retry_at(NOW + 5000))
    first.close()
    second = opened(url)
    assert next_due(second) == NOW + 5000
    claim = claim_one(second, NOW + 5000)
    assert (claim.attempts, claim.first_attempt_at) == (1, BAD.at)
    assert settle(second, claim, BAD._replace(at=NOW + 5000), retry_at(NOW + 6000))
    claim = claim_one(second, NOW + 6000)
    assert (claim.attempts, claim.first_attempt_at) == (2, BAD.at)
    second.close()


def record(position: int, size: int = 10) -> Record:
    stored = event(position, data=b"x" * size)
    return Record(position, msgspec.structs.replace(stored, subject="16505551234" if position % 2 else None))


def positions_of(state: State, identifier: str) -> list[int]:
    return [each.position for each in state.appearances([identifier])]


def add_dead_letter(state: State, position: int) -> None:
    plan_deliveries(state, "a", since=position - 1)
    assert settle(state, claim_one(state), BAD, EXPIRED)


def test_the_event_of_a_dead_letter_is_saved_beside_it(state: State, url: InboxUrl) -> None:
    """The log must keep it until then; afterwards it can be read even if the log has dropped it."""
    add_dead_letter(state, 1)
    plan_deliveries(state, "a", since=1)
    assert needed(url, now=NOW) == 1
    assert list(state.unsaved(10)) == [1]
    state.save([1], [record(1)], now=NOW, max_bytes=1000)
    assert list(state.unsaved(10)) == []
    assert needed(url, now=NOW) == 2
    assert state.saved([1, 2]) == {1: record(1).event}
    assert positions_of(state, "16505551234") == [1]
    plan_deliveries(state, "106:16505559999", "106:1650555999", since=2)
    assert positions_of(state, "16505559999") == [3], "pending, though the log may have dropped it"
    assert positions_of(state, "1") == []


def test_a_dead_letter_whose_event_is_gone_does_not_stop_the_purge(state: State, url: InboxUrl) -> None:
    """The log's retention has dropped the event before it was saved; the dead letter stays."""
    add_dead_letter(state, 1)
    state.save([1], [], now=NOW, max_bytes=1000)
    assert list(state.unsaved(10)) == []
    assert state.saved([1]) == {}
    assert [each.position for each in state.dead_letters(limit=None)] == [1]
    assert needed(url, now=NOW) == 2


def test_the_oldest_saved_events_are_dropped_first(state: State) -> None:
    """Saved events are limited in total bytes; the dead letters stay."""
    for position in (1, 2, 3):
        add_dead_letter(state, position)
        state.save([position], [record(position, 1000)], now=NOW + position, max_bytes=2800)
    assert set(state.saved([1, 2, 3])) == {2, 3}
    assert [each.position for each in state.dead_letters(limit=None)] == [1, 2, 3]


def test_a_saved_event_is_deleted_with_its_dead_letter(state: State) -> None:
    """It is deleted at the dead letter's maximum age, but not while a replay of it is pending."""
    for position in (1, 2):
        add_dead_letter(state, position)
    state.save([1, 2], [record(1), record(2)], now=NOW, max_bytes=10_000)
    assert state.replay("bot", [Delivery(2, "a", NOW)], now=NOW) == 1
    state.expire(0, LIMITS, now=NOW + 9 * DAY, max_ages_ms=ages(99 * DAY))
    assert set(state.saved([1, 2])) == {2}
    assert state.dead_letters(limit=None) == []
    assert settle(state, claim_one(state))
    state.expire(0, LIMITS, now=NOW + 9 * DAY, max_ages_ms=ages(99 * DAY))
    assert state.saved([1, 2]) == {}


def test_saved_events_are_erased(state: State) -> None:
    """An erased person's saved events and dead letters are deleted."""
    add_dead_letter(state, 1)
    state.save([1], [record(1)], now=NOW, max_bytes=1000)
    assert state.erase(positions_of(state, "16505551234"), ["16505551234"])
    assert state.saved([1]) == {}
    assert state.dead_letters(limit=None) == []


def test_the_whole_state_can_be_deleted(state: State, url: InboxUrl) -> None:
    """Then no event is needed, and a later relay starts with an empty state."""
    add_dead_letter(state, 1)
    plan_deliveries(state, "b", since=1)
    assert state.heartbeat() == NOW
    state.clear()
    assert needed(url, now=NOW) is None
    assert state.statuses() == []
    assert state.heartbeat() == 0


def test_a_pending_delivery_is_given_up_by_hand(state: State) -> None:
    """One whose attempt runs stays pending; what waited behind the other is due at once."""
    plan_deliveries(state, "a", "a", "b", "c")
    claims = {claim.queue: claim for claim in claim_some(state, most=3)}
    assert settle(state, claims["a"], BAD, retry_at(NOW + DAY))
    assert settle(state, claims["c"], BAD, retry_at(NOW + DAY))
    assert state.give_up("bot", [1, 3, 4, 99], "dropped", now=NOW + 2000) == ([1, 4], [3])
    assert [(each.position, each.first, each.leased) for each in state.pending("bot", after=0, limit=9, now=NOW)] == [
        (2, 2, False),
        (3, 3, True),
    ]
    assert claim_one(state, NOW + 2000).position == 2
    assert settle(state, claims["b"])
    assert state.give_up("bot", [3], "dropped", now=NOW + 2000) == ([], [])
    assert [(each.position, each.reason, each.attempts, each.status) for each in state.dead_letters(limit=None)] == [
        (1, "dropped", 1, 500),
        (4, "dropped", 1, 500),
    ]


def test_giving_up_a_later_delivery_leaves_the_first_one_waiting(state: State) -> None:
    """Its backoff is not over."""
    plan_deliveries(state, "a", "a")
    assert settle(state, claim_one(state), BAD, retry_at(NOW + DAY))
    assert state.give_up("bot", [2], "dropped", now=NOW + 2000) == ([2], [])
    assert next_due(state) == NOW + DAY


def test_retry_now(state: State) -> None:
    """All queues are due, except those whose attempt runs; relays are told when."""
    plan_deliveries(state, "a", "b")
    state.join({"bot": 0, "other": 0}, now=NOW)
    plan_deliveries(state, "a", name="other")
    first, second = claim_some(state, most=2)
    (third,) = claim_some(state, name="other")
    for claim in (first, third):
        assert settle(state, claim, BAD, retry_at(NOW + DAY))
    assert state.retried_at() == {}
    state.retry("bot", now=NOW + 5000)
    assert state.retried_at() == {"bot": NOW + 5000}
    assert next_due(state) == NOW + 5000
    assert [claim.position for claim in claim_some(state, NOW + 5000, most=2)] == [first.position]
    assert next_due(state, "other") == NOW + DAY
    assert settle(state, second)


def test_reports_of_workers(state: State) -> None:
    """The newest of each relay is kept, and an old one is deleted."""
    assert state.count_relays(0) == 0
    for at, status in ((NOW, None), (NOW + 1, 401)):
        state.report({"bot": WorkerReport(at, DeliveryHealth.MISCONFIGURED, status, NOW + 9)})
    (status,) = state.statuses()
    assert status.reports == [WorkerReport(NOW + 1, DeliveryHealth.MISCONFIGURED, 401, NOW + 9)]
    assert (state.count_relays(NOW + 1), state.count_relays(NOW + 2)) == (1, 0)
    state.expire(0, LIMITS, now=NOW + 2 + REPORT_AGE_MS, max_ages_ms=ages(DAY))
    assert state.statuses()[0].reports == []


def test_dead_letters_are_grouped(state: State) -> None:
    """By destination, reason and last status, with the newest of each group."""
    state.join({"bot": 0, "a": 0}, now=NOW)
    plan_deliveries(state, "a", "b", "c")
    plan_deliveries(state, "a", name="a")
    rejected = Ruling(Verdict.DEAD_LETTER, reason="rejected")
    statuses = {1: 422, 2: 400, 3: 422}
    for claim in claim_some(state, most=3):
        attempt = Attempt(NOW + claim.position, 0.1, statuses[claim.position], "4xx")
        assert settle(state, claim, attempt, rejected)
    assert settle(state, claim_one(state, name="a"), BAD, EXPIRED)
    assert state.dead_letter_groups() == [
        ("a", "expired", 500, 1, BAD.at, 1),
        ("bot", "rejected", 400, 1, NOW + 2, 2),
        ("bot", "rejected", 422, 2, NOW + 3, 3),
    ]
