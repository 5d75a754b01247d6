"""What follows from a try: pure, so every edge is a line."""

import itertools

import pytest

from service.outcomes import DeadLetterReason
from service.relay.policy import (
    FIRST_CONCURRENCY,
    MAX_CONCURRENCY,
    MAX_FAILED_QUEUES,
    MAX_PAUSE_MS,
    MIN_FAILED_QUEUES,
    MIN_PAUSE_MS,
    Breaker,
    BreakerState,
    rule,
    shares,
)
from service.relay.sender import DeliveryResponse
from service.storage.deliveries import Claim, Ruling, Verdict
from service.storage.delivery_policy import DELIVERY_POLICY
from service.telemetry.metrics import relay as metrics

NOW = 1_795_000_000_000


def claim(attempts: int = 0, first_attempt_at: int = 0, planned_at: int = 0) -> Claim:
    return Claim(
        "bot", "queue", 1, planned_at, replay=False, attempts=attempts, first_attempt_at=first_attempt_at, token=1
    )


def ruled(
    status: int, *, attempts: int = 0, first_attempt_at: int = 0, retry_after: str | None = None, chance: float = 1.0
) -> Ruling:
    answer = DeliveryResponse(status, "word", retry_after)
    return rule(claim(attempts, first_attempt_at), answer, policy=DELIVERY_POLICY, now=NOW, chance=lambda: chance)


@pytest.mark.parametrize("status", [200, 201, 204, 299])
def test_success(status: int) -> None:
    """Any 2xx."""
    assert ruled(status) == Ruling(Verdict.DELIVERED)


@pytest.mark.parametrize("status", [0, 199, 300, 302, 400, 401, 404, 409, 429, 500, 503])
def test_everything_else_is_tried_again(status: int) -> None:
    """Within a wait that is chance's up to a bound that doubles."""
    assert ruled(status, chance=1.0) == Ruling(Verdict.RETRY, NOW + DELIVERY_POLICY.first_backoff_ms)
    assert ruled(status, chance=0.0) == Ruling(Verdict.RETRY, NOW)
    assert ruled(status, attempts=3).due == NOW + DELIVERY_POLICY.first_backoff_ms * 8
    assert ruled(status, attempts=10_000).due == NOW + DELIVERY_POLICY.max_backoff_ms


def test_gone_waits_for_nothing() -> None:
    """Its destination is disabled, and the event stays owed."""
    assert ruled(410) == Ruling(Verdict.RETRY, NOW)


def test_patience_has_an_end() -> None:
    """Three days after the queue's first failure, with attempts enough; success is success also then."""
    long = NOW - DELIVERY_POLICY.max_age_ms
    assert ruled(500, attempts=DELIVERY_POLICY.min_attempts, first_attempt_at=long + 1).verdict is Verdict.RETRY
    assert ruled(500, attempts=DELIVERY_POLICY.min_attempts, first_attempt_at=long) == Ruling(
        Verdict.DEAD_LETTER, reason=DeadLetterReason.EXPIRED
    )
    assert ruled(500, attempts=DELIVERY_POLICY.min_attempts - 1, first_attempt_at=long).verdict is Verdict.RETRY, (
        "a clock that jumped"
    )
    assert ruled(200, attempts=DELIVERY_POLICY.min_attempts, first_attempt_at=long).verdict is Verdict.DELIVERED


def test_what_waited_behind_it_has_waited_too() -> None:
    """One try, and no further three days; but what came later has its own."""
    answer = DeliveryResponse(500, "5xx")
    for planned_at, verdict in (
        (NOW - DELIVERY_POLICY.max_age_ms, Verdict.DEAD_LETTER),
        (NOW - DELIVERY_POLICY.max_age_ms + 1, Verdict.RETRY),
    ):
        tried = claim(attempts=99, first_attempt_at=NOW - 2 * DELIVERY_POLICY.max_age_ms, planned_at=planned_at)
        assert rule(tried, answer, policy=DELIVERY_POLICY, now=NOW, chance=lambda: 1.0).verdict is verdict


@pytest.mark.parametrize(
    ("said", "wait"),
    [
        ("120", 120_000),
        (" 120 ", 120_000),
        ("0", DELIVERY_POLICY.first_backoff_ms),
        ("999999999999", DELIVERY_POLICY.max_retry_after_ms),
        ("Wed, 18 Nov 2026 11:07:20 GMT", 1_795_000_040_000 - NOW),
        ("Wed, 18 Nov 2020 11:06:40 GMT", DELIVERY_POLICY.first_backoff_ms),
        ("soon", DELIVERY_POLICY.first_backoff_ms),
        ("-5", DELIVERY_POLICY.first_backoff_ms),
        ("", DELIVERY_POLICY.first_backoff_ms),
        ("Wed, 99 Nov 9999 99:99:99 GMT", DELIVERY_POLICY.first_backoff_ms),
    ],
)
def test_retry_after(said: str, wait: int) -> None:
    """Seconds or a date; never less than the wait that is ours, never more than a day."""
    assert ruled(503, retry_after=said).due == NOW + wait


QUEUES = itertools.count()


def fail(breaker: Breaker, times: int, now: int = NOW, status: int = 503, *, failed_before: bool = False) -> None:
    """Fail so many queues, each for once."""
    for _ in range(times):
        breaker.saw(DeliveryResponse(status, "5xx"), now, queue=f"queue {next(QUEUES)}", failed_before=failed_before)


def succeed(breaker: Breaker, status: int = 200) -> None:
    breaker.saw(DeliveryResponse(status, "word"), NOW, queue="good", failed_before=False)


def test_what_is_promised() -> None:
    """As docs/receive-events.md has it, in milliseconds; words as the metrics have them."""
    assert (
        DELIVERY_POLICY.first_backoff_ms,
        DELIVERY_POLICY.max_backoff_ms,
        DELIVERY_POLICY.max_retry_after_ms,
        DELIVERY_POLICY.max_age_ms,
    ) == (2_000, 3_600_000, 86_400_000, 259_200_000)
    assert DELIVERY_POLICY.min_attempts == 10
    assert (MIN_FAILED_QUEUES, MAX_FAILED_QUEUES, MAX_CONCURRENCY) == (5, 40, 256)
    assert (MIN_PAUSE_MS, MAX_PAUSE_MS) == (1_000, 60_000)
    assert sorted(BreakerState) == sorted(metrics.BREAKER_STATES)


def test_what_is_written_down_is_a_whole_number() -> None:
    """SQLite refuses another."""
    assert isinstance(ruled(500, chance=0.3).due, int)
    assert isinstance(ruled(500, chance=0.0, retry_after="Wed, 18 Nov 2026 11:07:20 GMT").due, int)
    breaker = Breaker(lambda: 0.3)
    fail(breaker, MIN_FAILED_QUEUES)
    assert isinstance(breaker.until, int)
    assert [type(breaker.room(0, 4, now=now)) for now in (NOW, breaker.until)] == [int, int]


@pytest.mark.parametrize("said", ["", "soon", "Wed, 18 Nov 2020 11:06:40 GMT", "Wed, 99 Nov 9999 99:99:99 GMT", "²"])
def test_nothing_asked_is_no_wait(said: str) -> None:
    """Not even the least one."""
    assert ruled(503, retry_after=said, chance=0.0).due == NOW


def admits(breaker: Breaker, now: int) -> bool:
    """Begin a try where that may be."""
    if not breaker.room(0, 4, now=now):
        return False
    breaker.began()
    return True


@pytest.mark.parametrize(
    ("at_once", "running", "others", "expected"),
    [
        (8, 0, 0, (2, 4)),
        (8, 1, 0, (1, 3)),
        (8, 2, 9, (0, 2)),
        (8, 9, 9, (0, 0)),
        (256, 0, 0, (64, 128)),
        (3, 0, 0, (1, 1)),
        (5, 0, 0, (1, 2)),
        (2, 1, 0, (0, 0)),
        (1, 0, 2, (0, 1)),
        (1, 0, 3, (1, 1)),
    ],
)
def test_the_share_of_queues_that_failed(at_once: int, running: int, others: int, expected: tuple[int, int]) -> None:
    """A quarter is theirs, half at most; a single attempt at once is every fourth time theirs."""
    assert shares(at_once, running, others) == expected


class TestTheBreaker:
    """Leaves a destination alone that is down, and finds out that it is back."""

    @pytest.mark.parametrize("status", [0, 429, 500, 503])
    def test_it_opens_after_failures_in_a_row(self, status: int) -> None:
        """And admits nothing until its pause is over."""
        breaker = Breaker(lambda: 1.0)
        fail(breaker, MIN_FAILED_QUEUES - 1, status=status)
        assert admits(breaker, NOW)
        fail(breaker, 1, status=status)
        assert breaker.state is BreakerState.OPEN
        assert breaker.until == NOW + MIN_PAUSE_MS
        assert not admits(breaker, NOW + MIN_PAUSE_MS - 1)

    def test_one_try_sees_whether_it_is_back(self) -> None:
        """While that is under way no other begins."""
        breaker = Breaker(lambda: 1.0)
        fail(breaker, MIN_FAILED_QUEUES)
        assert admits(breaker, NOW + MIN_PAUSE_MS)
        assert breaker.state is BreakerState.HALF_OPEN
        assert breaker.room(1, 4, now=NOW + MIN_PAUSE_MS * 100) == 0
        succeed(breaker)
        assert breaker.state is BreakerState.CLOSED
        fail(breaker, MIN_FAILED_QUEUES - 1)
        assert admits(breaker, NOW)

    @pytest.mark.parametrize(("chance", "share"), [(0.0, 0.5), (1.0, 1.0)])
    def test_pauses_grow_with_jitter(self, chance: float, share: float) -> None:
        """From half of the bound to all of it: a quarter of the time that it has failed for, up to a minute."""
        breaker = Breaker(lambda: chance)
        fail(breaker, MIN_FAILED_QUEUES)
        for failed_for, pause in ((0, 1), (3_999, 1), (4_000, 1), (40_000, 10), (240_000, 60), (9_000_000, 60)):
            assert admits(breaker, NOW + failed_for + MAX_PAUSE_MS)
            fail(breaker, 1, now=NOW + failed_for)
            assert breaker.until - (NOW + failed_for) == int(pause * 1000 * share)

    def test_who_was_back_soon_was_never_down(self) -> None:
        """Each time more queues have to fail before it is left alone; a real outage ends that."""
        breaker = Breaker(lambda: 1.0)
        for needed in (
            MIN_FAILED_QUEUES,
            2 * MIN_FAILED_QUEUES,
            4 * MIN_FAILED_QUEUES,
            MAX_FAILED_QUEUES,
            MAX_FAILED_QUEUES,
        ):
            fail(breaker, needed - 1)
            assert breaker.state is BreakerState.CLOSED
            fail(breaker, 1)
            assert admits(breaker, NOW + MIN_PAUSE_MS)
            succeed(breaker)
        fail(breaker, MAX_FAILED_QUEUES, now=NOW - 60_000)
        assert admits(breaker, NOW)
        succeed(breaker)
        fail(breaker, MIN_FAILED_QUEUES)
        assert breaker.state is BreakerState.OPEN

    @pytest.mark.parametrize(
        ("lasted", "needed"), [(-1, MIN_FAILED_QUEUES), (0, 10), (59_999, 10), (60_000, MIN_FAILED_QUEUES)]
    )
    def test_an_outage_of_a_minute_is_one(self, lasted: int, needed: int) -> None:
        """A shorter one was about the events; a clock that was set back says nothing."""
        breaker = Breaker(lambda: 1.0)
        fail(breaker, MIN_FAILED_QUEUES, now=NOW - lasted)
        breaker.began()
        succeed(breaker)
        fail(breaker, needed - 1)
        assert breaker.state is BreakerState.CLOSED
        fail(breaker, 1)
        assert breaker.state is BreakerState.OPEN

    @pytest.mark.parametrize("status", [200, 302, 400, 404, 410, 499])
    def test_one_event_that_is_refused_says_nothing_of_the_destination(self, status: int) -> None:
        """It answers, so it lives."""
        breaker = Breaker(lambda: 1.0)
        fail(breaker, MIN_FAILED_QUEUES - 1)
        succeed(breaker, status)
        fail(breaker, MIN_FAILED_QUEUES - 1)
        assert breaker.state is BreakerState.CLOSED

    def test_failures_of_tries_that_were_under_way_change_nothing(self) -> None:
        """Sixteen that fail together are one failure of the destination, not sixteen pauses."""
        breaker = Breaker(lambda: 1.0)
        fail(breaker, MIN_FAILED_QUEUES)
        fail(breaker, 11, now=NOW + MIN_PAUSE_MS // 2)
        assert breaker.until == NOW + MIN_PAUSE_MS

    def test_one_queue_says_nothing_of_the_destination(self) -> None:
        """However often its first event is not taken."""
        breaker = Breaker(lambda: 1.0)
        for _ in range(MIN_FAILED_QUEUES * 10):
            breaker.saw(DeliveryResponse(503, "5xx"), NOW, queue="poisoned", failed_before=True)
        fail(breaker, MIN_FAILED_QUEUES - 2)
        assert breaker.state is BreakerState.CLOSED

    @pytest.mark.parametrize(("healthy", "state"), [(0, "closed"), (2, "closed"), (3, "open"), (5, "open")])
    def test_queues_that_failed_before_say_little(self, healthy: int, state: str) -> None:
        """At least half of those whose last attempts failed must have been untried or healthy."""
        breaker = Breaker(lambda: 1.0)
        succeed(breaker)
        fail(breaker, 3 * MIN_FAILED_QUEUES, failed_before=True)
        fail(breaker, healthy)
        assert breaker.state == state

    def test_half_of_them_is_enough(self) -> None:
        """Of an even number, too."""
        breaker = Breaker(lambda: 1.0)
        fail(breaker, MIN_FAILED_QUEUES)
        assert admits(breaker, NOW + MIN_PAUSE_MS)
        succeed(breaker)
        fail(breaker, MIN_FAILED_QUEUES, failed_before=True)
        fail(breaker, MIN_FAILED_QUEUES - 1)
        assert breaker.state is BreakerState.CLOSED
        fail(breaker, 1)
        assert breaker.state is BreakerState.OPEN

    def test_a_queue_that_was_healthy_counts_so_until_a_success(self) -> None:
        """Its second failure in a row does not make it one that is at fault itself."""
        breaker = Breaker(lambda: 1.0)
        succeed(breaker)
        for failed_before in (False, True):
            for number in range(MIN_FAILED_QUEUES - 1):
                breaker.saw(DeliveryResponse(503, "5xx"), NOW, queue=f"same {number}", failed_before=failed_before)
        fail(breaker, 1, failed_before=True)
        assert breaker.state is BreakerState.OPEN

    def test_before_the_first_success_nobody_knows_who_is_at_fault(self) -> None:
        """A relay that begins again while the destination is down pauses as well."""
        breaker = Breaker(lambda: 1.0)
        fail(breaker, MIN_FAILED_QUEUES, failed_before=True)
        assert breaker.state is BreakerState.OPEN

    def test_an_application_that_fails_is_asked_again_within_a_second(self) -> None:
        """It lives, and what it fails of may be one event."""
        breaker = Breaker(lambda: 1.0)
        fail(breaker, MIN_FAILED_QUEUES, status=500)
        for _ in range(10):
            last = breaker.until
            assert admits(breaker, last)
            fail(breaker, 1, now=last, status=500)
            assert breaker.until == last + 1000
        assert admits(breaker, breaker.until)
        fail(breaker, 1, now=NOW + 100_000, status=501)
        assert breaker.until == NOW + 125_000, "any other failure pauses by how long it has lasted"

    def test_a_probe_that_came_to_nothing_is_made_again(self) -> None:
        """Half-open with nothing under way would be so for ever."""
        breaker = Breaker(lambda: 1.0)
        fail(breaker, MIN_FAILED_QUEUES)
        assert admits(breaker, NOW + MIN_PAUSE_MS)
        assert breaker.room(1, 4, now=NOW + MIN_PAUSE_MS) == 0
        assert breaker.room(0, 4, now=NOW + MIN_PAUSE_MS) == 1

    def test_a_clock_that_is_set_back(self) -> None:
        """The pause is never longer than the longest."""
        breaker = Breaker(lambda: 1.0)
        fail(breaker, MIN_FAILED_QUEUES)
        assert breaker.room(0, 4, now=NOW - 9_000_000) == 0
        assert breaker.room(0, 4, now=NOW - 9_000_000 + MAX_PAUSE_MS) == 1

    def test_what_begins_while_it_is_closed_leaves_it_so(self) -> None:
        """Only the try of an open one is a probe."""
        breaker = Breaker(lambda: 1.0)
        breaker.began()
        assert breaker.state is BreakerState.CLOSED

    def test_at_most_so_many_at_once(self) -> None:
        """Of those that may begin, what runs already is taken off."""
        breaker = Breaker(lambda: 1.0)
        assert breaker.room(0, 4, now=NOW) == 4
        assert breaker.room(3, 4, now=NOW) == 1
        assert breaker.room(4, 4, now=NOW) == breaker.room(9, 4, now=NOW) == 0
        fail(breaker, MIN_FAILED_QUEUES)
        assert breaker.room(0, 4, now=NOW + MIN_PAUSE_MS) == breaker.at_once(4) == 1

    def test_what_is_back_is_not_overrun(self) -> None:
        """From two at once to twice as many with each try that goes well, and from two again after the next fall."""
        breaker = Breaker(lambda: 1.0)
        for number in range(2):
            fail(breaker, MIN_FAILED_QUEUES * (number + 1))
            assert admits(breaker, breaker.until)
            rooms = []
            for _ in range(5):
                succeed(breaker)
                rooms.append(breaker.room(0, 20, now=NOW))
            assert rooms == [FIRST_CONCURRENCY, 4, 8, 16, 20]
