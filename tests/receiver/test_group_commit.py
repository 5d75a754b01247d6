"""Group commit: requests are committed together, before their deadlines, and never woken after they timed out."""

import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence

import gevent
import pytest
from prometheus_client import CollectorRegistry

from service.errors import InboxUnavailable
from service.events import Event
from service.receiver.group_commit import COMMIT_DELAY_SECONDS, GroupCommit
from service.storage.memory import MemoryInbox
from service.storage.protocols import Outcome, Size
from tests.support.events import NOW, event
from tests.support.instruments import receiver_instruments


class Held:
    """A memory inbox that blocks while `gate` is cleared, and fails if `failure` is set."""

    def __init__(self) -> None:
        self.inner = MemoryInbox(retention=10**12)
        self.batches: list[int] = []
        self.gate = threading.Event()
        self.gate.set()
        self.failure: Exception | None = None
        self.opened = 0
        self.closed = 0

    def open(self) -> "Held":
        self.opened += 1
        if self.failure:
            raise self.failure
        return self

    def put(self, events: Sequence[Event]) -> Sequence[Outcome]:
        self.gate.wait(10)
        if self.failure:
            raise self.failure
        self.batches.append(len(events))
        return self.inner.put(events)

    def probe(self) -> None:
        if self.failure:
            raise self.failure

    def purge(self, now: int) -> bool:
        return self.inner.purge(now)

    def size(self) -> Size:
        return self.inner.size()

    def close(self) -> None:
        self.closed += 1


@pytest.fixture
def held() -> Held:
    return Held()


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def writer(held: Held, registry: CollectorRegistry) -> Iterator[GroupCommit]:
    made = GroupCommit(held.open, lambda: False, receiver_instruments(registry, lambda: NOW))
    made.start()
    yield made
    held.gate.set()
    made.stop()


def soon(seconds: float = 5) -> float:
    return time.monotonic() + seconds


def wait_for(condition: Callable[[], bool]) -> None:
    over = soon()
    while not condition():
        assert time.monotonic() < over
        gevent.sleep(0.005)


def test_each_request_gets_its_own_outcomes(writer: GroupCommit) -> None:
    """They are in the order of its events."""
    assert writer.submit([event(1), event(2)], soon()) == ["new", "new"]
    assert writer.submit([event(2), event(3)], soon()) == ["duplicate", "new"]


def test_simultaneous_requests_are_committed_together(writer: GroupCommit, held: Held) -> None:
    """The first one is not committed alone: the commit starts when the loop is idle."""
    for _ in range(3):
        held.batches.clear()
        gevent.joinall([gevent.spawn(writer.submit, [event(0)], soon()) for _ in range(16)], raise_error=True)
        assert held.batches == [16]


def test_a_busy_loop_commits_after_the_commit_delay(writer: GroupCommit) -> None:
    """Clients that keep the loop busy can't delay commits for longer."""
    ready, other = socket.socketpair()
    other.send(b"never read")
    always = gevent.get_hub().loop.io(ready.fileno(), 1)
    always.start(lambda: None)
    try:
        for number in range(5):
            started = time.monotonic()
            assert writer.submit([event(number)], soon()) == ["new"]
            assert COMMIT_DELAY_SECONDS / 2 < time.monotonic() - started < 1  # the loop's clock is a little behind
    finally:
        always.stop()
        always.close()
        ready.close()
        other.close()


def test_requests_during_a_commit_are_committed_together(writer: GroupCommit, held: Held) -> None:
    """All requests that arrive during a commit are in the next one."""
    held.gate.clear()
    first = gevent.spawn(writer.submit, [event(0)], soon())
    gevent.sleep(0.05)
    rest = [gevent.spawn(writer.submit, [event(number)], soon()) for number in range(1, 50)]
    gevent.sleep(0.05)
    held.gate.set()
    gevent.joinall([first, *rest], raise_error=True)
    assert held.batches == [1, 49]
    assert all(greenlet.value == ["new"] for greenlet in rest)


def test_a_large_backlog_is_split_into_several_commits(writer: GroupCommit, held: Held) -> None:
    """So the first requests do not wait for the last."""
    held.gate.clear()
    first = gevent.spawn(writer.submit, [event(0)], soon())
    gevent.sleep(0.02)
    rest = [
        gevent.spawn(writer.submit, [event(1000 * turn + number) for number in range(1, 1000)], soon())
        for turn in range(9)
    ]
    gevent.sleep(0.02)
    held.gate.set()
    gevent.joinall([first, *rest], raise_error=True)
    assert len(held.batches) == 3
    assert max(held.batches) < 6000


def test_a_late_result_does_not_wake_a_request_that_timed_out(writer: GroupCommit, held: Held) -> None:
    """The request fails at its deadline, and its greenlet is not woken later; its events may be stored."""
    held.gate.clear()
    started = time.monotonic()
    with pytest.raises(InboxUnavailable) as late:
        writer.submit([event(1)], soon(0.1))
    assert late.value.reason == "slow"
    assert 0.05 < time.monotonic() - started < 1
    assert writer.trouble() is not None
    held.gate.set()
    gevent.sleep(0.1)
    assert writer.submit([event(2)], soon()) == ["new"]
    assert writer.trouble() is None


def test_a_request_that_timed_out_in_the_queue_is_not_stored(writer: GroupCommit, held: Held) -> None:
    """Its events are released, so that the queue does not hold them in memory."""
    held.gate.clear()
    blocker = gevent.spawn(writer.submit, [event(0)], soon())
    gevent.sleep(0.02)
    with pytest.raises(InboxUnavailable):
        writer.submit([event(1)], soon(0.05))
    held.gate.set()
    blocker.get()
    gevent.sleep(0.05)
    assert held.inner.size().events == 1


def test_a_killed_request_is_not_woken(writer: GroupCommit, held: Held) -> None:
    """Its greenlet may be killed at shutdown."""
    held.gate.clear()
    greenlet = gevent.spawn(writer.submit, [event(1)], soon())
    gevent.sleep(0.02)
    greenlet.kill()
    held.gate.set()
    assert writer.submit([event(2)], soon()) == ["new"]


def test_a_failure_reaches_every_request(writer: GroupCommit, held: Held, registry: CollectorRegistry) -> None:
    """Each request gets the reason; when the engine works again, the inbox becomes ready without a request."""
    wait_for(lambda: writer.trouble() is None)
    held.failure = InboxUnavailable("full", "the disk is full")
    greenlets = [gevent.spawn(writer.submit, [event(number)], soon()) for number in range(3)]
    gevent.joinall(greenlets)
    assert all(isinstance(greenlet.exception, InboxUnavailable) for greenlet in greenlets)
    assert writer.trouble() == "full: the disk is full"
    assert registry.get_sample_value("whatsapp_webhook_inbox_errors_total", {"engine": "memory", "reason": "full"}) >= 1
    held.failure = None
    wait_for(lambda: writer.trouble() is None)
    assert held.opened == 1


def test_an_engine_that_broke_is_opened_again(writer: GroupCommit, held: Held) -> None:
    """An unexpected exception of an engine counts as a failure that requires a new connection."""
    wait_for(lambda: writer.trouble() is None)
    held.failure = RuntimeError("a mistake")
    with pytest.raises(InboxUnavailable) as broken:
        writer.submit([event(1)], soon())
    assert broken.value.reason == "error"
    assert held.closed == 1
    held.failure = None
    assert writer.submit([event(1)], soon()) == ["new"]
    assert held.opened >= 2


def test_an_inbox_that_cannot_be_opened_is_tried_again(held: Held, registry: CollectorRegistry) -> None:
    """At startup the volume may not be mounted yet."""
    held.failure = InboxUnavailable("cannot_open", "no such directory")
    writer = GroupCommit(held.open, lambda: False, receiver_instruments(registry))
    writer.start()
    wait_for(lambda: (writer.trouble() or "").startswith("cannot_open"))
    held.failure = None
    wait_for(lambda: writer.trouble() is None)
    writer.stop()
    assert held.closed == 1


def test_waiting_requests_are_committed_at_shutdown(held: Held, registry: CollectorRegistry) -> None:
    """`stop` commits them before it closes the inbox."""
    writer = GroupCommit(held.open, lambda: False, receiver_instruments(registry))
    writer.start()
    greenlets = [gevent.spawn(writer.submit, [event(number)], soon()) for number in range(20)]
    gevent.sleep(0)
    writer.stop()
    assert [greenlet.get() for greenlet in greenlets] == [["new"]] * 20
    assert held.closed == 1


def test_a_faulty_event_fails_alone(writer: GroupCommit, held: Held) -> None:
    """The other events of its commit are stored, and the inbox stays ready."""
    put = held.inner.put

    def picky(events: Sequence[Event]) -> Sequence[Outcome]:
        if event(13) in events:
            raise InboxUnavailable("too_large", "an event is too large", alone=True)
        return put(events)

    held.inner.put = picky  # type: ignore[method-assign]
    sent = [gevent.spawn(writer.submit, [event(number)], soon()) for number in range(10, 16)]
    gevent.joinall(sent)
    failed = [number for number, each in enumerate(sent, start=10) if each.exception]
    assert failed == [13]
    assert writer.trouble() is None


def test_switching_to_another_inbox(registry: CollectorRegistry) -> None:
    """The old inbox stays in use until the new one is open."""
    inboxes, moved = [Held(), Held()], [False]
    inboxes[1].failure = InboxUnavailable("denied", "no")

    def open_inbox() -> Held:
        inbox = inboxes[moved[0]].open()
        moved[0] = False
        return inbox

    made = GroupCommit(open_inbox, lambda: moved[0], receiver_instruments(registry, lambda: NOW))
    made.start()
    assert made.submit([event(1)], soon()) == ["new"]
    moved[0] = True
    wait_for(lambda: inboxes[1].opened > 0)
    assert made.submit([event(1)], soon()) == ["duplicate"]
    assert made.trouble() is None
    inboxes[1].failure = None
    wait_for(lambda: inboxes[0].closed == 1)
    assert made.submit([event(1)], soon()) == ["new"]
    made.stop()
