"""An inbox in memory: for trials and tests, in which no event need survive a restart."""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, NoReturn

from service.config import InboxUrl
from service.errors import ConfigurationError
from service.events import Event
from service.storage.engine import Engine
from service.storage.protocols import Outcome, Record, Size, Terms

PURGE_BATCH_EVENTS: Final = 256


class MemoryInbox:
    """Stores events in this process only; `read` returns them for tests."""

    def __init__(self, *, retention: int) -> None:
        """*retention* is in milliseconds."""
        self._retention = retention
        self._records: deque[Record] = deque()
        self._ids: set[str] = set()
        self._position = 0
        self._bytes = 0

    def put(self, events: Sequence[Event]) -> Sequence[Outcome]:
        """Append *events*; see `Inbox`."""
        return [self._append(event) for event in events]

    def _append(self, event: Event) -> Outcome:
        if event.id in self._ids:
            return Outcome.DUPLICATE
        self._position += 1
        self._ids.add(event.id)
        self._records.append(Record(self._position, event))
        self._bytes += len(event.data)
        return Outcome.NEW

    def probe(self) -> None:
        """Do nothing: memory is always available; see `Inbox`."""

    def purge(self, now: int) -> bool:
        """Drop events past the retention; see `Inbox`."""
        for _ in range(PURGE_BATCH_EVENTS):
            if not self._is_old(now):
                return False
            old = self._records.popleft().event
            self._ids.discard(old.id)
            self._bytes -= len(old.data)
        return self._is_old(now)

    def _is_old(self, now: int) -> bool:
        return bool(self._records) and self._records[0].event.received_at < now - self._retention

    def size(self) -> Size:
        """Return how much is stored; see `Inbox`."""
        return Size(len(self._records), self._bytes)

    def read(self, after: int, limit: int) -> Sequence[Record]:
        """Return the events after a position; see `Log`."""
        return [record for record in self._records if record.position > after][:limit]

    def last(self) -> int:
        """Return the newest position; see `Log`."""
        return self._position

    def close(self) -> None:
        """Do nothing: the events are lost when the process exits."""


def _problems(url: InboxUrl) -> list[str]:
    if not url.weak:
        return ["loses all events at a restart: set it to memory://?durability=weak to accept that"]
    return []


def _opener(_url: InboxUrl, terms: Terms) -> Callable[[], MemoryInbox]:
    inbox = MemoryInbox(retention=terms.retention)
    return lambda: inbox


def _open_erasure(_url: InboxUrl) -> NoReturn:
    raise ConfigurationError([_NO_LOG])


_NO_LOG: Final = "Another process, such as the relay, can't read an inbox in memory: use SQLite or PostgreSQL."
ENGINE: Final = Engine(
    name="memory",
    problems=_problems,
    inbox_opener=_opener,
    open_erasure=_open_erasure,
    no_log=_NO_LOG,
    has_server=False,
    weak_means="all events are lost at a restart, because WEBHOOK_INBOX is memory://?durability=weak",
)
