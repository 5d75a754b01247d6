"""The low-watermark: which events the receiver must not purge, because the relay still needs them."""

import threading
import time
from collections.abc import Callable
from typing import Final

from service.config import InboxUrl
from service.errors import InboxUnavailable
from service.storage import engines
from service.storage.delivery_policy import DELIVERY_POLICY, DeliveryPolicy
from service.telemetry import logs

RETRY_SECONDS: Final = 60.0  # after a failed query, as notifications wait for it
HEARTBEAT_INTERVAL_SECONDS: Final = 30.0  # between queries of the heartbeat
ABSENT_MS: Final = 3_600_000  # age of the heartbeat from which a relay is reported as absent
_HOUR_MS: Final = 3_600_000


class LowWatermark:
    """The low-watermark of the relay's state; if that can't be read, no event may be purged.

    Both hold only while a relay's last heartbeat is younger than the maximum delivery age plus a day. So a relay that
    was installed once and removed does not stop the purge forever.
    """

    def __init__(
        self,
        needed: Callable[[int], int | None],
        heartbeat: Callable[[], int | None] = lambda: None,
        *,
        policy: DeliveryPolicy = DELIVERY_POLICY,
    ) -> None:
        """*needed* returns the low-watermark at a time, *heartbeat* the time of a relay's last heartbeat.

        Times are milliseconds since the epoch. Both return None for none, and raise InboxUnavailable if unknown.
        """
        self._needed = needed
        self._read_heartbeat = heartbeat
        self._policy = policy
        self._unreadable = logs.LastingTrouble(logs.get("inbox"))
        self._absent = logs.LastingTrouble(logs.get("inbox"))
        self._not_before = float("-inf")
        self._lock = threading.Lock()
        self._refreshed_at = float("-inf")
        self._heartbeat: int | None = None

    def __call__(self, now: int) -> int | None:
        """Return the oldest position that is needed at *now* (milliseconds since the epoch); None if none is."""
        if time.monotonic() < self._not_before:
            return self._everything_unless_gone(now)
        try:
            needed = self._needed(now)
        except InboxUnavailable as ex:
            self._not_before = time.monotonic() + RETRY_SECONDS
            self._unreadable.tell("relay state unreadable", detail=f"no event can be purged: {ex.detail}")
            return self._everything_unless_gone(now)
        self._unreadable.over()
        return needed

    def _everything_unless_gone(self, now: int) -> int | None:
        heartbeat = self._current_heartbeat()
        is_gone = heartbeat is not None and not (
            -self._policy.max_clock_ahead_ms <= now - heartbeat <= self._policy.max_heartbeat_age_ms
        )
        return None if is_gone else 0

    def refresh(self, now: int) -> int | None:
        """Return the time of a relay's last heartbeat, None if there was none; log if a relay is absent.

        The heartbeat is read at intervals, however often this is called. Any thread may call it.
        """
        with self._lock:
            if time.monotonic() - self._refreshed_at >= HEARTBEAT_INTERVAL_SECONDS:
                self._refreshed_at = time.monotonic()
                self._heartbeat = self._current_heartbeat()
                self._report(now)
            return self._heartbeat

    def _current_heartbeat(self) -> int | None:
        try:
            return self._read_heartbeat()
        except InboxUnavailable:
            return self._heartbeat

    def _report(self, now: int) -> None:
        if self._heartbeat is None or now - self._heartbeat < ABSENT_MS:
            self._absent.over()
            return
        age_hours = (now - self._heartbeat) // _HOUR_MS
        hours_left = (self._policy.max_heartbeat_age_ms - (now - self._heartbeat)) // _HOUR_MS
        kept = f"are kept for {hours_left} more hours" if hours_left > 0 else "are no longer kept past the retention"
        self._absent.tell(
            "relay absent",
            detail=f"the last heartbeat of a relay is {age_hours} hours old; events that it has not delivered {kept}",
            hint="start the relay again, or delete its state: whatsapp-webhook destinations drop-state",
            key="relay absent" if hours_left > 0 else "events no longer kept",
        )


def of(
    url: InboxUrl, opened: Callable[[], InboxUrl] | None = None, *, policy: DeliveryPolicy = DELIVERY_POLICY
) -> LowWatermark:
    """Return the low-watermark of the inbox of *url*; *opened* returns the URL of the inbox that is open now."""
    storage = engines.load(url).deliveries
    if storage is None:
        return LowWatermark(lambda _: None)
    current = opened or (lambda: url)
    return LowWatermark(
        lambda now: storage.low_watermark(current(), now, policy), lambda: storage.heartbeat(current()), policy=policy
    )
