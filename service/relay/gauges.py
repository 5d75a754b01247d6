"""The gauges of the relay's checks and destinations."""

from collections.abc import Callable, Mapping
from typing import Protocol

from service.errors import InboxUnavailable
from service.instruments import Instruments
from service.storage.deliveries import DeliveryAdmin, DeliveryHealth, WorkerReport
from service.telemetry.metrics import RelayMetrics


class Deliveries(Protocol):
    """What a relay knows of its destinations; each method may be called in any thread."""

    def breakers(self) -> Mapping[str, str]:
        """Return the state of each destination's circuit breaker."""
        ...

    def states(self) -> Mapping[str, WorkerReport]:
        """Return how deliveries to each destination go."""
        ...

    def unread(self) -> Mapping[str, int]:
        """Return how many positions of the log were not read yet for each destination."""
        ...


class RelayGauges:
    """Publishes the state of each check, and of each destination of the file."""

    def __init__(
        self,
        records: DeliveryAdmin,
        deliveries: Deliveries,
        checks: Mapping[str, Callable[[], str | None]],
        instruments: Instruments[RelayMetrics],
    ) -> None:
        """A check returns its problem or None."""
        self._records = records
        self._deliveries = deliveries
        self._checks = checks
        self._metrics = instruments.metrics
        self._now_ms = instruments.now_ms

    def refresh(self) -> None:
        """Publish the gauges."""
        for name, check in self._checks.items():
            self._metrics.checked(name, failing=check() is not None)
        breakers, states, now = self._deliveries.breakers(), self._deliveries.states(), self._now_ms()
        unread = self._deliveries.unread()
        try:
            statuses = self._records.statuses()
        except InboxUnavailable:  # the check `inbox` reports it
            return
        self._metrics.forget_all()
        for status in statuses:
            if status.gone_since is None:
                self._metrics.stands(
                    status.name,
                    backlog=status.backlog,
                    unread=unread.get(status.name, 0),
                    oldest=max(now - status.oldest, 0) / 1000 if status.oldest else 0,
                    breaker=breakers.get(status.name, "open"),  # without a secret there are no attempts
                    disabled=status.disabled is not None,
                )
        for name, state in states.items():
            if state.health is DeliveryHealth.MISCONFIGURED and state.status is not None:
                self._metrics.misconfigured(name, str(state.status or "none"))
