"""Instruments for the parts that a test creates itself."""

from prometheus_client import CollectorRegistry

from service.clock import Clock, now_ms
from service.instruments import Instruments
from service.telemetry.metrics import Metrics, RelayMetrics
from service.telemetry.tracing import Tracing


def receiver_instruments(registry: CollectorRegistry | None = None, clock: Clock = now_ms) -> Instruments[Metrics]:
    """Return a receiver's instruments without tracing, whose metrics are in *registry*."""
    metrics = Metrics(registry or CollectorRegistry(), version="test", engine="memory", weak=False)
    return Instruments(metrics=metrics, tracing=Tracing(), now_ms=clock)


def relay_instruments(clock: Clock = now_ms) -> Instruments[RelayMetrics]:
    """Return a relay's instruments without tracing."""
    return Instruments(metrics=RelayMetrics(CollectorRegistry()), tracing=Tracing(), now_ms=clock)
