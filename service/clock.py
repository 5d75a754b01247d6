"""The clock: integer milliseconds since the epoch. It is passed as an argument, so that tests can move it."""

import time
from collections.abc import Callable
from typing import Final, TypeAlias

Clock: TypeAlias = Callable[[], int]
MINUTE_MS: Final = 60_000
DAY_MS: Final = 86_400_000


def now_ms() -> int:
    """Return the current time."""
    return time.time_ns() // 1_000_000
