"""The rate limit of a destination: pure, with a clock that the test moves."""

import pytest

from service.relay.rate_limit import RateLimit

NOW = 1_795_000_000_000


def started(limit: RateLimit, wanted: int, now: int) -> int:
    """Start as many of the *wanted* attempts as the limit allows; return how many."""
    number = limit.capacity(wanted, now)
    for _ in range(number):
        limit.attempt_started()
    return number


def test_without_a_limit_everything_may_start() -> None:
    """At any time."""
    limit = RateLimit(None)
    assert [started(limit, 99, NOW) for _ in range(3)] == [99] * 3


@pytest.mark.parametrize(("per_second", "relays", "expected"), [(50, 1, 50), (50, 2, 25), (0.5, 1, 0.5), (3, 1, 3)])
def test_the_rate_is_kept_over_minutes(per_second: float, relays: int, expected: float) -> None:
    """Each relay takes its share."""
    limit = RateLimit(per_second)
    limit.relays = relays
    total = sum(started(limit, 99, NOW + at) for at in range(0, 120_001, 10))
    assert total == pytest.approx(120 * expected, abs=1 + per_second * 0.1)


def test_a_pause_allows_a_tenth_of_a_second_at_once() -> None:
    """And one more, but not all that was not used meanwhile."""
    limit = RateLimit(50)
    assert started(limit, 99, NOW) == 1
    assert started(limit, 99, NOW + 60_000) == 6
    assert started(RateLimit(1 / 60), 99, NOW) == 1


def test_no_more_than_wanted() -> None:
    """What is not used stays for the next attempt."""
    limit = RateLimit(50)
    assert started(limit, 0, NOW) == 0
    assert started(limit, 2, NOW + 100) == 2
    assert started(limit, 9, NOW + 100) == 4


def test_a_clock_that_is_set_back() -> None:
    """It neither adds tokens nor stops anything for long."""
    limit = RateLimit(10)
    assert started(limit, 9, NOW) == 1
    assert started(limit, 9, NOW - 3_600_000) == 0
    assert started(limit, 9, NOW - 3_600_000 + 100) == 1
