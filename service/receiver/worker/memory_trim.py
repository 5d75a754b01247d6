"""Freed memory is returned to the system: by itself, glibc keeps all that lies below its last block."""

import ctypes
from collections.abc import Callable
from contextlib import suppress
from typing import Final

LARGE_BYTES: Final = 16 * 2**20  # of requests at once, after which it is worth the milliseconds
TRIMS: Final = 12  # at which it is given back, after much was held


class Memory:
    """Looks now and then whether much was held, and is held no longer."""

    def __init__(self, held: Callable[[], int]) -> None:
        """*held* returns how many bytes are held now."""
        self._held = held
        self._peak = 0
        self._left = 0

    def look(self) -> None:
        """Return freed memory to the system if much was held; call it a few times a second."""
        held = self._held()
        self._peak = max(self._peak, held)
        if self._peak > LARGE_BYTES and 4 * held < self._peak:
            self._peak, self._left = held, TRIMS
        if self._left:  # a connection that gave way holds its memory until it has ended
            self._left -= 1
            with suppress(AttributeError):  # another C library
                ctypes.CDLL(None).malloc_trim(0)
