"""Metrics, tracing, clock and randomness of a process, passed to its parts as one value."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from service.clock import Clock, now_ms
from service.telemetry.tracing import Tracing

MetricsT_co = TypeVar("MetricsT_co", covariant=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Instruments(Generic[MetricsT_co]):
    """The instruments of one process, whose metrics are the receiver's or the relay's."""

    metrics: MetricsT_co
    tracing: Tracing
    now_ms: Clock = now_ms
    chance: Callable[[], float] = random.random
    """Returns a random number from 0 to 1; not used for secrets."""
