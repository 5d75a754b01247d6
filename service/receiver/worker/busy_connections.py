"""A queue for busy connections: a few of them run per iteration of the event loop, so that others are not delayed."""

from collections import deque
from contextlib import suppress
from typing import Final

import gevent
from gevent.hub import get_hub

CONNECTIONS_PER_TURN: Final = 8  # busy connections that continue per iteration of the loop
PAUSE_SECONDS: Final = 0.0001  # without a pause, gevent may run fifty iterations before it polls sockets


class TurnQueue:
    """The busy connections of one event loop that wait for their turn, first in, first out."""

    def __init__(self) -> None:
        self._hub = get_hub()
        self._timer = self._hub.loop.timer(0, PAUSE_SECONDS)  # repeating, so that `again` restarts it
        self._queue: deque[gevent.Greenlet] = deque()
        self._is_running = False

    def wait(self) -> None:
        """Wait until all other connections, and those that are earlier in the queue, had a turn."""
        greenlet = gevent.getcurrent()
        self._queue.append(greenlet)
        if not self._is_running:
            self._is_running = True
            self._timer.again(self._admit)
        try:
            self._hub.switch()
        except BaseException:  # the connection was killed, maybe after it left the queue
            with suppress(ValueError):
                self._queue.remove(greenlet)
            raise

    def close(self) -> None:
        """Close the timer."""
        self._timer.close()

    def _admit(self) -> None:
        self._timer.stop()
        self._is_running = False
        admitted = [self._queue.popleft() for _ in range(min(CONNECTIONS_PER_TURN, len(self._queue)))]
        for greenlet in admitted:
            greenlet.switch()
        if self._queue and not self._is_running:
            self._is_running = True
            self._timer.again(self._admit)
