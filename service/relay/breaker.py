"""The circuit breaker: when a destination that fails in general, or is misconfigured, is paused and probed.

Pure: time and randomness are arguments. Times are in milliseconds.
"""

from collections import OrderedDict, deque
from collections.abc import Callable
from enum import StrEnum
from typing import Final, NamedTuple

from service.relay.policy import AnswerKind

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
# A destination is misconfigured if its last attempts, in several queues, or all attempts of a minute say so.
MISCONFIGURED_ATTEMPTS: Final = 10
MISCONFIGURED_QUEUES: Final = 3
MISCONFIGURED_MS: Final = 60_000
MIN_SHARE_DIVISOR: Final = 4  # a quarter of the concurrent attempts is reserved for failed queues
MAX_SHARE_DIVISOR: Final = 2  # and at most half may be for them, so that healthy queues need not wait for timeouts
FIRST_CONCURRENCY: Final = 2
MAX_CONCURRENCY: Final = 256


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
    minute, because then single events were the cause. It also opens if the destination is misconfigured; then only a
    2xx closes it. A pause lasts a quarter of the time since the first failure, within limits. After a pause,
    concurrency starts at two and doubles with each success, to avoid a stampede.
    """

    def __init__(self, chance: Callable[[], float]) -> None:
        self._chance = chance
        # The queues that failed last, without a success since; the value is whether the queue was new or healthy.
        self._failed: OrderedDict[str, bool] = OrderedDict()
        # Before the first success it is unknown which queues fail because of their own events.
        self._has_succeeded = False
        self._needed = MIN_FAILED_QUEUES
        self._failing_since: int | None = None
        # The queues of the last attempts, as long as all answers have said that the destination is misconfigured.
        self._misconfigured: deque[str] = deque(maxlen=MISCONFIGURED_ATTEMPTS)
        self._misconfigured_since = 0
        self._concurrency = MAX_CONCURRENCY
        self.state = BreakerState.CLOSED
        # Whether the destination is misconfigured; the breaker is open then.
        self.is_misconfigured = False
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

    def retry_now(self, now: int) -> None:
        """Probe at once, even if a probe is running; if the breaker is closed, concurrency starts at two again."""
        if self.state is BreakerState.CLOSED:
            self._concurrency = FIRST_CONCURRENCY
        else:
            self.state = BreakerState.OPEN
            self.next_probe_at = now

    def record(self, kind: AnswerKind, status: int, now: int, *, queue: str, failed_before: bool) -> None:
        """Record the answer to an attempt of *queue*; *failed_before* is whether its previous attempt failed."""
        if kind is AnswerKind.MISCONFIGURED:
            self._record_misconfigured(now, queue)
            return
        if not self.is_misconfigured or kind is AnswerKind.DELIVERED:
            self._misconfigured.clear()
            self.is_misconfigured = False
        if kind.shows_that_it_is_up and not self.is_misconfigured:
            self._record_success(now)
        elif not self.is_misconfigured:
            self._record_failure(status, now, queue=queue, failed_before=failed_before)
        elif self.state is BreakerState.HALF_OPEN:
            self._pause(now, self._misconfigured_since, MAX_PAUSE_MS)

    def _record_misconfigured(self, now: int, queue: str) -> None:
        if not self._misconfigured:
            self._misconfigured_since = now
        self._misconfigured.append(queue)
        in_several_queues = (
            len(self._misconfigured) == MISCONFIGURED_ATTEMPTS and len(set(self._misconfigured)) >= MISCONFIGURED_QUEUES
        )
        if in_several_queues or now - self._misconfigured_since >= MISCONFIGURED_MS:
            self.is_misconfigured = True
        if self.state is BreakerState.HALF_OPEN or (self.state is BreakerState.CLOSED and self.is_misconfigured):
            self._pause(now, self._misconfigured_since, MAX_PAUSE_MS)

    def _record_failure(self, status: int, now: int, *, queue: str, failed_before: bool) -> None:
        if self._failing_since is None:
            self._failing_since = now
        self._failed[queue] = self._failed.pop(queue, False) or not (failed_before and self._has_succeeded)
        if len(self._failed) > self._needed:
            self._failed.popitem(last=False)
        is_general = len(self._failed) == self._needed and 2 * sum(self._failed.values()) >= self._needed
        if self.state is BreakerState.HALF_OPEN or (self.state is BreakerState.CLOSED and is_general):
            self._pause(now, self._failing_since, MAX_PAUSE_AFTER_500_MS if status == INTERNAL_ERROR else MAX_PAUSE_MS)

    def _pause(self, now: int, since: int, most: int) -> None:
        """Open until the next probe; the pause depends on how long it has failed."""
        pause = min(max((now - since) // PAUSE_DIVISOR, MIN_PAUSE_MS), most)
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
