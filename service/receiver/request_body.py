"""Reads the body of a request under a limit and a deadline."""

import time
from collections.abc import Callable
from typing import Final, Protocol

from service.errors import Aborted, Overloaded, ReadTimeout, TooLarge

# Set in the environ by the worker: the deadline of the request, on the monotonic clock.
READ_DEADLINE: Final = "whatsapp_webhook.read_deadline"
READ_BYTES: Final = 16384
MIN_HASHED_BYTES: Final = 16384  # bytes of a body that are hashed in one step


class BodyStream(Protocol):
    """`wsgi.input`: returns up to *size* bytes, fewer at the end, none after it."""

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

    *length* is the Content-Length, *limit* the maximum number of bytes, *deadline* the time for the last byte on the
    monotonic clock. *update* is called with the body in steps of at least MIN_HASHED_BYTES, and with the rest at the
    end. The server interrupts a wait for the next piece with TimeoutError, or with Overloaded if other requests need
    the memory. Raises TooLarge, ReadTimeout, Overloaded, or Aborted if the client disconnected or broke the framing.
    """
    received = bytearray()  # a list of small pieces would take more memory than their bytes
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
    except Exception as ex:  # whatever the server's reader raises, the body is incomplete
        raise Aborted from ex
    if length is not None and len(received) < length:
        raise Aborted
    _pass_on(received, updated, update)
    return bytes(received)


def _pass_on(received: bytearray, start: int, update: Callable[[memoryview], None]) -> int:
    with memoryview(received) as whole, whole[start:] as rest:
        update(rest)
        return len(whole)
