"""What a full volume means for an inbox: what the operator is told, and when a write is tried again."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from service.errors import FULL, InboxUnavailable
from service.inbox.sqlite.reserve import free_bytes

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
        self._tried = False

    @property
    def is_full(self) -> bool:
        """Return whether the last write failed for want of room, and none succeeded since."""
        return self._failed_at is not None

    def failed(self) -> None:
        """Note that a write failed for want of room."""
        if self._failed_at is None:
            self._failed_at, self._tried = self._now(), False

    def is_due(self, reusable_bytes: int) -> bool:
        """Return whether a write should be tried now; *reusable_bytes* are free inside the database."""
        assert self._failed_at is not None  # noqa: S101  asked of a full volume alone
        since = self._now() - self._failed_at
        if self._tried and since < PROBE_INTERVAL_SECONDS:
            return False
        return max(self.free(), reusable_bytes) >= PROBE_BYTES or since >= BLIND_PROBE_SECONDS

    def trying(self) -> None:
        """Note that a write is tried."""
        self._failed_at, self._tried = self._now(), True

    def succeeded(self) -> None:
        """Note that a write of `PROBE_BYTES` succeeded."""
        self._failed_at = None

    def free(self) -> int:
        """Return the bytes that are free on the volume; 0 if nobody can tell."""
        try:
            return free_bytes(self._directory)
        except OSError:
            return 0


def full(path: Path, *, free: int, taken: int, holding: str) -> InboxUnavailable:
    """Return what the operator is told; *taken* are the inbox's own bytes, *holding* is why none can be purged."""
    return InboxUnavailable(
        FULL,
        f"the volume of {path} is full: {PROBE_BYTES} bytes are needed and {free} are free; the inbox takes {taken} "
        f"bytes, and {holding}. Enlarge the volume: no restart is needed",
    )
