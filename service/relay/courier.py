"""One destination's deliverers: threads that each take a lane, try its first event, and write down how it went."""

import threading
import time
from collections.abc import Callable
from typing import Final, Protocol

from service import logs
from service.errors import InboxUnavailable
from service.events import Event
from service.metrics import RelayMetrics
from service.relay import message, policy
from service.relay.book import Entry
from service.relay.sender import NO_ANSWER, Answer, Sender, Watchdog
from service.relay.state import Claim, Claims, Try, Verdict
from service.tracing import Tracing

IDLE: Final = 1.0  # seconds between looks where nothing is due
SPARE: Final = 30.0  # seconds that a lease is longer than a try may take
MISSING: Final = "retention"


class Owner(Protocol):
    """What a courier asks of the relay."""

    def event_at(self, position: int) -> Event | None:
        """Give the event at *position* of the log; None where its data is gone."""
        ...

    def disable(self, name: str, reason: str) -> None:
        """Deliver nothing more to a destination until somebody enables it."""
        ...


class Courier:
    """Delivers to one destination, in order within each lane, at most its concurrency at once."""

    def __init__(
        self,
        entry: Entry,
        claims: Claims,
        owner: Owner,
        *,
        watchdog: Watchdog,
        metrics: RelayMetrics,
        traced: Tracing,
        now: Callable[[], float],
        chance: Callable[[], float],
    ) -> None:
        """*now* is in seconds since the epoch; *chance* gives a number from 0 to 1."""
        self.entry = entry
        self._claims = claims
        self._owner = owner
        self._metrics = metrics
        self._traced = traced
        self._now = now
        self._chance = chance
        self._log = logs.get("relay")
        self.breaker = policy.Breaker(chance)
        destination = entry.destination
        self._name = destination.name
        self._lease = int((destination.timeout + SPARE) * 1000)
        self._sender = Sender(
            destination.url,
            internal=destination.internal,
            timeout=destination.timeout,
            connections=destination.concurrency,
            watchdog=watchdog,
        )
        self._changed = threading.Condition()
        self._over = False
        self._threads = [
            threading.Thread(target=self._run, name=f"to {self._name}", daemon=True)
            for _ in range(destination.concurrency)
        ]

    def start(self) -> None:
        """Begin to deliver."""
        for thread in self._threads:
            thread.start()

    def wake(self) -> None:
        """Say that something may be due."""
        with self._changed:
            self._changed.notify_all()

    def stop(self) -> None:
        """Finish the tries that are under way, and end."""
        with self._changed:
            self._over = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()
        self._sender.close()

    def _run(self) -> None:
        while not self._over:
            try:
                wait = self._deliver_one()
            except Exception as ex:  # noqa: BLE001  a thread that ended would deliver nothing more
                self._log.error("delivering failed", destination=self._name, exc_info=ex)
                wait = IDLE
            if wait:
                with self._changed:
                    if not self._over:
                        self._changed.wait(wait)

    def _deliver_one(self) -> float:
        """Try one event; gives the seconds to wait where there was none to try."""
        now = self._milliseconds()
        due = self._claims.next_due(self._name)
        if due is None or due > now:
            return IDLE if due is None else min((due - now) / 1000, IDLE)
        if not self._admitted(now):
            return min(max((self.breaker.until - now) / 1000, 0.01), IDLE)
        claim = self._claims.take(self._name, now=now, lease=self._lease)
        if claim is None:
            with self._changed:
                self.breaker.skipped()
            return 0.01
        self._deliver(claim)
        return 0.0

    def _admitted(self, now: int) -> bool:
        with self._changed:
            return self.breaker.admits(now)

    def _deliver(self, claim: Claim) -> None:
        try:
            event = self._owner.event_at(claim.position)
        except InboxUnavailable:
            with self._changed:
                self.breaker.skipped()
            raise  # the claim runs out, and is taken again
        at, started = self._milliseconds(), time.perf_counter()
        if event is None:
            with self._changed:
                self.breaker.skipped()
            self._give_up(claim, Try(at, 0.0, NO_ANSWER, MISSING), MISSING)
            return
        with self._traced.delivery(event.traceparent, self._name) as traceparent:
            composed = message.compose(
                event,
                self.entry.destination,
                self.entry.secrets,
                now=at // 1000,
                replay=claim.replay,
                traceparent=traceparent,
            )
            answer = self._sender.send(composed)
        self._judge(claim, Try(at, time.perf_counter() - started, answer.status, answer.outcome), answer)

    def _judge(self, claim: Claim, tried: Try, answer: Answer) -> None:
        now = self._milliseconds()
        ruling = policy.rule(claim, answer, now=now, chance=self._chance)
        self._metrics.tried(self._name, answer.outcome, tried.seconds)
        before = self.breaker.state
        with self._changed:
            self.breaker.saw(answer, now)
        if self.breaker.state is not before:
            self._log.warning("breaker", destination=self._name, state=str(self.breaker.state), outcome=answer.outcome)
        if ruling.disables:
            self._owner.disable(self._name, f"answered {answer.status}")
        if ruling.verdict is Verdict.DEAD:
            self._give_up(claim, tried, ruling.reason)
        elif not self._claims.settle(claim, tried, ruling.verdict, due=ruling.due):
            self._log.warning("claim ran out", destination=self._name)

    def _give_up(self, claim: Claim, tried: Try, reason: str) -> None:
        if self._claims.settle(claim, tried, Verdict.DEAD, reason=reason):
            self._metrics.died(self._name, reason)
            self._log.error("event given up", destination=self._name, reason=reason, position=claim.position)

    def _milliseconds(self) -> int:
        return int(self._now() * 1000)
