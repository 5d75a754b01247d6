"""What every inbox promises, run once for each engine."""

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
    """Give *events* as they are read back: a stream does not hold what only tells repeats."""
    if engines.load(subject.url).open_stream:
        return [msgspec.structs.replace(each, own_time=0) for each in events]
    return list(events)


def for_engines(*names: str) -> list[Any]:
    return [pytest.param(name, marks=pytest.mark.needs(name)) for name in names]


telling_duplicates = pytest.mark.parametrize("subject", for_engines(*TELLS_DUPLICATES), indirect=True)
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


def test_what_is_put_is_read_in_order(inbox: Inbox, subject: Subject) -> None:
    """Every attribute and every byte, in the order in which it was put."""
    events = [event(number, data=bytes([number]) * number) for number in range(1, 200)]
    outcomes = inbox.put(events[:100])
    assert len(outcomes) == 100
    assert set(outcomes) <= set(NEW)
    inbox.put(events[100:])
    assert subject.kept() == as_read(subject, events)


@telling_duplicates
def test_a_repeat_is_told_and_not_appended(inbox: Inbox, subject: Subject) -> None:
    """In another put, in the same one, and regrouped with new ones: one outcome for each, in order."""
    assert inbox.put([event(1), event(2)]) == [Outcome.NEW, Outcome.NEW]
    assert inbox.put([event(2), event(3), event(3), event(1)]) == ["duplicate", "new", "duplicate", "duplicate"]
    assert inbox.put([event(1)]) == [Outcome.DUPLICATE]
    assert inbox.put([event(4), event(4)]) == ["new", "duplicate"]
    assert subject.kept() == as_read(subject, [event(number) for number in (1, 2, 3, 4)])
    assert inbox.size().events == 4


@telling_duplicates
def test_a_large_batch_with_repeats(inbox: Inbox, subject: Subject) -> None:
    """All that Meta sends in one notification; what was there already is told one by one."""
    inbox.put([event(number) for number in range(0, 1000, 7)])
    outcomes = inbox.put([event(number) for number in range(1000)])
    assert [number for number, outcome in enumerate(outcomes) if outcome is Outcome.DUPLICATE] == list(
        range(0, 1000, 7)
    )
    assert sorted(each.id for each in subject.kept()) == sorted(event(number).id for number in range(1000))


def test_nothing_is_nothing(inbox: Inbox) -> None:
    """An empty batch is answered and changes nothing."""
    assert list(inbox.put([])) == []
    assert inbox.size().events in (0, None)


def test_strange_texts(inbox: Inbox, subject: Subject) -> None:
    """Names are a stranger's: whatever Unicode they hold is kept, and steers nothing."""
    odd = 'it\'s "quoted" \\ and ${more} %s {} ; -- \u2028 \U0001f600'
    strange = [msgspec.structs.replace(event(1), subject=odd, partitionkey=odd, data=b"\x00\xff'\"\\")]
    (outcome,) = inbox.put(strange)
    assert outcome in NEW
    assert subject.kept() == as_read(subject, strange)


@telling_duplicates
def test_an_event_of_any_day(inbox: Inbox, subject: Subject) -> None:
    """A clock that was wrong, a history of months, no time at all: kept, once."""
    days = [
        msgspec.structs.replace(event(number), own_time=own_time)
        for number, own_time in enumerate((0, 1, NOW - 200 * DAY, NOW + DAY, 10**13, NOW))
    ]
    assert inbox.put(days) == [Outcome.NEW] * len(days)
    assert inbox.put(days) == [Outcome.DUPLICATE] * len(days)
    assert subject.kept() == as_read(subject, days)


@telling_duplicates
def test_a_repeat_after_midnight(inbox: Inbox, subject: Subject) -> None:
    """What comes again on another day is still the same event."""
    first = event(1, at=NOW)
    again = msgspec.structs.replace(first, received_at=NOW + DAY)
    assert inbox.put([first]) == [Outcome.NEW]
    inbox.purge(NOW)
    assert inbox.put([again]) == [Outcome.DUPLICATE]
    assert subject.kept() == as_read(subject, [first])


@purging
def test_what_is_too_old_goes(inbox: Inbox, subject: Subject) -> None:
    """Purging says whether there is more; what is young stays, and what went may come again as new."""
    inbox.put([event(number, at=NOW - 3 * DAY) for number in range(1000)])
    inbox.put([event(number) for number in range(1000, 1010)])
    assert inbox.purge(NOW)
    while inbox.purge(NOW):
        pass
    assert inbox.size().events == 10
    assert subject.kept() == [event(n) for n in range(1000, 1010)]
    assert inbox.put([event(5, at=NOW - 3 * DAY), event(1005)]) == [Outcome.NEW, Outcome.DUPLICATE]


@telling_duplicates
def test_it_can_be_closed_and_opened_again(subject: Subject) -> None:
    """What was put stays, and repeats are still told."""
    with subject.opened() as first:
        first.put([event(1), event(2)])
    with subject.opened() as second:
        assert second.put([event(2), event(3)]) == [Outcome.DUPLICATE, Outcome.NEW]
        assert second.size().events == 3
    assert len(subject.kept()) == 3


def test_a_probe_does_no_harm(inbox: Inbox, subject: Subject) -> None:
    """It writes and leaves no event."""
    inbox.probe()
    assert inbox.size().events in (0, None)
    assert (inbox.size().bytes or 0) >= 0
    assert subject.kept() == []


@with_several_writers
def test_two_that_write_at_once(subject: Subject) -> None:
    """Nothing is lost, and the events of one writer keep their order; what both put is told new once, or never."""
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
    kept = [each.id for each in subject.kept()]
    told = [outcome for which in outcomes.values() for outcome in which]
    assert len(told) == 600
    assert len(set(kept)) == 200 + 200
    if subject.url.engine in TELLS_DUPLICATES:
        assert len(kept) == told.count(Outcome.NEW) == 400
    for which in outcomes:
        own = [event(1000 + 1000 * which + number).id for number in range(0, 300, 3)]
        assert [each for each in kept if each in own] == own


def test_many_at_once_in_order(inbox: Inbox, subject: Subject) -> None:
    """A whole notification, in one go; those of a key as they came."""
    keys = [f"106:{number % 7}" for number in range(1000)]
    events = [msgspec.structs.replace(event(number), partitionkey=key) for number, key in enumerate(keys)]
    inbox.put(events)
    kept = subject.kept()
    assert len(kept) == 1000
    for key in set(keys):
        assert [each.id for each in kept if each.partitionkey == key] == [
            each.id for each in events if each.partitionkey == key
        ]


def test_what_meta_sends_again(inbox: Inbox, subject: Subject) -> None:
    """Half of it was kept, nobody knows why: all of it is there then, and whoever reads can drop what is twice."""
    events = [event(number) for number in range(20)]
    inbox.put(events[:10])
    inbox.put(events)
    kept = [each.id for each in subject.kept()]
    assert list(dict.fromkeys(kept)) == [each.id for each in events]
    assert subject.url.engine not in TELLS_DUPLICATES or len(kept) == 20


@with_log
def test_positions_grow(inbox: Inbox, subject: Subject) -> None:
    """No two are alike, and the last one is that of the last event."""
    inbox.put([event(number) for number in range(100)])
    with closing(engines.open_log(subject.url)) as log:
        positions = [record.position for record in log.read(0, 1000)]
        assert positions == sorted(set(positions))
        assert log.last() == positions[-1]
        assert log.first() == positions[0]


@with_log
def test_reading_goes_on_after_a_position(inbox: Inbox, subject: Subject) -> None:
    """A reader takes pages and finds the end; without data where that is not asked for."""
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
    """Also when everything is purged: a reader that remembers its position skips nothing."""
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
def test_another_log_is_told_apart(inbox: Inbox, subject: Subject, tmp_path: Path, servers: Servers) -> None:
    """By a number that stays with it."""
    inbox.put([event(1)])
    other = Subject.of(place(subject.url.engine, tmp_path.joinpath("other"), servers))
    tmp_path.joinpath("other").mkdir()
    with other.opened():
        identities = [engines.open_log(each.url).identity() for each in (subject, subject, other)]
    assert identities[0] == identities[1] != identities[2]


@with_log
def test_one_persons_events_are_erased(inbox: Inbox, subject: Subject) -> None:
    """Nothing of them is left to read; that they come again is told."""
    inbox.put([event(number) for number in range(10)])
    with engines.load(subject.url).open_erasure(subject.url) as erasure:
        positions = erasure.find("16505551234")
        assert len(positions) == 5
        assert erasure.erase(positions)
        assert list(erasure.find("16505551234")) == []
    assert subject.kept() == [event(number) for number in range(1, 10, 2)]
    assert inbox.put([event(0), event(1), event(10)]) == ["duplicate", "duplicate", "new"]


@pytest.mark.parametrize("subject", for_engines(*LIMITED), indirect=True)
def test_an_event_that_is_too_large(inbox: Inbox, subject: Subject) -> None:
    """It is at fault, and not the inbox: nothing of what came with it is there, and all of that can be kept alone."""
    large = msgspec.structs.replace(event(1), data=b"x" * 2 * 2**20)
    with pytest.raises(InboxUnavailable) as refused:
        inbox.put([event(2), large])
    assert (refused.value.reason, refused.value.alone) == ("too_large", True)
    inbox.put([event(2)])
    inbox.probe()
    assert event(2).id in {each.id for each in subject.kept()}
