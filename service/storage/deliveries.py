"""The relay's state: positions in the log, pending deliveries, dead letters and attempts. One store, small protocols.

Times are milliseconds since the epoch. A *queue* is the delivery queue of one partition key to one destination. Its
events are delivered one at a time, oldest first; while the first one waits for a retry, the whole queue waits.
"""

import json
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
from service.storage.timelines import Timeline

REPORT_AGE_MS: Final = 30_000  # a relay whose last report is older has stopped
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
    token: int
    queue_attempts: int = 0  # failed attempts of this queue since its last successful delivery
    queue_failing_since: int = 0  # time of the first of these attempts; 0 if there was none
    attempts: int = 0  # earlier attempts of this delivery that count
    rejections: int = 0  # of these, how many got a permanent status
    first_attempt_at: int = 0  # time of the first of these attempts; 0 if there was none
    skipped: bool = False  # whether it was put into a queue of its own, so that its queue went on

    def with_counts(self, attempts: int, rejections: int, first_attempt_at: int, skipped: int) -> "Claim":
        """Return the claim with the state of its delivery."""
        return self._replace(
            attempts=attempts, rejections=rejections, first_attempt_at=first_attempt_at, skipped=bool(skipped)
        )


class AttemptEvidence(NamedTuple):
    """Why an attempt failed: the reason in words, and what the destination answered.

    It can contain personal data, so it is never in a log or a metric.
    """

    reason: str
    headers: Mapping[str, str] = {}  # only some of them
    text: str | None = None  # the start of the response's body, if it is text


class Attempt(NamedTuple):
    """One attempt: its start, its duration in seconds, the response's status (0 for none), and its outcome.

    *evidence* is None if it was delivered.
    """

    at: int
    seconds: float
    status: int
    outcome: str
    evidence: AttemptEvidence | None = None


class Verdict(StrEnum):
    """The result of an attempt, or of a delivery that could not be attempted."""

    DELIVERED = "delivered"
    RETRY = "retry"
    SKIP = "skip"
    DEAD_LETTER = "dead_letter"


class Ruling(NamedTuple):
    """The decision on a queue's first event: when to retry it (*due*), or why it is a dead letter (*reason*).

    The attempt *counts* against the event, unless the destination is the cause. *is_permanent* is whether the answer
    said that the destination will never accept the event.
    """

    verdict: Verdict
    due: int = 0
    reason: DeadLetterReason | None = None
    counts: bool = True
    is_permanent: bool = False


class Settlement(NamedTuple):
    """The result of a claim; *disables* is the reason to disable its destination, None to leave it enabled.

    *before* are attempts that preceded *attempt* within the same lease.
    """

    claim: Claim
    attempt: Attempt
    ruling: Ruling
    disables: str | None = None
    before: Sequence[Attempt] = ()


class QueueState(NamedTuple):
    """When a delivery queue is due, its failed attempts since its last success, and the time of the first of them."""

    due: int
    attempts: int
    failing_since: int


def next_queue_state(settlement: Settlement) -> QueueState:
    """Return the next state of the delivery queue."""
    _, attempt, ruling, *_ = settlement
    if ruling.verdict in (Verdict.DELIVERED, Verdict.SKIP):
        return QueueState(attempt.at, 0, 0)
    return failed_queue_state(settlement, ruling.due if ruling.verdict is Verdict.RETRY else attempt.at)


def failed_queue_state(settlement: Settlement, due: int) -> QueueState:
    """Return the state of a queue whose attempt failed: the claim's queue, or the new one of a skipped delivery."""
    claim, attempt, *_ = settlement
    return QueueState(due, claim.queue_attempts + 1, claim.queue_failing_since or attempt.at)


class DeliveryCounts(NamedTuple):
    """The attempts of a delivery that count against it, and the time of the first of them."""

    attempts: int
    rejections: int
    first_attempt_at: int


def next_counts(settlement: Settlement) -> DeliveryCounts:
    """Return the counts of a delivery that will be attempted again."""
    claim, attempt, ruling, *_ = settlement
    return DeliveryCounts(
        claim.attempts + ruling.counts,
        claim.rejections + ruling.is_permanent,
        claim.first_attempt_at or (attempt.at if ruling.counts else 0),
    )


def parked_queue(claim: Claim) -> str:
    """Return the name of a skipped delivery's own queue."""
    return f"{claim.queue}#{claim.position}"


class DeadLetter(NamedTuple):
    """A delivery that was given up at *at*, with the reason; only a replay delivers it.

    *status* is that of the last attempt; 0 if there was no response.
    """

    destination: str
    position: int
    reason: str
    attempts: int
    at: int
    status: int = 0


class DeadLetterGroup(NamedTuple):
    """Dead letters of one destination with the same reason and last status, and the newest of them."""

    destination: str
    reason: str
    status: int
    number: int  # how many
    at: int  # of the newest
    position: int  # of the newest


class DeliveryHistory(NamedTuple):
    """The state of one event at one destination, and every attempt.

    The state is `delivered`, `waiting`, `skipped` or `dead: REASON`.
    """

    destination: str
    state: str
    attempts: Sequence[Attempt]


class DeliveryHealth(StrEnum):
    """How deliveries to a destination go, as one relay sees it."""

    OK = "ok"
    FAILING = "failing"  # its circuit breaker is open or half-open
    MISCONFIGURED = "misconfigured"


class WorkerReport(NamedTuple):
    """What a relay's delivery worker reported at a time: health, the last status, when it probes the destination."""

    at: int
    health: DeliveryHealth
    status: int | None  # of the last attempt; 0 if there was no response, None before the first attempt
    next_probe_at: int  # 0 if the circuit breaker is closed


class DestinationStatus(NamedTuple):
    """The state of a destination."""

    name: str
    position: int  # up to which the log was read for it
    disabled: str | None  # the reason; None if it is enabled
    gone_since: int | None  # when it was removed from the destinations file
    backlog: int  # pending deliveries
    oldest: int | None  # when the oldest pending event was received
    oldest_position: int | None  # of the oldest pending event
    next_due: int | None  # when the next attempt is due, if the circuit breaker is closed
    dead_letters: int
    reports: Sequence[WorkerReport] = ()  # the last one of each relay, newest first


class PendingDelivery(NamedTuple):
    """A pending delivery: its position, its attempts that count, when it is due, and if an attempt runs."""

    position: int
    attempts: int
    due: int  # of its queue
    first: int  # the position of its queue's first delivery, for which the others wait
    skipped: bool
    leased: bool


class DeliveryPlanning(Protocol):
    """Turns events of the log into pending deliveries."""

    def adopt(self, timelines: Sequence[Timeline]) -> int:
        """Bind the state to the log with these *timelines*; return how many deliveries and dead letters were dropped.

        If the state belonged to another log, drop all of it; each destination then starts at the first position. If the
        log has other events after some position than those that were read, go back to it, and drop what is after it.
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


class ExpiryLimits(NamedTuple):
    """The limits of `DeliveryCleanup.expire`; times are in milliseconds."""

    policy: DeliveryPolicy
    dead_letter_age_ms: int
    retention_ms: int  # pairs of identifiers that no event has used for this long are deleted


class DeliveryCleanup(Protocol):
    """Gives up undeliverable events, and prunes the attempt history."""

    def expire(
        self, first: int, limits: "ExpiryLimits", *, now: int, max_ages_ms: Mapping[str, int]
    ) -> Mapping[tuple[str, DeadLetterReason], int]:
        """Make dead letters of undeliverable events; return their number by destination and reason.

        Undeliverable are events that the log no longer has (positions before *first*), if their destination is disabled
        or gone; and events older than *max_ages_ms* has for their destination, if it has accepted nothing for that
        long.
        Also deletes dead letters and pairs of identifiers that are too old, and old reports.
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


class DeliveryReports(Protocol):
    """What relays tell each other, and what commands tell them."""

    def report(self, reports: Mapping[str, WorkerReport]) -> None:
        """Store the reports of this relay's delivery workers, by destination."""
        ...

    def count_relays(self, since: int) -> int:
        """Return how many relays have reported since a time."""
        ...

    def retried_at(self) -> Mapping[str, int]:
        """Return when somebody last ran `destinations retry`, for each destination for which that ever happened."""
        ...


class DeliveryState(DeliveryPlanning, DeliveryCleanup, DeliveryClaims, DeliveryReports, DeadLetterEvents, Protocol):
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


class PendingAdmin(Protocol):
    """Shows and changes pending deliveries, for commands."""

    def pending(self, name: str, *, after: int, limit: int, now: int) -> Sequence[PendingDelivery]:
        """Return at most *limit* pending deliveries with positions above *after*, in order."""
        ...

    def retry(self, name: str, *, now: int) -> None:
        """Make all pending deliveries due, and tell the relays; those whose attempt runs stay as they are."""
        ...

    def give_up(
        self, name: str, positions: Sequence[int], reason: DeadLetterReason, *, now: int
    ) -> tuple[Sequence[int], Sequence[int]]:
        """Make dead letters of pending deliveries; return their positions, and those whose attempt runs now.

        The latter stay pending. What waited for a delivery that was given up is due now.
        """
        ...


class DeadLetterAdmin(Protocol):
    """Shows dead letters, for commands."""

    def dead_letters(self, *, limit: int | None) -> Sequence[DeadLetter]:
        """Return the newest *limit* dead letters, all if it is None, in the order in which they were given up."""
        ...

    def dead_letter_groups(self) -> Sequence[DeadLetterGroup]:
        """Return all dead letters in groups, ordered by destination, reason and status."""
        ...

    def saved(self, positions: Sequence[int]) -> Mapping[int, Event]:
        """Return the saved events of dead letters; see `DeadLetterEvents`."""
        ...


class EventDeliveryAdmin(Protocol):
    """Shows the deliveries of an event, and repeats them, for commands."""

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


class DeliveryAdmin(DestinationAdmin, PendingAdmin, DeadLetterAdmin, EventDeliveryAdmin, DeliveryErasure, Protocol):
    """The operations of the commands."""

    @property
    def identities(self) -> DeliveryIdentities:
        """Return which numbers and user ids are one person's."""
        ...


def encode_evidence(evidence: AttemptEvidence | None) -> str | None:
    """Return the evidence as a store keeps it."""
    return None if evidence is None else json.dumps(evidence._asdict())


def decode_evidence(text: str | None) -> AttemptEvidence | None:
    """Return the evidence that a store kept."""
    return None if text is None else AttemptEvidence(**json.loads(text))
