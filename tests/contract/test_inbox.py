"""The contract of an inbox, run once for each engine."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from service.errors import InboxUnavailable
from service.events import Event
from service.storage import engines
from service.storage.protocols import Inbox, Outcome
from tests.support.engines import (
    ALL,
    LIMITED,
    PURGES,
    SEVERAL_WRITERS,
    TELLS_DUPLICATES,
    WITH_LOG,
    Servers,
    Subject,
    place,
)
from tests.support.events import DAY, NOW, event

NEW = (Outcome.NEW, Outcome.UNKNOWN)


def as_read(subject: Subject, events: Sequence[Event]) -> list[Event]:
    """Return *events* as the engine returns them: a stream does not store `own_time`."""
    if engines.load(subject.url).open_stream:
        return [msgspec.structs.replace(each, own_time=0) for each in events]
    return list(events)


def for_engines(*names: str) -> list[Any]:
    return [pytest.param(name, marks=pytest.mark.needs(name)) for name in names]


with_deduplication = pytest.mark.parametrize("subject", for_engines(*TELLS_DUPLICATES), indirect=True)
purging = pytest.mark.parametrize("subject", for_engines(*PURGES), indirect=True)
with_log = pytest.mark.parametrize("subject", for_engines(*WITH_LOG), indirect=True)
with_several_writers = pytest.mark.parametrize("subject", for_engines(*SEVERAL_WRITERS), indirect=True)


@pytest.fixture(params=for_engines(*ALL))
def subject(request: pytest.FixtureRequest, tmp_path: Path, servers: Servers) -> Subject:
    return Subject.of(place(request.param, tmp_path, servers))


@pytest.fixture
def inbox(subject: Subject) -> Iterator[Inbox]:
    with subject.opened() as opened:
        yield opened


def test_events_are_read_in_the_order_of_the_puts(inbox: Inbox, subject: Subject) -> None:
    """They have every attribute and every byte."""
    events = [event(number, data=bytes([number]) * number) for number in range(1, 200)]
    outcomes = inbox.put(events[:100])
    assert len(outcomes) == 100
    assert set(outcomes) <= set(NEW)
    inbox.put(events[100:])
    assert subject.kept() == as_read(subject, events)


@with_deduplication
def test_a_duplicate_is_recognized_and_not_appended(inbox: Inbox, subject: Subject) -> None:
    """In another put, in the same one, and among new events: each event gets its outcome, in order."""
    assert inbox.put([event(1), event(2)]) == [Outcome.NEW, Outcome.NEW]
    assert inbox.put([event(2), event(3), event(3), event(1)]) == ["duplicate", "new", "duplicate", "duplicate"]
    assert inbox.put([event(1)]) == [Outcome.DUPLICATE]
    assert inbox.put([event(4), event(4)]) == ["new", "duplicate"]
    assert subject.kept() == as_read(subject, [event(number) for number in (1, 2, 3, 4)])
    assert inbox.size().events == 4


@with_deduplication
def test_a_large_batch_with_duplicates(inbox: Inbox, subject: Subject) -> None:
    """In a thousand events, as Meta may send in one notification, each duplicate is recognized."""
    inbox.put([event(number) for number in range(0, 1000, 7)])
    outcomes = inbox.put([event(number) for number in range(1000)])
    assert [number for number, outcome in enumerate(outcomes) if outcome is Outcome.DUPLICATE] == list(
        range(0, 1000, 7)
    )
    assert sorted(each.id for each in subject.kept()) == sorted(event(number).id for number in range(1000))


def test_an_empty_batch(inbox: Inbox) -> None:
    """It has no outcomes and changes nothing."""
    assert list(inbox.put([])) == []
    assert inbox.size().events in (0, None)


def test_untrusted_text_is_stored_unchanged(inbox: Inbox, subject: Subject) -> None:
    """Any Unicode text in an attribute is stored, and is not interpreted."""
    text = 'it\'s "quoted" \\ and ${more} %s {} ; -- \u2028 \U0001f600'
    events = [msgspec.structs.replace(event(1), subject=text, partitionkey=text, data=b"\x00\xff'\"\\")]
    (outcome,) = inbox.put(events)
    assert outcome in NEW
    assert subject.kept() == as_read(subject, events)


@with_deduplication
def test_an_event_of_any_day(inbox: Inbox, subject: Subject) -> None:
    """With a wrong clock, a history of months, or no time at all, an event is stored once."""
    days = [
        msgspec.structs.replace(event(number), own_time=own_time)
        for number, own_time in enumerate((0, 1, NOW - 200 * DAY, NOW + DAY, 10**13, NOW))
    ]
    assert inbox.put(days) == [Outcome.NEW] * len(days)
    assert inbox.put(days) == [Outcome.DUPLICATE] * len(days)
    assert subject.kept() == as_read(subject, days)


@with_deduplication
def test_a_retry_on_the_next_day_is_a_duplicate(inbox: Inbox, subject: Subject) -> None:
    """The day on which an event is received does not matter."""
    first = event(1, at=NOW)
    retried = msgspec.structs.replace(first, received_at=NOW + DAY)
    assert inbox.put([first]) == [Outcome.NEW]
    inbox.purge(NOW)
    assert inbox.put([retried]) == [Outcome.DUPLICATE]
    assert subject.kept() == as_read(subject, [first])


@purging
def test_events_past_the_retention_are_purged(inbox: Inbox, subject: Subject) -> None:
    """A purge returns whether there is more. Newer events stay, and a purged one is new if it is put again."""
    inbox.put([event(number, at=NOW - 3 * DAY) for number in range(1000)])
    inbox.put([event(number) for number in range(1000, 1010)])
    assert inbox.purge(NOW)
    while inbox.purge(NOW):
        pass
    assert inbox.size().events == 10
    assert subject.kept() == [event(n) for n in range(1000, 1010)]
    assert inbox.put([event(5, at=NOW - 3 * DAY), event(1005)]) == [Outcome.NEW, Outcome.DUPLICATE]


@with_deduplication
def test_it_can_be_closed_and_opened_again(subject: Subject) -> None:
    """The events stay, and duplicates are still recognized."""
    with subject.opened() as first:
        first.put([event(1), event(2)])
    with subject.opened() as second:
        assert second.put([event(2), event(3)]) == [Outcome.DUPLICATE, Outcome.NEW]
        assert second.size().events == 3
    assert len(subject.kept()) == 3


def test_a_probe_stores_no_event(inbox: Inbox, subject: Subject) -> None:
    """After a probe the inbox is still empty."""
    inbox.probe()
    assert inbox.size().events in (0, None)
    assert (inbox.size().bytes or 0) >= 0
    assert subject.kept() == []


@with_several_writers
def test_two_concurrent_writers(subject: Subject) -> None:
    """No event is lost, each writer's events keep their order, and an event that both put is new at most once."""
    outcomes: dict[int, list[Outcome]] = {0: [], 1: []}

    def write(which: int) -> None:
        with subject.opened() as inbox:
            for number in range(0, 300, 3):
                outcomes[which] += inbox.put([event(number), event(number + 1), event(1000 + 1000 * which + number)])

    threads = [threading.Thread(target=write, args=(which,)) for which in outcomes]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    stored = [each.id for each in subject.kept()]
    all_outcomes = [outcome for own_outcomes in outcomes.values() for outcome in own_outcomes]
    assert len(all_outcomes) == 600
    assert len(set(stored)) == 200 + 200
    if subject.url.engine in TELLS_DUPLICATES:
        assert len(stored) == all_outcomes.count(Outcome.NEW) == 400
    for which in outcomes:
        own = [event(1000 + 1000 * which + number).id for number in range(0, 300, 3)]
        assert [each for each in stored if each in own] == own


def test_events_of_one_partition_key_stay_in_order(inbox: Inbox, subject: Subject) -> None:
    """Also in a put of a thousand events with several keys."""
    keys = [f"106:{number % 7}" for number in range(1000)]
    events = [msgspec.structs.replace(event(number), partitionkey=key) for number, key in enumerate(keys)]
    inbox.put(events)
    stored = subject.kept()
    assert len(stored) == 1000
    for key in set(keys):
        assert [each.id for each in stored if each.partitionkey == key] == [
            each.id for each in events if each.partitionkey == key
        ]


def test_a_retry_after_a_partly_stored_notification(inbox: Inbox, subject: Subject) -> None:
    """All events are stored then. An engine without deduplication stores some twice, which consumers can drop."""
    events = [event(number) for number in range(20)]
    inbox.put(events[:10])
    inbox.put(events)
    stored = [each.id for each in subject.kept()]
    assert list(dict.fromkeys(stored)) == [each.id for each in events]
    assert subject.url.engine not in TELLS_DUPLICATES or len(stored) == 20


@with_log
def test_positions_grow(inbox: Inbox, subject: Subject) -> None:
    """They are unique, and `first` and `last` are those of the first and last event."""
    inbox.put([event(number) for number in range(100)])
    with closing(engines.open_log(subject.url)) as log:
        positions = [record.position for record in log.read(0, 1000)]
        assert positions == sorted(set(positions))
        assert log.last() == positions[-1]
        assert log.first() == positions[0]


@with_log
def test_a_reader_continues_after_a_position(inbox: Inbox, subject: Subject) -> None:
    """It reads pages up to the end, on request without data, and finds events by position and by id."""
    inbox.put([event(number) for number in range(10)])
    with closing(engines.open_log(subject.url)) as log:
        first = log.read(0, 4)
        second = log.read(first[-1].position, 100)
        assert [record.event for record in [*first, *second]] == [event(number) for number in range(10)]
        assert list(log.read(second[-1].position, 100)) == []
        assert [record.event.data for record in log.read(0, 2, data=False)] == [b"", b""]
        assert list(log.at([first[0].position, second[0].position, 10**9])) == [first[0], second[0]]
        assert log.find(event(7).id) == second[3]
        assert log.find("nothing") is None


@with_log
def test_positions_are_never_used_again(inbox: Inbox, subject: Subject) -> None:
    """Not even after all events were purged, so a reader that continues at its position skips no event."""
    inbox.put([event(number, at=NOW - 3 * DAY) for number in range(5)])
    with closing(engines.open_log(subject.url)) as log:
        last = log.read(0, 10)[-1].position
        while inbox.purge(NOW):
            pass
        assert log.last() >= last
        assert log.first() > last
        inbox.put([event(9)])
        assert [record.event for record in log.read(last, 10)] == [event(9)]


@with_log
def test_each_log_has_its_own_identity(inbox: Inbox, subject: Subject, tmp_path: Path, servers: Servers) -> None:
    """The identity is constant, and differs from that of another log."""
    inbox.put([event(1)])
    other = Subject.of(place(subject.url.engine, tmp_path.joinpath("other"), servers))
    tmp_path.joinpath("other").mkdir()
    with other.opened():
        identities = [engines.open_log(each.url).timelines()[0] for each in (subject, subject, other)]
    assert identities[0] == identities[1] != identities[2]


@with_log
def test_one_persons_events_are_erased(inbox: Inbox, subject: Subject) -> None:
    """They can't be read any more, but are duplicates if they are put again."""
    inbox.put([event(number) for number in range(10)])
    with engines.load(subject.url).open_erasure(subject.url) as erasure:
        positions = [each.position for each in erasure.appearances(["16505551234"])]
        assert len(positions) == 5
        assert erasure.erase(positions)
        assert list(erasure.appearances(["16505551234"])) == []
    assert subject.kept() == [event(number) for number in range(1, 10, 2)]
    assert inbox.put([event(0), event(1), event(10)]) == ["duplicate", "duplicate", "new"]


@pytest.mark.parametrize("subject", for_engines(*LIMITED), indirect=True)
def test_an_event_that_is_too_large(inbox: Inbox, subject: Subject) -> None:
    """The error says that the event is at fault, not the inbox. The other events can be put without it."""
    large = msgspec.structs.replace(event(1), data=b"x" * 2 * 2**20)
    with pytest.raises(InboxUnavailable) as raised:
        inbox.put([event(2), large])
    assert (raised.value.reason, raised.value.alone) == ("too_large", True)
    inbox.put([event(2)])
    inbox.probe()
    assert event(2).id in {each.id for each in subject.kept()}
