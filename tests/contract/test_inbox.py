"""What every inbox promises, run once for each engine."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from service.events import Event
from service.inbox import memory, sqlite
from service.inbox.base import Inbox, Log, Outcome

HOUR = 3_600_000
NOW = 1_795_000_000_000


def event(number: int, *, at: int = NOW, data: bytes = b"{}") -> Event:
    return Event(
        id=f"106:wamid.{number}:0123456789abcdef",
        type="com.whatsapp.message.text",
        source="/102/106",
        subject=None if number % 2 else "16505551234",
        partitionkey="106:16505551234",
        time=at - 1000,
        own_time=at - 1000 if number % 5 else 0,
        received_at=at,
        field="messages",
        test=number % 3 == 0,
        traceparent=None if number % 2 else "00-1-2-01",
        data=data,
    )


@pytest.fixture(params=["sqlite", "memory"])
def opener(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Inbox]:
    """How each engine is opened, with an hour of retention: one line an engine."""
    return {
        "sqlite": sqlite.opener(tmp_path / "inbox.db", retention=HOUR, body_retention=HOUR),
        "memory": memory.opener(retention=HOUR),
    }[request.param]


@pytest.fixture
def inbox(opener: Callable[[], Inbox]) -> Iterator[Inbox]:
    opened = opener()
    yield opened
    opened.close()


def log_of(inbox: Inbox, tmp_path: Path) -> Log:
    return inbox if isinstance(inbox, memory.MemoryInbox) else sqlite.SqliteLog(tmp_path / "inbox.db")


def test_what_is_put_is_read_in_order(inbox: Inbox, tmp_path: Path) -> None:
    """Every attribute and every byte, at growing positions."""
    events = [event(number, data=bytes([number]) * number) for number in range(1, 200)]
    assert inbox.put(events[:100]) == [Outcome.NEW] * 100
    inbox.put(events[100:])
    records = log_of(inbox, tmp_path).read(0, 1000)
    assert [record.event for record in records] == events
    positions = [record.position for record in records]
    assert positions == sorted(set(positions))
    assert log_of(inbox, tmp_path).last() == positions[-1]


def test_reading_goes_on_after_a_position(inbox: Inbox, tmp_path: Path) -> None:
    """A reader takes pages and finds the end."""
    inbox.put([event(number) for number in range(10)])
    log = log_of(inbox, tmp_path)
    first = log.read(0, 4)
    second = log.read(first[-1].position, 100)
    assert [record.event for record in [*first, *second]] == [event(number) for number in range(10)]
    assert list(log.read(second[-1].position, 100)) == []


def test_a_repeat_is_told_and_not_appended(inbox: Inbox, tmp_path: Path) -> None:
    """In another put, in the same one, and regrouped with new ones: one outcome for each, in order."""
    assert inbox.put([event(1), event(2)]) == [Outcome.NEW, Outcome.NEW]
    assert inbox.put([event(2), event(3), event(3), event(1)]) == ["repeat", "new", "repeat", "repeat"]
    assert inbox.put([event(1)]) == [Outcome.REPEAT]
    assert inbox.put([event(4), event(4)]) == ["new", "repeat"]
    assert [record.event for record in log_of(inbox, tmp_path).read(0, 10)] == [
        event(number) for number in (1, 2, 3, 4)
    ]
    assert inbox.size().events == 4


def test_a_large_batch_with_repeats(inbox: Inbox) -> None:
    """More than one statement's worth."""
    inbox.put([event(number) for number in range(0, 1000, 7)])
    outcomes = inbox.put([event(number) for number in range(1000)])
    assert [number for number, outcome in enumerate(outcomes) if outcome is Outcome.REPEAT] == list(range(0, 1000, 7))


def test_nothing_is_nothing(inbox: Inbox) -> None:
    """An empty batch is answered and changes nothing."""
    assert list(inbox.put([])) == []
    assert inbox.size().events == 0


def test_what_is_too_old_goes_in_small_batches(inbox: Inbox, tmp_path: Path) -> None:
    """Purging says whether there is more; what is young stays, and what went may come again as new."""
    inbox.put([event(number, at=NOW - 2 * HOUR) for number in range(1000)])
    inbox.put([event(number) for number in range(1000, 1010)])
    assert inbox.purge(NOW)
    assert inbox.size().events > 10
    while inbox.purge(NOW):
        pass
    assert inbox.size().events == 10
    assert [record.event for record in log_of(inbox, tmp_path).read(0, 5000)] == [event(n) for n in range(1000, 1010)]
    assert inbox.put([event(5), event(1005)]) == [Outcome.NEW, Outcome.REPEAT]


def test_positions_are_never_used_again(inbox: Inbox, tmp_path: Path) -> None:
    """Also when everything is purged: a reader that remembers its position skips nothing."""
    inbox.put([event(number, at=NOW - 2 * HOUR) for number in range(5)])
    last = log_of(inbox, tmp_path).read(0, 10)[-1].position
    while inbox.purge(NOW):
        pass
    assert inbox.size().events == 0
    inbox.put([event(9)])
    assert [record.event for record in log_of(inbox, tmp_path).read(last, 10)] == [event(9)]


def test_it_can_be_closed_and_opened_again(opener: Callable[[], Inbox], tmp_path: Path) -> None:
    """What was put stays, and repeats are still told."""
    first = opener()
    first.put([event(1), event(2)])
    first.close()
    second = opener()
    assert second.put([event(2), event(3)]) == [Outcome.REPEAT, Outcome.NEW]
    assert second.size().events == 3
    assert len(log_of(second, tmp_path).read(0, 10)) == 3
    second.close()


def test_a_probe_does_no_harm(inbox: Inbox) -> None:
    """It writes and leaves no event."""
    inbox.probe()
    assert inbox.size().events == 0
    assert inbox.size().bytes >= 0
