"""What the receiver must not purge, because the relay still needs it; and whether there is a relay at all."""

import threading
import time
from collections.abc import Callable
from typing import Final

from service.config import InboxUrl
from service.errors import InboxUnavailable
from service.storage import engines
from service.storage.delivery_policy import DELIVERY_POLICY, DeliveryPolicy
from service.telemetry import logs

RETRY_SECONDS: Final = 60.0  # until what could not be asked is asked again: notifications wait for the answer
HEARTBEAT_INTERVAL_SECONDS: Final = 30.0  # between looks at when a relay was there last
SILENT_MS: Final = 3_600_000  # without a sign of life for as long, a relay is missed
_HOUR_MS: Final = 3_600_000


class LowWatermark:
    """The low-watermark of the relay's state; if that can't be read, everything is needed, but not forever.

    A relay holds events back as long as it gave a sign of life within the maximum delivery age and a day: one that was
    tried once and removed must not stop the purge forever.
    """

    def __init__(
        self,
        needed: Callable[[int], int | None],
        heartbeat: Callable[[], int | None] = lambda: None,
        *,
        policy: DeliveryPolicy = DELIVERY_POLICY,
    ) -> None:
        """*needed* returns the low-watermark at a time, *heartbeat* when a relay last said that it runs.

        Both are in milliseconds since the epoch, None for none, and raise InboxUnavailable if that can't be told.
        """
        self._needed = needed
        self._heartbeat = heartbeat
        self._policy = policy
        self._trouble = logs.ProblemLog(logs.get("inbox"))
        self._silence = logs.ProblemLog(logs.get("inbox"))
        self._not_before = float("-inf")
        self._lock = threading.Lock()
        self._looked = float("-inf")
        self._seen: int | None = None

    def __call__(self, now: int) -> int | None:
        """Return the oldest position that is needed at *now* (milliseconds since the epoch); None for none."""
        if time.monotonic() < self._not_before:
            return self._unless_gone(now)
        try:
            found = self._needed(now)
        except InboxUnavailable as ex:
            self._not_before = time.monotonic() + RETRY_SECONDS
            self._trouble.report("nothing is purged", detail=ex.detail)
            return self._unless_gone(now)
        self._trouble.resolve()
        return found

    def _unless_gone(self, now: int) -> int | None:
        seen = self._asked()
        is_gone = seen is not None and not (
            -self._policy.max_clock_ahead_ms <= now - seen <= self._policy.max_heartbeat_age_ms
        )
        return None if is_gone else 0

    def refresh(self, now: int) -> int | None:
        """Return when a relay last said that it runs, None if none ever did; report one that is missed.

        Asked seldom, however often this is called; any thread may.
        """
        with self._lock:
            if time.monotonic() - self._looked >= HEARTBEAT_INTERVAL_SECONDS:
                self._looked = time.monotonic()
                self._seen = self._asked()
                self._report(now)
            return self._seen

    def _asked(self) -> int | None:
        try:
            return self._heartbeat()
        except InboxUnavailable:
            return self._seen

    def _report(self, now: int) -> None:
        if self._seen is None or now - self._seen < SILENT_MS:
            self._silence.resolve()
            return
        hours = (now - self._seen) // _HOUR_MS
        left = (self._policy.max_heartbeat_age_ms - (now - self._seen)) // _HOUR_MS
        until = f"for {left} more hours" if left > 0 else "no longer"
        self._silence.report(
            "no relay runs",
            detail=f"the last sign of life is {hours} hours old; what it has yet to deliver is kept {until}",
            hint="start the relay again, or forget its state: whatsapp-webhook destinations drop-state",
            key="no relay runs" if left > 0 else "nothing is kept for it",
        )


def of(
    url: InboxUrl, opened: Callable[[], InboxUrl] | None = None, *, policy: DeliveryPolicy = DELIVERY_POLICY
) -> LowWatermark:
    """Return the low-watermark of the inbox of *url*; *opened* returns the URL of the one that is open now."""
    stored = engines.load(url).deliveries
    if stored is None:
        return LowWatermark(lambda _: None)
    current = opened or (lambda: url)
    return LowWatermark(
        lambda now: stored.low_watermark(current(), now, policy), lambda: stored.heartbeat(current()), policy=policy
    )
