"""The circuit breaker: pure, so every edge case is a few lines."""

import itertools
from collections.abc import Callable

import pytest

from service.relay.breaker import (
    FIRST_CONCURRENCY,
    MAX_CONCURRENCY,
    MAX_FAILED_QUEUES,
    MAX_PAUSE_MS,
    MIN_FAILED_QUEUES,
    MIN_PAUSE_MS,
    MISCONFIGURED_ATTEMPTS,
    MISCONFIGURED_MS,
    MISCONFIGURED_QUEUES,
    Breaker,
    BreakerState,
    shares,
)
from service.relay.policy import AnswerKind, kind_of
from service.storage.delivery_policy import DELIVERY_POLICY
from service.telemetry.metrics import relay as metrics

NOW = 1_795_000_000_000
PERMANENT = DELIVERY_POLICY.permanent_statuses


QUEUES = itertools.count()


def fail(breaker: Breaker, times: int, now: int = NOW, status: int = 503, *, failed_before: bool = False) -> None:
    """Record one failure for each of so many new queues."""
    for _ in range(times):
        kind = kind_of(status, PERMANENT)
        breaker.record(kind, status, now, queue=f"queue {next(QUEUES)}", failed_before=failed_before)


def succeed(breaker: Breaker, status: int = 200) -> None:
    breaker.record(kind_of(status, PERMANENT), status, NOW, queue="good", failed_before=False)


def test_the_documented_limits() -> None:
    """The limits of docs/receive-events.md, in milliseconds, and the breaker states of the metrics."""
    assert (MIN_FAILED_QUEUES, MAX_FAILED_QUEUES, MAX_CONCURRENCY) == (5, 40, 256)
    assert (MIN_PAUSE_MS, MAX_PAUSE_MS) == (1_000, 60_000)
    assert (MISCONFIGURED_ATTEMPTS, MISCONFIGURED_QUEUES, MISCONFIGURED_MS) == (10, 3, 60_000)
    assert sorted(BreakerState) == sorted(metrics.BREAKER_STATES)


def test_stored_times_are_integers() -> None:
    """SQLite rejects other types."""
    breaker = Breaker(lambda: 0.3)
    fail(breaker, MIN_FAILED_QUEUES)
    assert isinstance(breaker.next_probe_at, int)
    assert [type(breaker.capacity(0, 4, now=now)) for now in (NOW, breaker.next_probe_at)] == [int, int]


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

    @pytest.mark.parametrize("status", [200, 400, 409, 410, 422, 499])
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
            breaker.record(AnswerKind.FAILED, 503, NOW, queue="poisoned", failed_before=True)
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
                breaker.record(AnswerKind.FAILED, 503, NOW, queue=f"same {number}", failed_before=failed_before)
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
        fail(breaker, 1, now=NOW + 100_000, status=502)
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


def misconfigured(breaker: Breaker, *queues: str, now: int = NOW, status: int = 401) -> None:
    for queue in queues:
        breaker.record(AnswerKind.MISCONFIGURED, status, now, queue=queue, failed_before=False)


class TestMisconfigured:
    """A destination that is misconfigured is attempted once at a time, until it accepts something."""

    def test_ten_attempts_in_three_queues(self) -> None:
        """All answers of the last ten attempts say so: it is probed, with a pause of at most a minute."""
        breaker = Breaker(lambda: 1.0)
        misconfigured(breaker, *"aaaaaaab")
        misconfigured(breaker, "b")
        assert not breaker.is_misconfigured
        misconfigured(breaker, "c")
        assert breaker.is_misconfigured
        assert breaker.state is BreakerState.OPEN
        assert breaker.next_probe_at == NOW + MIN_PAUSE_MS
        for failed_for, pause in ((40_000, 10), (240_000, 60), (9_000_000, 60)):
            assert admits(breaker, NOW + failed_for + MAX_PAUSE_MS)
            misconfigured(breaker, "a", now=NOW + failed_for)
            assert breaker.next_probe_at - (NOW + failed_for) == pause * 1000

    def test_the_last_ten_attempts_count(self) -> None:
        """However many there were before; then running attempts do not extend the pause."""
        breaker = Breaker(lambda: 1.0)
        misconfigured(breaker, *"abababababab")
        assert not breaker.is_misconfigured
        misconfigured(breaker, "c")
        assert breaker.is_misconfigured
        misconfigured(breaker, *"def", now=NOW + MIN_PAUSE_MS // 2)
        assert breaker.next_probe_at == NOW + MIN_PAUSE_MS
        breaker.record(AnswerKind.FAILED, 503, NOW + MIN_PAUSE_MS // 2, queue="g", failed_before=False)
        assert breaker.next_probe_at == NOW + MIN_PAUSE_MS

    def test_two_queues_are_too_few(self) -> None:
        """The cause may be two events, for a minute."""
        breaker = Breaker(lambda: 1.0)
        misconfigured(breaker, *"ab" * 50)
        misconfigured(breaker, "a", now=NOW + MISCONFIGURED_MS - 1)
        assert (breaker.is_misconfigured, breaker.state) == (False, BreakerState.CLOSED)
        misconfigured(breaker, "a", now=NOW + MISCONFIGURED_MS)
        assert (breaker.is_misconfigured, breaker.state) == (True, BreakerState.OPEN)

    @pytest.mark.parametrize("status", [200, 400, 409, 429, 500, 0])
    def test_any_other_answer_before_that_starts_the_count_again(self, status: int) -> None:
        """The destination is not misconfigured for every event."""
        breaker = Breaker(lambda: 1.0)
        misconfigured(breaker, *"abcabcabc")
        breaker.record(kind_of(status, PERMANENT), status, NOW, queue="d", failed_before=True)
        misconfigured(breaker, *"abcabcabc", now=NOW + MISCONFIGURED_MS)
        assert not breaker.is_misconfigured
        misconfigured(breaker, "a", now=NOW + MISCONFIGURED_MS)
        assert breaker.is_misconfigured

    @pytest.mark.parametrize("status", [400, 409, 410, 429, 500, 0])
    def test_only_a_2xx_ends_it(self, status: int) -> None:
        """Any other answer keeps it paused; then concurrency grows from two."""
        breaker = Breaker(lambda: 1.0)
        misconfigured(breaker, *"abcabcabca")
        assert admits(breaker, breaker.next_probe_at)
        breaker.record(kind_of(status, PERMANENT), status, NOW, queue="d", failed_before=True)
        assert (breaker.is_misconfigured, breaker.state) == (True, BreakerState.OPEN)
        assert admits(breaker, NOW + 240_000)
        breaker.record(kind_of(status, PERMANENT), status, NOW + 240_000, queue="e", failed_before=True)
        assert breaker.next_probe_at == NOW + 300_000, "a quarter of the time since it began"
        assert admits(breaker, breaker.next_probe_at)
        succeed(breaker, 204)
        assert (breaker.is_misconfigured, breaker.state) == (False, BreakerState.CLOSED)
        assert breaker.concurrency(20) == FIRST_CONCURRENCY

    def test_it_is_no_short_outage(self) -> None:
        """After it, the breaker opens as early as before."""
        breaker = Breaker(lambda: 1.0)
        misconfigured(breaker, *"abcabcabca")
        assert admits(breaker, breaker.next_probe_at)
        succeed(breaker)
        fail(breaker, MIN_FAILED_QUEUES)
        assert breaker.state is BreakerState.OPEN

    def test_a_probe_of_a_failing_destination_that_finds_it_misconfigured(self) -> None:
        """It stays open: the answer does not show that deliveries work."""
        breaker = Breaker(lambda: 1.0)
        fail(breaker, MIN_FAILED_QUEUES)
        assert admits(breaker, breaker.next_probe_at)
        misconfigured(breaker, "a")
        assert (breaker.is_misconfigured, breaker.state) == (False, BreakerState.OPEN)


class TestRetryNow:
    """Somebody repaired the destination and says so."""

    @pytest.mark.parametrize("cause", [fail, lambda breaker, _: misconfigured(breaker, *"abcabcabca")])
    def test_an_open_breaker_probes_at_once(self, cause: Callable[[Breaker, int], None]) -> None:
        """Even while another probe runs; if that fails, it pauses as before."""
        breaker = Breaker(lambda: 1.0)
        cause(breaker, MIN_FAILED_QUEUES)
        breaker.retry_now(NOW)
        assert admits(breaker, NOW)
        assert breaker.capacity(1, 4, now=NOW) == 0
        breaker.retry_now(NOW)
        assert breaker.capacity(1, 4, now=NOW) == 1
        assert admits(breaker, NOW)
        cause(breaker, 1)
        assert breaker.state is BreakerState.OPEN
        assert breaker.next_probe_at > NOW

    def test_a_closed_breaker_starts_with_two_attempts(self) -> None:
        """Everything that waits is due at once."""
        breaker = Breaker(lambda: 1.0)
        breaker.retry_now(NOW)
        assert (breaker.state, breaker.concurrency(20)) == (BreakerState.CLOSED, FIRST_CONCURRENCY)
