"""Who waits for its client, in one order: when places or memory run short, the slowest give way.

Strangers cost nothing to hold: a connection that sends a byte and no more, a head without an end, a body that drips.
Whoever moves more than that keeps its place until its deadline.
"""

import time
from collections.abc import Callable
from typing import Final, Protocol

SLOW_BYTES: Final = 4_096  # in the last second; what moves less is slow
WINDOW_SECONDS: Final = 1.0
FREE_SHARE: Final = 20  # at least the twentieth part of the places is kept free
MIN_FREE: Final = 16


class Waiter(Protocol):
    """A connection, as far as others are concerned."""

    held: int  # bytes of its present request
    has_head: bool  # whether the head of that is complete
    is_answered: bool  # so that it only reads on until its client has read the answer

    def moved(self, now: float) -> int:
        """Return the bytes that came in about the last second."""
        ...

    def give_way(self) -> None:
        """End the request that is not complete, or the wait for the next one."""
        ...


class Waiting:
    """The connections of one worker that wait for their client, and the bytes of all requests."""

    def __init__(
        self, *, places: int, bytes_limit: int, free: Callable[[], int], now: Callable[[], float] = time.monotonic
    ) -> None:
        """*places* are the connections that the worker serves at once, *free* returns how many of them are free."""
        self._reserve = min(max(places // FREE_SHARE, MIN_FREE), places // 2)
        self._limit = bytes_limit
        self._free = free
        self._now = now
        self._unfinished: dict[Waiter, float] = {}  # in the order in which they began to wait, and when that was
        self._idle: dict[Waiter, float] = {}  # and until when they may
        self._leaving: set[Waiter] = set()
        self.held = 0

    def idle(self, waiter: Waiter, until: float) -> None:
        """Enter a connection that waits for the first byte of a request."""
        self._idle[waiter] = until

    def began(self, waiter: Waiter) -> None:
        """Take out a connection whose next request begins."""
        self._idle.pop(waiter, None)

    def unfinished(self, waiter: Waiter, now: float) -> None:
        """Enter a connection that waits, from *now* on, for more of a request."""
        self._unfinished.setdefault(waiter, now)

    def lingers(self, waiter: Waiter, now: float) -> None:
        """Enter a connection that was answered and reads on, from *now* on, so that its client can read the answer."""
        self._leaving.discard(waiter)
        self._unfinished.setdefault(waiter, now)

    def finished(self, waiter: Waiter) -> None:
        """Take out a connection whose request is complete."""
        self._unfinished.pop(waiter, None)

    def release(self, waiter: Waiter) -> None:
        """Release the bytes of a request."""
        self.held -= waiter.held
        waiter.held = 0

    def gone(self, waiter: Waiter) -> None:
        """Take out a connection that ended."""
        self._idle.pop(waiter, None)
        self._unfinished.pop(waiter, None)
        self._leaving.discard(waiter)
        self.release(waiter)

    def hold(self, waiter: Waiter, size: int) -> bool:
        """Count the *size* bytes that a request holds by now; return whether there is memory for them.

        Above the limit the unfinished request that moved the least gives way; a complete one never does.
        """
        self.held += size - waiter.held
        waiter.held = size
        now = self._now()
        while self.held > self._limit:
            slowest = min(self._unfinished, key=lambda each: each.moved(now), default=None)
            if slowest is None or slowest is waiter:
                self._unfinished.pop(waiter, None)
                self.release(waiter)
                return False
            self._displace(slowest)
        return True

    def make_room(self) -> None:
        """While too few places are free, have those give way that are slow, idle, or slow for less than a second.

        Of each kind the oldest first.
        """
        lacking = self._reserve - self._free() - len(self._leaving)
        if lacking <= 0:
            return
        now = self._now()
        slow: list[Waiter] = []
        young: list[Waiter] = []
        for waiter, since in self._unfinished.items():
            if waiter.moved(now) < SLOW_BYTES:
                (slow if now - since >= WINDOW_SECONDS else young).append(waiter)
            if len(slow) == lacking:
                break
        for waiter in [*slow, *self._idle, *young][:lacking]:
            self._displace(waiter)

    def dismiss_late(self) -> None:
        """End the wait of those that have been idle for too long."""
        now = self._now()
        for waiter in [each for each, until in self._idle.items() if until < now]:
            self._displace(waiter)

    def dismiss_idle(self) -> None:
        """End the wait of all that are idle."""
        for waiter in [*self._idle]:
            self._displace(waiter)

    def cut(self, is_due: Callable[[Waiter], bool]) -> int:
        """End the requests for which *is_due* returns true; return how many were not answered."""
        found = [each for each in self._unfinished if is_due(each)]
        for waiter in found:
            self._displace(waiter)
        return sum(not each.is_answered for each in found)

    def _displace(self, waiter: Waiter) -> None:
        self._idle.pop(waiter, None)
        self._unfinished.pop(waiter, None)
        self._leaving.add(waiter)
        self.release(waiter)
        waiter.give_way()
