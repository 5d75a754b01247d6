"""The relay's loop: reads the log, plans deliveries, starts attempts and settles their results.

It is one thread with one event loop. Attempts are greenlets that wait for the network. What they report between two
turns is settled in one transaction, like the receiver's group commit.
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
from service.storage.deliveries import DeliveryState, WorkerReport
from service.storage.delivery_policy import DELIVERY_POLICY, DeliveryPolicy
from service.storage.protocols import Log
from service.telemetry import logs
from service.telemetry.metrics import RelayMetrics

# How long a turn waits for more reports if many attempts are running: each turn is a commit, whose writes compete with
# those that the receiver syncs before it answers 200.
REPORT_DELAY_SECONDS: Final = 0.003
LOG_INTERVAL_SECONDS: Final = 0.02  # between two reads at the end of the log
FULL_PLAN_INTERVAL_SECONDS: Final = 1.0  # between two plans for destinations without capacity
FILES_INTERVAL_SECONDS: Final = 0.5  # between two reads of the destinations file and its secrets
TIDY_INTERVAL_SECONDS: Final = 1.0
FAILURE_DELAY_SECONDS: Final = 1.0


class Relay:
    """Delivers the events of the log to the destinations of the file."""

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
        """*prepare* is called in the relay's thread before its first turn."""
        self._registry = registry
        self._state = state
        self._open_log = open_log
        self._log = logs.get("relay")
        self._inbox: Log | None = None
        self._planner = Planner(
            state, self._opened_log, instruments=instruments, policy=policy, retention_ms=retention_ms
        )
        self._dispatcher = Dispatcher(state, self._opened_log, self._wake, instruments=instruments)
        self._report = Report(self._log, "destinations")
        self._lasting = logs.ProblemLog(self._log)
        self._logged_warnings: tuple[str, ...] = ()
        self._inbox_problem: str | None = "the inbox has not been read yet"
        self._prepare = prepare
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run, name="relay", daemon=True)

    def start(self) -> None:
        """Start to read and to deliver."""
        self._thread.start()
        self._started.wait()

    def stop(self) -> None:
        """Finish the running attempts, settle their results, and stop the thread."""
        self._stop_signal.send()
        self._thread.join()

    def inbox_problem(self) -> str | None:
        """Return why nothing can be delivered now, or None."""
        return self._inbox_problem

    def destinations_problem(self) -> str | None:
        """Return what is wrong with the destinations file or a destination, or None."""
        return "; ".join((*self._registry.problems, *self._dispatcher.problems)) or None

    def breakers(self) -> Mapping[str, str]:
        """Return the state of each destination's circuit breaker."""
        return self._dispatcher.breakers()

    def states(self) -> Mapping[str, WorkerReport]:
        """Return how deliveries to each destination go."""
        return self._dispatcher.states()

    def unread(self) -> Mapping[str, int]:
        """Return how many positions of the log were not read yet for each destination, at most two seconds ago."""
        return self._planner.unread

    def _run(self) -> None:
        self._prepare()
        self._stopping, self._woken = Event(), Event()
        self._stop_signal = get_hub().loop.async_()
        self._stop_signal.start(self._request_stop)
        self._started.set()
        reloaded_at = tidied_at = read_at = full_plan_at = float("-inf")
        while not self._stopping.is_set():
            now = time.monotonic()
            try:
                if now - reloaded_at >= FILES_INTERVAL_SECONDS:
                    reloaded_at = now
                    self._reload()
                if now - tidied_at >= TIDY_INTERVAL_SECONDS:
                    tidied_at = now
                    self._state.require_file()
                    self._planner.tidy(self._registry.current.configured or {})
                has_more = False
                if now - read_at >= LOG_INTERVAL_SECONDS:
                    is_full_plan = now - full_plan_at >= FULL_PLAN_INTERVAL_SECONDS
                    has_more = self._plan(all_destinations=is_full_plan)
                    read_at = read_at if has_more else now
                    full_plan_at = now if is_full_plan else full_plan_at
                wait = min(self._dispatcher.turn(), 0 if has_more else LOG_INTERVAL_SECONDS)
                self._inbox_problem = None
                self._lasting.resolve()
            except Exception as ex:  # noqa: BLE001  if the loop ended, nothing more would be delivered
                self._report_failure(ex)
                wait = FAILURE_DELAY_SECONDS
            self._woken.wait(wait)
            if self._dispatcher.expects_more():
                gevent.sleep(REPORT_DELAY_SECONDS)
            self._woken.clear()
        self._finish()

    def _plan(self, *, all_destinations: bool) -> bool:
        """Plan the next deliveries, usually for destinations with capacity only: a backlog is planned as it drains."""
        configured = self._registry.current.configured or {}
        names = configured if all_destinations else self._dispatcher.with_capacity()
        return self._planner.plan({name: configured[name] for name in names if name in configured})

    def _request_stop(self) -> None:
        self._stopping.set()
        self._woken.set()

    def _wake(self) -> None:
        self._woken.set()

    def _finish(self) -> None:
        self._dispatcher.stop()
        try:
            self._dispatcher.settle()
        except InboxUnavailable as ex:  # the next relay makes these attempts again
            self._report_failure(ex)
        if self._inbox is not None:
            self._inbox.close()
        self._stop_signal.close()

    def _reload(self) -> None:
        """Read the destinations file, its secrets and what commands request again; apply changes, and report."""
        self._registry.look()
        if self._registry.current.configured is not None:
            self._planner.join(self._registry.current.configured)
            self._dispatcher.serve(self._registry.current.entries)
            self._dispatcher.exchange()
        problems = (*self._registry.problems, *self._dispatcher.problems)
        self._report.update(problems)
        if self._registry.current.warnings != self._logged_warnings:
            self._logged_warnings = self._registry.current.warnings
            for warning in self._logged_warnings:
                self._log.warning("weak signing secret", detail=warning)

    def _report_failure(self, ex: Exception) -> None:
        if isinstance(ex, InboxUnavailable):
            problem, level, unexpected = ex.detail, "warning", None
        else:
            problem, level, unexpected = type(ex).__name__, "error", ex
        self._lasting.report("relay cannot deliver", level=level, key=problem, detail=problem, exc_info=unexpected)
        self._inbox_problem = problem
        if self._inbox is not None:
            self._inbox.close()
            self._inbox = None

    def _opened_log(self) -> Log:
        if self._inbox is None:
            log = self._open_log()
            self._planner.adopt(log)
            self._inbox = log
        return self._inbox


def use_idle_scheduling() -> None:
    """Run this thread only if no other thread of the machine wants to run.

    Otherwise a thread that computes for long keeps the processor until the next tick, 4 ms, while a receiver waits for
    it, whatever its `nice` value: at 200 notifications per second that doubled the 99th percentile of the response
    time while a backlog was drained. Between containers, their CPU requests count.
    """
    if hasattr(os, "SCHED_IDLE"):  # Linux
        with suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
