"""What every inbox promises: small protocols, each for one kind of caller."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from enum import StrEnum
from typing import NamedTuple, Protocol

from service.events import Event


class Outcome(StrEnum):
    """What became of an event that was put; `unknown` where the engine can't tell a repeat."""

    NEW = "new"
    DUPLICATE = "duplicate"
    UNKNOWN = "unknown"


class Record(NamedTuple):
    """An event of the log at its position, a number that only grows."""

    position: int
    event: Event


class Placed(NamedTuple):
    """An event of a stream where it stands, in the stream's own words."""

    position: str
    event: Event


class Size(NamedTuple):
    """How much an inbox holds, and how many bytes more there is room for; None where nobody can tell."""

    events: int | None = None
    bytes: int | None = None
    free: int | None = None


def _nobody(_now: int) -> None:
    return None


class Terms(NamedTuple):
    """What an inbox is to keep to.

    *retention* of ids and *body_retention* of data are in milliseconds. *timeout*, in seconds, is how long one call may
    wait for a server. *hold* gives, for a time in milliseconds since the epoch, the oldest position that a reader
    still needs, None for none.
    """

    retention: int
    body_retention: int
    timeout: float = 2.0
    hold: Callable[[int], int | None] = _nobody


class Closeable(Protocol):
    """What holds a connection or a file."""

    def close(self) -> None:
        """Release everything; what was stored stays."""
        ...


class Inbox(Closeable, Protocol):
    """The writing half; all of it is called by one thread, `size` by any."""

    def put(self, events: Sequence[Event]) -> Sequence[Outcome]:
        """Append *events*, all or (where the engine can) none, and say of each, in order, whether it was new.

        An id that is there already, in the log or earlier in *events*, is not appended again, unless the engine can't
        tell. Returns only once they would survive a power cut; raises InboxUnavailable otherwise, within the timeout of
        its `Terms`, and then some may be kept: whoever puts them again is told so, or consumers are by their ids.
        """
        ...

    def probe(self) -> None:
        """Write something durable and harmless: whether `put` would work now. Raises InboxUnavailable."""
        ...

    def purge(self, now: int) -> bool:
        """Drop a small batch of what is older than the retention at *now* (milliseconds since the epoch).

        Says whether there is more to drop. Raises InboxUnavailable.
        """
        ...

    def size(self) -> Size:
        """Say how much is held; cheap enough for every scrape, and never raises."""
        ...


class LogEvents(Protocol):
    """The events of a log."""

    def read(self, after: int, limit: int, *, data: bool = True) -> Sequence[Record]:
        """Give at most *limit* events of positions above *after*, in order; empty at the end.

        Without *data*, that of each event is left empty, however large it is. An event whose data the retention has
        dropped is left out. Raises InboxUnavailable, also where the log was replaced: open it again.
        """
        ...

    def at(self, positions: Sequence[int]) -> Sequence[Record]:
        """Give the events of these positions, in order, without those that are gone. Raises InboxUnavailable."""
        ...

    def find(self, event_id: str) -> Record | None:
        """Give the event with this id, if it is there; may read a whole index. Raises InboxUnavailable."""
        ...


class LogPositions(Protocol):
    """Which log it is, and from where to where it reaches."""

    def identity(self) -> int:
        """Give a number that no other log has. Raises InboxUnavailable."""
        ...

    def first(self) -> int:
        """Give the oldest position whose data is kept; above `last` where there is none. Raises InboxUnavailable."""
        ...

    def last(self) -> int:
        """Give the position of the newest event that was ever put; 0 where there was none. Raises InboxUnavailable."""
        ...


class Log(LogEvents, LogPositions, Closeable, Protocol):
    """The reading half, for another process; never keeps the writer waiting."""


class Stream(Closeable, Protocol):
    """A look at events in a stream of the user's, whose consumers read it; a position is a word of the stream's own."""

    def newest(self, limit: int) -> Sequence[Placed]:
        """Give the newest *limit* events, oldest first. Raises InboxUnavailable."""
        ...

    def since(self, time: int | None) -> Iterator[Placed]:
        """Give what was received since *time*, milliseconds since the epoch, oldest first, to what is the end now.

        Everything with None. Raises InboxUnavailable.
        """
        ...

    def at(self, position: str) -> Placed | None:
        """Give the event at *position*, None where there is none (any more).

        Raises InboxUnavailable, or ValueError with what a position looks like.
        """
        ...


class Erasure(AbstractContextManager["Erasure"], Protocol):
    """What takes one person's events out, beside the server that writes; nothing of it is called by a server."""

    def find(self, subject: str) -> Sequence[int]:
        """Give the positions of the events of *subject*; reads all that is kept. Raises InboxUnavailable."""
        ...

    def erase(self, positions: Sequence[int]) -> bool:
        """Leave of these events what tells a duplicate, a hash of the id, and no personal data.

        Returns False if what was there can still be read in a file. Raises InboxUnavailable.
        """
        ...

    def remains(self) -> str:
        """Return what the engine still has of events that were erased, and until when; "" if nothing."""
        ...
