"""The body of a request: read under a limit and a deadline, counted while it is in flight."""

import time
from collections.abc import Callable
from types import TracebackType
from typing import Final, Protocol, Self

from service.errors import Aborted, Overloaded, ReadTimeout, TooLarge

CHUNK: Final = 16384
HASHED: Final = 16384  # bytes of a body that are hashed at once
SMALL: Final = 65536  # bytes up to which a body is one of the usual, for which room is kept


class Stream(Protocol):
    """`wsgi.input`: gives up to *size* bytes, fewer at the end, none after it."""

    def read(self, size: int, /) -> bytes:
        """Give up to *size* bytes."""
        ...


class BodiesInFlight:
    """How many bytes of bodies this worker holds, and their bound."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._most_of_large = most - most // 8
        self.held = 0

    def take(self, size: int, *, large: bool) -> None:
        """Count *size* bytes in; raises Overloaded above the bound, an eighth of which is kept from *large* bodies."""
        if self.held + size > (self._most_of_large if large else self._most):
            raise Overloaded
        self.held += size

    def lease(self) -> "Lease":
        """Open what one request holds."""
        return Lease(self)


class Lease:
    """What one request holds, let go of at its end."""

    __slots__ = ("_bodies", "_held")

    def __init__(self, bodies: BodiesInFlight) -> None:
        self._bodies = bodies
        self._held = 0

    def take(self, size: int) -> None:
        """Count *size* bytes in; raises Overloaded above the bound."""
        self._bodies.take(size, large=self._held + size > SMALL)
        self._held += size

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, raised: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bodies.held -= self._held


def read_body(
    stream: Stream,
    *,
    length: int | None,
    limit: int,
    deadline: float,
    lease: Lease,
    update: Callable[[memoryview], None],
) -> bytes:
    """Read a request's body to its end, chunked or not.

    *length* is what Content-Length says, *limit* the most bytes, *deadline* a time of the monotonic clock for the
    last byte; *update* gets all of the body in steps of at least HASHED bytes, and what is left at its end. A wait for
    the next piece is ended by the server, with TimeoutError. Raises TooLarge, ReadTimeout, Overloaded, or Aborted if
    the client went away or broke the framing.
    """
    received = bytearray()  # small pieces cost more than what they hold
    updated = 0
    try:
        while len(received) != length and (piece := stream.read(CHUNK)):
            if time.monotonic() > deadline:
                raise ReadTimeout
            if len(received) + len(piece) > limit:
                raise TooLarge
            lease.take(len(piece))
            received += piece
            if len(received) - updated >= HASHED:
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
