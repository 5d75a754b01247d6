"""What follows from a try: delivered, again and when, or dead; and when a destination is left alone for a while.

Pure: time and chance are arguments. Sources: "Exponential Backoff And Jitter" (AWS Architecture Blog: full jitter),
RFC 9110 section 10.2.3 (Retry-After).
"""

from collections.abc import Callable
from email.utils import parsedate_to_datetime
from enum import StrEnum
from typing import Final

from service.relay.sender import Answer
from service.relay.state import MAX_DELIVERY_AGE_MS, Claim, Ruling, Verdict

FIRST_WAIT: Final = 2_000  # milliseconds, as all times here
LONGEST_WAIT: Final = 3_600_000
LONGEST_ASKED: Final = 86_400_000  # of what Retry-After may ask for
LEAST_TRIES: Final = 10  # of a lane, before anything of it is given up: a clock may have jumped
GONE: Final = 410
TOO_MANY: Final = 429
EXPIRED: Final = "expired"

FAILURES: Final = 5  # in a row, of the destination and not of one event
FIRST_PAUSE: Final = 1_000
LONGEST_PAUSE: Final = 60_000
FIRST_AT_ONCE: Final = 2
MOST_AT_ONCE: Final = 256


def rule(claim: Claim, answer: Answer, *, now: int, chance: Callable[[], float]) -> Ruling:
    """Judge a try; *chance* gives a number from 0 to 1."""
    if 200 <= answer.status < 300:  # noqa: PLR2004  success
        return Ruling(Verdict.DELIVERED)
    if answer.status == GONE:  # its destination is disabled, and nothing of it is due
        return Ruling(Verdict.AGAIN, now)
    failing_since = max(claim.first_tried, claim.owed_at)
    if claim.first_tried and now - failing_since >= MAX_DELIVERY_AGE_MS and claim.tries >= LEAST_TRIES:
        return Ruling(Verdict.DEAD, reason=EXPIRED)
    wait = int(chance() * min(LONGEST_WAIT, FIRST_WAIT * 2 ** min(claim.tries, 30)))
    asked = _asked(answer.retry_after, now)
    return Ruling(Verdict.AGAIN, now + max(wait, min(asked, LONGEST_ASKED)))


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


class State(StrEnum):
    """How a breaker stands."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class Breaker:
    """Leaves a destination alone that fails again and again, then lets one try see whether it is back.

    If it is, the number of tries at once grows from two again, doubled by each that goes well: no stampede.
    """

    def __init__(self, chance: Callable[[], float]) -> None:
        self._chance = chance
        self._failures = 0
        self._pauses = 0
        self._at_once = MOST_AT_ONCE
        self.state = State.CLOSED
        self.until = 0  # when an open one lets the next try through

    def room(self, running: int, most: int, *, now: int) -> int:
        """Say how many tries may begin now beside those that run, of *most* at once."""
        self.until = min(self.until, now + LONGEST_PAUSE)  # the clock was set back
        if self.state is State.HALF_OPEN and not running:
            self.state = State.OPEN  # the one that was to see whether it is back came to nothing
        if self.state is State.CLOSED:
            return max(min(most, self._at_once) - running, 0)
        return int(self.state is State.OPEN and now >= self.until)

    def began(self) -> None:
        """Learn that a try began: of an open one it is the one that sees whether the destination is back."""
        if self.state is State.OPEN:
            self.state = State.HALF_OPEN

    def saw(self, answer: Answer, now: int) -> None:
        """Learn from a try."""
        if answer.status and answer.status < 500 and answer.status != TOO_MANY:  # noqa: PLR2004  it lives
            self._at_once = min(2 * self._at_once, MOST_AT_ONCE) if self.state is State.CLOSED else FIRST_AT_ONCE
            self._failures = self._pauses = 0
            self.state = State.CLOSED
            return
        self._failures += 1
        if self.state is State.HALF_OPEN or (self.state is State.CLOSED and self._failures >= FAILURES):
            pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(self._pauses, 30))
            self._pauses += 1
            self.state = State.OPEN
            self.until = now + int(pause * (0.5 + self._chance() / 2))
