"""Runs the attempts for one destination concurrently, and reports the result of each."""

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

LEASE_MARGIN_SECONDS: Final = 15.0  # how much longer a lease is than the timeout of an attempt


class AttemptReport(NamedTuple):
    """The result of the attempt for a claim."""

    worker: "DeliveryWorker"
    claim: Claim
    attempt: Attempt
    answer: DeliveryResponse


class DeliveryWorker:
    """Delivers to one destination; the dispatcher decides what is attempted, and when."""

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
        self.lease_ms = int((destination.timeout + LEASE_MARGIN_SECONDS) * 1000)
        self._report = report
        self._tracing = instruments.tracing
        self._now_ms = instruments.now_ms
        self._log = logs.get("relay")
        self._running = Group()
        self._running_failed = 0  # running attempts of queues whose last attempt failed
        self._healthy_since = 0  # attempts of healthy queues since the last one of a failed queue
        self._sender = Sender(
            destination.url,
            internal=destination.internal,
            timeout=destination.timeout,
            connections=destination.concurrency,
        )

    def capacity(self, now: int) -> int:
        """Return how many attempts may start; *now* is in milliseconds since the epoch."""
        return self.breaker.capacity(len(self._running), self.entry.destination.concurrency, now=now)

    @property
    def is_recovering(self) -> bool:
        """Return whether the circuit breaker still limits concurrency, because the destination failed recently."""
        concurrency = self.entry.destination.concurrency
        return self.breaker.concurrency(concurrency) < concurrency

    def shares(self) -> policy.Shares:
        """Return how many of the attempts that may start now are for queues whose last attempt failed."""
        concurrency = self.breaker.concurrency(self.entry.destination.concurrency)
        return policy.shares(concurrency, self._running_failed, self._healthy_since)

    def running(self) -> int:
        """Return how many attempts are running, including those that just reported."""
        return len(self._running)

    def start_attempt(self, claim: Claim, event: Event) -> None:
        """Start an attempt to deliver *event*; its result is reported later."""
        self.breaker.attempt_started()
        if claim.attempts:
            self._running_failed += 1
            self._healthy_since = 0
        else:
            self._healthy_since += 1
        self._running.spawn(self._run, claim, event)

    def stop(self, timeout: float | None = None) -> None:
        """Wait at most *timeout* seconds (None: without a limit) for running attempts, then cancel the rest."""
        self._running.join(timeout)
        self._running.kill()
        self._sender.close()

    def _run(self, claim: Claim, event: Event) -> None:
        started_at, started = self._now_ms(), time.perf_counter()
        try:
            answer = self._send(claim, event, started_at // 1000)
        except gevent.GreenletExit:
            answer = DeliveryResponse(NO_ANSWER, AttemptOutcome.STOPPED)
        except Exception as ex:  # noqa: BLE001  every claim must be settled
            self._log.error("delivery attempt raised an exception", destination=claim.destination, exc_info=ex)
            answer = DeliveryResponse(NO_ANSWER, AttemptOutcome.ERROR)
        self._running_failed -= bool(claim.attempts)
        attempt = Attempt(started_at, time.perf_counter() - started, answer.status, answer.outcome)
        self._report(AttemptReport(self, claim, attempt, answer))

    def _send(self, claim: Claim, event: Event, now: int) -> DeliveryResponse:
        destination, secrets, headers = self.entry
        with self._tracing.delivery(event.traceparent, destination.name) as traceparent:
            composed = message.compose(
                event, destination.format, headers, secrets, now=now, replay=claim.replay, traceparent=traceparent
            )
            return self._sender.send(composed)
