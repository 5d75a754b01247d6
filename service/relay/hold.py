"""What the receiver must not purge, because the relay still needs it."""

from pathlib import Path

from service import logs
from service.errors import InboxUnavailable
from service.relay.sqlite import needed


class Hold:
    """Asks the relay's state; where that can't be read, everything is needed."""

    def __init__(self, path: Path) -> None:
        """*path* is the relay's state; where there is none, nothing is needed."""
        self._path = path
        self._log = logs.get("inbox")
        self._said: str | None = None

    def __call__(self, now: int) -> int | None:
        """Give the oldest position that is needed at *now* (milliseconds since the epoch); None for none."""
        try:
            found, why = needed(self._path, now=now), None
        except InboxUnavailable as ex:
            found, why = 0, ex.detail
        if why and why != self._said:
            self._log.error("nothing is purged", detail=why)
        self._said = why
        return found
