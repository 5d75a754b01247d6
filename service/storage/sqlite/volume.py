"""A full volume: the error for the operator, and when a write is tried again."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from service.errors import InboxUnavailable
from service.outcomes import StorageFailure
from service.storage.sqlite.reserve import free_bytes

PROBE_BYTES: Final = 2**20  # written, synced and deleted before the inbox is reported ready again
PROBE_INTERVAL_SECONDS: Final = 5.0
# The reported free space may be wrong (quotas, reserved blocks), so a write is also tried if it shows no room.
BLIND_PROBE_INTERVAL_SECONDS: Final = 30.0


class VolumeProbe:
    """Decides when to test, by a real write, whether a full volume has room again."""

    def __init__(self, directory: Path, *, now: Callable[[], float] = time.monotonic) -> None:
        """*now* is in seconds."""
        self._directory = directory
        self._now = now
        self._failed_at: float | None = None  # time of the first failure since the last success
        self._tried_at = float("-inf")
        self.needed = PROBE_BYTES  # bytes that a probe must write before the volume counts as having room

    @property
    def is_full(self) -> bool:
        """Return whether a write failed for lack of room, and none has succeeded since."""
        return self._failed_at is not None

    def failed(self, size: int = 0) -> None:
        """Record that a write of *size* bytes failed for lack of room; the next probe must write twice as much."""
        self.needed = max(self.needed, 2 * size)
        if self._failed_at is None:
            self._failed_at = self._now()

    def is_due(self, reusable_bytes: int) -> bool:
        """Return whether a write should be tried now; *reusable_bytes* are free inside the database."""
        assert self._failed_at is not None  # noqa: S101  only called if the volume is full
        if self._now() - self._tried_at < PROBE_INTERVAL_SECONDS:
            return False
        last = max(self._failed_at, self._tried_at)
        has_room = max(self.free(), reusable_bytes) >= self.needed
        return has_room or self._now() - last >= BLIND_PROBE_INTERVAL_SECONDS

    def trying(self) -> None:
        """Record that a probe starts."""
        self._tried_at = self._now()

    def succeeded(self) -> None:
        """Record that a write of `needed` bytes succeeded."""
        self._failed_at = None
        self.needed = PROBE_BYTES

    def free(self) -> int:
        """Return the free bytes of the volume; 0 if unknown."""
        try:
            return free_bytes(self._directory)
        except OSError:
            return 0


def full(path: Path, *, needed: int, free: int, used: int, why_not_purged: str) -> InboxUnavailable:
    """Return the error for a full volume; *used* are the inbox's own bytes, *why_not_purged* ends a sentence."""
    return InboxUnavailable(
        StorageFailure.FULL,
        f"the volume of {path} is full: {needed} bytes are needed and {free} are free; the inbox uses {used} "
        f"bytes, and {why_not_purged}. Enlarge the volume: no restart is needed",
    )
