"""Turns of the loop for connections that keep it busy: a few of them run in each, everybody else is served at once."""

from collections import deque
from contextlib import suppress
from typing import Final

import gevent
from gevent.hub import get_hub

CONNECTIONS_PER_TURN: Final = 8  # connections that may go on in one turn of the loop
PAUSE_SECONDS: Final = 0.0001  # without any, gevent may go on for fifty turns before it looks at sockets


class Places:
    """Who waits for a place, in order; of one loop. A connection that waits holds none."""

    def __init__(self) -> None:
        self._hub = get_hub()
        self._timer = self._hub.loop.timer(0, PAUSE_SECONDS)  # it repeats, so that `again` restarts it
        self._queue: deque[gevent.Greenlet] = deque()
        self._is_running = False

    def wait(self) -> None:
        """Wait until everybody else had a turn, and those that waited here before."""
        greenlet = gevent.getcurrent()
        self._queue.append(greenlet)
        if not self._is_running:
            self._is_running = True
            self._timer.again(self._admit)
        try:
            self._hub.switch()
        except BaseException:  # its connection is ended, perhaps as its turn has come
            with suppress(ValueError):
                self._queue.remove(greenlet)
            raise

    def close(self) -> None:
        """Free the timer."""
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
