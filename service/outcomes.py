"""Closed sets: outcomes of requests and attempts, and reasons of failures. Metrics, responses and docs use them."""

from enum import StrEnum
from typing import Final


class NotificationOutcome(StrEnum):
    """The outcome of a notification: the label of `notifications_total`."""

    ACCEPTED = "accepted"
    TOO_LARGE = "too_large"
    ENCODED = "encoded"
    NOT_CONFIGURED = "not_configured"
    BAD_SIGNATURE = "bad_signature"
    OVERLOADED = "overloaded"
    TIMEOUT = "timeout"
    ABORTED = "aborted"
    UNAVAILABLE = "unavailable"
    ERROR = "error"


class HandshakeOutcome(StrEnum):
    """The outcome of a handshake, with the reason if it is rejected: the label of `handshakes_total`."""

    VERIFIED = "verified"
    NOT_CONFIGURED = "not_configured"
    MISSING_PARAMETER = "missing_parameter"
    REPEATED_PARAMETER = "repeated_parameter"
    WRONG_MODE = "wrong_mode"
    BAD_CHALLENGE = "bad_challenge"
    WRONG_TOKEN = "wrong_token"  # noqa: S105  an outcome


class StorageFailure(StrEnum):
    """Why the inbox, or the relay's delivery database, is unavailable."""

    FULL = "full"
    SLOW = "slow"
    LOCKED = "locked"
    READ_ONLY = "read_only"
    CANNOT_OPEN = "cannot_open"
    VANISHED = "vanished"
    IO_ERROR = "io_error"
    CORRUPT = "corrupt"
    NEWER = "newer"
    OLDER = "older"
    FOREIGN = "foreign"
    UNSAFE = "unsafe"
    UNREACHABLE = "unreachable"
    DENIED = "denied"
    TLS = "tls"
    TOO_LARGE = "too_large"
    ERROR = "error"
    STARTING = "starting"
    MOVED = "moved"
    RELAY_STATE = "relay_state"


# The label of `inbox_errors_total`: starting is not a failure, and the other three apply only to the relay.
INBOX_FAILURES: Final = tuple(
    each
    for each in StorageFailure
    if each not in (StorageFailure.STARTING, StorageFailure.MOVED, StorageFailure.OLDER, StorageFailure.RELAY_STATE)
)


class AttemptOutcome(StrEnum):
    """The outcome of a delivery attempt: the label of `relay_attempts_total`."""

    DELIVERED = "delivered"
    REDIRECT = "redirect"
    INTERIM = "1xx"
    CLIENT_ERROR = "4xx"
    SERVER_ERROR = "5xx"
    TIMEOUT = "timeout"
    CONNECTION = "connection"
    STALE = "stale"
    TLS = "tls"
    FORBIDDEN = "forbidden"
    STOPPED = "stopped"
    ERROR = "error"


class DeadLetterReason(StrEnum):
    """Why a delivery became a dead letter."""

    EXPIRED = "expired"
    ATTEMPTS = "attempts"
    REJECTED = "rejected"
    RETENTION = "retention"
    DROPPED = "dropped"
    FILTERED = "filtered"


# The label of `relay_dead_letters_total`: the other reasons are those of commands.
RELAY_REASONS: Final = tuple(
    each for each in DeadLetterReason if each not in (DeadLetterReason.DROPPED, DeadLetterReason.FILTERED)
)


class CheckId(StrEnum):
    """The checks of `doctor`, in order."""

    CONFIGURATION = "configuration"
    CREDENTIALS = "credentials"
    SERVICE = "service"
    COUNTERS = "counters"
    DIRECT = "direct"
    URL = "url"
    NAME = "name"
    CONNECTION = "connection"
    CERTIFICATE = "certificate"
    NOT_CHECKED = "not checked"
    ANSWER = "answer"
    HANDSHAKE = "handshake"
    QUERY_STRING = "query string"
    NOTIFICATION = "notification"
    BODY_LIMIT = "body limit"
    INBOX = "inbox"
    APP = "app"
    GRAPH_VERSION = "graph version"
    APP_LIVE = "app live"
    CALLBACK = "callback"
    FIELDS = "fields"
    ACCOUNTS = "accounts"
    OVERRIDES = "overrides"
