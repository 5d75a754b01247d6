"""Makes the attempts for one destination, side by side, and reports how each went."""

import time
from collections.abc import Callable
from typing import Final, NamedTuple

import gevent
from gevent.pool import Group

from service.events import Event
from service.instruments import Instruments
from service.outcomes import AttemptOutcome
from service.relay import message, policy
from service.relay.destination_registry import Entry
from service.relay.sender import NO_ANSWER, DeliveryResponse, Sender
from service.storage.deliveries import Attempt, Claim
from service.telemetry import logs
from service.telemetry.metrics import RelayMetrics

SPARE_LEASE_SECONDS: Final = 15.0  # seconds that a lease is longer than a try may take


class AttemptReport(NamedTuple):
    """What came of a claim that a worker was handed."""

    worker: "DeliveryWorker"
    claim: Claim
    attempt: Attempt
    answer: DeliveryResponse


class DeliveryWorker:
    """Delivers to one destination; in what order and how many at once is its owner's to say."""

    def __init__(
        self,
        entry: Entry,
        report: Callable[[AttemptReport], None],
        *,
        instruments: Instruments[RelayMetrics],
    ) -> None:
        destination = entry.destination
        self.entry = entry
        self.breaker = policy.Breaker(instruments.chance)
        self.lease = int((destination.timeout + SPARE_LEASE_SECONDS) * 1000)
        self._report = report
        self._tracing = instruments.tracing
        self._now_ms = instruments.now_ms
        self._log = logs.get("relay")
        self._running = Group()
        self._running_failed = 0  # of them, of queues whose last attempt failed
        self._others = 0  # attempts of other queues since the last one of those
        self._sender = Sender(
            destination.url,
            internal=destination.internal,
            timeout=destination.timeout,
            connections=destination.concurrency,
        )

    def room(self, now: int) -> int:
        """Say how many attempts may begin; *now* is in milliseconds since the epoch."""
        return self.breaker.room(len(self._running), self.entry.destination.concurrency, now=now)

    @property
    def is_recovering(self) -> bool:
        """Return whether fewer attempts run at once than may, since the destination failed a while ago."""
        concurrency = self.entry.destination.concurrency
        return self.breaker.at_once(concurrency) < concurrency

    def shares(self) -> policy.Shares:
        """Return how many of the attempts that may begin now are for queues whose last one failed."""
        at_once = self.breaker.at_once(self.entry.destination.concurrency)
        return policy.shares(at_once, self._running_failed, self._others)

    def running(self) -> int:
        """Say how many attempts are under way, with those that just reported."""
        return len(self._running)

    def hand(self, claim: Claim, event: Event) -> None:
        """Have *event* be tried."""
        self.breaker.began()
        if claim.attempts:
            self._running_failed += 1
            self._others = 0
        else:
            self._others += 1
        self._running.spawn(self._run, claim, event)

    def stop(self, patience: float | None = None) -> None:
        """Wait for what is under way, *patience* seconds or to its end; cut what is left."""
        self._running.join(patience)
        self._running.kill()
        self._sender.close()

    def _run(self, claim: Claim, event: Event) -> None:
        at, started = self._now_ms(), time.perf_counter()
        try:
            answer = self._send(claim, event, at // 1000)
        except gevent.GreenletExit:
            answer = DeliveryResponse(NO_ANSWER, AttemptOutcome.STOPPED)
        except Exception as ex:  # noqa: BLE001  whatever it is, the claim gets its end
            self._log.error("delivering failed", destination=claim.destination, exc_info=ex)
            answer = DeliveryResponse(NO_ANSWER, AttemptOutcome.ERROR)
        self._running_failed -= bool(claim.attempts)
        self._report(
            AttemptReport(
                self, claim, Attempt(at, time.perf_counter() - started, answer.status, answer.outcome), answer
            )
        )

    def _send(self, claim: Claim, event: Event, now: int) -> DeliveryResponse:
        destination, secrets, headers = self.entry
        with self._tracing.delivery(event.traceparent, destination.name) as traceparent:
            composed = message.compose(
                event, destination.format, headers, secrets, now=now, replay=claim.replay, traceparent=traceparent
            )
            return self._sender.send(composed)
