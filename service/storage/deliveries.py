"""The relay's state: positions in the log, pending deliveries, dead letters and attempts. One store, small protocols.

Times are milliseconds since the epoch. A *queue* is the delivery queue of one partition key to one destination. Its
events are delivered one at a time, oldest first; while the first one waits for a retry, the whole queue waits.
"""

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from enum import StrEnum
from typing import Final, NamedTuple, Protocol

from service.events import Event
from service.outcomes import DeadLetterReason
from service.storage.delivery_policy import DeliveryPolicy
from service.storage.identities import Identifier, Identities, Pair, Sibling
from service.storage.people import Appearance
from service.storage.protocols import Record

BLOCKED_MS: Final = 1000  # until a queue is tried again whose first event waits for another queue of its person


class Delivery(NamedTuple):
    """A pending event of one destination: its position in the log, its delivery queue, when it was received.

    *siblings* are the other queues of its person: deliveries that come first there are attempted first.
    """

    position: int
    queue: str
    received_at: int
    siblings: Sequence[Sibling] = ()


def planned(record: Record, identities: Identities) -> Delivery:
    """Return the delivery of an event: its queue, and the other queues of its person, as known at its position."""
    position, event = record
    return Delivery(position, event.partitionkey, event.received_at, identities.siblings(record))


class Claim(NamedTuple):
    """The first event of a delivery queue, leased for one attempt; *token* proves that the lease is still this one."""

    destination: str
    queue: str
    position: int
    planned_at: int  # when the relay read it in the log
    replay: bool
    attempts: int  # earlier attempts of this queue since its last successful delivery
    first_attempt_at: int  # time of the first of these attempts; 0 if there was none
    token: int


class Attempt(NamedTuple):
    """One attempt: its start, its duration in seconds, the response's status (0 for none), and its outcome."""

    at: int
    seconds: float
    status: int
    outcome: str


class Verdict(StrEnum):
    """The result of an attempt, or of a delivery that could not be attempted."""

    DELIVERED = "delivered"
    RETRY = "retry"
    DEAD_LETTER = "dead_letter"


class Ruling(NamedTuple):
    """The decision on a queue's first event: when to retry it (*due*), or why it is a dead letter (*reason*)."""

    verdict: Verdict
    due: int = 0
    reason: DeadLetterReason | None = None


class Settlement(NamedTuple):
    """The result of a claim; *disables* is the reason to disable its destination, None to leave it enabled."""

    claim: Claim
    attempt: Attempt
    ruling: Ruling
    disables: str | None = None


def next_queue_state(settlement: Settlement) -> tuple[int, int, int]:
    """Return the delivery queue's next due time, attempt count and first-attempt time."""
    claim, attempt, ruling, _ = settlement
    if ruling.verdict is Verdict.DELIVERED:
        return attempt.at, 0, 0
    # After a dead letter, the queue's next event keeps the attempt count.
    due = ruling.due if ruling.verdict is Verdict.RETRY else attempt.at
    return due, claim.attempts + 1, claim.first_attempt_at or attempt.at


class DeadLetter(NamedTuple):
    """A delivery that was given up at *at*, with the reason; only a replay delivers it."""

    destination: str
    position: int
    reason: str
    attempts: int
    at: int


class DeliveryHistory(NamedTuple):
    """The state of one event at one destination (`delivered`, `waiting` or `dead: REASON`), and every attempt."""

    destination: str
    state: str
    attempts: Sequence[Attempt]


class DestinationStatus(NamedTuple):
    """The state of a destination."""

    name: str
    position: int  # up to which the log was read for it
    disabled: str | None  # the reason; None if it is enabled
    gone_since: int | None  # when it was removed from the destinations file
    backlog: int  # pending deliveries
    oldest: int | None  # when the oldest pending event was received
    dead_letters: int


class DeliveryPlanning(Protocol):
    """Turns events of the log into pending deliveries."""

    def adopt(self, identity: int, last: int) -> int:
        """Bind the state to the log of this *identity*, whose newest position is *last*; return the dropped deliveries.

        If the state belonged to another log, drop all of it; each destination then starts at the first position. If the
        log was restored from a backup, reset positions above *last*, and drop the deliveries there.
        """
        ...

    def join(self, names: Mapping[str, int], *, now: int) -> None:
        """Store *names* as the destinations of the file; a new one starts after the position that *names* has for it.

        The others are marked as gone since *now*.
        """
        ...

    def positions(self) -> Mapping[str, int]:
        """Return the position up to which the log was read, for each destination of the file."""
        ...

    def plan(self, name: str, since: int, until: int, deliveries: Sequence[Delivery], *, now: int) -> bool:
        """Store the deliveries between two positions of the log in one transaction.

        Returns False, and stores nothing, if another relay has planned them already.
        """
        ...


class DeliveryIdentities(Protocol):
    """Stores which numbers and user ids are one person's; see `storage.identities`."""

    def learned(self) -> int:
        """Return the position up to which pairs were learned."""
        ...

    def pairs(self, identifiers: Collection[Identifier]) -> Sequence[Pair]:
        """Return all pairs of the people who have one of these identifiers."""
        ...

    def learn(self, since: int, until: int, pairs: Sequence[Pair]) -> bool:
        """Store the *pairs* that were learned between two positions, or that were used there.

        Returns False, and stores nothing, if another relay has learned them already.
        """
        ...


class DeliveryCleanup(Protocol):
    """Gives up undeliverable events, and prunes the attempt history."""

    def expire(
        self, first: int, *, now: int, policy: DeliveryPolicy, dead_letter_age_ms: int, retention_ms: int
    ) -> Mapping[tuple[str, DeadLetterReason], int]:
        """Make dead letters of undeliverable events; return their number by destination and reason.

        Undeliverable are events that the log no longer has (positions before *first*), if their destination is disabled
        or gone; and events older than the *policy* allows, if their destination has accepted nothing for that long.
        Also deletes dead letters older than *dead_letter_age_ms*, and pairs of identifiers that no event has used for
        *retention_ms*.
        """
        ...

    def prune_attempts(self, first: int) -> None:
        """Delete a batch of the attempts of events before position *first*."""
        ...


class DeadLetterEvents(Protocol):
    """The events of dead letters, saved beside them so that they outlive the log's retention."""

    def unsaved(self, limit: int) -> Sequence[int]:
        """Return positions of dead letters whose event is not saved yet; the log must keep these events until then."""
        ...

    def save(self, positions: Sequence[int], events: Sequence[Record], *, now: int, max_bytes: int) -> None:
        """Save the events of dead letters; *positions* without one of *events* count as saved: the event is gone.

        If the saved events exceed *max_bytes* in total, the oldest are dropped.
        """
        ...

    def saved(self, positions: Sequence[int]) -> Mapping[int, Event]:
        """Return the saved events of these positions, by position."""
        ...


class QueueKind(StrEnum):
    """Which delivery queues to select; a queue is `failed` if its last attempt failed."""

    HEALTHY = "healthy"
    FAILED = "failed"


class DeliveryClaims(Protocol):
    """Leases delivery queues for attempts, and stores the results."""

    def together(self) -> AbstractContextManager[None]:
        """Run the block in one transaction: commit it, or roll back if it raises."""
        ...

    def next_due(self, name: str, kind: QueueKind) -> int | None:
        """Return the earliest due time of a queue; None if there is no queue, or the destination is disabled."""
        ...

    def claim(
        self, name: str, most: int, kind: QueueKind, *, now: int, lease: int, at_random: bool = False
    ) -> Sequence[Claim]:
        """Lease at most *most* queues that are due: those that have waited longest, or random ones.

        No other relay can claim them for *lease* milliseconds.
        """
        ...

    def settle(self, settlements: Sequence[Settlement]) -> Sequence[Claim]:
        """Store the results of claims: delivered, to be retried, or dead letter; and disable destinations.

        Returns the claims whose lease has expired and whose queue another relay has claimed; nothing is stored for
        these.
        """
        ...


class DeliveryState(DeliveryPlanning, DeliveryCleanup, DeliveryClaims, DeadLetterEvents, Protocol):
    """The relay's whole state."""

    @property
    def identities(self) -> DeliveryIdentities:
        """Return which numbers and user ids are one person's."""
        ...

    def require_file(self) -> None:
        """Raise InboxUnavailable if the store is no longer the one that was opened."""
        ...


class DestinationAdmin(Protocol):
    """Shows and changes the state of destinations, for commands."""

    def statuses(self) -> Sequence[DestinationStatus]:
        """Return the state of each destination that was ever in the file."""
        ...

    def heartbeat(self) -> int:
        """Return the time of the last heartbeat of a relay, in milliseconds since the epoch; 0 if there was none."""
        ...

    def disable(self, name: str, reason: str | None) -> bool:
        """Disable a destination, or enable it if *reason* is None; return whether that changed its state."""
        ...

    def clear(self) -> None:
        """Delete the whole state: positions, deliveries, dead letters with their events, attempts."""
        ...


class DeadLetterAdmin(Protocol):
    """Shows dead letters and delivery histories, and replays events, for commands."""

    def dead_letters(self, *, limit: int | None) -> Sequence[DeadLetter]:
        """Return the newest *limit* dead letters, all if it is None, in the order in which they were given up."""
        ...

    def saved(self, positions: Sequence[int]) -> Mapping[int, Event]:
        """Return the saved events of dead letters; see `DeadLetterEvents`."""
        ...

    def history(self, position: int) -> Sequence[DeliveryHistory]:
        """Return the delivery history of the event at *position*, one entry per destination."""
        ...

    def replay(self, name: str, deliveries: Sequence[Delivery], *, now: int) -> int:
        """Store deliveries again, marked as a replay; return how many were not pending already."""
        ...


class DeliveryErasure(Protocol):
    """Erases one person's data from the relay's state."""

    def appearances(self, identifiers: Collection[str]) -> Sequence[Appearance]:
        """Return the saved events, and the pending deliveries, in which one of these numbers or user ids appears."""
        ...

    def erase(self, positions: Sequence[int], identifiers: Collection[str]) -> bool:
        """Delete everything about these events, and the pairs with one of these numbers or user ids.

        Returns False if the store's write-ahead log still has some of it.
        """
        ...


class DeliveryAdmin(DestinationAdmin, DeadLetterAdmin, DeliveryErasure, Protocol):
    """The operations of the commands."""

    @property
    def identities(self) -> DeliveryIdentities:
        """Return which numbers and user ids are one person's."""
        ...
