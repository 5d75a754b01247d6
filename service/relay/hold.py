"""What the receiver must not purge, because the relay still needs it."""

import time
from collections.abc import Callable
from typing import Final

from service import logs
from service.errors import InboxUnavailable

AGAIN: Final = 60.0  # seconds until the next try to ask what could not be asked


class Hold:
    """Asks the relay's state; where that can't be read, everything is needed."""

    def __init__(self, needed: Callable[[int], int | None]) -> None:
        """*needed* asks; raises InboxUnavailable where that can't be told."""
        self._needed = needed
        self._log = logs.get("inbox")
        self._not_before = float("-inf")
        self._said: str | None = None

    def __call__(self, now: int) -> int | None:
        """Give the oldest position that is needed at *now* (milliseconds since the epoch); None for none."""
        if time.monotonic() < self._not_before:
            return 0
        try:
            found, why = self._needed(now), None
        except InboxUnavailable as ex:
            found, why = 0, ex.detail
            self._not_before = time.monotonic() + AGAIN  # whoever asks keeps notifications waiting meanwhile
        if why and why != self._said:
            self._log.error("nothing is purged", detail=why)
        self._said = why
        return found
