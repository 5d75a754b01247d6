"""From the log to what is owed: which destination is to get what."""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from service import logs
from service.inbox.base import Log, Record
from service.metrics import RelayMetrics
from service.relay.destinations import Destination
from service.relay.state import Owed, Plans

READ_AT_ONCE: Final = 500
EVERY: Final = 60.0  # seconds between looks at what the log no longer holds
BEGINNING: Final = "beginning"
RETENTION: Final = "retention"


class Planner:
    """Reads the log for the destinations of the file."""

    def __init__(
        self, state: Plans, log: Callable[[], Log], *, metrics: RelayMetrics, now: Callable[[], float], retention: float
    ) -> None:
        """*log* gives the log, opened; *now* is in seconds since the epoch, *retention* in seconds."""
        self._state = state
        self._inbox = log
        self._metrics = metrics
        self._now = now
        self._retention = int(retention * 1000)
        self._log = logs.get("relay")
        self._joined: set[str] | None = None
        self._first = 0
        self._tidied = float("-inf")

    def join(self, wanted: Mapping[str, Destination]) -> None:
        """Have exactly *wanted* be read for; what is new begins at the log's end, unless it says otherwise."""
        if set(wanted) == self._joined:
            return
        last = self._inbox().last()
        starts = {name: 0 if each.begin == BEGINNING else last for name, each in wanted.items()}
        self._state.join(starts, now=int(self._now() * 1000))
        self._joined = set(wanted)

    def plan(self, wanted: Mapping[str, Destination]) -> bool:
        """Note what is owed from the next page of the log; says whether there is more to read."""
        pages: dict[int, Sequence[Record]] = {}  # most destinations are at the same position
        for name, since in self._state.positions().items():
            if name not in wanted:
                continue
            if since not in pages:
                pages[since] = self._inbox().read(since, READ_AT_ONCE, data=False)
            if pages[since]:
                wants = wanted[name].wants
                owed = [Owed(at, event.partitionkey, event.received_at) for at, event in pages[since] if wants(event)]
                self._state.plan(name, since, pages[since][-1].position, owed)
        return any(len(page) == READ_AT_ONCE for page in pages.values())

    def tidy(self) -> None:
        """Give up what the log no longer holds and nobody asks for, and forget what was told of it; each second."""
        now = self._now()
        if now - self._tidied >= EVERY:
            self._tidied, self._first = now, self._inbox().first()
            given_up = self._state.expire(self._first, now=int(now * 1000), keep=self._retention)
            for name, number in given_up.items():
                self._metrics.died(name, RETENTION, number)
                self._log.error("events given up", destination=name, reason=RETENTION, count=number)
        self._state.forget_tries(self._first)
