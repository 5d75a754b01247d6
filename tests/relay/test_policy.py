"""The retry rule and the circuit breaker: pure, so every edge case is one line."""

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


def ruling(
    status: int, *, attempts: int = 0, first_attempt_at: int = 0, retry_after: str | None = None, chance: float = 1.0
) -> Ruling:
    answer = DeliveryResponse(status, "word", retry_after)
    return rule(claim(attempts, first_attempt_at), answer, policy=DELIVERY_POLICY, now=NOW, chance=lambda: chance)


@pytest.mark.parametrize("status", [200, 201, 204, 299])
def test_success(status: int) -> None:
    """Any 2xx is delivered."""
    assert ruling(status) == Ruling(Verdict.DELIVERED)


@pytest.mark.parametrize("status", [0, 199, 300, 302, 400, 401, 404, 409, 429, 500, 503])
def test_everything_else_is_retried(status: int) -> None:
    """After a random backoff, whose upper limit doubles with each attempt."""
    assert ruling(status, chance=1.0) == Ruling(Verdict.RETRY, NOW + DELIVERY_POLICY.first_backoff_ms)
    assert ruling(status, chance=0.0) == Ruling(Verdict.RETRY, NOW)
    assert ruling(status, attempts=3).due == NOW + DELIVERY_POLICY.first_backoff_ms * 8
    assert ruling(status, attempts=10_000).due == NOW + DELIVERY_POLICY.max_backoff_ms


def test_gone_has_no_backoff() -> None:
    """The destination is disabled, and the delivery stays pending."""
    assert ruling(410) == Ruling(Verdict.RETRY, NOW)


def test_an_event_expires() -> None:
    """Three days after the queue's first failure, if there were enough attempts; a success then is still a success."""
    expired = NOW - DELIVERY_POLICY.max_age_ms
    assert ruling(500, attempts=DELIVERY_POLICY.min_attempts, first_attempt_at=expired + 1).verdict is Verdict.RETRY
    assert ruling(500, attempts=DELIVERY_POLICY.min_attempts, first_attempt_at=expired) == Ruling(
        Verdict.DEAD_LETTER, reason=DeadLetterReason.EXPIRED
    )
    assert ruling(500, attempts=DELIVERY_POLICY.min_attempts - 1, first_attempt_at=expired).verdict is Verdict.RETRY, (
        "the clock may have jumped"
    )
    assert ruling(200, attempts=DELIVERY_POLICY.min_attempts, first_attempt_at=expired).verdict is Verdict.DELIVERED


def test_an_event_that_waited_behind_an_expired_one_gets_one_attempt() -> None:
    """It has waited three days as well; an event that was planned later has its own three days."""
    answer = DeliveryResponse(500, "5xx")
    for planned_at, verdict in (
        (NOW - DELIVERY_POLICY.max_age_ms, Verdict.DEAD_LETTER),
        (NOW - DELIVERY_POLICY.max_age_ms + 1, Verdict.RETRY),
    ):
        next_claim = claim(attempts=99, first_attempt_at=NOW - 2 * DELIVERY_POLICY.max_age_ms, planned_at=planned_at)
        assert rule(next_claim, answer, policy=DELIVERY_POLICY, now=NOW, chance=lambda: 1.0).verdict is verdict


@pytest.mark.parametrize(
    ("header", "delay"),
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
def test_retry_after(header: str, delay: int) -> None:
    """Seconds or a date; never less than the backoff, and never more than a day."""
    assert ruling(503, retry_after=header).due == NOW + delay


QUEUES = itertools.count()


def fail(breaker: Breaker, times: int, now: int = NOW, status: int = 503, *, failed_before: bool = False) -> None:
    """Record one failure for each of so many new queues."""
    for _ in range(times):
        breaker.record(DeliveryResponse(status, "5xx"), now, queue=f"queue {next(QUEUES)}", failed_before=failed_before)


def succeed(breaker: Breaker, status: int = 200) -> None:
    breaker.record(DeliveryResponse(status, "word"), NOW, queue="good", failed_before=False)


def test_the_documented_limits() -> None:
    """The limits of docs/receive-events.md, in milliseconds, and the breaker states of the metrics."""
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


def test_stored_times_are_integers() -> None:
    """SQLite rejects other types."""
    assert isinstance(ruling(500, chance=0.3).due, int)
    assert isinstance(ruling(500, chance=0.0, retry_after="Wed, 18 Nov 2026 11:07:20 GMT").due, int)
    breaker = Breaker(lambda: 0.3)
    fail(breaker, MIN_FAILED_QUEUES)
    assert isinstance(breaker.next_probe_at, int)
    assert [type(breaker.capacity(0, 4, now=now)) for now in (NOW, breaker.next_probe_at)] == [int, int]


@pytest.mark.parametrize("header", ["", "soon", "Wed, 18 Nov 2020 11:06:40 GMT", "Wed, 99 Nov 9999 99:99:99 GMT", "²"])
def test_an_invalid_retry_after_adds_no_delay(header: str) -> None:
    """Nor does a date in the past."""
    assert ruling(503, retry_after=header, chance=0.0).due == NOW


def admits(breaker: Breaker, now: int) -> bool:
    """Start an attempt if the breaker allows one; return whether it does."""
    if not breaker.capacity(0, 4, now=now):
        return False
    breaker.attempt_started()
    return True


@pytest.mark.parametrize(
    ("concurrency", "running_failed", "healthy_since", "expected"),
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
def test_the_share_of_failed_queues(
    concurrency: int, running_failed: int, healthy_since: int, expected: tuple[int, int]
) -> None:
    """A quarter is reserved for them, and at most half; with a concurrency of 1, every fourth attempt."""
    assert shares(concurrency, running_failed, healthy_since) == expected


class TestBreaker:
    """The circuit breaker pauses a destination that is down, and detects that it is back."""

    @pytest.mark.parametrize("status", [0, 429, 500, 503])
    def test_it_opens_after_consecutive_failures(self, status: int) -> None:
        """It admits nothing until its pause is over."""
        breaker = Breaker(lambda: 1.0)
        fail(breaker, MIN_FAILED_QUEUES - 1, status=status)
        assert admits(breaker, NOW)
        fail(breaker, 1, status=status)
        assert breaker.state is BreakerState.OPEN
        assert breaker.next_probe_at == NOW + MIN_PAUSE_MS
        assert not admits(breaker, NOW + MIN_PAUSE_MS - 1)

    def test_one_attempt_probes_the_destination(self) -> None:
        """While the probe runs, no other attempt starts."""
        breaker = Breaker(lambda: 1.0)
        fail(breaker, MIN_FAILED_QUEUES)
        assert admits(breaker, NOW + MIN_PAUSE_MS)
        assert breaker.state is BreakerState.HALF_OPEN
        assert breaker.capacity(1, 4, now=NOW + MIN_PAUSE_MS * 100) == 0
        succeed(breaker)
        assert breaker.state is BreakerState.CLOSED
        fail(breaker, MIN_FAILED_QUEUES - 1)
        assert admits(breaker, NOW)

    @pytest.mark.parametrize(("chance", "share"), [(0.0, 0.5), (1.0, 1.0)])
    def test_pauses_grow_with_jitter(self, chance: float, share: float) -> None:
        """A pause is a quarter of the time since the first failure, at most a minute; jitter takes off up to half."""
        breaker = Breaker(lambda: chance)
        fail(breaker, MIN_FAILED_QUEUES)
        for failed_for, pause in ((0, 1), (3_999, 1), (4_000, 1), (40_000, 10), (240_000, 60), (9_000_000, 60)):
            assert admits(breaker, NOW + failed_for + MAX_PAUSE_MS)
            fail(breaker, 1, now=NOW + failed_for)
            assert breaker.next_probe_at - (NOW + failed_for) == int(pause * 1000 * share)

    def test_short_outages_raise_the_number_of_failed_queues(self) -> None:
        """After each one more queues have to fail before the breaker opens; a real outage resets the number."""
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
        ("duration", "needed"), [(-1, MIN_FAILED_QUEUES), (0, 10), (59_999, 10), (60_000, MIN_FAILED_QUEUES)]
    )
    def test_an_outage_is_real_from_one_minute_on(self, duration: int, needed: int) -> None:
        """A shorter one is attributed to the events, unless the clock was set back."""
        breaker = Breaker(lambda: 1.0)
        fail(breaker, MIN_FAILED_QUEUES, now=NOW - duration)
        breaker.attempt_started()
        succeed(breaker)
        fail(breaker, needed - 1)
        assert breaker.state is BreakerState.CLOSED
        fail(breaker, 1)
        assert breaker.state is BreakerState.OPEN

    @pytest.mark.parametrize("status", [200, 302, 400, 404, 410, 499])
    def test_a_rejected_event_is_no_failure_of_the_destination(self, status: int) -> None:
        """The destination responds, so it is up."""
        breaker = Breaker(lambda: 1.0)
        fail(breaker, MIN_FAILED_QUEUES - 1)
        succeed(breaker, status)
        fail(breaker, MIN_FAILED_QUEUES - 1)
        assert breaker.state is BreakerState.CLOSED

    def test_failures_of_attempts_that_were_running_do_not_extend_the_pause(self) -> None:
        """Sixteen concurrent failures are one failure of the destination, not sixteen pauses."""
        breaker = Breaker(lambda: 1.0)
        fail(breaker, MIN_FAILED_QUEUES)
        fail(breaker, 11, now=NOW + MIN_PAUSE_MS // 2)
        assert breaker.next_probe_at == NOW + MIN_PAUSE_MS

    def test_one_failing_queue_does_not_open_it(self) -> None:
        """However often its first event is rejected."""
        breaker = Breaker(lambda: 1.0)
        for _ in range(MIN_FAILED_QUEUES * 10):
            breaker.record(DeliveryResponse(503, "5xx"), NOW, queue="poisoned", failed_before=True)
        fail(breaker, MIN_FAILED_QUEUES - 2)
        assert breaker.state is BreakerState.CLOSED

    @pytest.mark.parametrize(("healthy", "state"), [(0, "closed"), (2, "closed"), (3, "open"), (5, "open")])
    def test_queues_that_failed_before_do_not_open_it_alone(self, healthy: int, state: str) -> None:
        """At least half of the queues whose last attempts failed must have been new or healthy."""
        breaker = Breaker(lambda: 1.0)
        succeed(breaker)
        fail(breaker, 3 * MIN_FAILED_QUEUES, failed_before=True)
        fail(breaker, healthy)
        assert breaker.state == state

    def test_exactly_half_new_queues_is_enough(self) -> None:
        """If the number of queues is even."""
        breaker = Breaker(lambda: 1.0)
        fail(breaker, MIN_FAILED_QUEUES)
        assert admits(breaker, NOW + MIN_PAUSE_MS)
        succeed(breaker)
        fail(breaker, MIN_FAILED_QUEUES, failed_before=True)
        fail(breaker, MIN_FAILED_QUEUES - 1)
        assert breaker.state is BreakerState.CLOSED
        fail(breaker, 1)
        assert breaker.state is BreakerState.OPEN

    def test_a_healthy_queue_counts_as_healthy_until_the_next_success(self) -> None:
        """Its second consecutive failure does not make it a queue that failed before."""
        breaker = Breaker(lambda: 1.0)
        succeed(breaker)
        for failed_before in (False, True):
            for number in range(MIN_FAILED_QUEUES - 1):
                breaker.record(DeliveryResponse(503, "5xx"), NOW, queue=f"same {number}", failed_before=failed_before)
        fail(breaker, 1, failed_before=True)
        assert breaker.state is BreakerState.OPEN

    def test_before_the_first_success_every_failed_queue_counts(self) -> None:
        """A relay that is restarted while the destination is down pauses as well."""
        breaker = Breaker(lambda: 1.0)
        fail(breaker, MIN_FAILED_QUEUES, failed_before=True)
        assert breaker.state is BreakerState.OPEN

    def test_after_a_500_the_next_probe_is_within_a_second(self) -> None:
        """The application is running, and the cause may be a single event."""
        breaker = Breaker(lambda: 1.0)
        fail(breaker, MIN_FAILED_QUEUES, status=500)
        for _ in range(10):
            probed_at = breaker.next_probe_at
            assert admits(breaker, probed_at)
            fail(breaker, 1, now=probed_at, status=500)
            assert breaker.next_probe_at == probed_at + 1000
        assert admits(breaker, breaker.next_probe_at)
        fail(breaker, 1, now=NOW + 100_000, status=501)
        assert breaker.next_probe_at == NOW + 125_000, "after any other failure, a quarter of the outage"

    def test_a_probe_without_a_result_is_repeated(self) -> None:
        """Otherwise the breaker would stay half-open forever."""
        breaker = Breaker(lambda: 1.0)
        fail(breaker, MIN_FAILED_QUEUES)
        assert admits(breaker, NOW + MIN_PAUSE_MS)
        assert breaker.capacity(1, 4, now=NOW + MIN_PAUSE_MS) == 0
        assert breaker.capacity(0, 4, now=NOW + MIN_PAUSE_MS) == 1

    def test_a_clock_that_is_set_back(self) -> None:
        """The pause never exceeds its limit."""
        breaker = Breaker(lambda: 1.0)
        fail(breaker, MIN_FAILED_QUEUES)
        assert breaker.capacity(0, 4, now=NOW - 9_000_000) == 0
        assert breaker.capacity(0, 4, now=NOW - 9_000_000 + MAX_PAUSE_MS) == 1

    def test_an_attempt_leaves_it_closed(self) -> None:
        """Only an attempt while it is open is a probe."""
        breaker = Breaker(lambda: 1.0)
        breaker.attempt_started()
        assert breaker.state is BreakerState.CLOSED

    def test_running_attempts_reduce_the_capacity(self) -> None:
        """While it is open, the capacity is one probe."""
        breaker = Breaker(lambda: 1.0)
        assert breaker.capacity(0, 4, now=NOW) == 4
        assert breaker.capacity(3, 4, now=NOW) == 1
        assert breaker.capacity(4, 4, now=NOW) == breaker.capacity(9, 4, now=NOW) == 0
        fail(breaker, MIN_FAILED_QUEUES)
        assert breaker.capacity(0, 4, now=NOW + MIN_PAUSE_MS) == breaker.concurrency(4) == 1

    def test_concurrency_grows_slowly_after_an_outage(self) -> None:
        """It starts at two, doubles with each success, and starts at two again after the next outage."""
        breaker = Breaker(lambda: 1.0)
        for number in range(2):
            fail(breaker, MIN_FAILED_QUEUES * (number + 1))
            assert admits(breaker, breaker.next_probe_at)
            capacities = []
            for _ in range(5):
                succeed(breaker)
                capacities.append(breaker.capacity(0, 20, now=NOW))
            assert capacities == [FIRST_CONCURRENCY, 4, 8, 16, 20]
