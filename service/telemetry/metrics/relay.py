"""What the relay tells; labels are the destinations of the file and closed sets."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from service.outcomes import AttemptOutcome, DeadLetterReason
from service.telemetry.metrics.receiver import METRIC_PREFIX

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
BREAKER_STATES = ("closed", "half_open", "open")


class RelayMetrics:
    """Tries, what waits, what is dead, and how each destination stands."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._attempts = Counter(
            METRIC_PREFIX + "relay_attempts",
            "Tries to deliver by outcome.",
            ("destination", "outcome"),
            registry=registry,
        )
        self._delivery = Histogram(
            METRIC_PREFIX + "relay_delivery_seconds", "One try.", ("destination",), buckets=_SECONDS, registry=registry
        )
        self._backlog = Gauge(
            METRIC_PREFIX + "relay_backlog_events", "Events that are owed.", ("destination",), registry=registry
        )
        self._oldest = Gauge(
            METRIC_PREFIX + "relay_oldest_event_seconds",
            "Age of the oldest event that is owed; 0 where nothing is.",
            ("destination",),
            registry=registry,
        )
        self._dead = Counter(
            METRIC_PREFIX + "relay_dead_letters",
            "Events given up by reason.",
            ("destination", "reason"),
            registry=registry,
        )
        self._breaker = Gauge(
            METRIC_PREFIX + "relay_breaker_state",
            "1 for the state that the circuit breaker is in.",
            ("destination", "state"),
            registry=registry,
        )
        self._disabled = Gauge(
            METRIC_PREFIX + "relay_destination_disabled",
            "1 while a destination is disabled, by a 410 or by hand.",
            ("destination",),
            registry=registry,
        )

        self._failing = Gauge(
            METRIC_PREFIX + "relay_failing",
            "1 while a check of /readyz fails.",
            ("check",),
            registry=registry,
        )

    def begin(self, destination: str) -> None:
        """Have the counters of a destination there from the start: a rate sees a first one only after a zero."""
        for outcome in AttemptOutcome:
            self._attempts.labels(destination, outcome)
        for reason in DeadLetterReason:
            self._dead.labels(destination, reason)

    def checked(self, check: str, *, failing: bool) -> None:
        """Publish whether a check of /readyz fails."""
        self._failing.labels(check).set(failing)

    def attempted(self, destination: str, outcome: AttemptOutcome, seconds: float) -> None:
        """Count a try."""
        self._attempts.labels(destination, outcome).inc()
        self._delivery.labels(destination).observe(seconds)

    def died(self, destination: str, reason: DeadLetterReason, number: int = 1) -> None:
        """Count events that were given up."""
        self._dead.labels(destination, reason).inc(number)

    def stands(self, destination: str, *, backlog: int, oldest: float, breaker: str, disabled: bool) -> None:
        """Publish how a destination stands; *oldest* in seconds."""
        self._backlog.labels(destination).set(backlog)
        self._oldest.labels(destination).set(oldest)
        self._disabled.labels(destination).set(disabled)
        for state in BREAKER_STATES:
            self._breaker.labels(destination, state).set(state == breaker)

    def forget_all(self) -> None:
        """Drop how destinations stand, before it is told anew: some may be gone from the file."""
        for gauge in (self._backlog, self._oldest, self._disabled, self._breaker):
            gauge.clear()
