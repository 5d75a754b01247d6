"""Reads the log and stores which deliveries each destination is to get."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Final, Protocol

from service.instruments import Instruments
from service.outcomes import DeadLetterReason
from service.relay.destinations import Destination
from service.storage.deliveries import (
    DeadLetterEvents,
    DeliveryCleanup,
    DeliveryIdentities,
    DeliveryPlanning,
    ExpiryLimits,
    planned,
)
from service.storage.delivery_policy import DeliveryPolicy
from service.storage.identities import Identities, by_identifiers
from service.storage.protocols import Log, Record
from service.storage.timelines import Timeline
from service.telemetry import logs
from service.telemetry.metrics import RelayMetrics

READ_BATCH_EVENTS: Final = 500
TIDY_INTERVAL_MS: Final = 60_000  # between two expirations of what the log no longer holds
SAVE_BATCH_EVENTS: Final = 200  # events of dead letters
MAX_LEARNED_PAGES: Final = 20  # at once: a new relay has the whole log to learn from
BEGINNING: Final = "beginning"


class PlannerState(DeliveryPlanning, DeliveryCleanup, DeadLetterEvents, Protocol):
    """The part of the relay's state that the planner uses."""

    def together(self) -> AbstractContextManager[None]:
        """Run the block in one transaction; see `DeliveryClaims`."""
        ...

    @property
    def identities(self) -> DeliveryIdentities:
        """Return which numbers and user ids are one person's."""
        ...


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
        self._limits = ExpiryLimits(policy, max(retention_ms, policy.min_dead_letter_age_ms), retention_ms)
        self._log = logs.get("relay")
        self._first_position = 0
        self._expired_at: int | None = None
        self._timelines: Sequence[Timeline] = ()
        # Positions of the log that were not read yet, by destination: at most so many deliveries will be planned.
        self.unread: Mapping[str, int] = {}

    def join(self, destinations: Mapping[str, Destination]) -> None:
        """Read for exactly these *destinations*; a new one starts at the end of the log, unless it sets `from`."""
        if set(destinations) == set(self._state.positions()):
            return
        log = self._inbox()
        last = log.last()
        self._adopt_changes(log)
        starts = {name: 0 if each.begin == BEGINNING else last for name, each in destinations.items()}
        self._state.join(starts, now=self._now_ms())

    def plan(self, destinations: Mapping[str, Destination]) -> bool:
        """Store the deliveries for the next page of the log; return whether there is more to read."""
        log = self._inbox()
        pages = _Pages(log)  # most destinations are at the same position
        people: dict[int, Identities] = {}
        positions = {name: since for name, since in self._state.positions().items() if name in destinations}
        positions = {name: since for name, since in positions.items() if pages[since]}
        # After the pages were read: they may be the first of a new timeline.
        if positions:
            self._adopt_changes(log)
        for name, since in positions.items():
            until = pages[since][-1].position
            if not self._learn(pages, until):
                return True
            if since not in people:
                people[since] = Identities(self._state.identities.pairs(by_identifiers(pages[since])))
            selects = destinations[name].selects
            deliveries = [planned(record, people[since]) for record in pages[since] if selects(record.event)]
            self._state.plan(name, since, until, deliveries, now=self._now_ms())
        return pages.is_more

    def _learn(self, pages: "_Pages", until: int) -> bool:
        """Learn who is who up to a position of the log; return False if that needs another call."""
        store, now = self._state.identities, self._now_ms()
        for _ in range(MAX_LEARNED_PAGES):
            since = store.learned()
            if since >= until:
                return True
            page = pages[since]
            identities = Identities(store.pairs(by_identifiers(page)))
            for record in page:
                identities.learn(record, now=now)
            store.learn(since, page[-1].position if page else until, identities.changed)
        return False

    def adopt(self, log: Log) -> None:
        """Adapt to the log that was just opened: it may be a different one, or one restored from a backup."""
        with self._state.together():  # else another relay could store newer timelines meanwhile
            timelines = log.timelines()
            dropped = self._state.adopt(timelines)
        self._timelines = timelines
        if dropped:
            self._log.error(
                "inbox was replaced or restored from a backup: deliveries and dead letters of the old one dropped",
                count=dropped,
            )

    def _adopt_changes(self, log: Log) -> None:
        """Adapt to the log if it has a new timeline since then: before positions in it are stored."""
        if log.timelines() != self._timelines:
            self.adopt(log)

    def tidy(self, destinations: Mapping[str, Destination]) -> None:
        """Expire undeliverable events once a minute, prune the attempt history, and save events of dead letters."""
        now, last = self._now_ms(), self._inbox().last()
        self.unread = {name: max(last - since, 0) for name, since in self._state.positions().items()}
        if self._expired_at is None or not 0 <= now - self._expired_at < TIDY_INTERVAL_MS:
            self._expired_at, self._first_position = now, self._inbox().first()
            max_ages = {name: each.delivery.max_age for name, each in destinations.items()}
            for (name, reason), number in self._state.expire(
                self._first_position, self._limits, now=now, max_ages_ms=max_ages
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
            self._state.save(positions, events, now=self._now_ms(), max_bytes=self._limits.policy.max_dead_letter_bytes)

    def _skip_purged(self) -> None:
        """Skip and report events that were purged unread: the destination was not in the file, or no relay ran."""
        for name, since in self._state.positions().items():
            missed = self._first_position - since - 1
            if missed > 0 and self._state.plan(name, since, self._first_position - 1, [], now=self._now_ms()):
                self._metrics.died(name, DeadLetterReason.RETENTION, missed)
                self._log.error("events purged before the relay read them", destination=name, count=missed)


class _Pages:
    """Pages of the log without data, by the position before them; each is read once."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._pages: dict[int, Sequence[Record]] = {}

    def __getitem__(self, since: int) -> Sequence[Record]:
        if since not in self._pages:
            self._pages[since] = self._log.read(since, READ_BATCH_EVENTS, data=False)
        return self._pages[since]

    @property
    def is_more(self) -> bool:
        """Return whether a page was full, so that the log has more."""
        return any(len(page) == READ_BATCH_EVENTS for page in self._pages.values())
