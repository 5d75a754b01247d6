"""What Prometheus sees: the metrics by their names, and where those of a process live."""

from service.metrics.labels import FAILURES, HANDSHAKES, OUTCOMES
from service.metrics.names import (
    UNMATCHED,
    CredentialMetrics,
    HttpMetrics,
    InboxMetrics,
    WebhookMetrics,
    accepted_in,
)
from service.metrics.process import Measured, Metrics, forget_files, forget_gauges, of_one_process, of_slot

__all__ = [
    "FAILURES",
    "HANDSHAKES",
    "OUTCOMES",
    "UNMATCHED",
    "CredentialMetrics",
    "HttpMetrics",
    "InboxMetrics",
    "Measured",
    "Metrics",
    "WebhookMetrics",
    "accepted_in",
    "forget_files",
    "forget_gauges",
    "of_one_process",
    "of_slot",
]
