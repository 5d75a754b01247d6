"""Reading the stored events, from a log or from a stream."""

import bisect
import re
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import takewhile
from typing import Final, Protocol

import click

from service.cli import delivery_store
from service.cli.events.filters import EVERYTHING, Filter
from service.config import InboxUrl
from service.storage import engines
from service.storage.deliveries import DeliveryAdmin
from service.storage.protocols import Log, Record, Stream, StreamRecord

READ_EVENTS: Final = 500
POLL_SECONDS: Final = 1.0
MAX_ORDER_DIFFERENCE_MS: Final = 60_000  # between the order of positions and the order in which events were received
_POSITION: Final = re.compile(r"[0-9]{1,18}")


def positions(log: Log) -> range:
    """Return the range of positions of the stored events."""
    return range(log.first(), log.last() + 1)


def one(log: Log, which: str, url: InboxUrl) -> Record:
    """Return the event with this position or id, also if only the relay of *url* still has it, as a dead letter.

    Raises ClickException if there is none.
    """
    position = int(which) if _POSITION.fullmatch(which) else None
    record = log.find(which) if position is None else next(iter(log.at([position])), None)
    if record is None and position is not None:
        with delivery_store.opened_if_any(url) as records:
            record = _dead_letter(records, position) if records else None
    if record is None:
        raise click.ClickException(f"There is no event {which!r}, or its data is older than the retention.")
    return record


def _dead_letter(records: DeliveryAdmin, position: int) -> Record | None:
    if event := records.saved([position]).get(position):
        return Record(position, event)
    letters = [each for each in records.dead_letters(limit=None) if each.position == position]
    if letters:
        destinations = ", ".join(f"{each.destination} ({each.reason})" for each in letters)
        raise click.ClickException(
            f"Event {position} is a dead letter of {destinations}. It is no longer stored, so it cannot be replayed."
        )
    return None


def _received_since(log: Log, stored: range, wanted: Filter) -> range:
    """Return the positions without those that were received too early, which are not read."""
    if wanted.since is None:
        return stored

    def received_at(position: int) -> int:
        return next((record.event.received_at for record in log.read(position - 1, 1)), sys.maxsize)

    return stored[bisect.bisect_left(stored, wanted.since - MAX_ORDER_DIFFERENCE_MS, key=received_at) :]


def oldest_first(log: Log, stored: range, wanted: Filter) -> Iterator[Record]:
    """Yield every match, also what is stored meanwhile."""
    position = _received_since(log, stored, wanted).start - 1
    while page := log.read(position, READ_EVENTS):
        yield from (record for record in page if wanted.matches(record.event, record.position))
        position = page[-1].position


def newest(log: Log, stored: range, wanted: Filter, limit: int) -> Sequence[Record]:
    """Return the last matches, oldest first, reading from the end."""
    matches: deque[Record] = deque()
    unread = _received_since(log, stored, wanted)
    while unread and len(matches) < limit:
        page, unread = unread[-READ_EVENTS:], unread[:-READ_EVENTS]
        records = [record for record in log.read(page.start - 1, READ_EVENTS) if record.position in page]
        matches.extendleft(record for record in reversed(records) if wanted.matches(record.event, record.position))
    return list(matches)[-limit:]


class EventSource(Protocol):
    """The events that `events list` and `events show` print, of a log or of a stream."""

    def matching(self, wanted: Filter, limit: int | None) -> Iterable[StreamRecord]:
        """Return the newest *limit* matches, or all with None, oldest first."""
        ...

    def follow(self, wanted: Filter) -> Iterator[StreamRecord]:
        """Return what yields, forever, each match that is stored after those of `matching`.

        Raises ClickException if that is impossible.
        """
        ...

    def one(self, which: str) -> StreamRecord:
        """Return one event; raises ClickException if there is none."""
        ...

    def count(self) -> int | None:
        """Return how many events are stored; None if that is unknown."""
        ...


class LogEventSource:
    """`EventSource` of a log, up to its end when it was opened."""

    def __init__(self, log: Log, url: InboxUrl) -> None:
        self._log = log
        self._url = url
        self._stored = positions(log)

    def matching(self, wanted: Filter, limit: int | None) -> Iterable[StreamRecord]:
        """Return matches; see `EventSource`."""
        log, stored, wanted = self._log, self._stored, wanted.in_log(self._log)
        if limit:
            records: Iterable[Record] = newest(log, stored, wanted, limit)
        else:
            all_records = oldest_first(log, stored, wanted)
            records = takewhile(lambda record: record.position < stored.stop, all_records)
        return (StreamRecord(str(position), event) for position, event in records)

    def follow(self, wanted: Filter) -> Iterator[StreamRecord]:
        """Poll the log for events behind those of `matching`; see `EventSource`."""
        position, wanted = self._stored.stop - 1, wanted.in_log(self._log)
        while True:
            page = self._log.read(position, READ_EVENTS)
            for position, event in page:
                if wanted.matches(event, position):
                    yield StreamRecord(str(position), event)
            if len(page) < READ_EVENTS:
                time.sleep(POLL_SECONDS)

    def one(self, which: str) -> StreamRecord:
        """Return the event at a position, or with an id; see `EventSource`."""
        position, event = one(self._log, which, self._url)
        return StreamRecord(str(position), event)

    def count(self) -> int:
        """Return how many positions there are; see `EventSource`."""
        return len(self._stored)


class StreamEventSource:
    """`EventSource` of a stream."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    def matching(self, wanted: Filter, limit: int | None) -> Iterable[StreamRecord]:
        """Return matches; see `EventSource`. With a filter, everything since `wanted.since` is read."""
        if limit and wanted == EVERYTHING:
            return self._stream.newest(limit)
        matches = (each for each in self._stream.since(wanted.since) if wanted.matches(each.event))
        return deque(matches, maxlen=limit) if limit else matches

    def follow(self, wanted: Filter) -> Iterator[StreamRecord]:  # noqa: ARG002  the protocol's
        """Raise UsageError; see `EventSource`."""
        raise click.UsageError(
            "--follow works with SQLite and PostgreSQL only. Follow a Kafka topic or a NATS stream with a consumer "
            "of your own."
        )

    def one(self, which: str) -> StreamRecord:
        """Return the event at a position; see `EventSource`."""
        try:
            placed = self._stream.at(which)
        except ValueError as ex:
            raise click.BadParameter(f"{which!r} is not a position: it {ex}.") from ex
        if placed is None:
            raise click.ClickException(f"There is no event {which!r}, or it is no longer stored.")
        return placed

    def count(self) -> None:
        """Return None, since a stream does not know; see `EventSource`."""


@contextmanager
def opened(url: InboxUrl) -> Iterator[EventSource]:
    """Open the inbox of *url*; raises InboxUnavailable, or ConfigurationError if its events cannot be read."""
    if open_stream := engines.load(url).open_stream:
        with closing(open_stream(url)) as stream:
            yield StreamEventSource(stream)
    else:
        with closing(engines.open_log(url)) as log:
            yield LogEventSource(log, url)
