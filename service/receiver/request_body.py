"""The body of a request: read under a limit and a deadline."""

import time
from collections.abc import Callable
from typing import Final, Protocol

from service.errors import Aborted, Overloaded, ReadTimeout, TooLarge

# Set by the worker: when, on the monotonic clock, the request whose first byte came is late.
READ_DEADLINE: Final = "whatsapp_webhook.read_deadline"
READ_BYTES: Final = 16384
MIN_HASHED_BYTES: Final = 16384  # bytes of a body that are hashed at once


class BodyStream(Protocol):
    """`wsgi.input`: gives up to *size* bytes, fewer at the end, none after it."""

    def read(self, size: int, /) -> bytes:
        """Return up to *size* bytes."""


def read_body(
    stream: BodyStream,
    *,
    length: int | None,
    limit: int,
    deadline: float,
    update: Callable[[memoryview], None],
) -> bytes:
    """Read a request's body to its end, chunked or not.

    *length* is what Content-Length says, *limit* the most bytes, *deadline* a time of the monotonic clock for the last
    byte; *update* gets all of the body in steps of at least MIN_HASHED_BYTES, and what is left at its end. A wait for
    the next piece is ended by the server, with TimeoutError, or Overloaded if others need the memory. Raises TooLarge,
    ReadTimeout, Overloaded, or Aborted if the client went away or broke the framing.
    """
    received = bytearray()  # small pieces cost more than what they hold
    updated = 0
    try:
        while len(received) != length and (piece := stream.read(READ_BYTES)):
            if time.monotonic() > deadline:
                raise ReadTimeout
            if len(received) + len(piece) > limit:
                raise TooLarge
            received += piece
            if len(received) - updated >= MIN_HASHED_BYTES:
                updated = _pass_on(received, updated, update)
    except (TooLarge, Overloaded, ReadTimeout):
        raise
    except TimeoutError as ex:
        raise ReadTimeout from ex
    except Exception as ex:  # whatever the server's reader raises: the body did not come
        raise Aborted from ex
    if length is not None and len(received) < length:
        raise Aborted
    _pass_on(received, updated, update)
    return bytes(received)


def _pass_on(received: bytearray, start: int, update: Callable[[memoryview], None]) -> int:
    with memoryview(received) as whole, whole[start:] as rest:
        update(rest)
        return len(whole)
