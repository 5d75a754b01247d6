"""What the receiver must not purge, because the relay still needs it."""

from collections.abc import Callable

from service import logs
from service.errors import InboxUnavailable


class Hold:
    """Asks the relay's state; where that can't be read, everything is needed."""

    def __init__(self, needed: Callable[[int], int | None]) -> None:
        """*needed* asks; raises InboxUnavailable where that can't be told."""
        self._needed = needed
        self._log = logs.get("inbox")
        self._said: str | None = None

    def __call__(self, now: int) -> int | None:
        """Give the oldest position that is needed at *now* (milliseconds since the epoch); None for none."""
        try:
            found, why = self._needed(now), None
        except InboxUnavailable as ex:
            found, why = 0, ex.detail
        if why and why != self._said:
            self._log.error("nothing is purged", detail=why)
        self._said = why
        return found
