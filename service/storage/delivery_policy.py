"""The limits of delivery, all in one place: retries, backoff, dead letters and heartbeats.

A destination can override some of them; see `relay.delivery_options`.

`relay.policy` applies them; SQL that must apply one gets it as a parameter.
"""

from dataclasses import dataclass
from typing import Final

from service.clock import DAY_MS, MINUTE_MS


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryPolicy:
    """Times are in milliseconds."""

    max_age_ms: int = 3 * DAY_MS
    """Age at which an event that its destination has not accepted becomes a dead letter."""
    min_attempts: int = 10
    """Attempts of a destination or a queue before any of its events is given up: a clock may have jumped."""
    first_backoff_ms: int = 2_000
    max_backoff_ms: int = 3_600_000
    max_attempts: int | None = None
    """Attempts after which an event becomes a dead letter, even before `min_attempts`; None: only its age counts."""
    permanent_statuses: frozenset[int] = frozenset({400, 413, 422})
    """Statuses that say that the destination will never accept this event."""
    permanent_attempts: int = 3
    """Answers with such a status before the event becomes a dead letter."""
    permanent_after_ms: int = 10 * MINUTE_MS
    """Minimum time between its first attempt and that: a deployment may be in progress."""
    skip_after: int | None = None
    """Attempts after which an event no longer blocks its queue; None: it blocks until it is settled."""
    max_retry_after_ms: int = DAY_MS
    """Maximum delay that a response's Retry-After can request."""
    max_absence_ms: int = DAY_MS
    """Time after which a destination that was removed from the file no longer stops the purge."""
    min_dead_letter_age_ms: int = 8 * DAY_MS
    """Minimum time for which dead letters are kept, whatever the retention."""
    max_dead_letter_bytes: int = 2**30
    """Limit of the saved events of dead letters; above it the oldest are dropped."""
    max_clock_ahead_ms: int = DAY_MS
    """Maximum by which another relay's clock may be ahead."""

    @property
    def max_heartbeat_age_ms(self) -> int:
        """Return the age of the last heartbeat from which the relay counts as removed."""
        return self.max_age_ms + DAY_MS

    @property
    def max_wait_ms(self) -> int:
        """Return the maximum wait of a queue: a later due time was written by a clock that was ahead."""
        return 2 * self.max_retry_after_ms


DELIVERY_POLICY: Final = DeliveryPolicy()
