"""From the log to what is owed: which destination is to get what."""

from collections.abc import Callable, Mapping, Sequence
from typing import Final, Protocol

from service.instruments import Instruments
from service.outcomes import DeadLetterReason
from service.relay.destinations import Destination
from service.storage.deliveries import (
    DeadLetterEvents,
    Delivery,
    DeliveryCleanup,
    DeliveryPlanning,
)
from service.storage.delivery_policy import DeliveryPolicy
from service.storage.protocols import Log, Record
from service.telemetry import logs
from service.telemetry.metrics import RelayMetrics

READ_AT_ONCE: Final = 500
TIDY_INTERVAL_MS: Final = 60_000  # between looks at what the log no longer holds
SAVED_AT_ONCE: Final = 200  # events of dead letters
BEGINNING: Final = "beginning"
ENDLESS: Final = 2**62  # a position that no log comes to


class PlannerState(DeliveryPlanning, DeliveryCleanup, DeadLetterEvents, Protocol):
    """What the planner remembers by."""


class Planner:
    """Reads the log for the destinations of the file."""

    def __init__(
        self,
        state: PlannerState,
        log: Callable[[], Log],
        *,
        instruments: Instruments[RelayMetrics],
        policy: DeliveryPolicy,
        retention_ms: int,
    ) -> None:
        """*log* returns the log, opened."""
        self._state = state
        self._inbox = log
        self._metrics = instruments.metrics
        self._now_ms = instruments.now_ms
        self._policy = policy
        self._dead_letter_age_ms = max(retention_ms, policy.min_dead_letter_age_ms)
        self._log = logs.get("relay")
        self._first = 0
        self._tidied: int | None = None

    def join(self, wanted: Mapping[str, Destination]) -> None:
        """Have exactly *wanted* be read for; what is new begins at the log's end, unless it says otherwise."""
        if set(wanted) == set(self._state.positions()):
            return
        last = self._inbox().last()
        starts = {name: 0 if each.begin == BEGINNING else last for name, each in wanted.items()}
        self._state.join(starts, now=self._now_ms())

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
                owed = [
                    Delivery(at, event.partitionkey, event.received_at) for at, event in pages[since] if wants(event)
                ]
                self._state.plan(name, since, pages[since][-1].position, owed, now=self._now_ms())
        return any(len(page) == READ_AT_ONCE for page in pages.values())

    def adopt(self, log: Log) -> None:
        """Go by this log, which was just opened: it may be another one, or one that was set back."""
        read = max(self._state.positions().values(), default=0)  # first: others go on reading, and adopting, meanwhile
        last = log.last()
        dropped = self._state.adopt(log.identity(), last if read > last else ENDLESS)
        if dropped:
            self._log.error(
                "the inbox is another one, or was set back: what was owed of the old one is gone", count=dropped
            )

    def tidy(self) -> None:
        """Give up what is no use to wait for, and forget what was told of what is gone; each second."""
        now = self._now_ms()
        if self._tidied is None or not 0 <= now - self._tidied < TIDY_INTERVAL_MS:
            self._tidied, self._first = now, self._inbox().first()
            for (name, reason), number in self._state.expire(
                self._first, now=now, policy=self._policy, dead_letter_age_ms=self._dead_letter_age_ms
            ).items():
                self._metrics.died(name, reason, number)
                self._log.error("events given up", destination=name, reason=reason, count=number)
            self._skip_what_is_gone()
        self._state.prune_attempts(self._first)
        self._save_dead_letters()

    def _save_dead_letters(self) -> None:
        """Save the events of new dead letters: the log keeps them no longer than its retention."""
        positions = self._state.unsaved(SAVED_AT_ONCE)
        if positions:
            events = self._inbox().at(positions)
            self._state.save(positions, events, now=self._now_ms(), max_bytes=self._policy.max_dead_letter_bytes)

    def _skip_what_is_gone(self) -> None:
        """Say what the log dropped before it was read: the destination was gone from the file, or the relay away."""
        for name, since in self._state.positions().items():
            missed = self._first - since - 1
            if missed > 0 and self._state.plan(name, since, self._first - 1, [], now=self._now_ms()):
                self._metrics.died(name, DeadLetterReason.RETENTION, missed)
                self._log.error("events past the retention were never read", destination=name, count=missed)
