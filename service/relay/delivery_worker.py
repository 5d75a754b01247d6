"""Runs the attempts for one destination concurrently, and reports the result of each."""

import time
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import gevent
from gevent.pool import Group

from service.events import Event
from service.instruments import Instruments
from service.outcomes import AttemptOutcome
from service.relay import breaker, message, policy
from service.relay.breaker import Breaker, BreakerState
from service.relay.delivery_response import NO_ANSWER, DeliveryResponse
from service.relay.destination_registry import Entry
from service.relay.rate_limit import RateLimit
from service.relay.sender import Sender
from service.storage.deliveries import Attempt, AttemptEvidence, Claim, DeliveryHealth, Ruling, WorkerReport
from service.telemetry import logs
from service.telemetry.metrics import RelayMetrics

WARNING_INTERVAL_MS: Final = 600_000  # between two warnings that a destination is misconfigured
LEASE_MARGIN_SECONDS: Final = 15.0  # how much longer a lease is than the timeout of an attempt


class AttemptReport(NamedTuple):
    """The result of the attempt for a claim: the answer to each POST, usually one; the last one decides."""

    worker: "DeliveryWorker"
    claim: Claim
    started_at: int
    answers: Sequence[DeliveryResponse]

    def attempts(self) -> list[Attempt]:
        """Return the attempts as they are stored; no two have the same time."""
        keeps_responses = self.worker.entry.destination.keep_responses
        attempts: list[Attempt] = []
        at = self.started_at
        for status, outcome, _, evidence, seconds in self.answers:
            kept = evidence if evidence is None or keeps_responses else AttemptEvidence(evidence.reason)
            attempts.append(Attempt(at, seconds, status, outcome, kept))
            at += max(int(seconds * 1000), 1)
        return attempts


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
        self.breaker = Breaker(instruments.chance)
        self.rate_limit = RateLimit(destination.delivery.rate_limit)
        self._policy = destination.delivery.policy()
        self._chance = instruments.chance
        self._accepted_at = 0  # when the destination last accepted an event
        self._last_status: int | None = None
        self._warned_at: int | None = None
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
        free = self.breaker.capacity(len(self._running), self.entry.destination.concurrency, now=now)
        return self.rate_limit.capacity(free, now) if free else 0

    @property
    def is_recovering(self) -> bool:
        """Return whether the circuit breaker still limits concurrency, because the destination failed recently."""
        concurrency = self.entry.destination.concurrency
        return self.breaker.concurrency(concurrency) < concurrency

    def state(self, now: int) -> WorkerReport:
        """Return what other relays and commands may know about the destination."""
        health = DeliveryHealth.OK if self.breaker.state is BreakerState.CLOSED else DeliveryHealth.FAILING
        if self.breaker.is_misconfigured:
            health = DeliveryHealth.MISCONFIGURED
        return WorkerReport(
            now, health, self._last_status, 0 if health is DeliveryHealth.OK else self.breaker.next_probe_at
        )

    def rule(self, claim: Claim, answer: DeliveryResponse, now: int) -> Ruling:
        """Record the answer to an attempt, and return what follows from it."""
        kind = policy.kind_of(answer.status, self._policy.permanent_statuses)
        ruling = policy.rule(
            claim, answer, policy=self._policy, accepted_at=self._accepted_at, now=now, chance=self._chance
        )
        if answer.outcome is AttemptOutcome.STOPPED:
            return ruling
        self._last_status = answer.status
        self.breaker.record(kind, answer.status, now, queue=claim.queue, failed_before=claim.queue_attempts > 0)
        if kind is policy.AnswerKind.DELIVERED:
            self._accepted_at = now
        if kind is policy.AnswerKind.MISCONFIGURED:
            self._warn_of_misconfiguration(answer.status, now)
        return ruling

    def _warn_of_misconfiguration(self, status: int, now: int) -> None:
        if self._warned_at is not None and 0 <= now - self._warned_at < WARNING_INTERVAL_MS:
            return
        self._warned_at = now
        destination = self.entry.destination
        self._log.warning(
            "destination is misconfigured",
            destination=destination.name,
            url=destination.origin,
            status=status,
            remedy=policy.remedy_of(status),
        )

    def shares(self) -> breaker.Shares:
        """Return how many of the attempts that may start now are for queues whose last attempt failed."""
        concurrency = self.breaker.concurrency(self.entry.destination.concurrency)
        return breaker.shares(concurrency, self._running_failed, self._healthy_since)

    def running(self) -> int:
        """Return how many attempts are running, including those that just reported."""
        return len(self._running)

    def start_attempt(self, claim: Claim, event: Event) -> None:
        """Start an attempt to deliver *event*; its result is reported later."""
        self.breaker.attempt_started()
        self.rate_limit.attempt_started()
        if claim.queue_attempts:
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
            answers = self._send(claim, event, started_at // 1000)
        except gevent.GreenletExit:
            answers = [_no_answer(AttemptOutcome.STOPPED, "the relay was stopped during the attempt", started)]
        except Exception as ex:  # noqa: BLE001  every claim must be settled
            self._log.error("delivery attempt raised an exception", destination=claim.destination, exc_info=ex)
            answers = [_no_answer(AttemptOutcome.ERROR, f"the relay failed: {type(ex).__name__}", started)]
        self._running_failed -= bool(claim.queue_attempts)
        self._report(AttemptReport(self, claim, started_at, answers))

    def _send(self, claim: Claim, event: Event, now: int) -> Sequence[DeliveryResponse]:
        destination, secrets, headers = self.entry
        with self._tracing.delivery(event.traceparent, destination.name) as traceparent:
            composed = message.compose(
                event, destination.format, headers, secrets, now=now, replay=claim.replay, traceparent=traceparent
            )
            return self._sender.send(composed)


def _no_answer(outcome: AttemptOutcome, reason: str, started: float) -> DeliveryResponse:
    """Return the result of an attempt that ended without a response; *started* is of `time.perf_counter`."""
    return DeliveryResponse(NO_ANSWER, outcome, evidence=AttemptEvidence(reason), seconds=time.perf_counter() - started)
