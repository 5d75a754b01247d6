"""The tree of exceptions.

    WebhookError
    ├── ConfigurationError      the operator must change something; has every problem
    ├── HandshakeRefused        has the reason for log and metric; the response does not show it
    ├── NotificationRefused     the notification is rejected; one subclass per row of the response table
    │   ├── TooLarge
    │   ├── Encoded
    │   ├── NotConfigured
    │   ├── BadSignature
    │   ├── Overloaded
    │   ├── ReadTimeout
    │   └── Aborted
    ├── GraphRefused            a Graph API request failed; says which side must fix it, and how
    └── InboxUnavailable        the events may not be stored; the sender must retry

`service.receiver.responses` has the table that maps them to HTTP responses.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from service.outcomes import HandshakeOutcome, NotificationOutcome, StorageFailure


class WebhookError(Exception):
    """The root of the tree; `outcome` is the label value in the notifications metric."""

    outcome: ClassVar[NotificationOutcome] = NotificationOutcome.ERROR


class ConfigurationError(WebhookError):
    """The configuration cannot be used; *problems* has one sentence per problem."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


class HandshakeRefused(WebhookError):
    """The handshake is rejected; *reason* is for the operator, and never in the response."""

    def __init__(self, reason: HandshakeOutcome) -> None:
        super().__init__(reason)
        self.reason = reason


class NotificationRefused(WebhookError):
    """The notification is rejected."""


class TooLarge(NotificationRefused):
    """The body is larger than `WEBHOOK_MAX_BODY_BYTES`."""

    outcome = NotificationOutcome.TOO_LARGE


class Encoded(NotificationRefused):
    """The body has a `Content-Encoding`; Meta sends none, and a signature covers the bytes as sent."""

    outcome = NotificationOutcome.ENCODED


class NotConfigured(NotificationRefused):
    """There is no app secret, so no signature can be verified."""

    outcome = NotificationOutcome.NOT_CONFIGURED


class BadSignature(NotificationRefused):
    """The signature is missing, malformed, or does not match any accepted secret."""

    outcome = NotificationOutcome.BAD_SIGNATURE


class Overloaded(NotificationRefused):
    """`WEBHOOK_INFLIGHT_BYTES` is reached, and this request was the slowest."""

    outcome = NotificationOutcome.OVERLOADED


class ReadTimeout(NotificationRefused):
    """The request was not complete within `WEBHOOK_READ_TIMEOUT`."""

    outcome = NotificationOutcome.TIMEOUT


class Aborted(NotificationRefused):
    """The client disconnected, or broke the framing, before the end of the body."""

    outcome = NotificationOutcome.ABORTED


class GraphRefused(WebhookError):
    """A request to the Graph API failed.

    *what* describes the failure, *side* names who must fix it, *remedy* says how. *code* is Meta's error code, 0 if the
    response was not one of Meta's errors; *again* is true if a retry of the same request may succeed.
    """

    def __init__(self, what: str, *, side: str, remedy: str, code: int = 0, again: bool = False) -> None:
        super().__init__(what)
        self.what = what
        self.side = side
        self.remedy = remedy
        self.code = code
        self.again = again

    def of(self, name: str) -> "GraphRefused":
        """Return the same error, prefixed with *name* if it is one of Meta's errors."""
        what = f"{name}: {self.what}" if self.code else self.what
        return GraphRefused(what, side=self.side, remedy=self.remedy, code=self.code, again=self.again)


@dataclass(frozen=True, slots=True)
class Unavailability:
    """Why the inbox is unavailable: the storable part of an InboxUnavailable.

    An exception keeps the frames of every raise alive, and so the events of every request that it was raised in.
    Therefore an exception that is raised is never stored, and a stored reason is never raised.
    """

    reason: StorageFailure
    detail: str
    reopen: bool = False
    alone: bool = False

    def error(self, engine_message: str = "") -> "InboxUnavailable":
        """Return a new exception, to be raised once; *engine_message* is the engine's own error text."""
        detail = f"{self.detail} ({engine_message})" if engine_message else self.detail
        return InboxUnavailable(self.reason, detail, reopen=self.reopen, alone=self.alone)


class InboxUnavailable(WebhookError):
    """The inbox could not make the events durable in time.

    *reason* is a metric's label; *detail* is for people, with the remedy. *reopen* is true if the engine's connection
    must be opened again. *alone* is true if one event caused the failure: the other events can be stored without it.
    """

    outcome = NotificationOutcome.UNAVAILABLE

    def __init__(self, reason: StorageFailure, detail: str, *, reopen: bool = False, alone: bool = False) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail
        self.reopen = reopen
        self.alone = alone

    def stored(self) -> Unavailability:
        """Return the storable part of this exception."""
        return Unavailability(self.reason, self.detail, self.reopen, self.alone)
