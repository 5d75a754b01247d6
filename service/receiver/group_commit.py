"""Group commit: one native thread stores the events of all waiting requests of a worker in one transaction.

Requests wait as greenlets of one event loop; the engine's client runs in the thread and may block. A commit wakes the
loop once, however many requests it contains. A late result never wakes a request that timed out.
"""

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import gevent
from gevent.hub import get_hub

from service.errors import InboxUnavailable, Unavailability
from service.events import Event
from service.instruments import Instruments
from service.outcomes import StorageFailure
from service.storage.protocols import Inbox, Outcome, Size
from service.telemetry import logs
from service.telemetry.metrics import Metrics
from service.telemetry.tracing import Context

MAX_COMMIT_EVENTS: Final = 4096  # per commit, so that the first requests of a burst do not wait for the last
MAX_COMMIT_BYTES: Final = 4 * 2**20  # per commit: larger ones take a database server long
IDLE_INTERVAL_SECONDS: Final = 1.0  # between purges, and between attempts to use an inbox that failed
# Maximum time a group commit waits for more requests while the event loop is busy. Otherwise the commit starts at the
# loop's first idle moment: then it contains all requests so far, and the threads compete less for the interpreter lock.
COMMIT_DELAY_SECONDS: Final = 0.005
_STARTING: Final = Unavailability(StorageFailure.STARTING, "the inbox is being opened")

_Result = Sequence[Outcome] | Unavailability


class _Ticket:
    """The events of one request, and the greenlet that waits for their result."""

    __slots__ = ("events", "link", "result", "waiter")

    def __init__(self, events: Sequence[Event], link: Context | None, waiter: gevent.Greenlet) -> None:
        self.events = events
        self.link = link
        self.result: _Result | None = None
        self.waiter: gevent.Greenlet | None = waiter


class GroupCommit:
    """Stores events in an inbox that it opens, purges, and opens again after a failure."""

    def __init__(
        self,
        open_inbox: Callable[[], Inbox],
        moved: Callable[[], bool],
        instruments: Instruments[Metrics],
    ) -> None:
        """*moved* returns whether *open_inbox* would now open a different inbox."""
        self._open = open_inbox
        self._moved = moved
        self._metrics = instruments.metrics.inbox
        self._tracing = instruments.tracing
        self._now_ms = instruments.now_ms
        self._log = logs.get("inbox")
        self._problem_log = logs.ProblemLog(self._log)
        self._pending: list[_Ticket] = []
        self._queue: queue.SimpleQueue[list[_Ticket] | None] = queue.SimpleQueue()
        self._settled: deque[list[_Ticket]] = deque()
        self._busy = False
        self._handing_over = False
        self._inbox: Inbox | None = None
        self._trouble: Unavailability | None = _STARTING
        self._waiting = 0
        self._thread = threading.Thread(target=self._run, name="inbox", daemon=True)

    def start(self) -> None:
        """Start the thread; call it in the thread whose event loop runs the requests."""
        self._hub = get_hub()
        self._wake = self._hub.loop.async_()
        self._wake.start(self._deliver)
        self._idle_watcher = self._hub.loop.idle()
        self._delay_timer = self._hub.loop.timer(0, COMMIT_DELAY_SECONDS)
        self._thread.start()

    def submit(self, events: Sequence[Event], deadline: float, link: Context | None = None) -> Sequence[Outcome]:
        """Wait until *events* are durable; return the outcome of each. *deadline* is on the monotonic clock.

        Raises InboxUnavailable with the reason; it is `slow` if the deadline passes first.
        """
        ticket = _Ticket(events, link, gevent.getcurrent())
        self._waiting += 1
        self._pending.append(ticket)
        self._schedule_commit()
        timer = self._hub.loop.timer(max(deadline - time.monotonic(), 0))
        timer.start(self._time_out, ticket)
        try:
            self._hub.switch()
        finally:
            ticket.waiter = None
            ticket.events = ()  # a request that timed out must not keep its events in memory
            timer.close()
            self._waiting -= 1
        if isinstance(ticket.result, Unavailability):
            raise ticket.result.error()
        assert ticket.result is not None  # noqa: S101  set before the hub switches back here
        return ticket.result

    def trouble(self) -> str | None:
        """Return why events can't be stored now; None if they can."""
        return None if self._trouble is None else f"{self._trouble.reason}: {self._trouble.detail}"

    def refresh(self) -> None:
        """Publish the gauges."""
        inbox = self._inbox
        size = inbox.size() if inbox else Size()
        self._metrics.refresh(waiting=self._waiting, events=size.events, size=size.bytes, free=size.free)

    def stop(self) -> None:
        """Commit the waiting events, close the inbox and stop the thread."""
        while self._waiting and self._thread.is_alive():
            gevent.sleep(0.01)
        self._queue.put(None)
        while self._thread.is_alive():
            gevent.sleep(0.01)
        self._wake.close()
        self._idle_watcher.close()
        self._delay_timer.close()

    # These run in the event loop.

    def _time_out(self, ticket: _Ticket) -> None:
        slow = Unavailability(StorageFailure.SLOW, "the inbox did not respond in time (WEBHOOK_ACCEPT_TIMEOUT)")
        self._metrics.failed(slow.reason)
        if self._trouble is None:
            self._problem_log.report("inbox unavailable", key=slow.reason, reason=slow.reason, detail=slow.detail)
            self._trouble = slow
        _resume(ticket, self._trouble)

    def _schedule_commit(self) -> None:
        """Schedule the next commit, unless one is running or scheduled: the end of a running one calls this again."""
        if self._busy or self._handing_over:
            return
        self._handing_over = True
        self._idle_watcher.start(self._hand_over)
        # Not `start`: a libev timer that is started again resumes where it was stopped.
        self._delay_timer.again(self._hand_over)

    def _hand_over(self) -> None:
        self._handing_over = False
        self._idle_watcher.stop()
        self._delay_timer.stop()
        self._busy = True
        self._queue.put(self._pending)
        self._pending = []

    def _deliver(self) -> None:
        while self._settled:
            tickets = self._settled.popleft()
            if not tickets:  # all tickets that were handed over are settled
                self._busy = False
                if self._pending:
                    self._schedule_commit()
            for ticket in tickets:
                if ticket.result is not None:
                    _resume(ticket, ticket.result)

    # These run in the thread.

    def _run(self) -> None:
        more_to_purge = self._maintain()
        maintained_at = time.monotonic()
        while True:
            try:
                tickets = self._queue.get(timeout=0.001 if more_to_purge else IDLE_INTERVAL_SECONDS)
            except queue.Empty:
                tickets = []
            if tickets is None:
                break
            if tickets:
                for portion in _portions(tickets):
                    self._commit(portion)
                self._settle([])
            if more_to_purge or time.monotonic() - maintained_at >= IDLE_INTERVAL_SECONDS:
                more_to_purge = self._maintain()
                maintained_at = time.monotonic()
        if self._inbox:
            self._inbox.close()

    def _settle(self, tickets: list[_Ticket]) -> None:
        self._settled.append(tickets)
        self._wake.send()

    def _commit(self, tickets: Sequence[_Ticket]) -> None:
        # A request may time out at any moment and clear its events: read them only once.
        batch = [(ticket, events) for ticket in tickets if (events := ticket.events)]
        all_events = [event for _, events in batch for event in events]
        if not all_events:
            return
        try:
            self._put(batch, all_events)
        except Exception as ex:  # noqa: BLE001  whatever an engine raises, the requests get a response
            if isinstance(ex, InboxUnavailable) and ex.alone and len(batch) > 1:
                for ticket, _ in batch:  # commit each request alone, so that only the faulty one fails
                    self._commit([ticket])
                return
            trouble = self._failed(ex)
            for ticket, _ in batch:
                ticket.result = trouble
        self._settle([ticket for ticket, _ in batch])

    def _put(self, batch: Sequence[tuple[_Ticket, Sequence[Event]]], all_events: Sequence[Event]) -> None:
        started = time.perf_counter()
        with self._tracing.commit([ticket.link for ticket, _ in batch if ticket.link], len(all_events)):
            outcomes = self._ready().put(all_events)
        is_full = self._trouble is not None and self._trouble.reason == StorageFailure.FULL
        if not is_full:  # on a full volume a small commit may succeed, and the next one fail
            self._recovered()
        self._metrics.committed(len(all_events), time.perf_counter() - started)
        start = 0
        for ticket, events in batch:
            ticket.result = outcomes[start : start + len(events)]
            start += len(events)

    def _maintain(self) -> bool:
        """Purge a little; after a failure, check whether the inbox is writable. Return whether to purge more."""
        try:
            self._switch_inbox()
            inbox = self._ready()
            more = inbox.purge(self._now_ms())  # before the probe: on a full volume it frees space
        except Exception as ex:  # noqa: BLE001  as in _commit
            self._failed(ex)
            return False
        try:
            if self._trouble is not None:
                inbox.probe()
        except Exception as ex:  # noqa: BLE001  as in _commit
            self._failed(ex)
            return more and self._inbox is not None
        self._recovered()
        return more

    def _ready(self) -> Inbox:
        if self._inbox is None:
            self._inbox = self._open()
            self._log.info("inbox opened", events=self._inbox.size().events, bytes=self._inbox.size().bytes)
        return self._inbox

    def _switch_inbox(self) -> None:
        """Switch to a different inbox if configured; the current one stays in use until the new one is open."""
        if self._inbox is None or not self._moved():
            return
        try:
            inbox = self._open()
        except InboxUnavailable as ex:
            self._metrics.failed(ex.reason)
            self._log.error("inbox not changed", reason=ex.reason, detail=ex.detail)
            return
        self._inbox.close()
        self._inbox = inbox
        self._log.info("inbox changed")

    def _failed(self, ex: Exception) -> Unavailability:
        unexpected = None if isinstance(ex, InboxUnavailable) else ex
        trouble = (
            ex.stored()
            if isinstance(ex, InboxUnavailable)
            else Unavailability(StorageFailure.ERROR, type(ex).__name__, reopen=True)
        )
        self._metrics.failed(trouble.reason)
        if trouble.alone:
            self._log.error("event not stored", reason=trouble.reason, detail=trouble.detail)
            return trouble
        self._problem_log.report(
            "inbox unavailable", key=trouble.reason, reason=trouble.reason, detail=trouble.detail, exc_info=unexpected
        )
        self._trouble = trouble
        if trouble.reopen and self._inbox:
            inbox, self._inbox = self._inbox, None
            inbox.close()
        return trouble

    def _recovered(self) -> None:
        if self._trouble is not None:
            self._log.info("inbox ready")
            self._problem_log.resolve()
        self._trouble = None


def _portions(tickets: Sequence[_Ticket]) -> Iterator[list[_Ticket]]:
    """Split *tickets* into portions of about the maximum number of events and bytes of a commit."""
    portion: list[_Ticket] = []
    events = size = 0
    for ticket in tickets:
        portion.append(ticket)
        events += len(ticket.events)
        size += sum(len(event.data) for event in ticket.events)
        if events >= MAX_COMMIT_EVENTS or size >= MAX_COMMIT_BYTES:
            yield portion
            portion, events, size = [], 0, 0
    yield portion


def _resume(ticket: _Ticket, result: _Result) -> None:
    waiter, ticket.waiter = ticket.waiter, None
    if waiter is not None:
        ticket.result = result
        waiter.switch()
