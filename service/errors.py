"""Everything that can go wrong, as one tree.

    WebhookError
    ├── ConfigurationError      the operator must change something; carries every problem
    ├── HandshakeRefused        the caller is told nothing; carries the reason for log and metric
    ├── NotificationRefused     the body is not taken; one subclass a row of the answer table
    │   ├── TooLarge
    │   ├── Encoded
    │   ├── NotConfigured
    │   ├── BadSignature
    │   ├── Overloaded
    │   ├── ReadTimeout
    │   └── Aborted
    ├── GraphRefused            Meta did not do what it was asked; says whose side it is on, and what to do
    └── InboxUnavailable        what was to be kept is not promised to survive; the sender tries again

`service.receiver.app` holds the one table that turns them into HTTP answers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from service.outcomes import HandshakeOutcome, NotificationOutcome, StorageFailure


class WebhookError(Exception):
    """The root of the tree; `outcome` is its value of the notifications metric's label."""

    outcome: ClassVar[NotificationOutcome] = NotificationOutcome.ERROR


class ConfigurationError(WebhookError):
    """The configuration cannot be used; *problems* are all that was found, one sentence each."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


class HandshakeRefused(WebhookError):
    """The verification request is not Meta's; *reason* is for the operator, never for the caller."""

    def __init__(self, reason: HandshakeOutcome) -> None:
        super().__init__(reason)
        self.reason = reason


class NotificationRefused(WebhookError):
    """The notification is not taken."""


class TooLarge(NotificationRefused):
    """The body is above `WEBHOOK_MAX_BODY_BYTES`."""

    outcome = NotificationOutcome.TOO_LARGE


class Encoded(NotificationRefused):
    """The body has a `Content-Encoding`; Meta sends none, and a signature covers the bytes as sent."""

    outcome = NotificationOutcome.ENCODED


class NotConfigured(NotificationRefused):
    """No app secret is in force, so nothing can be checked."""

    outcome = NotificationOutcome.NOT_CONFIGURED


class BadSignature(NotificationRefused):
    """No secret in force made this signature, or there is none that could be checked."""

    outcome = NotificationOutcome.BAD_SIGNATURE


class Overloaded(NotificationRefused):
    """The requests in flight are at their limit in bytes, and this one moved the least."""

    outcome = NotificationOutcome.OVERLOADED


class ReadTimeout(NotificationRefused):
    """The request was not complete in time, however it dripped."""

    outcome = NotificationOutcome.TIMEOUT


class Aborted(NotificationRefused):
    """The client went away, or broke the framing, before the body's end."""

    outcome = NotificationOutcome.ABORTED


class GraphRefused(WebhookError):
    """The Graph API did not do what it was asked.

    *what* went wrong, *side* is whose it is to mend, *remedy* says how, each in words; *code* is Meta's, 0 where the
    answer was none of its errors; *again* says that the same request may work in a moment.
    """

    def __init__(self, what: str, *, side: str, remedy: str, code: int = 0, again: bool = False) -> None:
        super().__init__(what)
        self.what = what
        self.side = side
        self.remedy = remedy
        self.code = code
        self.again = again

    def of(self, name: str) -> "GraphRefused":
        """Give the same, of what is called *name*, where it is Meta that refused it."""
        what = f"{name}: {self.what}" if self.code else self.what
        return GraphRefused(what, side=self.side, remedy=self.remedy, code=self.code, again=self.again)


@dataclass(frozen=True, slots=True)
class Unavailability:
    """Why the inbox is unavailable: what may be stored of an InboxUnavailable.

    An exception keeps the frames of every raise alive, and so the events of every request that it was raised to. So
    what is stored was never raised, and what is raised is never stored.
    """

    reason: StorageFailure
    detail: str
    reopen: bool = False
    alone: bool = False

    def error(self, said: str = "") -> "InboxUnavailable":
        """Return an exception of its own, to be raised once; *said* is what the engine calls it."""
        detail = f"{self.detail} ({said})" if said else self.detail
        return InboxUnavailable(self.reason, detail, reopen=self.reopen, alone=self.alone)


class InboxUnavailable(WebhookError):
    """The inbox cannot promise, in time, that the events would survive a crash.

    *reason* is a metric's label, *detail* says it to a person with the remedy,
    *reopen* says that the engine's handle is not to be trusted any more, *alone* that an event is at fault and not
    the inbox: others may be kept without it.
    """

    outcome = NotificationOutcome.UNAVAILABLE

    def __init__(self, reason: StorageFailure, detail: str, *, reopen: bool = False, alone: bool = False) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail
        self.reopen = reopen
        self.alone = alone

    def stored(self) -> Unavailability:
        """Return what may be stored of it."""
        return Unavailability(self.reason, self.detail, self.reopen, self.alone)
