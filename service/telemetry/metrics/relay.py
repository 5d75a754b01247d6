"""The relay's metrics; the values of labels are the configured destinations and closed sets."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from service.outcomes import RELAY_REASONS, AttemptOutcome, DeadLetterReason
from service.telemetry.metrics.receiver import METRIC_PREFIX

_DURATION_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
BREAKER_STATES = ("closed", "half_open", "open")


class RelayMetrics:
    """Attempts, backlog, dead letters and the state of each destination."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._attempts = Counter(
            METRIC_PREFIX + "relay_attempts",
            "Delivery attempts by outcome.",
            ("destination", "outcome"),
            registry=registry,
        )
        self._delivery = Histogram(
            METRIC_PREFIX + "relay_delivery_seconds",
            "Duration of a delivery attempt.",
            ("destination",),
            buckets=_DURATION_BUCKETS,
            registry=registry,
        )
        self._backlog = Gauge(
            METRIC_PREFIX + "relay_backlog_events",
            "Backlog of a destination: events that are pending for it.",
            ("destination",),
            registry=registry,
        )
        self._unread = Gauge(
            METRIC_PREFIX + "relay_unread_positions",
            "Positions of the log not yet read for a destination: at most so many events join its backlog.",
            ("destination",),
            registry=registry,
        )
        self._oldest = Gauge(
            METRIC_PREFIX + "relay_oldest_event_seconds",
            "Age of the oldest event that is pending for a destination; 0 if there is none.",
            ("destination",),
            registry=registry,
        )
        self._dead = Counter(
            METRIC_PREFIX + "relay_dead_letters",
            "Deliveries given up, by reason.",
            ("destination", "reason"),
            registry=registry,
        )
        self._breaker = Gauge(
            METRIC_PREFIX + "relay_breaker_state",
            "1 for the current state of the circuit breaker, 0 for the others.",
            ("destination", "state"),
            registry=registry,
        )
        self._disabled = Gauge(
            METRIC_PREFIX + "relay_destination_disabled",
            "1 while a destination is disabled, by a 410 response or by hand.",
            ("destination",),
            registry=registry,
        )
        self._misconfigured = Gauge(
            METRIC_PREFIX + "relay_destination_misconfigured",
            "1 while a destination is misconfigured: with the status of its last response, such as 401 or 404.",
            ("destination", "status"),
            registry=registry,
        )
        self._failing = Gauge(
            METRIC_PREFIX + "relay_failing",
            "1 while a check of /readyz fails.",
            ("check",),
            registry=registry,
        )

    def begin(self, destination: str) -> None:
        """Create the counters of a destination at 0: a rate does not see the first increment of a new series."""
        for outcome in AttemptOutcome:
            self._attempts.labels(destination, outcome)
        for reason in RELAY_REASONS:
            self._dead.labels(destination, reason)

    def checked(self, check: str, *, failing: bool) -> None:
        """Publish whether a check of /readyz fails."""
        self._failing.labels(check).set(failing)

    def attempted(self, destination: str, outcome: AttemptOutcome, seconds: float) -> None:
        """Count an attempt."""
        self._attempts.labels(destination, outcome).inc()
        self._delivery.labels(destination).observe(seconds)

    def died(self, destination: str, reason: DeadLetterReason, number: int = 1) -> None:
        """Count deliveries that became dead letters."""
        self._dead.labels(destination, reason).inc(number)

    def stands(
        self, destination: str, *, backlog: int, unread: int, oldest: float, breaker: str, disabled: bool
    ) -> None:
        """Publish the state of a destination; *oldest* is in seconds."""
        self._backlog.labels(destination).set(backlog)
        self._unread.labels(destination).set(unread)
        self._oldest.labels(destination).set(oldest)
        self._disabled.labels(destination).set(disabled)
        for state in BREAKER_STATES:
            self._breaker.labels(destination, state).set(state == breaker)

    def misconfigured(self, destination: str, status: str) -> None:
        """Publish that a destination is misconfigured, with the status of its last response."""
        self._misconfigured.labels(destination, status).set(1)

    def forget_all(self) -> None:
        """Delete the state of all destinations, before it is published again for those that are still in the file."""
        for gauge in (self._backlog, self._unread, self._oldest, self._disabled, self._misconfigured, self._breaker):
            gauge.clear()
