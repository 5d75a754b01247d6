"""The Prometheus metrics of receiver and relay, and the registries that they are in."""

from prometheus_client import CollectorRegistry

from service.telemetry.metrics.exposition import encoded
from service.telemetry.metrics.receiver import (
    UNMATCHED,
    CredentialMetrics,
    HttpMetrics,
    InboxMetrics,
    WebhookMetrics,
    outcomes_in,
)
from service.telemetry.metrics.registry import (
    Measured,
    Metrics,
    for_relay,
    forget_files,
    forget_gauges,
    of_one_process,
    of_slot,
)
from service.telemetry.metrics.relay import RelayMetrics

__all__ = [
    "UNMATCHED",
    "CollectorRegistry",
    "CredentialMetrics",
    "HttpMetrics",
    "InboxMetrics",
    "Measured",
    "Metrics",
    "RelayMetrics",
    "WebhookMetrics",
    "encoded",
    "for_relay",
    "forget_files",
    "forget_gauges",
    "of_one_process",
    "of_slot",
    "outcomes_in",
]
