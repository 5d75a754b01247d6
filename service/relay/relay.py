"""The relay process's parts: one planner that reads the log, and a courier for each destination."""

import threading
from collections.abc import Callable
from typing import Final

from service import logs
from service.errors import InboxUnavailable
from service.events import Event
from service.inbox.base import Log
from service.metrics import RelayMetrics
from service.relay.book import Book
from service.relay.courier import Courier
from service.relay.sender import Watchdog
from service.relay.sqlite import SqliteState
from service.relay.state import Owed
from service.tracing import Tracing

TICK: Final = 0.1  # seconds between looks at the end of the log
LOOK: Final = 0.5  # seconds between looks at the files
READ_AT_ONCE: Final = 500
BEGINNING: Final = "beginning"


class Relay:
    """Delivers what the log holds to whom the file names."""

    def __init__(
        self,
        book: Book,
        state: SqliteState,
        open_log: Callable[[], Log],
        *,
        metrics: RelayMetrics,
        traced: Tracing,
        now: Callable[[], float],
        chance: Callable[[], float],
        retention: float,
    ) -> None:
        """*now* is in seconds since the epoch, *retention* in seconds; *chance* gives a number from 0 to 1."""
        self._book = book
        self._state = state
        self._open_log = open_log
        self._metrics = metrics
        self._traced = traced
        self._now = now
        self._chance = chance
        self._retention = retention
        self._log = logs.get("relay")
        self._inbox: Log | None = None
        self._inbox_lock = threading.Lock()
        self._watchdog = Watchdog()
        self._couriers: dict[str, Courier] = {}
        self._said: tuple[str, ...] = ()
        self._trouble: str | None = "the log was not read yet"
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="planner", daemon=True)

    def start(self) -> None:
        """Begin to read and to deliver."""
        self._watchdog.start()
        self._thread.start()

    def stop(self) -> None:
        """Finish the tries that are under way, and end."""
        self._over.set()
        self._thread.join()
        for courier in self._couriers.values():
            courier.stop()
        self._watchdog.stop()

    def trouble(self) -> str | None:
        """Say why the log is not read now; None where it is."""
        return self._trouble

    def unread(self) -> str | None:
        """Say what is wrong with the destinations file; None where nothing is."""
        return "; ".join(self._book.problems) or None

    def event_at(self, position: int) -> Event | None:
        """Give the event at *position*; see `courier.Owner`."""
        with self._inbox_lock:
            found = self._opened().read(position - 1, 1)
        return found[0].event if found and found[0].position == position else None

    def disable(self, name: str, reason: str) -> None:
        """Deliver nothing more to a destination; see `courier.Owner`."""
        if self._state.disable(name, reason):
            self._log.error("destination disabled", destination=name, reason=reason)

    def refresh(self) -> None:
        """Publish the gauges."""
        now = self._now()
        for standing in self._state.standings():
            courier = self._couriers.get(standing.name)
            if courier is not None:
                self._metrics.stands(
                    standing.name,
                    backlog=standing.owed,
                    oldest=max(now - standing.oldest / 1000, 0) if standing.oldest else 0,
                    breaker=str(courier.breaker.state),
                    disabled=standing.disabled is not None,
                )

    def _run(self) -> None:
        looked = float("-inf")
        while not self._over.is_set():
            try:
                if self._now() - looked >= LOOK:
                    looked = self._now()
                    self._look()
                more = self._plan()
                self._trouble = None
            except Exception as ex:  # noqa: BLE001  a planner that ended would deliver nothing more
                self._stumbled(ex)
                more = False
            if not more:
                self._over.wait(TICK)

    def _stumbled(self, ex: Exception) -> None:
        trouble = ex.detail if isinstance(ex, InboxUnavailable) else type(ex).__name__
        if trouble != self._trouble:
            self._log.error("log not read", detail=trouble, exc_info=None if isinstance(ex, InboxUnavailable) else ex)
        self._trouble = trouble
        with self._inbox_lock:
            if self._inbox is not None:
                self._inbox.close()
                self._inbox = None

    def _opened(self) -> Log:
        if self._inbox is None:
            self._inbox = self._open_log()
        return self._inbox

    def _look(self) -> None:
        """Read the files again, and have each destination's courier be as the file says."""
        self._book.look()
        if self._book.problems != self._said:
            self._said = self._book.problems
            if self._said:
                self._log.warning("destinations not readable", problems=list(self._said))
            else:
                self._log.info("destinations readable")
        for name in [name for name, courier in self._couriers.items() if self._book.entries.get(name) != courier.entry]:
            # The tries under way may take their time, and nobody waits for them; their lanes are theirs till then.
            threading.Thread(target=self._couriers.pop(name).stop, name=f"leaving {name}", daemon=True).start()
            if name not in self._book.entries:
                self._metrics.forget(name)
            self._log.info("destination left or changed", destination=name)
        for name, entry in self._book.entries.items():
            if name not in self._couriers:
                with self._inbox_lock:
                    position = 0 if entry.destination.begin == BEGINNING else self._opened().last()
                self._state.join(name, position)
                courier = self._couriers[name] = Courier(
                    entry,
                    self._state,
                    self,
                    watchdog=self._watchdog,
                    metrics=self._metrics,
                    traced=self._traced,
                    now=self._now,
                    chance=self._chance,
                )
                courier.start()
                self._log.info("destination", destination=name)
        self._state.forget(int((self._now() - self._retention) * 1000))

    def _plan(self) -> bool:
        """Note what is owed from the log; says whether there is more to read."""
        more = False
        for name, since in self._state.positions():
            courier = self._couriers.get(name)
            if courier is None:
                continue
            with self._inbox_lock:
                records = self._opened().read(since, READ_AT_ONCE)
            if not records:
                continue
            owed = [
                Owed(position, event.partitionkey, event.received_at)
                for position, event in records
                if courier.entry.destination.wants(event)
            ]
            self._state.plan(name, since, records[-1].position, owed)
            if owed:
                courier.wake()
            more = more or len(records) == READ_AT_ONCE
        return more
