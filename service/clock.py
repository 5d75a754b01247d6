"""The one clock: integer milliseconds since the epoch. Parts get it as an argument, so that tests move it."""

import time
from collections.abc import Callable
from typing import Final, TypeAlias

Clock: TypeAlias = Callable[[], int]
DAY_MS: Final = 86_400_000


def now_ms() -> int:
    """Return the time now."""
    return time.time_ns() // 1_000_000
