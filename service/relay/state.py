"""What the relay must remember: how far it read, what is owed to whom, what was tried. Small protocols, one store.

Times are milliseconds since the epoch. A *lane* is one partition key at one destination: its events go one after the
other, the oldest first, and while its first one waits for another try the lane waits with it.
"""

from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple, Protocol


class Owed(NamedTuple):
    """An event that a destination is to get: its position in the log, its lane, when it was received."""

    position: int
    lane: str
    received_at: int


class Claim(NamedTuple):
    """The first event of a lane, taken for one try; *token* proves, at the end, that it is still ours."""

    destination: str
    lane: str
    position: int
    tries: int  # before this one
    first_tried: int  # 0 where this is the first try
    replay: bool
    token: int


class Try(NamedTuple):
    """One try as it went: when it began, how long it took in seconds, the answer's status (0 for none), and a word."""

    at: int
    seconds: float
    status: int
    outcome: str


class Dead(NamedTuple):
    """An event that a destination will not get, unless somebody replays it."""

    destination: str
    position: int
    reason: str
    tries: int
    at: int


class Standing(NamedTuple):
    """How a destination stands: read up to where, why disabled, how much is owed and since when, how much is dead."""

    name: str
    position: int
    disabled: str | None
    owed: int
    oldest: int | None
    dead: int


class Verdict(StrEnum):
    """What a try, or its absence, comes to."""

    DELIVERED = "delivered"
    AGAIN = "again"
    DEAD = "dead"


class Plans(Protocol):
    """The planner's half: from the log to what is owed."""

    def join(self, name: str, position: int) -> None:
        """Make a destination known, to be read for from *position* on; one that is known stays as it is."""
        ...

    def plan(self, name: str, since: int, until: int, owed: Sequence[Owed]) -> bool:
        """Note what is *owed* from the log between two positions, all or nothing; False where another was faster."""
        ...

    def positions(self) -> Sequence[tuple[str, int]]:
        """Say how far the log was read for each destination that is not disabled."""
        ...


class Claims(Protocol):
    """The deliverers' half."""

    def take(self, name: str, *, now: int, lease: int) -> Claim | None:
        """Take the lane that has waited longest, None where none is due.

        For *lease* milliseconds nobody else gets it.
        """
        ...

    def settle(self, claim: Claim, tried: Try, verdict: Verdict, *, due: int = 0, reason: str = "") -> bool:
        """Write down how a try went: the lane goes on, waits until *due*, or its first event is dead for *reason*.

        False, and nothing is written, where the claim ran out and is another's now.
        """
        ...

    def next_due(self, name: str) -> int | None:
        """Say when the next lane is due; None where nothing is owed."""
        ...
