"""Group commit: what the requests of one worker hand over together, one native thread commits at once.

Requests run as greenlets of one loop and wait; the engine's client runs in the thread and may block. A commit
wakes the loop once, whatever it served. A request that gave up is never woken by a late result.
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

MAX_COMMIT_EVENTS: Final = 4096  # of one commit, so that the last of a burst does not wait for all of it
MAX_COMMIT_BYTES: Final = 4 * 2**20  # of one commit: a server takes its time for more
IDLE_INTERVAL_SECONDS: Final = 1.0  # seconds between looks at retention, or at an inbox that failed
# Seconds in which others may join a commit while the loop is never idle. Else it is handed over at the loop's first
# idle moment: all that came is in it, and the two threads do not wake each other over the interpreter's lock.
COMMIT_DELAY_SECONDS: Final = 0.005
_STARTING: Final = Unavailability(StorageFailure.STARTING, "the inbox is being opened")

_Result = Sequence[Outcome] | Unavailability


class _Ticket:
    """What one request hands over, and who waits for it."""

    __slots__ = ("events", "link", "result", "waiter")

    def __init__(self, events: Sequence[Event], link: Context | None, waiter: gevent.Greenlet) -> None:
        self.events = events
        self.link = link
        self.result: _Result | None = None
        self.waiter: gevent.Greenlet | None = waiter


class GroupCommit:
    """Keeps events by an engine that it opens, tends and opens again where that failed."""

    def __init__(
        self,
        open_inbox: Callable[[], Inbox],
        moved: Callable[[], bool],
        instruments: Instruments[Metrics],
    ) -> None:
        """*moved* returns whether what *open_inbox* would open is another inbox by now."""
        self._open = open_inbox
        self._moved = moved
        self._metrics = instruments.metrics.inbox
        self._tracing = instruments.tracing
        self._now_ms = instruments.now_ms
        self._log = logs.get("inbox")
        self._lasting = logs.LastingTrouble(self._log)
        self._gathered: list[_Ticket] = []
        self._queue: queue.SimpleQueue[list[_Ticket] | None] = queue.SimpleQueue()
        self._settled: deque[list[_Ticket]] = deque()
        self._busy = False
        self._handing_over = False
        self._inbox: Inbox | None = None
        self._trouble: Unavailability | None = _STARTING
        self._waiting = 0
        self._thread = threading.Thread(target=self._run, name="inbox", daemon=True)

    def start(self) -> None:
        """Start the thread; call it in the thread of the loop whose greenlets will submit."""
        self._hub = get_hub()
        self._wake = self._hub.loop.async_()
        self._wake.start(self._deliver)
        self._idle = self._hub.loop.idle()
        self._company = self._hub.loop.timer(0, COMMIT_DELAY_SECONDS)
        self._thread.start()

    def submit(self, events: Sequence[Event], deadline: float, link: Context | None = None) -> Sequence[Outcome]:
        """Wait until *events* are durable; say of each what it was. *deadline* is of the monotonic clock.

        Raises InboxUnavailable: why it can't be promised, or reason `slow` where the deadline came first.
        """
        ticket = _Ticket(events, link, gevent.getcurrent())
        self._waiting += 1
        self._gathered.append(ticket)
        self._plan()
        timer = self._hub.loop.timer(max(deadline - time.monotonic(), 0))
        timer.start(self._give_up, ticket)
        try:
            self._hub.switch()
        finally:
            ticket.waiter = None
            ticket.events = ()  # a request that gave up must not hold its body in the queue
            timer.close()
            self._waiting -= 1
        if isinstance(ticket.result, Unavailability):
            raise ticket.result.error()
        assert ticket.result is not None  # noqa: S101  whoever switches back has set it
        return ticket.result

    def trouble(self) -> str | None:
        """Say why events can't be kept now; None where they can."""
        return None if self._trouble is None else f"{self._trouble.reason}: {self._trouble.detail}"

    def refresh(self) -> None:
        """Publish the gauges."""
        inbox = self._inbox
        size = inbox.size() if inbox else Size()
        self._metrics.refresh(waiting=self._waiting, events=size.events, taken=size.bytes, free=size.free)

    def stop(self) -> None:
        """Commit what waits, close the engine, end the thread."""
        while self._waiting and self._thread.is_alive():
            gevent.sleep(0.01)
        self._queue.put(None)
        while self._thread.is_alive():
            gevent.sleep(0.01)
        self._wake.close()
        self._idle.close()
        self._company.close()

    # In the loop.

    def _give_up(self, ticket: _Ticket) -> None:
        slow = Unavailability(StorageFailure.SLOW, "the inbox did not answer in time")
        self._metrics.failed(slow.reason)
        if self._trouble is None:
            self._lasting.tell("inbox unavailable", key=slow.reason, reason=slow.reason, detail=slow.detail)
            self._trouble = slow
        _resume(ticket, self._trouble)

    def _plan(self) -> None:
        """Have what is gathered handed over soon, unless a commit is under way: its end will ask again."""
        if self._busy or self._handing_over:
            return
        self._handing_over = True
        self._idle.start(self._hand_over)
        self._company.again(self._hand_over)  # started once more, a timer of libev's goes on where it was stopped

    def _hand_over(self) -> None:
        self._handing_over = False
        self._idle.stop()
        self._company.stop()
        self._busy = True
        self._queue.put(self._gathered)
        self._gathered = []

    def _deliver(self) -> None:
        while self._settled:
            tickets = self._settled.popleft()
            if not tickets:  # the end of what was handed over
                self._busy = False
                if self._gathered:
                    self._plan()
            for ticket in tickets:
                if ticket.result is not None:
                    _resume(ticket, ticket.result)

    # In the thread.

    def _run(self) -> None:
        more_to_purge = self._tend()
        tended = time.monotonic()
        while True:
            try:
                tickets = self._queue.get(timeout=0.001 if more_to_purge else IDLE_INTERVAL_SECONDS)
            except queue.Empty:
                tickets = []
            if tickets is None:
                break
            if tickets:
                for some in _portions(tickets):
                    self._commit(some)
                self._settle([])
            if more_to_purge or time.monotonic() - tended >= IDLE_INTERVAL_SECONDS:
                more_to_purge = self._tend()
                tended = time.monotonic()
        if self._inbox:
            self._inbox.close()

    def _settle(self, tickets: list[_Ticket]) -> None:
        self._settled.append(tickets)
        self._wake.send()

    def _commit(self, tickets: Sequence[_Ticket]) -> None:
        # A request may give up at any moment: what it handed over is looked at once.
        batch = [(ticket, events) for ticket in tickets if (events := ticket.events)]
        together = [event for _, events in batch for event in events]
        if not together:
            return
        try:
            self._put(batch, together)
        except Exception as ex:  # noqa: BLE001  whatever an engine does, the requests get their answer
            if isinstance(ex, InboxUnavailable) and ex.alone and len(batch) > 1:
                for ticket, _ in batch:  # the others are not to fail with the one that is at fault
                    self._commit([ticket])
                return
            trouble = self._failed(ex)
            for ticket, _ in batch:
                ticket.result = trouble
        self._settle([ticket for ticket, _ in batch])

    def _put(self, batch: Sequence[tuple[_Ticket, Sequence[Event]]], together: Sequence[Event]) -> None:
        started = time.perf_counter()
        with self._tracing.commit([ticket.link for ticket, _ in batch if ticket.link], len(together)):
            outcomes = self._ready().put(together)
        if (
            self._trouble is None or self._trouble.reason != StorageFailure.FULL
        ):  # there, what is small may fit, and the next does not
            self._recovered()
        self._metrics.committed(len(together), time.perf_counter() - started)
        start = 0
        for ticket, events in batch:
            ticket.result = outcomes[start : start + len(events)]
            start += len(events)

    def _tend(self) -> bool:
        """Purge a little, which is also the proof that the inbox can be written again."""
        try:
            self._move()
            inbox = self._ready()
            more = inbox.purge(self._now_ms())  # first: on a full volume it makes the room
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

    def _move(self) -> None:
        """Go over to another inbox, if there is one: what was in force stays until the new one is open."""
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
            self._log.error("event not kept", reason=trouble.reason, detail=trouble.detail)
            return trouble
        self._lasting.tell(
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
            self._lasting.over()
        self._trouble = None


def _portions(tickets: Sequence[_Ticket]) -> Iterator[list[_Ticket]]:
    """Cut into portions of about the most events and bytes that one commit takes."""
    portion: list[_Ticket] = []
    events = taken = 0
    for ticket in tickets:
        portion.append(ticket)
        events += len(ticket.events)
        taken += sum(len(event.data) for event in ticket.events)
        if events >= MAX_COMMIT_EVENTS or taken >= MAX_COMMIT_BYTES:
            yield portion
            portion, events, taken = [], 0, 0
    yield portion


def _resume(ticket: _Ticket, result: _Result) -> None:
    waiter, ticket.waiter = ticket.waiter, None
    if waiter is not None:
        ticket.result = result
        waiter.switch()
