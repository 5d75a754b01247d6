"""What the relay must remember: how far it read, what is owed to whom, what was tried. Small protocols, one store.

Times are milliseconds since the epoch. A *queue* is one partition key at one destination: its events go one after the
other, the oldest first, and while its first one waits for another try the queue waits with it.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from enum import StrEnum
from typing import NamedTuple, Protocol

from service.events import Event
from service.outcomes import DeadLetterReason
from service.storage.delivery_policy import DeliveryPolicy
from service.storage.protocols import Record


class Delivery(NamedTuple):
    """An event that a destination is to get: its position in the log, its queue, when it was received."""

    position: int
    queue: str
    received_at: int


class Claim(NamedTuple):
    """The first event of a queue, taken for one try; *token* proves, at the end, that it is still ours."""

    destination: str
    queue: str
    position: int
    planned_at: int  # when it was read in the log
    replay: bool
    attempts: int  # of this queue, before this one, since it took something
    first_attempt_at: int  # of them; 0 where this is the first
    token: int


class Attempt(NamedTuple):
    """One attempt: when it began, how long it took in seconds, the response's status (0 for none), and its outcome."""

    at: int
    seconds: float
    status: int
    outcome: str


class Verdict(StrEnum):
    """What a try, or its absence, comes to."""

    DELIVERED = "delivered"
    RETRY = "retry"
    DEAD_LETTER = "dead_letter"


class Ruling(NamedTuple):
    """What becomes of a queue's first event: when it is tried again, or why it is dead."""

    verdict: Verdict
    due: int = 0
    reason: DeadLetterReason | None = None


class Settlement(NamedTuple):
    """How a claim ended, and why its destination is to be disabled with it, if it is."""

    claim: Claim
    attempt: Attempt
    ruling: Ruling
    disables: str | None = None


def next_queue_state(settlement: Settlement) -> tuple[int, int, int]:
    """Say how a queue goes on: when it is due, after how many attempts, the first of which was when."""
    claim, attempt, ruling, _ = settlement
    if ruling.verdict is Verdict.DELIVERED:
        return attempt.at, 0, 0
    # One that is given up leaves its queue's history to the next.
    due = ruling.due if ruling.verdict is Verdict.RETRY else attempt.at
    return due, claim.attempts + 1, claim.first_attempt_at or attempt.at


class DeadLetter(NamedTuple):
    """An event that a destination will not get, unless somebody replays it."""

    destination: str
    position: int
    reason: str
    attempts: int
    at: int


class DeliveryHistory(NamedTuple):
    """What became of one event at one destination: `delivered`, `waiting` or `dead: ` and why; and every try."""

    destination: str
    stands: str
    attempts: Sequence[Attempt]


class DestinationStatus(NamedTuple):
    """How a destination stands: read up to where, why disabled, how much is owed and since when, how much is dead."""

    name: str
    position: int
    disabled: str | None
    gone_since: int | None
    backlog: int
    oldest: int | None
    dead_letters: int


class DeliveryPlanning(Protocol):
    """From the log to what is owed."""

    def adopt(self, identity: int, last: int) -> int:
        """Belong to the log of this *identity*, whose newest position is *last*; gives what is no longer owed.

        Of another log nothing is left, and each destination begins at the start of this one. Where this one was set
        back (a backup), so are positions.
        """
        ...

    def join(self, names: Mapping[str, int], *, now: int) -> None:
        """Have exactly *names* be in the file; one that is new is read for from its position on."""
        ...

    def positions(self) -> Mapping[str, int]:
        """Say how far the log was read for each destination that is in the file."""
        ...

    def plan(self, name: str, since: int, until: int, deliveries: Sequence[Delivery], *, now: int) -> bool:
        """Store the deliveries between two positions of the log, all or nothing; False if another relay was faster."""
        ...


class DeliveryTidying(Protocol):
    """What is no longer to be delivered, or remembered."""

    def expire(
        self, first: int, *, now: int, policy: DeliveryPolicy, dead_letter_age_ms: int
    ) -> Mapping[tuple[str, DeadLetterReason], int]:
        """Give up what is no use to wait for: how many events of each destination, by name and reason.

        That is what the log no longer holds (positions before *first*) of destinations that are disabled or gone,
        and what is older than the *policy* allows of one that accepted nothing for as long. Deletes dead letters that
        are older than *dead_letter_age_ms*.
        """
        ...

    def prune_attempts(self, first: int) -> None:
        """Drop what is told of attempts with events before *first*, some at a time."""
        ...


class DeadLetterEvents(Protocol):
    """The events of dead letters, saved beside them: the log's retention may end before anybody looks."""

    def unsaved(self, limit: int) -> Sequence[int]:
        """Return positions of dead letters whose event was not saved yet; the log must keep them until then."""
        ...

    def save(self, positions: Sequence[int], events: Sequence[Record], *, now: int, max_bytes: int) -> None:
        """Save the events of dead letters; those of *positions* that are not among *events* no longer exist.

        Above *max_bytes* in all, the oldest are dropped.
        """
        ...

    def saved(self, positions: Sequence[int]) -> Mapping[int, Event]:
        """Return the saved events of these positions, by position."""
        ...


class QueueKind(StrEnum):
    """Which delivery queues are asked for; a queue failed if the last attempt of it did."""

    HEALTHY = "healthy"
    FAILED = "failed"


class DeliveryClaims(Protocol):
    """What is owed, one queue at a time."""

    def together(self) -> AbstractContextManager[None]:
        """Make one transaction of what is within: all of it or nothing."""
        ...

    def next_due(self, name: str, kind: QueueKind) -> int | None:
        """Return when the next queue is due; None if there is none, or the destination is disabled."""
        ...

    def claim(
        self, name: str, most: int, kind: QueueKind, *, now: int, lease: int, at_random: bool = False
    ) -> Sequence[Claim]:
        """Take at most so many queues that are due: those that waited longest, or some at random.

        For *lease* milliseconds nobody else gets them.
        """
        ...

    def settle(self, settlements: Sequence[Settlement]) -> Sequence[Claim]:
        """Write down how claims ended: a queue goes on, waits, or its first event is dead; a destination is disabled.

        Gives the claims that ran out and are another's now; of them nothing is written.
        """
        ...


class DeliveryState(DeliveryPlanning, DeliveryTidying, DeliveryClaims, DeadLetterEvents, Protocol):
    """All that the relay remembers by."""

    def require_file(self) -> None:
        """Raise InboxUnavailable where the store is no longer the one that was opened."""
        ...


class DestinationAdmin(Protocol):
    """How destinations are, and what stops them."""

    def statuses(self) -> Sequence[DestinationStatus]:
        """Say how each destination that was ever known stands."""
        ...

    def heartbeat(self) -> int:
        """Return when a relay last said that it runs, in milliseconds since the epoch; 0 if none ever did."""
        ...

    def disable(self, name: str, reason: str | None) -> bool:
        """Deliver nothing more to a destination, or, with None, go on; says whether that changed anything."""
        ...

    def clear(self) -> None:
        """Drop everything: positions, what is owed, dead letters with their events."""
        ...


class DeadLetterAdmin(Protocol):
    """What became of events, and another chance."""

    def dead_letters(self, *, limit: int | None) -> Sequence[DeadLetter]:
        """Give the dead letters of last, in the order in which they were given up; all with None."""
        ...

    def saved(self, positions: Sequence[int]) -> Mapping[int, Event]:
        """Return the saved events of dead letters; see `DeadLetterEvents`."""
        ...

    def history(self, position: int) -> Sequence[DeliveryHistory]:
        """Tell what became of the event at *position*, by destination."""
        ...

    def replay(self, name: str, deliveries: Sequence[Delivery], *, now: int) -> int:
        """Owe events once more, marked as a replay; gives how many were not owed already."""
        ...


class DeliveryErasure(Protocol):
    """What is remembered of one person."""

    def positions_of(self, subject: str) -> Sequence[int]:
        """Return the positions of a person's saved events, and of events that are owed in their order."""
        ...

    def erase(self, positions: Sequence[int]) -> bool:
        """Owe these events to nobody, and tell nothing of them; False where a log of the store still does."""
        ...


class DeliveryAdmin(DestinationAdmin, DeadLetterAdmin, DeliveryErasure, Protocol):
    """What the commands ask, and do."""
