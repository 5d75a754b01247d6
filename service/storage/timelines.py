"""The timelines of a log: they show from which position on it differs from the log that a relay has read.

Each process that appends to a log starts a timeline. A log that is restored from a backup and appended to gets another
one in place of those that the backup does not have: its positions are used again, for other events. The relay stores
the timelines of the log that it has read, and compares.
"""

from collections.abc import Sequence
from typing import NamedTuple


class Timeline(NamedTuple):
    """What one process appended to a log: a random number, and the position after which it starts."""

    number: int
    start: int


def common_end(known: Sequence[Timeline], current: Sequence[Timeline], last: int) -> int:
    """Return the position up to which two logs are the same, and 0 if they have no timeline in common.

    *known* and *current* are the timelines of each, oldest first, and *last* is the newest position of the current one.
    Either may lack old timelines: then the result is too low rather than too high.
    """
    numbers = [timeline.number for timeline in known]
    for index in reversed(range(len(current))):
        if current[index].number in numbers:
            later = (*current[index + 1 :], *known[numbers.index(current[index].number) + 1 :])
            return min(last, *(timeline.start for timeline in later)) if later else last
    return 0
