"""Decide what follows an attempt (delivered, retry or dead letter), and when a failing destination is paused.

Pure: time and randomness are arguments. Times are in milliseconds. Sources: "Exponential Backoff And Jitter" (AWS
Architecture Blog: full jitter), RFC 9110 section 10.2.3 (Retry-After).
"""

from collections import OrderedDict
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from enum import StrEnum
from typing import Final, NamedTuple

from service.outcomes import DeadLetterReason
from service.relay.sender import DeliveryResponse
from service.storage.deliveries import Claim, Ruling, Verdict
from service.storage.delivery_policy import DeliveryPolicy

GONE: Final = 410
TOO_MANY_REQUESTS: Final = 429

# The circuit breaker opens if the last attempts of this many queues all failed: fewer may be about single events.
MIN_FAILED_QUEUES: Final = 5
MAX_FAILED_QUEUES: Final = 40
# A shorter outage is attributed to rejected events, not to the destination.
SHORT_OUTAGE_MS: Final = 60_000
MIN_PAUSE_MS: Final = 1_000
PAUSE_DIVISOR: Final = 4  # a pause lasts a quarter of the time since the first failure
MAX_PAUSE_MS: Final = 60_000
INTERNAL_ERROR: Final = 500  # an application that answers 500 is running: the cause may be a single event
MAX_PAUSE_AFTER_500_MS: Final = 1_000
MIN_SHARE_DIVISOR: Final = 4  # a quarter of the concurrent attempts is reserved for failed queues
MAX_SHARE_DIVISOR: Final = 2  # and at most half may be for them, so that healthy queues need not wait for timeouts
FIRST_CONCURRENCY: Final = 2
MAX_CONCURRENCY: Final = 256


def rule(
    claim: Claim, answer: DeliveryResponse, *, policy: DeliveryPolicy, now: int, chance: Callable[[], float]
) -> Ruling:
    """Return what follows from the response to an attempt; *chance* returns a number from 0 to 1."""
    if 200 <= answer.status < 300:  # noqa: PLR2004  success
        return Ruling(Verdict.DELIVERED)
    if answer.status == GONE:  # the destination is disabled, so none of its deliveries is due
        return Ruling(Verdict.RETRY, now)
    failing_since = max(claim.first_attempt_at, claim.planned_at)
    if claim.first_attempt_at and now - failing_since >= policy.max_age_ms and claim.attempts >= policy.min_attempts:
        return Ruling(Verdict.DEAD_LETTER, reason=DeadLetterReason.EXPIRED)
    backoff = int(chance() * min(policy.max_backoff_ms, policy.first_backoff_ms * 2 ** min(claim.attempts, 30)))
    retry_after = _retry_after_ms(answer.retry_after, now)
    return Ruling(Verdict.RETRY, now + max(backoff, min(retry_after, policy.max_retry_after_ms)))


def _retry_after_ms(header: str | None, now: int) -> int:
    """Parse Retry-After, seconds or a date, into milliseconds from *now*; 0 if it is missing or invalid."""
    if not header:
        return 0
    text = header.strip()
    if text.isascii() and text.isdigit():
        return int(text[:9]) * 1000
    try:
        return max(int(parsedate_to_datetime(text).timestamp() * 1000) - now, 0)
    except (ValueError, TypeError, OverflowError):
        return 0


class BreakerState(StrEnum):
    """The states of a circuit breaker."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class Shares(NamedTuple):
    """How many attempts of failed queues may start now: *first* before those of healthy queues, *most* in total."""

    first: int
    most: int


def shares(concurrency: int, running_failed: int, healthy_since: int) -> Shares:
    """Return how many of *concurrency* attempts are for failed queues (whose last attempt failed).

    *running_failed* attempts of failed queues are running already. *healthy_since* counts the attempts of healthy
    queues since the last one of a failed queue: with a concurrency of 1, every fourth attempt is for a failed queue.
    """
    if concurrency == 1:
        return Shares(1 if healthy_since >= MIN_SHARE_DIVISOR - 1 else 0, 1)
    first, most = max(concurrency // MIN_SHARE_DIVISOR, 1), concurrency // MAX_SHARE_DIVISOR
    return Shares(max(first - running_failed, 0), max(most - running_failed, 0))


class Breaker:
    """The circuit breaker of one destination: pauses it while it fails in general, then probes it with one attempt.

    It opens if the last attempts of several queues all failed and at least half of these queues were new or healthy
    before. Five queues are enough at first. The number doubles, up to 40, each time the destination is back within a
    minute, because then single events were the cause. A pause lasts a quarter of the time since the first failure,
    within limits. After a pause, concurrency starts at two and doubles with each success, to avoid a stampede.
    """

    def __init__(self, chance: Callable[[], float]) -> None:
        self._chance = chance
        # The queues that failed last, without a success since; the value is whether the queue was new or healthy.
        self._failed: OrderedDict[str, bool] = OrderedDict()
        # Before the first success it is unknown which queues fail because of their own events.
        self._has_succeeded = False
        self._needed = MIN_FAILED_QUEUES
        self._failing_since: int | None = None
        self._concurrency = MAX_CONCURRENCY
        self.state = BreakerState.CLOSED
        # When the next probe may start, if the breaker is open.
        self.next_probe_at = 0

    def capacity(self, running: int, limit: int, *, now: int) -> int:
        """Return how many attempts may start now if *running* are running already, of *limit* at the same time."""
        self.next_probe_at = min(self.next_probe_at, now + MAX_PAUSE_MS)  # the clock may have been set back
        if self.state is BreakerState.HALF_OPEN and not running:
            self.state = BreakerState.OPEN  # the probe ended without a result
        if self.state is BreakerState.CLOSED:
            return max(self.concurrency(limit) - running, 0)
        return int(self.state is BreakerState.OPEN and now >= self.next_probe_at)

    def attempt_started(self) -> None:
        """Record that an attempt started: if the breaker is open, it is the probe."""
        if self.state is BreakerState.OPEN:
            self.state = BreakerState.HALF_OPEN

    def concurrency(self, limit: int) -> int:
        """Return how many attempts may run at the same time now, at most *limit*."""
        return min(limit, self._concurrency) if self.state is BreakerState.CLOSED else 1

    def record(self, answer: DeliveryResponse, now: int, *, queue: str, failed_before: bool) -> None:
        """Record the response to an attempt of *queue*; *failed_before* is whether its previous attempt failed."""
        if answer.status and answer.status < 500 and answer.status != TOO_MANY_REQUESTS:  # noqa: PLR2004  it is up
            self._record_success(now)
            return
        if self._failing_since is None:
            self._failing_since = now
        self._failed[queue] = self._failed.pop(queue, False) or not (failed_before and self._has_succeeded)
        if len(self._failed) > self._needed:
            self._failed.popitem(last=False)
        is_general = len(self._failed) == self._needed and 2 * sum(self._failed.values()) >= self._needed
        if self.state is BreakerState.HALF_OPEN or (self.state is BreakerState.CLOSED and is_general):
            max_pause = MAX_PAUSE_AFTER_500_MS if answer.status == INTERNAL_ERROR else MAX_PAUSE_MS
            pause = min(max((now - self._failing_since) // PAUSE_DIVISOR, MIN_PAUSE_MS), max_pause)
            self.state = BreakerState.OPEN
            self.next_probe_at = now + int(pause * (0.5 + self._chance() / 2))

    def _record_success(self, now: int) -> None:
        if self.state is BreakerState.CLOSED:
            self._concurrency = min(2 * self._concurrency, MAX_CONCURRENCY)
        else:
            self._concurrency = FIRST_CONCURRENCY
            was_short = self._failing_since is not None and 0 <= now - self._failing_since < SHORT_OUTAGE_MS
            self._needed = min(2 * self._needed, MAX_FAILED_QUEUES) if was_short else MIN_FAILED_QUEUES
        self._failed.clear()
        self._failing_since = None
        self._has_succeeded = True
        self.state = BreakerState.CLOSED
