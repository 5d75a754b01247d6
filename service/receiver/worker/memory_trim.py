"""Returns freed memory to the system: by default, glibc keeps all free memory below the last used block."""

import ctypes
from collections.abc import Callable
from contextlib import suppress
from typing import Final

LARGE_BYTES: Final = 16 * 2**20  # bytes held by requests above which trimming is worth its milliseconds
TRIMS: Final = 12  # number of trims after a peak


class MemoryTrim:
    """Trims the heap after requests held much memory and released it."""

    def __init__(self, held: Callable[[], int]) -> None:
        """*held* returns how many bytes requests hold now."""
        self._held = held
        self._peak = 0
        self._trims_left = 0

    def check(self) -> None:
        """Return freed memory to the system after a peak; call it a few times per second."""
        held = self._held()
        self._peak = max(self._peak, held)
        if self._peak > LARGE_BYTES and 4 * held < self._peak:
            self._peak, self._trims_left = held, TRIMS
        if self._trims_left:  # several times: an evicted connection holds its memory until it is closed
            self._trims_left -= 1
            with suppress(AttributeError):  # the C library is not glibc
                ctypes.CDLL(None).malloc_trim(0)
