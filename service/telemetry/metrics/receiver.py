"""The receiver's metrics; the values of labels are closed sets.

HTTP metrics have the names of OpenTelemetry's semantic conventions in Prometheus form; the others have our prefix.
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
_DURATION_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_DELAY_BUCKETS: Final = (0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 3600, 21600, 86400, 604800)
_BATCH_BUCKETS: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)

_Metric = TypeVar("_Metric", Counter, Gauge, Histogram)


def _children(metric: _Metric) -> Callable[..., _Metric]:
    """Cache the children of a metric: looking one up by `labels` costs more than counting."""
    return cache(metric.labels)


def _from_zero(children: Callable[..., Counter], values: Iterable[str]) -> Callable[..., Counter]:
    """Create a counter for each of *values* at 0: a rate does not see the first increment of a new series."""
    for value in values:
        children(value)
    return children


class HttpMetrics:
    """Requests and responses of the public listener."""

    def __init__(self, registry: CollectorRegistry | None) -> None:
        duration = Histogram(
            "http_server_request_duration_seconds",
            "Duration of HTTP requests, from the request's head to the response.",
            ("http_request_method", "http_route", "http_response_status_code"),
            buckets=_DURATION_BUCKETS,
            registry=registry,
        )
        self._duration = _children(duration)
        self._active = Gauge(
            "http_server_active_requests",
            "HTTP requests in progress.",
            registry=registry,
            multiprocess_mode="livesum",
        )
        self.active = 0

    def answered(self, method: str, route: str, status: str, seconds: float) -> None:
        """Count a response; *method* and *route* must be from closed sets."""
        self._duration(method, route, status).observe(seconds)

    def refresh(self) -> None:
        """Publish the gauges."""
        self._active.set(self.active)


class WebhookMetrics:
    """Outcomes of handshakes, notifications and events."""

    def __init__(self, registry: CollectorRegistry | None) -> None:
        handshakes = Counter(METRIC_PREFIX + "handshakes", "Handshakes by outcome.", ("outcome",), registry=registry)
        self._handshakes = _from_zero(_children(handshakes), HandshakeOutcome)
        notifications = Counter(
            METRIC_PREFIX + "notifications", "Notifications by outcome.", ("outcome",), registry=registry
        )
        self._notifications = _from_zero(_children(notifications), NotificationOutcome)
        self._events = _children(
            Counter(
                METRIC_PREFIX + "events",
                "Events of accepted notifications; unknown fields and types are counted as other.",
                ("field", "type", "outcome"),
                registry=registry,
            )
        )
        self._delay = Histogram(
            METRIC_PREFIX + "event_delay_seconds",
            "Time from Meta's timestamp of a new event to its receipt.",
            buckets=_DELAY_BUCKETS,
            registry=registry,
        )

    def handshake(self, outcome: HandshakeOutcome) -> None:
        """Count a handshake."""
        self._handshakes(outcome).inc()

    def notification(self, outcome: NotificationOutcome) -> None:
        """Count a notification."""
        self._notifications(outcome).inc()

    def event(self, field: str, kind: str, outcome: str, number: int) -> None:
        """Count *number* events with the same labels; *field* and *kind* must be from a closed set."""
        self._events(field, kind, outcome).inc(number)

    def delayed(self, seconds: float) -> None:
        """Observe the delay of an event."""
        self._delay.observe(seconds)


class CredentialMetrics:
    """Accepted credentials, and which of them are used."""

    def __init__(self, registry: CollectorRegistry | None) -> None:
        self._accepted = Gauge(
            METRIC_PREFIX + "credentials_accepted",
            "Number of accepted values of a credential.",
            ("credential",),
            registry=registry,
            multiprocess_mode="livemax",
        )
        self._matches = _children(
            Counter(
                METRIC_PREFIX + "credential_matches",
                "Requests verified with each line of a credentials file; line 1 is the current value.",
                ("credential", "position"),
                registry=registry,
            )
        )
        self._stale = Gauge(
            METRIC_PREFIX + "credentials_stale",
            "1 while a credentials file is unreadable or invalid and its last good values stay accepted.",
            registry=registry,
            multiprocess_mode="livemax",
        )
        self._changed = Gauge(
            METRIC_PREFIX + "credentials_changed_timestamp_seconds",
            "When the accepted values last changed, in seconds since the epoch.",
            registry=registry,
            multiprocess_mode="livemax",
        )

    def changed(self, at: float, **accepted: int) -> None:
        """Publish a change: how many values of each credential are accepted since *at*."""
        self._changed.set(at)
        for credential, number in accepted.items():
            self._accepted.labels(credential).set(number)
            _from_zero(partial(self._matches, credential), map(str, range(1, number + 1)))

    def matched(self, credential: str, position: int) -> None:
        """Count the use of an accepted value."""
        self._matches(credential, str(position)).inc()

    def stale(self, *, stale: bool) -> None:
        """Publish whether a file is unreadable or invalid while its last good values stay accepted."""
        self._stale.set(stale)


class InboxMetrics:
    """Commits, failures and size of the inbox."""

    def __init__(self, registry: CollectorRegistry | None, engine: str, *, weak: bool = False) -> None:
        """*weak* is true for an inbox with `durability=weak`."""
        self._put = Histogram(
            METRIC_PREFIX + "inbox_put_seconds",
            "Duration of a group commit, until it is durable.",
            ("engine",),
            buckets=_DURATION_BUCKETS,
            registry=registry,
        ).labels(engine)
        self._commit = Histogram(
            METRIC_PREFIX + "inbox_commit_events",
            "Events per group commit.",
            ("engine",),
            buckets=_BATCH_BUCKETS,
            registry=registry,
        ).labels(engine)
        errors = Counter(
            METRIC_PREFIX + "inbox_errors", "Inbox failures by reason.", ("engine", "reason"), registry=registry
        )
        self._errors = _from_zero(partial(_children(errors), engine), INBOX_FAILURES)
        self._waiting = Gauge(
            METRIC_PREFIX + "inbox_waiting",
            "Requests waiting for the inbox.",
            registry=registry,
            multiprocess_mode="livesum",
        )
        self._events = Gauge(
            METRIC_PREFIX + "inbox_events", "Events in the inbox.", registry=registry, multiprocess_mode="livemax"
        )
        self._bytes = Gauge(
            METRIC_PREFIX + "inbox_bytes", "Size of the inbox in bytes.", registry=registry, multiprocess_mode="livemax"
        )

        self._free = Gauge(
            METRIC_PREFIX + "inbox_free_bytes",
            "Free bytes on the inbox's volume.",
            registry=registry,
            multiprocess_mode="livemin",
        )
        Gauge(
            METRIC_PREFIX + "inbox_weak",
            "1 if WEBHOOK_INBOX has durability=weak: events that were answered 200 may be lost.",
            registry=registry,
            multiprocess_mode="livemax",
        ).set(weak)

        self._relay_seen = Gauge(
            METRIC_PREFIX + "relay_heartbeat_timestamp_seconds",
            "Last heartbeat of a relay of this inbox, in seconds since the epoch; NaN if there never was one.",
            registry=registry,
            multiprocess_mode="livemax",
        )

    def relay_seen(self, at: int | None) -> None:
        """Publish the last heartbeat of a relay, in milliseconds since the epoch; None if there never was one."""
        self._relay_seen.set(math.nan if at is None else at / 1000)

    def committed(self, events: int, seconds: float) -> None:
        """Observe a group commit."""
        self._put.observe(seconds)
        self._commit.observe(events)

    def failed(self, reason: StorageFailure) -> None:
        """Count a failure."""
        self._errors(reason).inc()

    def refresh(self, *, waiting: int, events: int | None, size: int | None, free: int | None) -> None:
        """Publish the gauges; *size* and *free* are in bytes, None is unknown."""
        self._waiting.set(waiting)
        for gauge, value in ((self._events, events), (self._bytes, size), (self._free, free)):
            gauge.set(math.nan if value is None else value)


def outcomes_in(page: str, name: str) -> dict[str, float]:
    """Return the value of each outcome of the counter *name*, `notifications` or `handshakes`, in a metrics *page*."""
    return {
        sample.labels["outcome"]: sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
        if sample.name == f"{METRIC_PREFIX}{name}_total"
    }
