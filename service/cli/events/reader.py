"""Looking at what is kept, in a log or in a stream."""

import bisect
import re
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Final, Protocol

import click

from service.cli import delivery_store
from service.cli.events.filters import EVERYTHING, Filter
from service.config import InboxUrl
from service.storage import engines
from service.storage.deliveries import DeliveryAdmin
from service.storage.protocols import Log, Placed, Record, Stream

READ_EVENTS: Final = 500
_POSITION: Final = re.compile(r"[0-9]{1,18}")
MAX_ORDER_DIFFERENCE_MS: Final = (
    60_000  # milliseconds by which events may be kept in another order than they were received in
)


def positions(log: Log) -> range:
    """Give the positions between which events are kept."""
    return range(log.first(), log.last() + 1)


def one(log: Log, which: str, url: InboxUrl) -> Record:
    """Return the event that a position or an id names, also one of a dead letter that the relay of *url* saved.

    Raises ClickException if there is none.
    """
    position = int(which) if _POSITION.fullmatch(which) else None
    found = log.find(which) if position is None else next(iter(log.at([position])), None)
    if found is None and position is not None:
        with delivery_store.opened_if_any(url) as records:
            found = _dead_letter(records, position) if records else None
    if found is None:
        raise click.ClickException(f"There is no event {which!r}, or its data is past the retention.")
    return found


def _dead_letter(records: DeliveryAdmin, position: int) -> Record | None:
    if event := records.saved([position]).get(position):
        return Record(position, event)
    letters = [each for each in records.dead_letters(limit=None) if each.position == position]
    if letters:
        given_up = ", ".join(f"{each.destination} ({each.reason})" for each in letters)
        raise click.ClickException(
            f"Event {position} was given up for {given_up}, and is no longer stored: it cannot be replayed."
        )
    return None


def _within(log: Log, kept: range, wanted: Filter) -> range:
    """Leave out what was received too early, without reading it."""
    if wanted.since is None:
        return kept

    def received_at(position: int) -> int:
        return next((record.event.received_at for record in log.read(position - 1, 1)), sys.maxsize)

    return kept[bisect.bisect_left(kept, wanted.since - MAX_ORDER_DIFFERENCE_MS, key=received_at) :]


def oldest_first(log: Log, kept: range, wanted: Filter) -> Iterator[Record]:
    """Give every match."""
    position = _within(log, kept, wanted).start - 1
    while page := log.read(position, READ_EVENTS):
        yield from (record for record in page if wanted.takes(record.event))
        position = page[-1].position


def newest(log: Log, kept: range, wanted: Filter, limit: int) -> Sequence[Record]:
    """Give the last matches, oldest first, reading from the end."""
    found: deque[Record] = deque()
    left = _within(log, kept, wanted)
    while left and len(found) < limit:
        page, left = left[-READ_EVENTS:], left[:-READ_EVENTS]
        read = [record for record in log.read(page.start - 1, READ_EVENTS) if record.position in page]
        found.extendleft(record for record in reversed(read) if wanted.takes(record.event))
    return list(found)[-limit:]


class Look(Protocol):
    """What the commands ask, of a log or of a stream."""

    def found(self, wanted: Filter, limit: int | None) -> Iterable[Placed]:
        """Give the newest *limit* matches, or all with None, oldest first."""
        ...

    def one(self, which: str) -> Placed:
        """Give one event; raises ClickException where there is none."""
        ...

    def kept(self) -> int | None:
        """Say how many events there are; None where nobody can tell."""
        ...


class LogLook:
    """`Look` at a log."""

    def __init__(self, log: Log, url: InboxUrl) -> None:
        self._log = log
        self._url = url
        self._kept = positions(log)

    def found(self, wanted: Filter, limit: int | None) -> Iterable[Placed]:
        """Give matches; see `Look`."""
        log, kept = self._log, self._kept
        records = newest(log, kept, wanted, limit) if limit else oldest_first(log, kept, wanted)
        return (Placed(str(position), event) for position, event in records)

    def one(self, which: str) -> Placed:
        """Give the event at a position, or with an id; see `Look`."""
        position, event = one(self._log, which, self._url)
        return Placed(str(position), event)

    def kept(self) -> int:
        """Say how many events there are; see `Look`."""
        return len(self._kept)


class StreamLook:
    """`Look` at a stream."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    def found(self, wanted: Filter, limit: int | None) -> Iterable[Placed]:
        """Give matches; see `Look`. A filter reads all that it may find something in."""
        if limit and wanted == EVERYTHING:
            return self._stream.newest(limit)
        matches = (each for each in self._stream.since(wanted.since) if wanted.takes(each.event))
        return deque(matches, maxlen=limit) if limit else matches

    def one(self, which: str) -> Placed:
        """Give the event at a position; see `Look`."""
        try:
            found = self._stream.at(which)
        except ValueError as ex:
            raise click.BadParameter(f"{which!r} is no position: it {ex}.") from ex
        if found is None:
            raise click.ClickException(f"There is no event {which!r} (any more).")
        return found

    def kept(self) -> None:
        """Say that nobody can tell; see `Look`."""


@contextmanager
def looking(url: InboxUrl) -> Iterator[Look]:
    """Open what *url* names; raises InboxUnavailable, or ConfigurationError where nobody can look at it."""
    if open_stream := engines.load(url).open_stream:
        with closing(open_stream(url)) as stream:
            yield StreamLook(stream)
    else:
        with closing(engines.open_log(url)) as log:
            yield LogLook(log, url)
