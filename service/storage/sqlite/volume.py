"""What a full volume means for an inbox: what the operator is told, and when a write is tried again."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from service.errors import InboxUnavailable
from service.outcomes import StorageFailure
from service.storage.sqlite.reserve import free_bytes

PROBE_BYTES: Final = 2**20  # written, synced and deleted before the inbox is called ready again
PROBE_INTERVAL_SECONDS: Final = 5.0
# What is free may be more than the system says (quotas, reserved blocks), so a write is tried without a sign as well.
BLIND_PROBE_SECONDS: Final = 30.0


class VolumeProbe:
    """Whether it is time to find out, by a real write, that a full volume has room again."""

    def __init__(self, directory: Path, *, now: Callable[[], float] = time.monotonic) -> None:
        """*now* is in seconds."""
        self._directory = directory
        self._now = now
        self._failed_at: float | None = None  # the first failure, or the last write that was tried
        self._tried_at = float("-inf")
        self.needed = PROBE_BYTES  # what a write needs to show that there is room again

    @property
    def is_full(self) -> bool:
        """Return whether the last write failed for want of room, and none succeeded since."""
        return self._failed_at is not None

    def failed(self, size: int = 0) -> None:
        """Note that a write of *size* bytes failed for want of room: what failed must fit before it is called ready."""
        self.needed = max(self.needed, 2 * size)
        if self._failed_at is None:
            self._failed_at = self._now()

    def is_due(self, reusable_bytes: int) -> bool:
        """Return whether a write should be tried now; *reusable_bytes* are free inside the database."""
        assert self._failed_at is not None  # noqa: S101  asked of a full volume alone
        if self._now() - self._tried_at < PROBE_INTERVAL_SECONDS:
            return False
        last = max(self._failed_at, self._tried_at)
        return max(self.free(), reusable_bytes) >= self.needed or self._now() - last >= BLIND_PROBE_SECONDS

    def trying(self) -> None:
        """Note that a write is tried."""
        self._tried_at = self._now()

    def succeeded(self) -> None:
        """Note that a write of `needed` bytes succeeded."""
        self._failed_at = None
        self.needed = PROBE_BYTES

    def free(self) -> int:
        """Return the bytes that are free on the volume; 0 if nobody can tell."""
        try:
            return free_bytes(self._directory)
        except OSError:
            return 0


def full(path: Path, *, needed: int, free: int, taken: int, holding: str) -> InboxUnavailable:
    """Return what the operator is told; *taken* are the inbox's own bytes, *holding* is why none can be purged."""
    return InboxUnavailable(
        StorageFailure.FULL,
        f"the volume of {path} is full: {needed} bytes are needed and {free} are free; the inbox takes {taken} "
        f"bytes, and {holding}. Enlarge the volume: no restart is needed",
    )
