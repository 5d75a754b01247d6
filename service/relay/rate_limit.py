"""The rate limit of one destination: a token bucket, whose rate is this relay's share.

Pure: time is an argument, in milliseconds.
"""

from typing import Final

BURST_SECONDS: Final = 0.1  # of the rate that may be used at once after a pause, beside one attempt


class RateLimit:
    """Limits how many attempts start per second."""

    def __init__(self, per_second: float | None) -> None:
        """*per_second* is the limit of all relays together; None: no limit."""
        self._per_second = per_second
        self._tokens = 1.0
        self._refilled_at: int | None = None
        self.relays = 1  # how many share the limit

    def capacity(self, wanted: int, now: int) -> int:
        """Return how many of the *wanted* attempts may start now."""
        if self._per_second is None:
            return wanted
        rate = self._per_second / self.relays
        elapsed = 0 if self._refilled_at is None else max(now - self._refilled_at, 0)  # the clock may be set back
        self._refilled_at = now
        self._tokens = min(self._tokens + rate * elapsed / 1000, 1.0 + rate * BURST_SECONDS)
        return min(wanted, int(self._tokens))

    def attempt_started(self) -> None:
        """Use one token."""
        self._tokens -= 1
