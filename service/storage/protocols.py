"""The protocols of an inbox: a small one for each kind of caller."""

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager
from enum import StrEnum
from typing import NamedTuple, Protocol

from service.events import Event
from service.storage.people import Appearance
from service.storage.timelines import Timeline


class Outcome(StrEnum):
    """Whether a stored event was new; `unknown` if the engine can't recognize duplicates."""

    NEW = "new"
    DUPLICATE = "duplicate"
    UNKNOWN = "unknown"


class Record(NamedTuple):
    """An event of the log with its position, a number that only grows."""

    position: int
    event: Event


class StreamRecord(NamedTuple):
    """An event of a stream with its position, a string in the stream's own format."""

    position: str
    event: Event


class Size(NamedTuple):
    """How much an inbox stores, and how many bytes are free for more; None if unknown."""

    events: int | None = None
    bytes: int | None = None
    free: int | None = None


def _no_low_watermark(_now: int) -> None:
    return None


class Terms(NamedTuple):
    """The limits of an inbox.

    *retention* of ids and *body_retention* of data are in milliseconds. *timeout*, in seconds, is the maximum time one
    call may wait for a server. *low_watermark* returns, for a time in milliseconds since the epoch, the oldest position
    that the relay still needs, None if it needs none.
    """

    retention: int
    body_retention: int
    timeout: float = 2.0
    low_watermark: Callable[[int], int | None] = _no_low_watermark


class Closeable(Protocol):
    """An owner of a connection or a file."""

    def close(self) -> None:
        """Release all resources; stored events stay."""
        ...


class Inbox(Closeable, Protocol):
    """The writer. One thread calls all methods but `size`, which any thread may call."""

    def put(self, events: Sequence[Event]) -> Sequence[Outcome]:
        """Append *events* and return the outcome of each, in order.

        An event is a duplicate if its id is in the log or earlier in *events*; it is not appended again, unless the
        engine can't recognize duplicates. All events are stored or none, if the engine supports that.

        Returns only after the events would survive a power failure. Otherwise raises InboxUnavailable, within the
        timeout of its `Terms`. Some events may be stored then: if they are put again, they are duplicates, which the
        engine reports or consumers recognize by their ids.
        """
        ...

    def probe(self) -> None:
        """Check, by a durable and harmless write if possible, that `put` would work now. Raises InboxUnavailable."""
        ...

    def purge(self, now: int) -> bool:
        """Drop a small batch of events past the retention at *now* (milliseconds since the epoch).

        Returns whether there may be more to drop. Raises InboxUnavailable.
        """
        ...

    def size(self) -> Size:
        """Return how much is stored; cheap enough for every scrape, and never raises."""
        ...


class LogEvents(Protocol):
    """The events of a log."""

    def read(self, after: int, limit: int, *, data: bool = True) -> Sequence[Record]:
        """Return at most *limit* events with positions above *after*, in order; none at the end of the log.

        Without *data*, each event has empty data, which saves reading it. Events whose data the retention has dropped
        are left out. Raises InboxUnavailable, also if the log was replaced: open it again.
        """
        ...

    def at(self, positions: Sequence[int]) -> Sequence[Record]:
        """Return the events at these positions, in order, without those that are gone. Raises InboxUnavailable."""
        ...

    def find(self, event_id: str) -> Record | None:
        """Return the event with this id, None if there is none; may read a whole index. Raises InboxUnavailable."""
        ...

    def appearances(self, identifiers: Collection[str]) -> Sequence[Appearance]:
        """Return the events in which one of these numbers or user ids appears; reads a whole index.

        Raises InboxUnavailable.
        """
        ...


class LogPositions(Protocol):
    """The timelines of a log, and its first and last position."""

    def timelines(self) -> Sequence[Timeline]:
        """Return the timelines, oldest first; no other log has the first one. Raises InboxUnavailable."""
        ...

    def first(self) -> int:
        """Return the oldest position that still has data; above `last` if none has. Raises InboxUnavailable."""
        ...

    def last(self) -> int:
        """Return the position of the newest event that was ever put; 0 if there was none. Raises InboxUnavailable."""
        ...


class Log(LogEvents, LogPositions, Closeable, Protocol):
    """The reader, for another process; it never blocks the writer."""


class Stream(Closeable, Protocol):
    """Reads events of a stream whose consumers are the user's; a position is a string in the stream's own format."""

    def newest(self, limit: int) -> Sequence[StreamRecord]:
        """Return the newest *limit* events, oldest first. Raises InboxUnavailable."""
        ...

    def since(self, time: int | None) -> Iterator[StreamRecord]:
        """Yield the events received since *time*, milliseconds since the epoch, oldest first, up to the current end.

        Yields all events if *time* is None. Raises InboxUnavailable.
        """
        ...

    def at(self, position: str) -> StreamRecord | None:
        """Return the event at *position*, None if there is none, or none any more.

        Raises InboxUnavailable, or ValueError with the format of a position.
        """
        ...


class Erasure(AbstractContextManager["Erasure"], Protocol):
    """Erases one person's events, in a process of its own beside the server; a server never calls it."""

    def appearances(self, identifiers: Collection[str]) -> Sequence[Appearance]:
        """Return the events in which one of these numbers or user ids appears; see `LogEvents`."""
        ...

    def erase(self, positions: Sequence[int]) -> bool:
        """Remove all personal data of these events; a hash of the id stays, so that duplicates are recognized.

        Returns False if the erased data can still be read in a file. Raises InboxUnavailable.
        """
        ...

    def remains(self) -> str:
        """Return where the engine still has erased data, and until when; "" if nowhere."""
        ...
