"""All metrics, by the names that dashboards and alerts know; labels are closed sets.

Names: OpenTelemetry's semantic conventions for HTTP in Prometheus form; ours have the prefix.
"""

import math
from collections.abc import Callable, Iterable
from functools import cache, partial
from typing import Final, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.parser import text_string_to_metric_families

from service.outcomes import INBOX_FAILURES, HandshakeOutcome, NotificationOutcome, StorageFailure

METRIC_PREFIX: Final = "whatsapp_webhook_"
UNMATCHED: Final = "unmatched"
_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_DELAYS: Final = (0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 3600, 21600, 86400, 604800)
_BATCHES: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)

_Metric = TypeVar("_Metric", Counter, Gauge, Histogram)


def _children(metric: _Metric) -> Callable[..., _Metric]:
    """Look a metric's children up once: `labels` costs more than counting does."""
    return cache(metric.labels)


def _from_zero(children: Callable[..., Counter], values: Iterable[str]) -> Callable[..., Counter]:
    """Have the *values* of a label there from the start: a rate sees a first one only where there was a zero before."""
    for value in values:
        children(value)
    return children


class HttpMetrics:
    """What the public listener answers."""

    def __init__(self, registry: CollectorRegistry | None) -> None:
        duration = Histogram(
            "http_server_request_duration_seconds",
            "From the request's head to its answer.",
            ("http_request_method", "http_route", "http_response_status_code"),
            buckets=_SECONDS,
            registry=registry,
        )
        self._duration = _children(duration)
        self._active = Gauge(
            "http_server_active_requests",
            "Requests being answered now.",
            registry=registry,
            multiprocess_mode="livesum",
        )
        self.active = 0

    def answered(self, method: str, route: str, status: str, seconds: float) -> None:
        """Count an answer; *method* and *route* must be of closed sets."""
        self._duration(method, route, status).observe(seconds)

    def refresh(self) -> None:
        """Publish the gauges."""
        self._active.set(self.active)


class WebhookMetrics:
    """What became of handshakes, notifications and events."""

    def __init__(self, registry: CollectorRegistry | None) -> None:
        handshakes = Counter(
            METRIC_PREFIX + "handshakes", "Verification requests by outcome.", ("outcome",), registry=registry
        )
        self._handshakes = _from_zero(_children(handshakes), HandshakeOutcome)
        notifications = Counter(
            METRIC_PREFIX + "notifications", "Notifications by outcome.", ("outcome",), registry=registry
        )
        self._notifications = _from_zero(_children(notifications), NotificationOutcome)
        self._events = _children(
            Counter(
                METRIC_PREFIX + "events",
                "Events of accepted notifications; a field or type that no table has is other.",
                ("field", "type", "outcome"),
                registry=registry,
            )
        )
        self._delay = Histogram(
            METRIC_PREFIX + "event_delay_seconds",
            "From Meta's timestamp of a new event to its notification.",
            buckets=_DELAYS,
            registry=registry,
        )

    def handshake(self, outcome: HandshakeOutcome) -> None:
        """Count a verification request."""
        self._handshakes(outcome).inc()

    def notification(self, outcome: NotificationOutcome) -> None:
        """Count a notification."""
        self._notifications(outcome).inc()

    def event(self, field: str, kind: str, outcome: str, number: int) -> None:
        """Count *number* events alike; *field* and *kind* must be a pair of a closed table."""
        self._events(field, kind, outcome).inc(number)

    def delayed(self, seconds: float) -> None:
        """Observe how long an event took to come."""
        self._delay.observe(seconds)


class CredentialMetrics:
    """What is in force, and which of it is used."""

    def __init__(self, registry: CollectorRegistry | None) -> None:
        self._in_force = Gauge(
            METRIC_PREFIX + "credentials_accepted",
            "Values in force.",
            ("credential",),
            registry=registry,
            multiprocess_mode="livemax",
        )
        self._matches = _children(
            Counter(
                METRIC_PREFIX + "credential_matches",
                "Which line of a credentials file was used; line 1 is the current value.",
                ("credential", "position"),
                registry=registry,
            )
        )
        self._stale = Gauge(
            METRIC_PREFIX + "credentials_stale",
            "1 while the files no longer give what is in force.",
            registry=registry,
            multiprocess_mode="livemax",
        )
        self._changed = Gauge(
            METRIC_PREFIX + "credentials_changed_timestamp_seconds",
            "When the values in force last changed, in seconds since the epoch.",
            registry=registry,
            multiprocess_mode="livemax",
        )

    def changed(self, at: float, **in_force: int) -> None:
        """Publish a change: how many values of each credential are in force since *at*."""
        self._changed.set(at)
        for credential, number in in_force.items():
            self._in_force.labels(credential).set(number)
            _from_zero(partial(self._matches, credential), map(str, range(1, number + 1)))

    def matched(self, credential: str, position: int) -> None:
        """Count which value in force was used."""
        self._matches(credential, str(position)).inc()

    def stale(self, *, stale: bool) -> None:
        """Publish whether the files still give what is in force."""
        self._stale.set(stale)


class InboxMetrics:
    """How the inbox keeps up."""

    def __init__(self, registry: CollectorRegistry | None, engine: str, *, weak: bool = False) -> None:
        """*weak* is whether somebody wants the weaker promise."""
        self._put = Histogram(
            METRIC_PREFIX + "inbox_put_seconds",
            "One group commit, until it is durable.",
            ("engine",),
            buckets=_SECONDS,
            registry=registry,
        ).labels(engine)
        self._commit = Histogram(
            METRIC_PREFIX + "inbox_commit_events",
            "Events of one group commit.",
            ("engine",),
            buckets=_BATCHES,
            registry=registry,
        ).labels(engine)
        errors = Counter(
            METRIC_PREFIX + "inbox_errors", "Failures of the inbox by reason.", ("engine", "reason"), registry=registry
        )
        self._errors = _from_zero(partial(_children(errors), engine), INBOX_FAILURES)
        self._waiting = Gauge(
            METRIC_PREFIX + "inbox_waiting",
            "Requests that wait for it now.",
            registry=registry,
            multiprocess_mode="livesum",
        )
        self._events = Gauge(
            METRIC_PREFIX + "inbox_events", "Events that it holds.", registry=registry, multiprocess_mode="livemax"
        )
        self._bytes = Gauge(
            METRIC_PREFIX + "inbox_bytes", "Bytes that it takes.", registry=registry, multiprocess_mode="livemax"
        )

        self._free = Gauge(
            METRIC_PREFIX + "inbox_free_bytes",
            "Bytes that its volume has left.",
            registry=registry,
            multiprocess_mode="livemin",
        )
        Gauge(
            METRIC_PREFIX + "inbox_weak",
            "1 where WEBHOOK_INBOX says durability=weak: what was answered 200 may be lost.",
            registry=registry,
            multiprocess_mode="livemax",
        ).set(weak)

        self._relay_seen = Gauge(
            METRIC_PREFIX + "relay_heartbeat_timestamp_seconds",
            "When a relay of this inbox last said that it runs, in seconds since the epoch; NaN if none ever did.",
            registry=registry,
            multiprocess_mode="livemax",
        )

    def relay_seen(self, at: int | None) -> None:
        """Publish when a relay last said that it runs, in milliseconds since the epoch; None if none ever did."""
        self._relay_seen.set(math.nan if at is None else at / 1000)

    def committed(self, events: int, seconds: float) -> None:
        """Observe one group commit."""
        self._put.observe(seconds)
        self._commit.observe(events)

    def failed(self, reason: StorageFailure) -> None:
        """Count a failure; *reason* must be of a closed set."""
        self._errors(reason).inc()

    def refresh(self, *, waiting: int, events: int | None, taken: int | None, free: int | None) -> None:
        """Publish the gauges; *taken* and *free* are in bytes, None is what nobody can tell."""
        self._waiting.set(waiting)
        for gauge, value in ((self._events, events), (self._bytes, taken), (self._free, free)):
            gauge.set(math.nan if value is None else value)


def outcomes_in(page: str, name: str) -> dict[str, float]:
    """Read, in a page of metrics, how often each outcome of a counter was: of `notifications`, or `handshakes`."""
    return {
        sample.labels["outcome"]: sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
        if sample.name == f"{METRIC_PREFIX}{name}_total"
    }
