"""Map errors of the client and the server to InboxUnavailable, each with a remedy."""

import asyncio
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import nats
import nats.errors
import nats.js.errors

from service.errors import InboxUnavailable, Unavailability
from service.outcomes import StorageFailure

TOO_LARGE: Final = Unavailability(
    StorageFailure.TOO_LARGE,
    "an event is larger than the server accepts: raise the server's max_payload; Meta retries the event",
    alone=True,
)
UNREACHABLE: Final = Unavailability(
    StorageFailure.UNREACHABLE, "the server can't be reached: is it up, and is its address right?", reopen=True
)
# By the server's error code: https://github.com/nats-io/nats-server/blob/main/server/errors.json
_FAILURES: Final[dict[int, Unavailability]] = {
    10023: Unavailability(
        StorageFailure.FULL, "the server lacks resources: make room on its disk, or raise JetStream's limits"
    ),
    10028: Unavailability(StorageFailure.FULL, "the account's storage is used up: raise its limit"),
    10047: Unavailability(StorageFailure.FULL, "JetStream's storage is used up: make room, or raise max_file_store"),
    10054: TOO_LARGE,
    10059: Unavailability(StorageFailure.CANNOT_OPEN, "the stream does not exist: check its name in WEBHOOK_INBOX"),
    10076: Unavailability(
        StorageFailure.IO_ERROR, "JetStream is not enabled, or has shut itself down: check the server's log"
    ),
    10077: Unavailability(StorageFailure.FULL, "the stream is full: raise its limits, or let consumers keep up"),
}
_REJECTED: Final = Unavailability(StorageFailure.ERROR, "the server rejects the request")
# By the client's exception, or a word of its message.
_CLIENT_ERRORS: Final[tuple[tuple[tuple[type[BaseException], ...], tuple[str, ...], Unavailability], ...]] = (
    (
        (nats.js.errors.NoStreamResponseError, nats.errors.NoRespondersError),
        (),
        Unavailability(
            StorageFailure.CANNOT_OPEN,
            "no stream accepts the subject: was the stream deleted, or has it no leader?",
            reopen=True,
        ),
    ),
    (
        (nats.errors.AuthorizationError,),
        ("authorization",),
        Unavailability(StorageFailure.DENIED, "the server rejects the user: check the credentials", reopen=True),
    ),
    (
        (ssl.SSLError,),
        ("certificate", "ssl", "tls"),
        Unavailability(
            StorageFailure.TLS,
            "the TLS connection to the server failed: check tlsca and the server's certificate",
            reopen=True,
        ),
    ),
    (
        (nats.errors.TimeoutError, TimeoutError, asyncio.TimeoutError),
        (),
        Unavailability(
            StorageFailure.SLOW,
            "the server does not acknowledge in time: check its load and its disk",
            reopen=True,
        ),
    ),
)


@contextmanager
def map_errors() -> Iterator[None]:
    """Raise InboxUnavailable instead of an error of the client or the system."""
    try:
        yield
    except (nats.errors.Error, OSError, TimeoutError) as ex:
        raise mapped(ex) from ex


def mapped(ex: BaseException) -> InboxUnavailable:
    """Return the InboxUnavailable for *ex*, with its remedy and whether a new connection is required."""
    if isinstance(ex, nats.js.errors.APIError):
        return _FAILURES.get(ex.err_code or 0, _REJECTED).error(str(ex.description))
    if isinstance(ex, nats.errors.MaxPayloadError):
        return TOO_LARGE.error()
    for kinds, words, failure in _CLIENT_ERRORS:
        if isinstance(ex, kinds) or any(word in str(ex).lower() for word in words):
            return failure.error()
    return UNREACHABLE.error(type(ex).__name__)
