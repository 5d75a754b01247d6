"""The relay itself: reads the log, says who gets what and when, and writes down how it went.

All of it is one thread and its loop: attempts are greenlets that wait for the network, and what they report between two
turns is settled together, as the receiver commits what waits together.
"""

import os
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Final

import gevent
from gevent.event import Event
from gevent.hub import get_hub

from service.errors import InboxUnavailable
from service.instruments import Instruments
from service.relay.destination_registry import DestinationRegistry
from service.relay.dispatcher import Dispatcher
from service.relay.planner import Planner
from service.reloading import Report
from service.storage.deliveries import DeliveryState
from service.storage.delivery_policy import DELIVERY_POLICY, DeliveryPolicy
from service.storage.protocols import Log
from service.telemetry import logs
from service.telemetry.metrics import RelayMetrics

# Seconds in which others may report too, where many are under way: each turn is a commit, whose pages are written next
# to what the receiver syncs before it says 200.
REPORT_DELAY_SECONDS: Final = 0.003
LOG_INTERVAL_SECONDS: Final = 0.02  # seconds between looks at the end of the log
FULL_PLAN_INTERVAL_SECONDS: Final = 1.0  # seconds between notes of what is owed to those that have no room for more
FILES_INTERVAL_SECONDS: Final = 0.5  # seconds between looks at the files
TIDY_INTERVAL_SECONDS: Final = 1.0  # seconds between looks at what is too old
FAILURE_DELAY_SECONDS: Final = 1.0


class Relay:
    """Delivers what the log holds to whom the file names."""

    def __init__(
        self,
        registry: DestinationRegistry,
        state: DeliveryState,
        open_log: Callable[[], Log],
        *,
        instruments: Instruments[RelayMetrics],
        retention_ms: int,
        prepare: Callable[[], None],
        policy: DeliveryPolicy = DELIVERY_POLICY,
    ) -> None:
        """*prepare* is called in the thread of the relay before its first turn."""
        self._registry = registry
        self._state = state
        self._open_log = open_log
        self._log = logs.get("relay")
        self._inbox: Log | None = None
        self._planner = Planner(state, self._opened, instruments=instruments, policy=policy, retention_ms=retention_ms)
        self._dispatcher = Dispatcher(state, self._opened, self._wake, instruments=instruments, policy=policy)
        self._report = Report(self._log, "destinations")
        self._lasting = logs.ProblemLog(self._log)
        self._warned: tuple[str, ...] = ()
        self._trouble: str | None = "the log was not read yet"
        self._prepare = prepare
        self._begun = threading.Event()
        self._thread = threading.Thread(target=self._run, name="relay", daemon=True)

    def start(self) -> None:
        """Begin to read and to deliver."""
        self._thread.start()
        self._begun.wait()

    def stop(self) -> None:
        """Finish the attempts that are under way, write down how they went, and end."""
        self._told.send()
        self._thread.join()

    def trouble(self) -> str | None:
        """Say why nothing is delivered now; None where there is no reason."""
        return self._trouble

    def unread(self) -> str | None:
        """Say what is wrong with the destinations file; None where nothing is."""
        return "; ".join((*self._registry.problems, *self._dispatcher.refused)) or None

    def breakers(self) -> Mapping[str, str]:
        """Say how the breaker of each destination stands."""
        return self._dispatcher.breakers()

    def _run(self) -> None:
        self._prepare()
        self._over, self._woken = Event(), Event()
        self._told = get_hub().loop.async_()
        self._told.start(self._finish)
        self._begun.set()
        looked = tidied = read = counted = float("-inf")
        while not self._over.is_set():
            moment = time.monotonic()
            try:
                if moment - looked >= FILES_INTERVAL_SECONDS:
                    looked = moment
                    self._look()
                if moment - tidied >= TIDY_INTERVAL_SECONDS:
                    tidied = moment
                    self._state.require_file()
                    self._planner.tidy()
                more = moment - read >= LOG_INTERVAL_SECONDS and self._plan(
                    everybody=moment - counted >= FULL_PLAN_INTERVAL_SECONDS
                )
                read = read if more else moment
                counted = moment if moment - counted >= FULL_PLAN_INTERVAL_SECONDS else counted
                wait = min(self._dispatcher.turn(), 0 if more else LOG_INTERVAL_SECONDS)
                self._trouble = None
                self._lasting.resolve()
            except Exception as ex:  # noqa: BLE001  a loop that ended would deliver nothing more
                self._stumbled(ex)
                wait = FAILURE_DELAY_SECONDS
            self._woken.wait(wait)
            if self._dispatcher.expects_more():
                gevent.sleep(REPORT_DELAY_SECONDS)
            self._woken.clear()
        self._end()

    def _plan(self, *, everybody: bool) -> bool:
        """Note what is owed next, to those that have room for more; a backlog is noted as it is drained."""
        wanted = self._registry.current.wanted or {}
        names = wanted if everybody else self._dispatcher.hungry()
        return self._planner.plan({name: wanted[name] for name in names if name in wanted})

    def _finish(self) -> None:
        self._over.set()
        self._woken.set()

    def _wake(self) -> None:
        self._woken.set()

    def _end(self) -> None:
        self._dispatcher.end()
        try:
            self._dispatcher.settle()
        except InboxUnavailable as ex:  # then they are tried again
            self._stumbled(ex)
        if self._inbox is not None:
            self._inbox.close()
        self._told.close()

    def _look(self) -> None:
        """Read the files again, and have everything be as they say."""
        self._registry.look()
        if self._registry.current.wanted is not None:
            self._planner.join(self._registry.current.wanted)
            self._dispatcher.serve(self._registry.current.entries)
        problems = (*self._registry.problems, *self._dispatcher.refused)
        self._report.update(problems)
        if self._registry.current.warnings != self._warned:
            self._warned = self._registry.current.warnings
            for warning in self._warned:
                self._log.warning("weak signing secret", detail=warning)

    def _stumbled(self, ex: Exception) -> None:
        if isinstance(ex, InboxUnavailable):
            trouble, level, unexpected = ex.detail, "warning", None
        else:
            trouble, level, unexpected = type(ex).__name__, "error", ex
        self._lasting.report("nothing is delivered", level=level, key=trouble, detail=trouble, exc_info=unexpected)
        self._trouble = trouble
        if self._inbox is not None:
            self._inbox.close()
            self._inbox = None

    def _opened(self) -> Log:
        if self._inbox is None:
            log = self._open_log()
            self._planner.adopt(log)
            self._inbox = log
        return self._inbox


def give_way() -> None:
    """Run this thread only when nobody else on the machine wants to run.

    A thread that computes for long keeps a processor to the next tick, 4 ms, from a receiver that wakes up, whatever
    its `nice`: at 200 notifications a second that doubled the 99th percentile of Meta's answers while a backlog was
    drained. Between containers, what each requests counts.
    """
    if hasattr(os, "SCHED_IDLE"):  # Linux
        with suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
