"""From what is owed to attempts, and from attempts to what is written down."""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Final, Protocol

import gevent

from service.events import Event
from service.instruments import Instruments
from service.outcomes import DeadLetterReason
from service.relay import policy
from service.relay.delivery_worker import AttemptReport, DeliveryWorker
from service.relay.destination_registry import Entry
from service.relay.sender import NO_ANSWER
from service.storage.deliveries import (
    Attempt,
    Claim,
    DeadLetterEvents,
    DeliveryClaims,
    QueueKind,
    Ruling,
    Settlement,
    Verdict,
)
from service.storage.delivery_policy import DeliveryPolicy
from service.storage.protocols import Log
from service.telemetry import logs
from service.telemetry.metrics import RelayMetrics

STOP_TIMEOUT_SECONDS: Final = 5.0  # seconds: a pod that ends is an outage until the next one
MAX_WAIT_SECONDS: Final = 1.0  # seconds: the longest wait between looks at what is due


class DispatcherState(DeliveryClaims, DeadLetterEvents, Protocol):
    """What the dispatcher remembers by."""


class Dispatcher:
    """Hands claims to workers and settles what they report; all of one thread's loop."""

    def __init__(
        self,
        state: DispatcherState,
        log: Callable[[], Log],
        wake: Callable[[], None],
        *,
        instruments: Instruments[RelayMetrics],
        policy: DeliveryPolicy,
    ) -> None:
        """*log* gives the log, opened; *wake* is called where something was reported."""
        self._state = state
        self._inbox = log
        self._wake = wake
        self._instruments = instruments
        self._metrics = instruments.metrics
        self._now_ms = instruments.now_ms
        self._policy = policy
        self._log = logs.get("relay")
        self._results: list[AttemptReport] = []
        self._settlements: list[Settlement] = []
        self._workers: dict[str, DeliveryWorker] = {}
        self._leaving: list[DeliveryWorker] = []
        self.refused: tuple[str, ...] = ()  # why a destination of the file is not delivered to

    def serve(self, entries: Mapping[str, Entry]) -> None:
        """Have exactly these destinations be delivered to."""
        for name, worker in list(self._workers.items()):
            if entries.get(name) != worker.entry:
                self._leave(self._workers.pop(name))
                self._log.info("destination left or changed", destination=name)
        begun = [self._begin(name, entry) for name, entry in entries.items() if name not in self._workers]
        self.refused = tuple(filter(None, begun))

    def _begin(self, name: str, entry: Entry) -> str:
        """Begin to deliver to a destination; says why that can't be, or nothing."""
        try:
            worker = DeliveryWorker(entry, self._report, instruments=self._instruments)
        except Exception as ex:  # noqa: BLE001  one that can't be served must not stop the others
            return f"destination {name!r} can't be delivered to: {type(ex).__name__}"
        self._workers[name] = worker
        self._metrics.begin(name)
        self._log.info("destination", destination=name, url=entry.destination.origin)
        return ""

    def breakers(self) -> Mapping[str, str]:
        """Say how the breaker of each destination stands; any thread may ask."""
        return {name: str(worker.breaker.state) for name, worker in list(self._workers.items())}

    def turn(self) -> float:
        """Write down what was reported, and hand out what is due to whom there is room for; in one transaction.

        What can't be written now is kept for the next turn. Gives the seconds until more is due.
        """
        self._judge()
        rooms = {name: room for name, worker in self._workers.items() if (room := worker.room(self._now_ms()))}
        if not self._settlements and not self._is_due(rooms):
            return self._wait(rooms)
        with self._state.together():
            late = self._state.settle(self._settlements)
            taken = [pair for name, room in rooms.items() for pair in self._taken(name, room)]
            wait = self._wait(rooms)
        self._written(late)
        for claim, event in taken:
            if event:
                self._workers[claim.destination].hand(claim, event)
            else:
                nothing = Attempt(self._now_ms(), 0.0, NO_ANSWER, DeadLetterReason.RETENTION)
                self._settlements.append(
                    Settlement(claim, nothing, Ruling(Verdict.DEAD_LETTER, reason=DeadLetterReason.RETENTION))
                )
        return 0.0 if self._settlements else wait

    def hungry(self) -> Collection[str]:
        """Name those for whom more could be tried now than is due."""
        return [name for name, worker in self._workers.items() if worker.room(self._now_ms())]

    def expects_more(self) -> bool:
        """Say whether more reports are to come soon, and nobody waits for the ones that came."""
        reported = Counter(result.worker for result in self._results)
        return bool(reported) and all(2 * number < worker.running() for worker, number in reported.items())

    def settle(self) -> None:
        """Write down what was reported."""
        self._judge()
        self._written(self._state.settle(self._settlements))

    def _judge(self) -> None:
        results, self._results = self._results, []
        self._settlements += [self._judged(result) for result in results]

    def _written(self, late: Collection[Claim]) -> None:
        settlements, self._settlements = self._settlements, []
        for claim, _, (_, _, reason), disables in settlements:
            if claim in late:
                self._log.warning("claim ran out", destination=claim.destination, position=claim.position)
                continue
            if disables:
                self._log.error("destination disabled", destination=claim.destination, reason=disables)
            if reason:
                self._metrics.died(claim.destination, reason)
                self._log.error("event given up", destination=claim.destination, position=claim.position, reason=reason)

    def _is_due(self, names: Iterable[str]) -> bool:
        return any(due <= self._now_ms() for name in names for due in self._dues(name))

    def _wait(self, names: Iterable[str]) -> float:
        dues = [due for name in names for due in self._dues(name)]
        return min([MAX_WAIT_SECONDS, *(max(due - self._now_ms(), 0) / 1000 for due in dues)])

    def _dues(self, name: str) -> Iterator[int]:
        """Yield when the next queue of each kind is due that there is room for."""
        worker = self._workers[name]
        kinds = [QueueKind.HEALTHY]
        if worker.breaker.state is not policy.BreakerState.CLOSED or worker.shares().most:
            kinds.append(QueueKind.FAILED)
        for kind in kinds:
            if (due := self._state.next_due(name, kind)) is not None:
                yield due

    def _claims(self, name: str, room: int) -> Sequence[Claim]:
        worker, now = self._workers[name], self._now_ms()
        if worker.breaker.state is not policy.BreakerState.CLOSED:  # the one that sees whether it is back
            return self._state.claim(
                name, room, QueueKind.HEALTHY, now=now, lease=worker.lease, at_random=True
            ) or self._state.claim(name, room, QueueKind.FAILED, now=now, lease=worker.lease, at_random=True)
        return claim_shares(
            self._state, name, room, worker.shares(), now=now, lease=worker.lease, at_random=worker.is_recovering
        )

    def _taken(self, name: str, room: int) -> Iterator[tuple[Claim, Event | None]]:
        if claims := self._claims(name, room):
            records = self._inbox().at([claim.position for claim in claims])
            found = {record.position: record.event for record in records}
            if missing := [claim.position for claim in claims if claim.position not in found]:
                found |= self._state.saved(missing)  # a dead letter that is delivered again
            yield from ((claim, found.get(claim.position)) for claim in claims)

    def end(self) -> None:
        """Wait for the attempts that are under way, for some seconds; what is cut is tried again by the next relay."""
        leaving = [*self._leaving, *self._workers.values()]
        gevent.joinall([gevent.spawn(worker.stop, STOP_TIMEOUT_SECONDS) for worker in leaving])

    def _leave(self, worker: DeliveryWorker) -> None:
        """Have a worker end: what it has under way may take its time."""
        self._leaving.append(worker)
        gevent.spawn(worker.stop).link(lambda _: self._leaving.remove(worker))

    def _report(self, result: AttemptReport) -> None:
        self._results.append(result)
        self._wake()

    def _judged(self, result: AttemptReport) -> Settlement:
        now = self._now_ms()
        worker, claim, tried, answer = result
        name, breaker = claim.destination, worker.breaker
        before = breaker.state
        breaker.saw(answer, now, queue=claim.queue, failed_before=claim.attempts > 0)
        if breaker.state is not before:
            self._log.warning("breaker", destination=name, state=str(breaker.state), outcome=answer.outcome)
        self._metrics.attempted(name, answer.outcome, tried.seconds)
        # A late answer of the URL that was says nothing of the one that is.
        disables = answer.status == policy.GONE and self._workers.get(name) is worker
        ruling = policy.rule(claim, answer, policy=self._policy, now=now, chance=self._instruments.chance)
        return Settlement(claim, tried, ruling, f"it answered {answer.status}" if disables else None)


def claim_shares(
    state: DeliveryClaims, name: str, room: int, shares: policy.Shares, *, now: int, lease: int, at_random: bool = False
) -> Sequence[Claim]:
    """Take as many queues as there is *room* for: the share of those that failed, then healthy ones, then the rest.

    *at_random* chooses among the healthy ones, of which some may be untried and not deliverable.
    """

    def claim_some(most: int, kind: QueueKind, *, at_random: bool = False) -> Sequence[Claim]:
        return state.claim(name, most, kind, now=now, lease=lease, at_random=at_random) if most > 0 else ()

    failed = claim_some(min(shares.first, room), QueueKind.FAILED)
    healthy = claim_some(room - len(failed), QueueKind.HEALTHY, at_random=at_random)
    left = room - len(failed) - len(healthy)
    return [*failed, *healthy, *claim_some(min(left, shares.most - len(failed)), QueueKind.FAILED)]
