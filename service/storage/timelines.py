"""The timelines of a log: they show whether a log, restored from a backup, is still the one that a relay has read.

Each process that appends to a log starts a timeline, above every position that the relay has read. So positions are not
used again for other events, if the relay's state is there when the process starts. If it comes later, the timelines
show from which position on the log has other events.
"""

from collections.abc import Sequence
from typing import NamedTuple


class Timeline(NamedTuple):
    """What one process appended to a log: a random number, and the position after which it starts."""

    number: int
    start: int


def common_end(known: Sequence[Timeline], current: Sequence[Timeline]) -> int | None:
    """Return the position after which a log has other events than the one that is known; None if it has none.

    *known* and *current* are the timelines of each, oldest first, without the oldest of very many. They have the first
    one in common, the log itself. A state of the relay that knows only that one was written by a version without
    timelines.
    """
    numbers = {timeline.number for timeline in known}
    if len(numbers) == 1:
        return None
    last_common = max(index for index, timeline in enumerate(current) if timeline.number in numbers)
    return current[last_common + 1].start if last_common + 1 < len(current) else None
