"""Claims due deliveries and starts attempts for them, then settles what the attempts report."""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Final, Protocol

import gevent

from service.events import Event
from service.instruments import Instruments
from service.outcomes import DeadLetterReason
from service.relay import policy
from service.relay.breaker import BreakerState, Shares
from service.relay.delivery_response import NO_ANSWER
from service.relay.delivery_worker import AttemptReport, DeliveryWorker
from service.relay.destination_registry import Entry
from service.storage.deliveries import (
    REPORT_AGE_MS,
    Attempt,
    AttemptEvidence,
    Claim,
    DeadLetterEvents,
    DeliveryClaims,
    DeliveryReports,
    QueueKind,
    Ruling,
    Settlement,
    Verdict,
    WorkerReport,
)
from service.storage.protocols import Log
from service.telemetry import logs
from service.telemetry.metrics import RelayMetrics

STOP_TIMEOUT_SECONDS: Final = 5.0  # while a pod stops, nothing is delivered until the next one starts
MAX_WAIT_SECONDS: Final = 1.0  # between two checks for due deliveries
REPORT_INTERVAL_MS: Final = 10_000  # between two reports of a worker in which nothing changed


class DispatcherState(DeliveryClaims, DeliveryReports, DeadLetterEvents, Protocol):
    """The part of the relay's state that the dispatcher uses."""


class Dispatcher:
    """Passes claims to the delivery workers and settles their reports, all in the thread of the relay's loop."""

    def __init__(
        self,
        state: DispatcherState,
        log: Callable[[], Log],
        wake: Callable[[], None],
        *,
        instruments: Instruments[RelayMetrics],
    ) -> None:
        """*log* returns the log, opened; *wake* is called after each report."""
        self._state = state
        self._inbox = log
        self._wake = wake
        self._instruments = instruments
        self._metrics = instruments.metrics
        self._now_ms = instruments.now_ms
        self._log = logs.get("relay")
        self._reports: list[AttemptReport] = []
        self._settlements: list[Settlement] = []
        self._workers: dict[str, DeliveryWorker] = {}
        self._reported: dict[str, WorkerReport] = {}
        self._retried_at: Mapping[str, int] | None = None
        self._stopping: list[DeliveryWorker] = []
        self.problems: tuple[str, ...] = ()  # why the worker of a configured destination can't be started

    def serve(self, entries: Mapping[str, Entry]) -> None:
        """Deliver to exactly these destinations: stop the workers of others, and start missing ones."""
        for name, worker in list(self._workers.items()):
            if entries.get(name) != worker.entry:
                self._stop_worker(self._workers.pop(name))
                self._log.info("destination removed or changed", destination=name)
        problems = [self._start_worker(name, entry) for name, entry in entries.items() if name not in self._workers]
        self.problems = tuple(filter(None, problems))

    def _start_worker(self, name: str, entry: Entry) -> str:
        """Start the worker of a destination; return the problem if it can't be started, else an empty string."""
        try:
            worker = DeliveryWorker(entry, self._report, instruments=self._instruments)
        except Exception as ex:  # noqa: BLE001  one broken destination must not stop the others
            return f"destination {name!r} can't be started: {type(ex).__name__}"
        self._workers[name] = worker
        self._metrics.begin(name)
        self._log.info("destination started", destination=name, url=entry.destination.origin)
        return ""

    def breakers(self) -> Mapping[str, str]:
        """Return the state of each destination's circuit breaker; any thread may call it."""
        return {name: str(worker.breaker.state) for name, worker in list(self._workers.items())}

    def states(self) -> Mapping[str, WorkerReport]:
        """Return how deliveries to each destination go; any thread may call it."""
        now = self._now_ms()
        return {name: worker.state(now) for name, worker in list(self._workers.items())}

    def exchange(self) -> None:
        """Report to other relays and commands how deliveries go, and obey `destinations retry`; call it often."""
        now = self._now_ms()
        news = {name: each for name, each in self.states().items() if _is_news(self._reported.get(name), each)}
        if news:
            self._state.report(news)
            self._reported |= news
            relays = self._state.count_relays(now - REPORT_AGE_MS)
            for worker in self._workers.values():
                worker.rate_limit.relays = max(relays, 1)
        retried_at = self._state.retried_at()
        for name, at in retried_at.items():
            if self._retried_at is not None and name in self._workers and self._retried_at.get(name) != at:
                self._workers[name].breaker.retry_now(now)
                self._log.info("pending deliveries are retried now", destination=name)
        self._retried_at = retried_at

    def turn(self) -> float:
        """Settle the reported attempts and claim due deliveries in one transaction, then start their attempts.

        If the transaction fails, the reports are kept for the next turn. Returns the seconds until more is due.
        """
        self._rule_on_reports()
        capacities = {name: free for name, worker in self._workers.items() if (free := worker.capacity(self._now_ms()))}
        if not self._settlements and not self._is_due(capacities):
            return self._wait_seconds(capacities)
        with self._state.together():
            expired = self._state.settle(self._settlements)
            claimed = [pair for name, capacity in capacities.items() for pair in self._claim_events(name, capacity)]
            wait = self._wait_seconds(capacities)
        self._finish_settlements(expired)
        for claim, event in claimed:
            if event:
                self._workers[claim.destination].start_attempt(claim, event)
            else:
                evidence = AttemptEvidence("the event is no longer stored")
                no_attempt = Attempt(self._now_ms(), 0.0, NO_ANSWER, DeadLetterReason.RETENTION, evidence)
                self._settlements.append(
                    Settlement(claim, no_attempt, Ruling(Verdict.DEAD_LETTER, reason=DeadLetterReason.RETENTION))
                )
        return 0.0 if self._settlements else wait

    def with_capacity(self) -> Collection[str]:
        """Return the names of the destinations for which more attempts could start now."""
        return [name for name, worker in self._workers.items() if worker.capacity(self._now_ms())]

    def expects_more(self) -> bool:
        """Return whether more reports are likely soon: of each worker that reported, most attempts still run."""
        reported = Counter(report.worker for report in self._reports)
        return bool(reported) and all(2 * number < worker.running() for worker, number in reported.items())

    def settle(self) -> None:
        """Settle the reported attempts."""
        self._rule_on_reports()
        self._finish_settlements(self._state.settle(self._settlements))

    def _rule_on_reports(self) -> None:
        reports, self._reports = self._reports, []
        self._settlements += [self._settlement_of(report) for report in reports]

    def _finish_settlements(self, expired: Collection[Claim]) -> None:
        """Log and count what was settled; *expired* are the claims whose lease expired before."""
        settlements, self._settlements = self._settlements, []
        for claim, _, ruling, disables, _ in settlements:
            if claim in expired:
                self._log.warning(
                    "lease expired during the attempt", destination=claim.destination, position=claim.position
                )
                continue
            if disables:
                self._log.error("destination disabled", destination=claim.destination, reason=disables)
            if ruling.reason:
                self._metrics.died(claim.destination, ruling.reason)
                self._log.error(
                    "event dead-lettered", destination=claim.destination, position=claim.position, reason=ruling.reason
                )
            if ruling.verdict is Verdict.SKIP:
                self._log.warning("event skipped", destination=claim.destination, position=claim.position)

    def _is_due(self, names: Iterable[str]) -> bool:
        return any(due <= self._now_ms() for name in names for due in self._due_times(name))

    def _wait_seconds(self, names: Iterable[str]) -> float:
        due_times = [due for name in names for due in self._due_times(name)]
        return min([MAX_WAIT_SECONDS, *(max(due - self._now_ms(), 0) / 1000 for due in due_times)])

    def _due_times(self, name: str) -> Iterator[int]:
        """Yield when the next queue is due, for each kind of queue that may be claimed now."""
        worker = self._workers[name]
        kinds = [QueueKind.HEALTHY]
        if worker.breaker.state is not BreakerState.CLOSED or worker.shares().most:
            kinds.append(QueueKind.FAILED)
        for kind in kinds:
            if (due := self._state.next_due(name, kind)) is not None:
                yield due

    def _claim(self, name: str, capacity: int) -> Sequence[Claim]:
        worker, now = self._workers[name], self._now_ms()
        if worker.breaker.state is not BreakerState.CLOSED:  # the probe
            return self._state.claim(
                name, capacity, QueueKind.HEALTHY, now=now, lease=worker.lease_ms, at_random=True
            ) or self._state.claim(name, capacity, QueueKind.FAILED, now=now, lease=worker.lease_ms, at_random=True)
        return claim_shares(
            self._state, name, capacity, worker.shares(), now=now, lease=worker.lease_ms, at_random=worker.is_recovering
        )

    def _claim_events(self, name: str, capacity: int) -> Iterator[tuple[Claim, Event | None]]:
        """Yield the claims with their events; None if the event no longer exists."""
        if claims := self._claim(name, capacity):
            records = self._inbox().at([claim.position for claim in claims])
            events = {record.position: record.event for record in records}
            if missing := [claim.position for claim in claims if claim.position not in events]:
                events |= self._state.saved(missing)  # replayed dead letters
            yield from ((claim, events.get(claim.position)) for claim in claims)

    def stop(self) -> None:
        """Wait a few seconds for the running attempts; the next relay retries those that are cancelled."""
        workers = [*self._stopping, *self._workers.values()]
        gevent.joinall([gevent.spawn(worker.stop, STOP_TIMEOUT_SECONDS) for worker in workers])

    def _stop_worker(self, worker: DeliveryWorker) -> None:
        """Stop a worker in the background, after its running attempts, however long they take."""
        self._stopping.append(worker)
        gevent.spawn(worker.stop).link(lambda _: self._stopping.remove(worker))

    def _report(self, report: AttemptReport) -> None:
        self._reports.append(report)
        self._wake()

    def _settlement_of(self, report: AttemptReport) -> Settlement:
        worker, claim, _, (*_, answer) = report
        name, breaker = claim.destination, worker.breaker
        was_closed = breaker.state is BreakerState.CLOSED
        ruling = worker.rule(claim, answer, self._now_ms())
        if (breaker.state is BreakerState.CLOSED) is not was_closed:  # not each probe
            self._log.warning(
                "circuit breaker changed state", destination=name, state=str(breaker.state), outcome=answer.outcome
            )
        for each in report.answers:
            self._metrics.attempted(name, each.outcome, each.seconds)
        # A late response from a URL that was replaced must not disable the new one.
        disables = answer.status == policy.GONE and self._workers.get(name) is worker
        *earlier, attempt = report.attempts()
        reason = f"responded with status {answer.status}" if disables else None
        return Settlement(claim, attempt, ruling, reason, earlier)


def _is_news(before: WorkerReport | None, now: WorkerReport) -> bool:
    """Return whether a report differs from the last one, or that is old."""
    return before is None or before[1:] != now[1:] or not 0 <= now.at - before.at < REPORT_INTERVAL_MS


def claim_shares(
    state: DeliveryClaims,
    name: str,
    capacity: int,
    shares: Shares,
    *,
    now: int,
    lease: int,
    at_random: bool = False,
) -> Sequence[Claim]:
    """Claim at most *capacity* queues: first the reserved share of failed ones, then healthy ones, then more failed.

    *at_random* claims healthy queues in random order, because some may be new and undeliverable.
    """

    def claim_some(limit: int, kind: QueueKind, *, at_random: bool = False) -> Sequence[Claim]:
        return state.claim(name, limit, kind, now=now, lease=lease, at_random=at_random) if limit > 0 else ()

    failed = claim_some(min(shares.first, capacity), QueueKind.FAILED)
    healthy = claim_some(capacity - len(failed), QueueKind.HEALTHY, at_random=at_random)
    left = capacity - len(failed) - len(healthy)
    return [*failed, *healthy, *claim_some(min(left, shares.most - len(failed)), QueueKind.FAILED)]
