"""From what the client and the server say to what the operator can do."""

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
    "an event is larger than the server takes: raise its max_payload; Meta sends it again meanwhile",
    alone=True,
)
UNREACHABLE: Final = Unavailability(
    StorageFailure.UNREACHABLE, "the server can't be reached: is it up, and is this its address?", reopen=True
)
# By the server's own numbers: https://github.com/nats-io/nats-server/blob/main/server/errors.json
_FAILURES: Final[dict[int, Unavailability]] = {
    10023: Unavailability(
        StorageFailure.FULL, "the server lacks resources: make room on its disk, or raise JetStream's limits"
    ),
    10028: Unavailability(StorageFailure.FULL, "the account's storage is used up: raise its limit"),
    10047: Unavailability(StorageFailure.FULL, "JetStream's storage is used up: make room, or raise max_file_store"),
    10054: TOO_LARGE,
    10059: Unavailability(StorageFailure.CANNOT_OPEN, "there is no such stream"),
    10076: Unavailability(
        StorageFailure.IO_ERROR, "JetStream is not enabled, or stopped itself: look at the server's log"
    ),
    10077: Unavailability(StorageFailure.FULL, "the stream is full: raise its limits, or let consumers keep up"),
}
_REFUSED: Final = Unavailability(StorageFailure.ERROR, "the server refuses")
# What the client raises, or only says.
_KINDS: Final[tuple[tuple[tuple[type[BaseException], ...], tuple[str, ...], Unavailability], ...]] = (
    (
        (nats.js.errors.NoStreamResponseError, nats.errors.NoRespondersError),
        (),
        Unavailability(
            StorageFailure.CANNOT_OPEN,
            "no stream takes the subject: was it deleted, or is it without a leader?",
            reopen=True,
        ),
    ),
    (
        (nats.errors.AuthorizationError,),
        ("authorization",),
        Unavailability(StorageFailure.DENIED, "the server refuses the user: look at the credentials", reopen=True),
    ),
    (
        (ssl.SSLError,),
        ("certificate", "ssl", "tls"),
        Unavailability(
            StorageFailure.TLS, "no TLS with the server: look at tlsca and the server's certificate", reopen=True
        ),
    ),
    (
        (nats.errors.TimeoutError, TimeoutError, asyncio.TimeoutError),
        (),
        Unavailability(
            StorageFailure.SLOW,
            "the server does not acknowledge in time: look at its load and its disk",
            reopen=True,
        ),
    ),
)


@contextmanager
def map_errors() -> Iterator[None]:
    """Raise InboxUnavailable for whatever the client or the system raise within."""
    try:
        yield
    except (nats.errors.Error, OSError, TimeoutError) as ex:
        raise mapped(ex) from ex


def mapped(ex: BaseException) -> InboxUnavailable:
    """Return the error with its remedy, and whether the connection can still be trusted."""
    if isinstance(ex, nats.js.errors.APIError):
        return _FAILURES.get(ex.err_code or 0, _REFUSED).error(str(ex.description))
    if isinstance(ex, nats.errors.MaxPayloadError):
        return TOO_LARGE.error()
    for kinds, words, failure in _KINDS:
        if isinstance(ex, kinds) or any(word in str(ex).lower() for word in words):
            return failure.error()
    return UNREACHABLE.error(type(ex).__name__)
