"""The connections that wait for their client: if connections or memory run short, the slowest are evicted.

So an unauthenticated client can't occupy the server with connections that send a byte and no more, an endless head, or
a slow body. A connection that is faster keeps its place until its deadline.
"""

import time
from collections.abc import Callable
from typing import Final, Protocol

SLOW_BYTES: Final = 4_096  # a connection that received fewer bytes in the last second is slow
WINDOW_SECONDS: Final = 1.0
FREE_SHARE: Final = 20  # at least 1/20 of the capacity is kept free for new connections
MIN_FREE: Final = 16


class WaitingConnection(Protocol):
    """The part of a connection that decides whether it is evicted."""

    held: int  # bytes of its current request
    has_head: bool  # the head of the current request is complete
    is_answered: bool  # in lingering close: it only waits for the client to read the response

    def moved(self, now: float) -> int:
        """Return the bytes received in about the last second."""
        ...

    def evict(self) -> None:
        """Abort the incomplete request, or the wait for the next one."""
        ...


class WaitingConnections:
    """The connections of one worker that wait for their client, and the bytes held by all requests."""

    def __init__(
        self, *, capacity: int, bytes_limit: int, free: Callable[[], int], now: Callable[[], float] = time.monotonic
    ) -> None:
        """*capacity* is the maximum number of connections of the worker; *free* returns how many more it can accept."""
        self._reserve = min(max(capacity // FREE_SHARE, MIN_FREE), capacity // 2)
        self._limit = bytes_limit
        self._free = free
        self._now = now
        self._incomplete: dict[WaitingConnection, float] = {}  # when each started to wait, oldest first
        self._idle: dict[WaitingConnection, float] = {}  # until when each may be idle
        self._evicted: set[WaitingConnection] = set()  # not closed yet
        self.held = 0

    def add_idle(self, waiter: WaitingConnection, until: float) -> None:
        """Add a connection that waits for the first byte of a request."""
        self._idle[waiter] = until

    def remove_idle(self, waiter: WaitingConnection) -> None:
        """Remove a connection whose next request starts."""
        self._idle.pop(waiter, None)

    def add_incomplete(self, waiter: WaitingConnection, now: float) -> None:
        """Add a connection that waits, since *now*, for more of a request."""
        self._incomplete.setdefault(waiter, now)

    def add_lingering(self, waiter: WaitingConnection, now: float) -> None:
        """Add a connection in lingering close since *now*; it can be evicted again."""
        self._evicted.discard(waiter)
        self._incomplete.setdefault(waiter, now)

    def remove_incomplete(self, waiter: WaitingConnection) -> None:
        """Remove a connection whose request is complete."""
        self._incomplete.pop(waiter, None)

    def release(self, waiter: WaitingConnection) -> None:
        """Release the bytes of a request."""
        self.held -= waiter.held
        waiter.held = 0

    def remove(self, waiter: WaitingConnection) -> None:
        """Remove a connection that is closed."""
        self._idle.pop(waiter, None)
        self._incomplete.pop(waiter, None)
        self._evicted.discard(waiter)
        self.release(waiter)

    def hold(self, waiter: WaitingConnection, size: int) -> bool:
        """Record that a request now holds *size* bytes; return whether they are within the limit.

        Above the limit, the slowest incomplete request is evicted; a complete one never is.
        """
        self.held += size - waiter.held
        waiter.held = size
        now = self._now()
        while self.held > self._limit:
            slowest = min(self._incomplete, key=lambda each: each.moved(now), default=None)
            if slowest is None or slowest is waiter:
                self._incomplete.pop(waiter, None)
                self.release(waiter)
                return False
            self._evict(slowest)
        return True

    def make_room(self) -> None:
        """Evict connections until enough are free: slow ones, then idle ones, then ones slow for less than a second.

        Of each kind, the oldest are evicted first.
        """
        lacking = self._reserve - self._free() - len(self._evicted)
        if lacking <= 0:
            return
        now = self._now()
        slow: list[WaitingConnection] = []
        young: list[WaitingConnection] = []
        for waiter, since in self._incomplete.items():
            if waiter.moved(now) < SLOW_BYTES:
                (slow if now - since >= WINDOW_SECONDS else young).append(waiter)
            if len(slow) == lacking:
                break
        for waiter in [*slow, *self._idle, *young][:lacking]:
            self._evict(waiter)

    def close_expired(self) -> None:
        """Close the connections that have been idle for too long."""
        now = self._now()
        for waiter in [each for each, until in self._idle.items() if until < now]:
            self._evict(waiter)

    def close_idle(self) -> None:
        """Close all idle connections."""
        for waiter in [*self._idle]:
            self._evict(waiter)

    def abort(self, is_due: Callable[[WaitingConnection], bool]) -> int:
        """Abort the requests for which *is_due* returns true; return how many of them had no response."""
        due = [each for each in self._incomplete if is_due(each)]
        for waiter in due:
            self._evict(waiter)
        return sum(not each.is_answered for each in due)

    def _evict(self, waiter: WaitingConnection) -> None:
        self._idle.pop(waiter, None)
        self._incomplete.pop(waiter, None)
        self._evicted.add(waiter)
        self.release(waiter)
        waiter.evict()
