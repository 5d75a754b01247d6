"""How long the relay tries to deliver, and how long it remembers: the one home of these limits.

`relay.policy` decides by them; SQL that must apply one gets it as a parameter.
"""

from dataclasses import dataclass
from typing import Final

from service.clock import DAY_MS


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryPolicy:
    """Times are in milliseconds."""

    max_age_ms: int = 3 * DAY_MS
    """After which what a destination never accepted becomes a dead letter."""
    min_attempts: int = 10
    """Of a destination or a queue, before anything of it is given up: a clock may have jumped."""
    first_backoff_ms: int = 2_000
    max_backoff_ms: int = 3_600_000
    max_retry_after_ms: int = DAY_MS
    """Of what a response's Retry-After may ask for."""
    max_absence_ms: int = DAY_MS
    """After which a destination that left the file holds nothing in the inbox back."""
    min_dead_letter_age_ms: int = 8 * DAY_MS
    """How long dead letters are kept at least, whatever the retention."""
    max_dead_letter_bytes: int = 2**30
    """Of the events of dead letters; above it the oldest go."""
    max_clock_ahead_ms: int = DAY_MS
    """By which another relay's clock may be ahead."""

    @property
    def max_heartbeat_age_ms(self) -> int:
        """Return after how long without a heartbeat no relay will come back for what it left behind."""
        return self.max_age_ms + DAY_MS

    @property
    def max_wait_ms(self) -> int:
        """Return what no queue waits for: one that does was written by a clock that ran ahead."""
        return 2 * self.max_retry_after_ms


DELIVERY_POLICY: Final = DeliveryPolicy()
