"""Group commit: together, in time, and never waking who gave up."""

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
    """A memory inbox that can be made to wait or to fail."""

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
    """In the order of its events."""
    assert writer.submit([event(1), event(2)], soon()) == ["new", "new"]
    assert writer.submit([event(2), event(3)], soon()) == ["duplicate", "new"]


def test_what_comes_at_once_is_committed_together(writer: GroupCommit, held: Held) -> None:
    """The first of many does not go alone: it is handed over when the loop has nothing else to do."""
    for _ in range(3):
        held.batches.clear()
        gevent.joinall([gevent.spawn(writer.submit, [event(0)], soon()) for _ in range(16)], raise_error=True)
        assert held.batches == [16]


def test_a_loop_that_is_never_idle_commits_as_well(writer: GroupCommit) -> None:
    """Strangers who keep the loop busy keep nobody's events waiting."""
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


def test_what_comes_meanwhile_is_committed_together(writer: GroupCommit, held: Held) -> None:
    """While one commit is under way others gather, and the next one serves them all."""
    held.gate.clear()
    first = gevent.spawn(writer.submit, [event(0)], soon())
    gevent.sleep(0.05)
    rest = [gevent.spawn(writer.submit, [event(number)], soon()) for number in range(1, 50)]
    gevent.sleep(0.05)
    held.gate.set()
    gevent.joinall([first, *rest], raise_error=True)
    assert held.batches == [1, 49]
    assert all(greenlet.value == ["new"] for greenlet in rest)


def test_a_huge_backlog_is_cut_into_portions(writer: GroupCommit, held: Held) -> None:
    """So that the first of it does not wait for the last."""
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


def test_the_deadline_is_kept_and_a_late_result_wakes_nobody(writer: GroupCommit, held: Held) -> None:
    """The answer is 503 in time; the greenlet that gave up goes on undisturbed; its events may be there."""
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


def test_what_was_given_up_before_its_commit_is_let_go(writer: GroupCommit, held: Held) -> None:
    """A queue of requests that gave up holds no bodies."""
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
    """A connection that was cut at the stop."""
    held.gate.clear()
    greenlet = gevent.spawn(writer.submit, [event(1)], soon())
    gevent.sleep(0.02)
    greenlet.kill()
    held.gate.set()
    assert writer.submit([event(2)], soon()) == ["new"]


def test_a_failure_reaches_every_request_and_heals(
    writer: GroupCommit, held: Held, registry: CollectorRegistry
) -> None:
    """The reason is told; when the engine works again, so does the inbox, without a request."""
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
    """After an I/O error the handle is not trusted; what an engine raises by mistake counts as one."""
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
    """At start the volume may not be there yet."""
    held.failure = InboxUnavailable("cannot_open", "no such directory")
    writer = GroupCommit(held.open, lambda: False, receiver_instruments(registry))
    writer.start()
    wait_for(lambda: (writer.trouble() or "").startswith("cannot_open"))
    held.failure = None
    wait_for(lambda: writer.trouble() is None)
    writer.stop()
    assert held.closed == 1


def test_what_waits_is_committed_before_the_end(held: Held, registry: CollectorRegistry) -> None:
    """Stopping while requests wait answers them."""
    writer = GroupCommit(held.open, lambda: False, receiver_instruments(registry))
    writer.start()
    greenlets = [gevent.spawn(writer.submit, [event(number)], soon()) for number in range(20)]
    gevent.sleep(0)
    writer.stop()
    assert [greenlet.get() for greenlet in greenlets] == [["new"]] * 20
    assert held.closed == 1


def test_an_event_that_is_at_fault_fails_alone(writer: GroupCommit, held: Held) -> None:
    """The others of its commit are kept, and the inbox is ready as before."""
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


def test_another_inbox_takes_over(registry: CollectorRegistry) -> None:
    """Once it is open: what was in force stays as long as the new one can't be opened."""
    inboxes, moved = [Held(), Held()], [False]
    inboxes[1].failure = InboxUnavailable("denied", "no")

    def open_inbox() -> Held:
        found = inboxes[moved[0]].open()
        moved[0] = False
        return found

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
