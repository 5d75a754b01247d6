"""What follows from a try: delivered, again and when, or dead; and when a destination is left alone for a while.

Pure: time and chance are arguments. Sources: "Exponential Backoff And Jitter" (AWS Architecture Blog: full jitter),
RFC 9110 section 10.2.3 (Retry-After).
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

MIN_FAILED_QUEUES: Final = (
    5  # queues of which the last attempts all failed, so that it is the destination and not one event
)
MAX_FAILED_QUEUES: Final = 40
SHORT_OUTAGE_MS: Final = 60_000  # milliseconds, as all times here: an outage this short was none, but events not taken
MIN_PAUSE_MS: Final = 1_000
PAUSE_DIVISOR: Final = 4  # a destination is left alone for the fourth part of the time for which it has failed
MAX_PAUSE_MS: Final = 60_000
INTERNAL_ERROR: Final = 500  # an application that answers so lives: it may be about one event
MAX_PAUSE_OF_500_MS: Final = 1_000
GUARANTEED_SHARE: Final = 4  # at least the fourth part of the attempts at once is for queues that failed
LARGEST_SHARE: Final = 2  # and at most the half, so that one that did not fail need not wait for a timeout
FIRST_CONCURRENCY: Final = 2
MAX_CONCURRENCY: Final = 256


def rule(
    claim: Claim, answer: DeliveryResponse, *, policy: DeliveryPolicy, now: int, chance: Callable[[], float]
) -> Ruling:
    """Judge a try; *chance* gives a number from 0 to 1."""
    if 200 <= answer.status < 300:  # noqa: PLR2004  success
        return Ruling(Verdict.DELIVERED)
    if answer.status == GONE:  # its destination is disabled, and nothing of it is due
        return Ruling(Verdict.RETRY, now)
    failing_since = max(claim.first_attempt_at, claim.planned_at)
    if claim.first_attempt_at and now - failing_since >= policy.max_age_ms and claim.attempts >= policy.min_attempts:
        return Ruling(Verdict.DEAD_LETTER, reason=DeadLetterReason.EXPIRED)
    wait = int(chance() * min(policy.max_backoff_ms, policy.first_backoff_ms * 2 ** min(claim.attempts, 30)))
    asked = _asked(answer.retry_after, now)
    return Ruling(Verdict.RETRY, now + max(wait, min(asked, policy.max_retry_after_ms)))


def _asked(retry_after: str | None, now: int) -> int:
    """Read Retry-After, seconds or a date, into milliseconds from *now*; 0 where it says nothing."""
    if not retry_after:
        return 0
    text = retry_after.strip()
    if text.isascii() and text.isdigit():
        return int(text[:9]) * 1000
    try:
        return max(int(parsedate_to_datetime(text).timestamp() * 1000) - now, 0)
    except (ValueError, TypeError, OverflowError):
        return 0


class BreakerState(StrEnum):
    """How a breaker stands."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class Shares(NamedTuple):
    """How many attempts of queues that failed may begin now: *first* before all others, *most* together with those."""

    first: int
    most: int


def shares(at_once: int, running: int, others: int) -> Shares:
    """Return what is for queues whose last attempt failed, of *at_once* attempts; *running* are of such queues.

    *others* counts the attempts of other queues since the last one of theirs: a single attempt at once is shared by
    turns.
    """
    if at_once == 1:
        return Shares(1 if others >= GUARANTEED_SHARE - 1 else 0, 1)
    first, most = max(at_once // GUARANTEED_SHARE, 1), at_once // LARGEST_SHARE
    return Shares(max(first - running, 0), max(most - running, 0))


class Breaker:
    """Leaves a destination alone that fails for everybody, then lets one attempt see whether it is back.

    It opens if the last attempts of some queues all failed, of which most were untried or healthy: five queues, or
    twice as many each time that the destination was back within a minute, as then it was about the events. A pause is
    a quarter of the time since the first failure, within bounds. After it the number of attempts at once grows from
    two again, doubled by each that goes well: no stampede.
    """

    def __init__(self, chance: Callable[[], float]) -> None:
        self._chance = chance
        self._failed: OrderedDict[str, bool] = OrderedDict()  # the last queues, without a success since; were they new
        self._has_succeeded = False  # until then nobody knows which queues are at fault themselves
        self._needed = MIN_FAILED_QUEUES
        self._failing_since: int | None = None
        self._at_once = MAX_CONCURRENCY
        self.state = BreakerState.CLOSED
        self.until = 0  # when an open one lets the next try through

    def room(self, running: int, most: int, *, now: int) -> int:
        """Say how many attempts may begin now beside those that run, of *most* at once."""
        self.until = min(self.until, now + MAX_PAUSE_MS)  # the clock was set back
        if self.state is BreakerState.HALF_OPEN and not running:
            self.state = BreakerState.OPEN  # the one that was to see whether it is back came to nothing
        if self.state is BreakerState.CLOSED:
            return max(self.at_once(most) - running, 0)
        return int(self.state is BreakerState.OPEN and now >= self.until)

    def began(self) -> None:
        """Learn that a try began: of an open one it is the one that sees whether the destination is back."""
        if self.state is BreakerState.OPEN:
            self.state = BreakerState.HALF_OPEN

    def at_once(self, most: int) -> int:
        """Return how many attempts may run now, of *most* at once."""
        return min(most, self._at_once) if self.state is BreakerState.CLOSED else 1

    def saw(self, answer: DeliveryResponse, now: int, *, queue: str, failed_before: bool) -> None:
        """Learn from an attempt of *queue*; *failed_before* is whether the one before it failed."""
        if answer.status and answer.status < 500 and answer.status != TOO_MANY_REQUESTS:  # noqa: PLR2004  it lives
            self._succeeded(now)
            return
        if self._failing_since is None:
            self._failing_since = now
        self._failed[queue] = self._failed.pop(queue, False) or not (failed_before and self._has_succeeded)
        if len(self._failed) > self._needed:
            self._failed.popitem(last=False)
        is_general = len(self._failed) == self._needed and 2 * sum(self._failed.values()) >= self._needed
        if self.state is BreakerState.HALF_OPEN or (self.state is BreakerState.CLOSED and is_general):
            longest = MAX_PAUSE_OF_500_MS if answer.status == INTERNAL_ERROR else MAX_PAUSE_MS
            pause = min(max((now - self._failing_since) // PAUSE_DIVISOR, MIN_PAUSE_MS), longest)
            self.state = BreakerState.OPEN
            self.until = now + int(pause * (0.5 + self._chance() / 2))

    def _succeeded(self, now: int) -> None:
        if self.state is BreakerState.CLOSED:
            self._at_once = min(2 * self._at_once, MAX_CONCURRENCY)
        else:
            self._at_once = FIRST_CONCURRENCY
            was_short = self._failing_since is not None and 0 <= now - self._failing_since < SHORT_OUTAGE_MS
            self._needed = min(2 * self._needed, MAX_FAILED_QUEUES) if was_short else MIN_FAILED_QUEUES
        self._failed.clear()
        self._failing_since = None
        self._has_succeeded = True
        self.state = BreakerState.CLOSED
