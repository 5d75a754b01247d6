"""Reads the log and stores which deliveries each destination is to get."""

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

READ_BATCH_EVENTS: Final = 500
TIDY_INTERVAL_MS: Final = 60_000  # between two expirations of what the log no longer holds
SAVE_BATCH_EVENTS: Final = 200  # events of dead letters
BEGINNING: Final = "beginning"
MAX_POSITION: Final = 2**62  # no log reaches it


class PlannerState(DeliveryPlanning, DeliveryCleanup, DeadLetterEvents, Protocol):
    """The part of the relay's state that the planner uses."""


class Planner:
    """Plans deliveries: reads the log for each destination of the file."""

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
        self._first_position = 0
        self._expired_at: int | None = None

    def join(self, destinations: Mapping[str, Destination]) -> None:
        """Read for exactly these *destinations*; a new one starts at the end of the log, unless it sets `from`."""
        if set(destinations) == set(self._state.positions()):
            return
        last = self._inbox().last()
        starts = {name: 0 if each.begin == BEGINNING else last for name, each in destinations.items()}
        self._state.join(starts, now=self._now_ms())

    def plan(self, destinations: Mapping[str, Destination]) -> bool:
        """Store the deliveries for the next page of the log; return whether there is more to read."""
        pages: dict[int, Sequence[Record]] = {}  # most destinations are at the same position
        for name, since in self._state.positions().items():
            if name not in destinations:
                continue
            if since not in pages:
                pages[since] = self._inbox().read(since, READ_BATCH_EVENTS, data=False)
            if pages[since]:
                wants = destinations[name].wants
                deliveries = [
                    Delivery(at, event.partitionkey, event.received_at) for at, event in pages[since] if wants(event)
                ]
                self._state.plan(name, since, pages[since][-1].position, deliveries, now=self._now_ms())
        return any(len(page) == READ_BATCH_EVENTS for page in pages.values())

    def adopt(self, log: Log) -> None:
        """Adapt to the log that was just opened: it may be a different one, or one restored from a backup."""
        # Read the positions before the log's end: other relays go on reading meanwhile.
        position = max(self._state.positions().values(), default=0)
        last = log.last()
        dropped = self._state.adopt(log.identity(), last if position > last else MAX_POSITION)
        if dropped:
            self._log.error(
                "inbox was replaced or restored from a backup: pending deliveries of the old one dropped", count=dropped
            )

    def tidy(self) -> None:
        """Expire undeliverable events once a minute, prune the attempt history, and save events of dead letters."""
        now = self._now_ms()
        if self._expired_at is None or not 0 <= now - self._expired_at < TIDY_INTERVAL_MS:
            self._expired_at, self._first_position = now, self._inbox().first()
            for (name, reason), number in self._state.expire(
                self._first_position, now=now, policy=self._policy, dead_letter_age_ms=self._dead_letter_age_ms
            ).items():
                self._metrics.died(name, reason, number)
                self._log.error("events dead-lettered", destination=name, reason=reason, count=number)
            self._skip_purged()
        self._state.prune_attempts(self._first_position)
        self._save_dead_letters()

    def _save_dead_letters(self) -> None:
        """Save the events of new dead letters, because the log stores them only until its retention ends."""
        positions = self._state.unsaved(SAVE_BATCH_EVENTS)
        if positions:
            events = self._inbox().at(positions)
            self._state.save(positions, events, now=self._now_ms(), max_bytes=self._policy.max_dead_letter_bytes)

    def _skip_purged(self) -> None:
        """Skip and report events that were purged unread: the destination was not in the file, or no relay ran."""
        for name, since in self._state.positions().items():
            missed = self._first_position - since - 1
            if missed > 0 and self._state.plan(name, since, self._first_position - 1, [], now=self._now_ms()):
                self._metrics.died(name, DeadLetterReason.RETENTION, missed)
                self._log.error("events purged before the relay read them", destination=name, count=missed)
